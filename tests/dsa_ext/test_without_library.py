"""Where no compiler was there, plain torch serves the same functions, so that some of dsareid works.
Each test runs a process in which hide_libraries hides what is compiled."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dsareid

ROOT = Path(__file__).parents[2]
NOTE = "dsa_ext._C is not built: plain torch computes the same, slower"


def run(*words, **options) -> subprocess.CompletedProcess:
    path = os.pathsep.join(map(str, (ROOT / "tests/helpers", ROOT / "python", ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.fixture
def photograph(tmp_path):
    """The paths of an image and of its IUV map, in a folder of their own."""
    rng = np.random.default_rng(0)
    image, iuv = (rng.integers(0, 256, (64, 32, 3), dtype=np.uint8) for _ in range(2))
    iuv[..., 0] %= 25
    Image.fromarray(image).save(tmp_path / "photo.png")
    Image.fromarray(np.ascontiguousarray(iuv[..., ::-1])).save(tmp_path / "photo_IUV.png")
    return tmp_path / "photo.png", tmp_path / "photo_IUV.png"


def test_the_table_of_cases():
    """The operations as they are registered against their twins: results, gradients, out=, strides."""
    code = """
import hide_libraries
from dsa_ext import CPU_ERROR, CUDA_ERROR
from dsa_ext.selftest.__main__ import table_groups
assert CPU_ERROR == "dsa_ext._C is not built" and CUDA_ERROR
for group in table_groups("cpu", quick=True):
    assert group.checks and not group.failures, group.failures
"""
    done = run("-c", code)
    assert done.stderr.splitlines() == [NOTE] and not done.stdout


def test_arguments_are_checked_alike():
    """The very tests of what is refused. Direct calls of torch.ops are about the memory of compiled code."""
    kept = "bad or refused or out_of_range or out_must or autograd_sees or fullgraph or any_dlpack"
    names = ("warp", "merge", "batch", "augment", "rank", "arrays")
    tests = [f"tests/dsa_ext/test_{name}.py" for name in names]
    options = ["-q", "-p", "hide_libraries", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = run("-m", "pytest", *options, "-k", f"({kept}) and not direct", *tests, cwd=ROOT)
    passed = int(done.stdout.splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed > 150


def test_texture(photograph):
    code = """
import sys
import hide_libraries
import numpy as np
import dsareid
np.savez(sys.argv[3], *dsareid.texture(sys.argv[1], sys.argv[2], size=32))
assert not set(hide_libraries.COMPILED) & set(sys.modules)
"""
    target = photograph[0].with_suffix(".npz")
    assert run("-c", code, *photograph, target).stderr.splitlines() == [NOTE]
    for got, expected in zip(np.load(target).values(), dsareid.texture(*map(str, photograph), size=32)):
        assert np.array_equal(got, expected)


def test_the_command_warp(photograph):
    code = "import hide_libraries, sys; from dsareid.commands.main import main; sys.exit(main(sys.argv[1:]))"
    target = photograph[0].with_name("parts.png")
    done = run("-c", code, "warp", *photograph, target)
    assert "24 of 24 parts" in done.stdout and done.stderr.splitlines() == [f"note: {NOTE}"]
    assert target.stat().st_size > 1000


def test_a_library_that_does_not_load_is_named(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import dsa_ext
print(dsa_ext.CPU_ERROR)
"""
    package = tmp_path / "dsa_ext"
    package.mkdir()
    for path in (ROOT / "dsa_ext").glob("*.py"):
        (package / path.name).write_text(path.read_text())
    (package / "_C.abi3.so").write_bytes(b"not a library")
    said = run("-c", code).stdout
    assert said.startswith("dsa_ext._C does not load (") and "_C.abi3.so" in said
