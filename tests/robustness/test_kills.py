"""tests/robustness/kills.py: commands survive a few kills, and what a kill must not do is noticed."""

import signal
import sys

import kills
import pytest

pytestmark = pytest.mark.slow


def test_packing_survives_being_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "IMAGES_READ", 1536)
    with kills.tqdm(disable=True) as bar:
        tally = kills.kill("pack", 2, tmp_path, 0, bar)
    assert tally.kills == 2 and not tally.violations


@pytest.mark.extras
def test_a_gallery_survives_being_killed(tmp_path, monkeypatch):
    pytest.importorskip("milvus_lite")
    monkeypatch.setattr(kills, "GALLERY_ROWS", 2048)
    with kills.tqdm(disable=True) as bar:
        tally = kills.kill("gallery", 5, tmp_path, 0, bar)
    assert tally.kills == 5 and not tally.violations


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


def test_processes_that_are_left_behind_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("processes.PATIENCE", 0.5)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    (tmp_path / "starts_another.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    endings = kills.Endings()
    for how in (signal.SIGKILL, signal.SIGTERM):
        assert kills.end_once(["starts_another"], how, 3, endings) is None
    assert (endings.kills, endings.several, len(endings.left)) == (2, 2, 2)
    assert kills.end_once(["this"], signal.SIGKILL, 30, endings) > 0 and endings.kills == 2
