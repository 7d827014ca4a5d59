"""A tiny data set in Market-1501's layout, made once, and a tiny network that estimates maps."""

import shutil
from pathlib import Path

import pytest
from tfjs_files import SHARD, write_bodypix
from tiny_market import make_data, write_person

from dsareid.data.store.pack import pack
from dsareid.densepose.estimators import weights as bodypix_weights
from dsareid.densepose.estimators.tfjs import read_graph


@pytest.fixture(scope="session")
def add_person():
    """write_person, for tests that need more images."""
    return write_person


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """4 identities x 4 images to train on, 2 to test; read only."""
    return make_data(tmp_path_factory.mktemp("market"))


@pytest.fixture
def own_data(tmp_path) -> Path:
    """The same, to be damaged by a test."""
    return make_data(tmp_path / "market")


@pytest.fixture(scope="session")
def tiny_store(tiny_data, tmp_path_factory) -> Path:
    """The store of tiny_data, 64 rows x 32 columns; read only."""
    return pack(tiny_data, tmp_path_factory.mktemp("stores") / "tiny").path


@pytest.fixture
def own_store(tiny_store, tmp_path) -> Path:
    """The same, to be damaged by a test."""
    return shutil.copytree(tiny_store, tmp_path / "store")


@pytest.fixture
def tiny_bodypix(tmp_path, monkeypatch):
    """The folder of a small network that passes for BodyPix, and that sees people everywhere."""
    folder = tmp_path / "weights"
    write_bodypix(folder, seed=3)
    graph = read_graph(folder / bodypix_weights.GRAPH)
    monkeypatch.setattr(bodypix_weights, "GRAPH_DIGEST", bodypix_weights.graph_digest(graph))
    monkeypatch.setattr(bodypix_weights, "SHARD_SHA256", bodypix_weights._sha256(folder / SHARD))
    monkeypatch.delenv(bodypix_weights.VARIABLE, raising=False)
    return folder
