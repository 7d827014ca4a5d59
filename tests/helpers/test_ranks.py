"""Processes of a group see torchrun's environment; one that fails ends the others."""

import pytest
import ranks

pytestmark = pytest.mark.processes


def run(tmp_path, code, count=2):
    (tmp_path / "code.py").write_text(code)
    return ranks.run([tmp_path / "code.py", "an argument"], count)


def test_each_has_its_rank(tmp_path):
    code = "import os, sys; print(os.environ['RANK'], os.environ['WORLD_SIZE'], sys.argv[1])"
    status, out, err = run(tmp_path, code)
    assert (status, sorted(out.splitlines()), err) == (0, ["0 2 an argument", "1 2 an argument"], "")


def test_one_that_fails_ends_the_others(tmp_path):
    code = "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit('no more')\ntime.sleep(200)"
    status, _, err = run(tmp_path, code)
    assert status != 0 and "no more" in err


def test_errors_are_shown(tmp_path):
    status, _, err = run(tmp_path, "nonsense", 1)
    assert status == 1 and "NameError: name 'nonsense'" in err
