"""The benchmark of DensePose dumps runs, verifies what it times, and reports all of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "densepose.py"


def test_it_runs_on_a_small_dump(tmp_path):
    command = [sys.executable, str(SCRIPT), "--boxes", "30", "--folder", str(tmp_path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "30 boxes, a file of 3 MB" in printed
    seconds = [float(x) for x in re.findall(r"([\d.]+) s$", printed, re.MULTILINE)]
    assert len(seconds) == 5 and all(0 <= x < 60 for x in seconds)
    assert len(re.findall(r"^memory, .* MB, [\d.]+ of the file$", printed, re.MULTILINE)) == 3
    assert not list(tmp_path.iterdir())
