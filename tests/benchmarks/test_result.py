"""What a benchmark prints and writes, and the page that is made of it."""

import argparse
import importlib
import json
import re
from pathlib import Path

import pytest

from dsareid.ground.errors import DSAError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module(monkeypatch):
    return importlib.import_module("result")


@pytest.fixture
def page():
    return importlib.import_module("page")


def begin(module, file=None):
    return module.Result(argparse.Namespace(json=file))


def test_medians_quartiles_and_paired_ratios(module, capsys):
    result = begin(module)
    runs = {"ours": [0.001, 0.002, 0.003, 0.004, 0.005], "peer": [0.002, 0.002, 0.003, 0.008, 0.020]}
    cells = result.add("Things", "small", runs, unit="ms", against="ours")
    ours, peer = cells["ours"], cells["peer"]
    assert (ours.low, ours.median, ours.high, ours.runs, ours.ratio) == (2, 3, 4, 5, 1)
    assert peer.median == 3 and peer.ratio == 2  # of the rounds: 2, 1, 1, 2, 4
    assert ours.spread == pytest.approx(1 / 3)
    slow = result.add("Things", "large", {"ours": [1, 1, 1], "peer": [5]}, unit="ms", against="ours")["peer"]
    assert (slow.median, slow.runs, slow.ratio) == (5000, 1, 5)
    assert result.add("Others", "one", {"a": [7.0]}, unit="images/s")["a"].median == 7
    printed = capsys.readouterr().out
    assert "Things, small" in printed and "against ours" in printed and "2.00 x" in printed


def test_a_table_has_one_unit(module):
    result = begin(module)
    result.add("Things", "small", {"ours": [1]}, unit="ms")
    with pytest.raises(ValueError, match="Things is in ms against None, not s"):
        result.add("Things", "large", {"ours": [1]}, unit="s")


def test_the_file_is_written_at_the_end_and_of_a_whole_run_alone(module, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/any/where/thing.py", "--rounds", "3", "--json", "x.json"])
    file = tmp_path / "x.json"
    with pytest.raises(RuntimeError), begin(module, file) as result:
        result.add("Things", "small", {"ours": [1]})
        raise RuntimeError
    (unfinished,) = tmp_path.iterdir()
    assert unfinished.name == "x-unfinished.json" and '"small"' in unfinished.read_text()
    with begin(module, file) as result:
        result.add("Things", "small", {"ours": [1, 2]})
        result.note("Verified.")
        assert not file.exists()
    assert list(tmp_path.iterdir()) == [file]
    found = json.loads(file.read_text())
    assert found["command"] == "python benchmarks/thing.py --rounds 3"
    assert found["notes"] == ["Verified."]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"]) and "torch" in found["machine"]
    assert found["tables"][0]["cases"]["small"]["ours"]["median"] == 1500
    monkeypatch.setattr("sys.argv", ["thing.py", f"--json={file}", "--rounds", "3"])
    assert begin(module).document()["command"] == "python benchmarks/thing.py --rounds 3"


def test_a_file_that_cannot_be_written_is_refused_before_the_work(module, tmp_path):
    with pytest.raises(DSAError, match="missing"):
        begin(module, tmp_path / "missing" / "x.json")


@pytest.mark.parametrize(
    "value, text",
    [(0.0703, "0.0703"), (4.324, "4.32"), (16.94, "16.9"), (26706.3, "26,706"), (8.0, "8"), (0, "0")],
)
def test_numbers(module, value, text):
    assert module.number(value) == text


def test_the_longer_side_of_a_table_goes_down(module, page):
    result = begin(module)
    for case in ("small", "large", "huge"):
        result.add("Things", case, {"ours": [1, 1], "peer": [2, 2]}, unit="s", against="ours")
    caption, rows = page.table(result.tables["Things"])
    assert caption == "**Things**, s; x: times that of ours"
    assert rows.splitlines()[0] == "|  | ours | peer |"
    assert rows.splitlines()[2] == "| small | 1 ±0 % | 2 ±0 %, 2.00 x |"
    result.add("Few", "small", {"a": [1], "b": [2]}, unit="s")
    result.add("Few", "large", {"b": [3]}, unit="s")
    assert page.table(result.tables["Few"])[1].splitlines() == [
        "|  | small | large |",
        "| --- | --: | --: |",
        "| a | 1 |  |",
        "| b | 2 | 3 |",
    ]


def test_the_page_is_what_the_results_say(page):
    """docs/performance.md is never edited by hand: `python benchmarks/page.py`."""
    assert page.PAGE.read_text() == page.page()


def test_every_benchmark_has_a_section_and_is_run_by_make_bench(page):
    takes_json = [
        path.stem
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
        if "with Result(" in path.read_text() and path.stem != "result"
    ]
    assert sorted(page.SECTIONS) == takes_json
    listed = re.search(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    # One draws, one needs another checkout, one detectron2, two a GPU.
    assert sorted([*listed, "loader", "against", "rcnn", "kernels", "card"]) == takes_json
    assert sorted(path.stem for path in page.RESULTS.glob("*.json")) == sorted(
        set(takes_json) - {"kernels", "card"}
    )


def test_readme_and_data_page_have_the_figures_of_the_results(page):
    """The two places that quote a figure of the loader's result."""
    tables = json.loads((page.RESULTS / "loader.json").read_text())["tables"]
    cells = tables[0]["cases"]["store of 128x64"]
    ours = next(cell for name, cell in cells.items() if name.startswith("(f)"))
    for path in (ROOT / "README.md", ROOT / "docs/data.md"):
        text = " ".join(path.read_text().split())
        speed, times = re.search(r"([\d,]+) images a second.*? (\d+) times a DataLoader", text).groups()
        assert (speed, times) == (f"{ours['median']:,.0f}", f"{ours['ratio']:.0f}"), path
