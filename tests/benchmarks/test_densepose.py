"""The benchmark of DensePose dumps runs, verifies what it times, and reports all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "densepose.py"


def test_it_runs_on_a_small_dump(tmp_path):
    (tmp_path / "work").mkdir()
    file = tmp_path / "found.json"
    command = [sys.executable, str(SCRIPT), "--boxes", "30", "--folder", str(tmp_path / "work")]
    printed = subprocess.run(
        [*command, "--json", str(file)], check=True, capture_output=True, text=True
    ).stdout
    assert "Reading, 30 boxes, a file of 3 MB" in printed
    found = json.loads(file.read_text())
    assert found["command"].startswith("python benchmarks/densepose.py --boxes 30 --folder")
    assert "--json" not in found["command"]
    tables = {table["title"]: table for table in found["tables"]}
    cells = {title: table["cases"]["30 boxes, a file of 3 MB"] for title, table in tables.items()}
    assert list(cells["Reading"]) == ["bytes of the file", "read", "decode"]
    assert list(cells["Converting"]) == ["Pillow writes as many PNGs", "convert"]
    assert cells["Memory"]["the file"]["median"] == pytest.approx(3, abs=0.5)
    assert all(
        0 <= cell["median"] < 60 for title in ("Reading", "Converting") for cell in cells[title].values()
    )
    assert not list((tmp_path / "work").iterdir())
