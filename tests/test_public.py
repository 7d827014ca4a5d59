"""What `import dsareid` offers, and that it costs nothing until it is used."""

import ast
import importlib.util
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dsareid
import dsareid.evaluation
import dsareid.models


def test_the_table_is_shown():
    assert {"texture", "train", "evaluate", "rank", "embed", "Guide"} <= set(dsareid.__all__)
    assert [name for name in dir(dsareid) if not name.startswith("__")] == sorted(dsareid.__all__)
    for name in dsareid.__all__:
        assert name in dsareid.__doc__


@pytest.mark.parametrize("name", dsareid.__all__)
def test_each_name_loads(name):
    assert getattr(dsareid, name) is not None
    assert importlib.util.find_spec(f"dsareid.{name}") is None  # a module would take the name's place


def test_names_that_do_not_exist():
    with pytest.raises(AttributeError, match="module 'dsareid' has no attribute 'fly'"):
        _ = dsareid.fly
    with pytest.raises(ImportError, match="fly"):
        exec("from dsareid import fly")


@pytest.mark.parametrize("package", [dsareid, dsareid.models, dsareid.evaluation])
def test_type_checkers_see_the_same_names(package):
    """And they are those of the modules that they are loaded from."""
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(seen) == sorted(package.__all__)
    for name, module in seen.items():
        assert getattr(package, name) is getattr(import_module(module), name)
    assert Path(dsareid.__file__).with_name("py.typed").exists()


def test_import_loads_nothing_heavy():
    code = "import dsareid, sys; dir(dsareid); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numpy", "PIL", "tyro"} & set(loaded.split())
