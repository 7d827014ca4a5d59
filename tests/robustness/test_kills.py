"""tests/robustness/kills.py: commands survive a few kills, and what a kill must not do is noticed."""

import sys

import kills
import pytest

pytestmark = pytest.mark.slow


def test_packing_survives_being_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "IMAGES_READ", 1536)
    with kills.tqdm(disable=True) as bar:
        tally = kills.kill("pack", 2, tmp_path, 0, bar)
    assert tally.kills == 2 and not tally.violations


def script(text):
    """A command that is not dsareid's: two files, the second a second later."""
    return [sys.executable, "-c", f"import pathlib, sys, time; out = pathlib.Path(sys.argv[1]); {text}"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("out.write_text('half'); time.sleep(0.6); out.write_text('whole')", "half-written"),
        (
            "out.with_name('.left').touch(); time.sleep(0.6); out.write_text(str(time.time()))",
            "the end differs",
        ),
    ],
)
def test_what_a_kill_must_not_do_is_noticed(tmp_path, monkeypatch, text, words):
    def check(out):
        if out.exists() and out.read_text() == "half":
            raise kills.DSAError("half-written")

    command = kills.Command(lambda out: [], check, lambda out: set(), kills.contents)

    def start(command, out):
        return kills.subprocess.Popen([*script(text), str(out)], stderr=-1, text=True, start_new_session=True)

    monkeypatch.setattr(kills, "start", start)
    monkeypatch.setitem(kills.COMMANDS, "planted", lambda folder: command)
    with kills.tqdm(disable=True) as bar:
        tally = kills.kill("planted", 5, tmp_path, 0, bar)
    assert tally.violations and any(words in line for line in tally.violations)
