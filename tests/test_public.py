"""What `import dsareid` offers, and that it costs nothing until it is used."""

import ast
import importlib.util
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dsareid


def test_the_table_is_shown():
    assert dir(dsareid) == sorted(dsareid.__all__)
    assert {"texture", "train", "evaluate", "rank", "embed", "Guide", "__version__"} <= set(dsareid.__all__)
    for name in dsareid._PUBLIC:
        assert name in dsareid.__doc__


@pytest.mark.parametrize("name, module", dsareid._PUBLIC.items())
def test_each_name_leads_to_its_module(name, module):
    assert getattr(dsareid, name) is getattr(import_module(module), name)
    assert importlib.util.find_spec(f"dsareid.{name}") is None  # a module would take the name's place


def test_names_that_do_not_exist():
    with pytest.raises(AttributeError, match="module 'dsareid' has no attribute 'fly'"):
        _ = dsareid.fly
    with pytest.raises(ImportError, match="fly"):
        exec("from dsareid import fly")


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(dsareid.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names if alias.asname}
    assert seen == dsareid._PUBLIC
    assert Path(dsareid.__file__).with_name("py.typed").exists()


def test_import_loads_nothing_heavy():
    code = "import dsareid, sys; dir(dsareid); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numpy", "PIL", "tyro"} & set(loaded.split())
