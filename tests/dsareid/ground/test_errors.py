"""What is said of errors."""

import pytest

from dsareid.ground.errors import first_line


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("one"), "one"),
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one\ntwo"), "one"),
        (ValueError(), "ValueError"),
        (EOFError("\n"), "EOFError"),
    ],
)
def test_the_first_line(error, line):
    assert first_line(error) == line
