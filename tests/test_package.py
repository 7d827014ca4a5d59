"""pyproject.toml lists the packages and their data one by one; none is forgotten."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
ROOT = Path(__file__).parents[1]


def test_every_file_is_packaged():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    checked = 0
    for name, folder in setup["package-dir"].items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_dir() or path.suffix == ".so" or "__pycache__" in path.parts:
                continue
            package = ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
            patterns = ["*.py", *setup["package-data"].get(package, [])]
            assert package in setup["packages"], path
            assert any(fnmatch(path.name, pattern) for pattern in patterns), path
            checked += 1
    assert checked > 10
