"""setup.py builds what can be built, and says in a sentence what is missing. Nothing is compiled here."""

import builtins
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    """setup.py as a module, in the checkout, with a compiler, ninja and no settings of this machine."""
    monkeypatch.chdir(ROOT)
    for name in ("DSA_CUDA", "DSA_CORE", "DSA_BUILD", "CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.setenv(name, "")  # so that what setup.py sets is undone
        monkeypatch.delenv(name)
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "find_compiler", lambda: "c++")
    monkeypatch.setattr(module.cpp_extension, "is_ninja_available", lambda: True)
    monkeypatch.setattr(module.cpp_extension, "CUDA_HOME", None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return module


@pytest.fixture
def toolkit(script, monkeypatch, tmp_path):
    """A function that makes a CUDA toolkit of a release, which find_cuda then finds."""

    def make(release: str) -> Path:
        for name, text in (
            ("include/cuda_runtime.h", ""),
            ("bin/nvcc", f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.88'\n"),
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "bin/nvcc").chmod(0o755)
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
        return tmp_path

    return make


def names(extensions) -> list[str]:
    return [extension.name for extension in extensions]


def test_everything(script, toolkit, capsys):
    folder = toolkit("13.2")
    found = script.extensions()
    assert names(found) == ["dsa_ext._C", "dsa_ext._C_cuda", "dsareid.ground._core"]
    assert (
        f"dsa_ext: building for the CPU and for CUDA {script.ARCHITECTURES} with {folder}"
        in capsys.readouterr().out
    )
    cpu, cuda = (set(extension.sources) for extension in found[:2])
    assert {"csrc/merge.cpp", "csrc/torch/merge_cpu.cpp"} <= cpu
    assert {"csrc/merge.cu", "csrc/torch/merge_cuda.cpp"} <= cuda
    assert cpu & cuda == {"csrc/torch/module.cpp"}


@pytest.mark.parametrize(
    "release,with_torch,words",
    [
        (
            "12.8",
            "13.0",
            "is CUDA 12.8, but torch .* was built with CUDA 13.0, and their major versions",
        ),
        ("13.0", None, "torch .* was built without CUDA"),
    ],
)
def test_a_toolkit_that_does_not_fit(script, toolkit, monkeypatch, capsys, release, with_torch, words):
    toolkit(release)
    monkeypatch.setattr(torch.version, "cuda", with_torch)
    assert names(script.extensions()) == ["dsa_ext._C", "dsareid.ground._core"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("dsa_ext: building for the CPU only (")
    monkeypatch.setenv("DSA_CUDA", "1")
    with pytest.raises(SystemExit, match=f"DSA_CUDA=1, but .*{words}"):
        script.extensions()


def test_no_toolkit(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "find_cuda", lambda: None)
    assert "dsa_ext._C_cuda" not in names(script.extensions())
    assert "no folder with include/cuda_runtime.h and bin/nvcc was found" in capsys.readouterr().out
    monkeypatch.setenv("DSA_CUDA", "1")
    with pytest.raises(SystemExit, match="DSA_CUDA=1, but no folder"):
        script.extensions()


def test_settings(script, toolkit, monkeypatch, capsys):
    toolkit("13.0")
    monkeypatch.setenv("DSA_CUDA", "0")
    monkeypatch.setenv("DSA_CORE", "0")
    assert names(script.extensions()) == ["dsa_ext._C"]
    assert capsys.readouterr().out == "dsa_ext: building for the CPU only (DSA_CUDA=0)\n"
    monkeypatch.setenv("DSA_BUILD", "0")
    assert script.extensions() == []


def test_no_compiler(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "find_compiler", lambda: None)
    assert script.extensions() == []
    (line,) = capsys.readouterr().out.splitlines()
    assert "no C++ compiler was found (c++, or CXX): nothing is compiled, plain torch serves" in line
    monkeypatch.setenv("DSA_CUDA", "1")
    with pytest.raises(SystemExit, match="DSA_CUDA=1, but no C.. compiler was found"):
        script.extensions()


def test_compilers_are_found_by_running_them(script, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    compiler = tmp_path / "cxx"
    for code, found in ((0, str(compiler)), (1, None)):
        compiler.write_text(f"#!/bin/sh\nexit {code}\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("CXX", str(compiler))
        spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.find_compiler() == found
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert module.find_compiler() is None


def test_no_ninja(script, monkeypatch, capsys):
    monkeypatch.setenv("DSA_CUDA", "0")
    monkeypatch.setattr(script.cpp_extension, "is_ninja_available", lambda: False)
    assert names(script.extensions()) == ["dsa_ext._C", "dsareid.ground._core"]
    assert "ninja is not installed" in capsys.readouterr().out


def without(module: str, monkeypatch) -> None:
    right = builtins.__import__

    def hidden(name, *arguments, **options):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}")
        return right(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", hidden)


def test_no_pybind11(script, monkeypatch):
    monkeypatch.setenv("DSA_CUDA", "0")
    without("pybind11", monkeypatch)
    with pytest.raises(SystemExit, match="pip install pybind11 .or leave it out with DSA_CORE=0"):
        script.extensions()


def test_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError(\"No module named 'torch'\")")
    command = [sys.executable, "setup.py", "--version"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("setup.py needs torch to build against (No module named 'torch').")
    assert "pip install torch && pip install --no-build-isolation ." in done.stderr


def test_installs_without_a_compiler(tmp_path):
    """A build of the Python files alone, as pip makes it."""
    environment = os.environ | {"CXX": "no-such-compiler"}
    command = [sys.executable, "setup.py", "build", "--build-base", tmp_path, "--build-lib", tmp_path / "lib"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nothing is compiled" in done.stdout
    package = tmp_path / "lib/dsa_ext"
    assert not list(package.glob("*.so")) and (package / "py.typed").exists()
    assert (package / "csrc/merge.cuh").exists() and (package / "selftest/operations/merge.py").exists()
    assert (tmp_path / "lib/dsareid/ground/_core.pyi").exists()
