"""python/dsareid/ground/_core.pyi has what the compiled module has, argument by argument."""

import ast
import re
from pathlib import Path

import pytest

_core = pytest.importorskip("dsareid.ground._core")
STUB = Path(__file__).parents[2] / "python/dsareid/ground/_core.pyi"


def arguments(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]


def test_stub():
    declared, classes = {}, set()
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            declared[node.name] = arguments(node)
        elif isinstance(node, ast.ClassDef):
            classes.add(node.name)
            methods = (x for x in node.body if isinstance(x, ast.FunctionDef))
            declared |= {f"{node.name}.{x.name}": arguments(x) for x in methods}
    assert {name for name in dir(_core) if not name.startswith("_")} == {
        name for name in declared if "." not in name
    } | classes
    for name, expected in declared.items():
        function = _core
        for word in name.split("."):
            function = getattr(function, word)
        signature = function.__doc__.split("\n")[0].split(" -> ")[0]  # as pybind11 writes it
        assert re.findall(r"[(,] *(\w+)(?=:)", signature) == expected, signature
