"""The loop runs, with the guide and without, and says what came out."""

import re
import sys

import pytest

from studies.real import own_loop


@pytest.mark.parametrize("alone", [False, True])
def test_a_loop_of_ones_own(tiny_data, capsys, monkeypatch, alone):
    monkeypatch.setattr(own_loop, "PEOPLE", 2)
    monkeypatch.setattr(own_loop, "IMAGES", 2)
    monkeypatch.setattr(own_loop.torch, "set_num_threads", lambda count: None)
    arguments = ["own_loop", str(tiny_data), "--epochs", "1", *(["--alone"] if alone else [])]
    monkeypatch.setattr(sys, "argv", arguments)
    own_loop.main()
    said = capsys.readouterr().out
    assert re.fullmatch(
        rf"{'alone' if alone else 'guided'}: mAP \d+\.\d, rank-1 \d+\.\d, \d+ s of a core\n", said
    )
