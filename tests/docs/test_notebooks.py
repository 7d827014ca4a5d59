"""Every notebook runs from its first cell to its last, and its outputs are small."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs/notebooks").glob("*.ipynb"))


@pytest.mark.documents
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, 4)
    shown = [kinds_of(cell) for cell in notebook.cells]
    NotebookClient(notebook, timeout=300, coalesce_streams=True).execute(cwd=str(tmp_path))
    # What is committed is of these cells: the same kinds of output, in the same places.
    assert [kinds_of(cell) for cell in notebook.cells] == shown


def kinds_of(cell) -> list[str]:
    """What a cell shows, in order; progress on stderr apart."""
    outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
    return ["picture" if "image/png" in x.get("data", {}) else x.get("name", "value") for x in outputs]


def test_there_are_some_and_they_are_small():
    assert [path.stem for path in NOTEBOOKS] == ["system", "textures"]
    for path in NOTEBOOKS:
        text = path.read_text()
        assert len(text) < 450_000 and str(Path.home()) not in text and os.getcwd() not in text
        for cell in json.loads(text)["cells"]:
            for output in cell.get("outputs", []):
                assert len(output.get("data", {}).get("image/png", "")) * 3 / 4 < 150_000
