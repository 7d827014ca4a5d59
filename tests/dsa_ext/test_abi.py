"""The compiled libraries keep to torch's stable ABI as of the oldest release in pyproject.toml, and to
Python's limited API: one build serves every later release. scripts/check_wheel.sh tries it out."""

import re
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import pytest
import torch

import dsa_ext

LIBRARIES = sorted(Path(dsa_ext.__file__).parent.glob("*.abi3.so"))
TORCH_HEADERS = ("torch/csrc/stable/c/shim.h", "torch/csrc/inductor/aoti_torch/c/shim.h")
# What every system and every torch has under the same name; not libcudart.so.13, which torch 2.10 lacks.
SYSTEM = r"lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so\.\d+|ld-linux.*"
TORCH = r"lib(c10|c10_cuda|torch|torch_cpu|torch_cuda)\.so"

pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(
        not all(map(shutil.which, ("nm", "readelf", "g++"))), reason="needs nm, readelf and g++"
    ),
]


def output(*command) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def oldest(package: str) -> tuple[int, int]:
    """The release that pyproject.toml asks for at least."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    major, minor = re.search(rf'{package}[ ="]*>=(\d+)\.(\d+)', text).groups()
    return int(major), int(minor)


@cache
def allowed() -> frozenset[str]:
    """The names that torch's and Python's headers declare for the oldest releases."""
    torch_version = "0x{:02x}{:02x}000000000000".format(*oldest("torch"))
    python_version = "0x{:02x}{:02x}0000".format(*oldest("requires-python"))
    text = output(
        "g++",
        "-std=c++20",
        "-E",
        "-P",
        "-x",
        "c++",
        "-DUSE_CUDA",
        "/dev/null",
        f"-DTORCH_TARGET_VERSION={torch_version}",
        f"-DPy_LIMITED_API={python_version}",
        f"-I{Path(torch.__file__).parent}/include",
        f"-I{sysconfig.get_path('include')}",
        *(word for header in (*TORCH_HEADERS, "Python.h") for word in ("-include", header)),
    )
    return frozenset(re.findall(r"\w+", text))


def breaks(symbol: str) -> bool:
    """Whether a library that needs this (demangled) symbol leaves the stable ABI."""
    if re.match(r"_?Py|(aoti_)?torch_", symbol):
        return symbol not in allowed()
    return re.search(r"\b(at|c10|caffe2|torch|pybind11)::", symbol) is not None


def undefined(library: Path) -> list[str]:
    lines = output("nm", "-DC", "--undefined-only", library).splitlines()
    return [line.split(maxsplit=1)[1].split("@")[0] for line in lines]


def needed(library: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", library))


def portable(name: str) -> bool:
    return re.fullmatch(f"{SYSTEM}|{TORCH}", name) is not None


def test_the_extension_is_among_them():
    assert Path(dsa_ext._C.__file__) in LIBRARIES


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_stable_symbols_alone(library):
    symbols = undefined(library)
    assert "PyModule_Create2" in symbols and "torch_library_impl" in symbols
    assert [symbol for symbol in symbols if breaks(symbol)] == []


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_libraries_that_every_release_has(library):
    names = needed(library)
    assert "libtorch_cpu.so" in names
    assert [name for name in names if not portable(name)] == []


@pytest.mark.parametrize(
    "symbol,bad",
    [
        ("memcpy", False),
        ("std::ostream::put(char)", False),
        ("Py_BuildValue", False),
        ("torch_call_dispatcher", False),
        ("aoti_torch_get_dim", False),
        ("torch_library_def_with_tags", True),  # torch 2.12
        ("torch_tensor_from_pyobject", True),  # torch 2.14
        ("c10::Error::what() const", True),
        ("vtable for at::TensorBase", True),
        ("torch::Library::_def(c10::FunctionSchema&&)", True),
        ("PyUnicode_AsUTF8", True),  # limited since Python 3.13
        ("_PyObject_GetDictPtr", True),
    ],
)
def test_symbols_are_told_apart(symbol, bad):
    assert breaks(symbol) == bad


def test_a_library_outside_the_limited_api_is_found_out():
    from dsareid.ground import _core

    assert any(breaks(symbol) for symbol in undefined(Path(_core.__file__)))


def test_libraries_are_told_apart():
    for name in ("libc.so.6", "ld-linux-x86-64.so.2", "libc10.so", "libtorch_cuda.so"):
        assert portable(name), name
    for name in ("libcudart.so.13", "libtorch_python.so", "libpython3.11.so.1.0", "libc10.so.2"):
        assert not portable(name), name
