"""A few hundred damaged files for every reader; `make fuzz` reads 100,000."""

import logging

import fuzz
import pytest
from readers import READERS

pytestmark = pytest.mark.slow

# Of a reader: few where each takes long. Together they stay below half a minute.
QUICK, SLOW = 200, 5


def names():
    return [name for name in READERS if not name.startswith("model .")]  # whose making takes long


@pytest.mark.filterwarnings("ignore")  # what Pillow, zipfile and torch say about damage
@pytest.mark.parametrize("name", names())
def test_a_read_ends_in_a_result_or_in_an_error_of_ours(name, tmp_path, capfd, caplog):
    """In this process: a crash ends the tests, which is a failure too."""
    caplog.set_level(logging.CRITICAL, "dsareid")  # pytest-xdist cannot send names that are not UTF-8
    reader = READERS[name]
    valid = reader.made(tmp_path)
    found = [
        fuzz.read_one(reader, name, 0, number, valid, tmp_path)
        for number in range(SLOW if reader.slow else QUICK)
    ]
    assert not [error for outcome, _, _, error in found if outcome == "failed"]
    assert found[0][0] == "accepted"


@pytest.mark.parametrize(
    "fault, words",
    [
        ("error", "KeyError: 'a'"),
        ("crash", "the process ended with -6"),
        ("hang", "no end"),
        ("memory", "1.5 GB of memory"),
    ],
)
def test_each_fault_is_noticed(tmp_path, monkeypatch, fault, words):
    if fault == "hang":
        monkeypatch.setattr(fuzz, "PATIENCE", 2)
    with fuzz.tqdm(disable=True) as bar:
        tally = fuzz.fuzz(f"planted {fault}", 1, 7, tmp_path, bar)
    assert len(tally.failures) == tally.inputs == 1 and words in tally.failures[0]
    kept = tmp_path / f"planted-{fault}-7-0"
    assert (kept / "a").read_bytes() == b"a"
    assert "--seed 7 --again 0" in (kept / "why.txt").read_text()
