"""scripts/visit_kit.py: the folder that is carried to a machine with a GPU works there by itself."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.compiles

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kit(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))  # it imports setup.py
    spec = importlib.util.spec_from_file_location("visit_kit", ROOT / "scripts/visit_kit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(
    not (ROOT / "dsa_ext/_C_cuda.abi3.so").exists(), reason="the CUDA kernels were not built: no nvcc"
)
def test_the_folder_has_all_that_a_visit_imports(kit, tmp_path):
    """All but the downloaded packages, which this environment has."""
    lib = tmp_path / "lib"
    kit.copy_packages(lib)
    kit.build_core(lib, sys.executable)
    code = (
        "import dsa_ext, dsareid.ground._core as core, dsareid.engine.learner\n"
        "assert dsa_ext.CPU_ERROR is None, dsa_ext.CPU_ERROR\n"
        "dsa_ext.kernel_source('warp')\n"
        "print(dsa_ext.__file__, core.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(lib)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(place.startswith(str(lib)) for place in done.stdout.split())
    assert kit.size_with_tree(lib) < kit.MOST_BYTES


def test_a_python_that_does_not_run_is_named(kit, tmp_path):
    with pytest.raises(SystemExit, match="--python no-such-python does not run"):
        kit.build_core(tmp_path, "no-such-python")
