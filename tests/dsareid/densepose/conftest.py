"""Files as detectron2 writes them, and what is in one."""

import numpy as np
import pytest
import torch
from densepose_sources import write_images
from detectron2_files import Mimic, png_text

from dsareid.commands.main import main


@pytest.fixture(scope="session")
def mimic():
    return Mimic()


@pytest.fixture(scope="session")
def as_png():
    return png_text


@pytest.fixture
def detection():
    """Labels [5, 4] and uv [2, 5, 4] that leave 0..1, and the chart they are, by hand."""
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(rng.integers(0, 25, (5, 4)))
    labels[0] = torch.tensor([0, 1, 24, 12])
    uv = torch.from_numpy(rng.uniform(-0.3, 1.3, (2, 5, 4)).astype(np.float32))
    uv[:, 0] = torch.tensor([[0.7, -0.5, 1.5, 0.5], [0.3, 0.9999, 0.0, 1.0]])
    chart = np.zeros((3, 5, 4), np.uint8)
    for y in range(5):
        for x in range(4):
            if chart_label := int(labels[y, x]):
                values = [int(255 * np.float32(min(max(float(c), 0), 1))) for c in uv[:, y, x]]
                chart[:, y, x] = chart_label, *values
    assert chart[:, 0].tolist() == [[0, 1, 24, 12], [0, 0, 255, 127], [0, 254, 0, 255]]
    return labels, uv, chart


@pytest.fixture
def root(tmp_path):
    """A data set of three images."""
    return write_images(tmp_path / "data", "query/a.jpg", "query/b.jpg", "bounding_box_test/c.jpg")


@pytest.fixture
def run(capsys):
    """dsareid densepose convert: its status, and what it prints."""

    def call(*arguments):
        status = main(["densepose", "convert", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
