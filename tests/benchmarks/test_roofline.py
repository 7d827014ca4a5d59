"""The bytes that must move, against counts by hand; the predicted table."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import harness
import pytest
import report

from dsa_ext.selftest.__main__ import typical
from dsa_ext.selftest.operations.batch import batch_bytes
from dsa_ext.selftest.operations.merge import merge_bytes, merge_gradient_bytes
from dsa_ext.selftest.operations.rank import rank_bytes
from dsa_ext.selftest.operations.warp import warp_bytes, warp_gradient_bytes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def roofline(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("roofline")


def test_bytes_of_the_warp_by_hand():
    # 8 pixels, half of them foreground: 8 of I, 4 of U, 4 of V, 4 x 3 of colour; 8 maps of 4 cells.
    shape = (1, 3, 4, 2, 2)
    options = {"parts": 8, "foreground": 0.5}
    assert warp_bytes(*shape, **options) == 8 + 8 + 12 + 32 * 3 * 4
    assert warp_bytes(*shape, **options, out_bytes=1) == 8 + 8 + 12 + 32 * 3
    assert warp_bytes(*shape, **options, source=True) == 8 + 8 + 12 + 32 * 3 * 4 + 32 * 4
    floats = {"image_bytes": 4, "iuv_bytes": 4}
    assert warp_bytes(*shape, **options, **floats) == 4 * (8 + 8 + 12 + 32 * 3)
    # Backward: 32 cells of the map, 4 / 1.6 = 2.5 winners, 3 channels of 8 pixels.
    assert warp_gradient_bytes(*shape, **options) == 32 * 4 + 2.5 * 3 * 4 + 8 * 3 * 4


def test_bytes_of_a_batch_by_hand():
    # 2 samples: 6 bytes of each of 8 stored pixels, index and parameters; 24 pixels and 8 maps of 4 cells.
    written = 3 * (24 + 8 * 4)
    assert batch_bytes(2, (4, 2), (6, 4), 2, parts=8) == 2 * (6 * 8 + 8 + 32 + 4 * written)
    assert batch_bytes(2, (4, 2), (6, 4), 2, parts=8, out_bytes=2) == 2 * (88 + 2 * written)


def test_bytes_of_merging_by_hand():
    size = (2, 24, 13, 5)
    assert merge_bytes(*size) == 2 * 5 * 4 * (24 + 13)
    assert merge_bytes(*size, residual=True) == 2 * 5 * 4 * (24 + 24 + 13)
    assert merge_bytes(*size, element_bytes=2) == 2 * 5 * 2 * (24 + 13)
    assert merge_gradient_bytes(*size) == 2 * 5 * 4 * (13 + 24)
    assert merge_gradient_bytes(*size, relu=True) == 2 * 5 * 4 * (13 + 3 * 24)


def test_bytes_of_ranks_by_hand():
    # 2 x 10 distances; members and cameras of 10; three labels of 2; 2 x 3 ranks and 2 counts.
    assert rank_bytes(2, 10, 3) == 20 * 4 + 8 * (10 + 10 + 3 * 2) + 8 * (2 * 3 + 2)


def test_the_table_lists_every_kernel_and_card(roofline):
    bytes_moved, seconds = roofline.predict()
    names = [operation.name for operation in typical()]
    assert list(bytes_moved) == names
    for word in (
        "warp, float32",
        "warp, float16",
        "warp, uint8",
        "warp gradient",
        "assemble_batch",
        "merge mirror, gradient",
        "merge front_back, residual + ReLU",
        "count_ranks",
    ):
        assert any(word in name for name in names), word
    assert list(seconds) == list(roofline.CARDS)
    moved = bytes_moved["warp, float32 out"]
    assert moved == warp_bytes(64, 3, 256, 128, 32)
    assert seconds["T4"]["warp, float32 out"] == pytest.approx(moved / 320e9)  # bound by bytes
    instructions, issued = roofline.INSTRUCTIONS["warp, float32 out"], 4 * 132 * 1.98e9
    assert seconds["H200"]["warp, float32 out"] == pytest.approx(instructions / issued)


COUNTED = {
    "warp, float32 out": "warp, uint8 to float32",
    "warp, float16 out": "warp, uint8 to float16",
    "warp, uint8 out": "warp, uint8 to uint8",
    "warp gradient, float32": "gradient, float32",
    "assemble_batch, 128x64 to 256x128, float32": "batch, float32",
    "merge front_back": "merge, float32",
    "merge front_back, residual + ReLU": "merge, float32, residual, relu",
    "merge front_back, gradient": "expand, float32",
    "merge front_back, residual + ReLU, gradient": "expand, float32, residual, relu",
    "count_ranks, float32, waits for the host": "rank, float32",
}
"""What tests/simt calls the same work."""


@pytest.mark.compiles
@pytest.mark.skipif(harness.why_not() is not None, reason=str(harness.why_not()))
@pytest.mark.skipif(harness.why_no_nvcc() is not None, reason=str(harness.why_no_nvcc()))
def test_the_instructions_are_those_that_are_counted(roofline):
    counted = {row["what"]: row["instructions"] for row in report.counts(mode="ptx")}
    assert roofline.INSTRUCTIONS.keys() == COUNTED.keys()
    for name, value in roofline.INSTRUCTIONS.items():
        assert value == pytest.approx(counted[COUNTED[name]], rel=0.03), name


def test_what_is_printed_and_written_says_predicted(tmp_path):
    file = tmp_path / "predicted.json"
    command = [sys.executable, str(BENCHMARKS / "roofline.py"), "--json", str(file)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "PREDICTED" in printed and "Predicted times, H200, 4,800 GB/s" in printed
    found = json.loads(file.read_text())
    assert "PREDICTED" in found["notes"][0]
