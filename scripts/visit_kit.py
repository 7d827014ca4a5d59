"""Prepare what `scripts/gpu.sh visit` runs on a machine with a GPU that is lent for minutes: build/gpu/lib.

    python scripts/visit_kit.py [--python python3.12]

The folder holds dsa_ext with its libraries, which load with any torch from 2.10 on; dsareid with _core, built
for the other machine's Python; and the packages that training imports and that come without torch. Carry it
there with the tree: nothing is built or downloaded then.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import setup as build  # noqa: E402  its flags and lists of sources

LIB = ROOT / "build/gpu/lib"
PACKAGES = ("pydantic>=2", "safetensors", "tqdm")  # with what they need themselves
MOST_BYTES = 64 << 20  # of the folder and the tree, which some machines take


def stop(reason: str) -> None:
    sys.exit(f"visit_kit.py: {reason}")


def ask(python: str, code: str) -> str:
    """What a line of code prints in another Python."""
    try:
        done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        stop(f"--python {python} does not run ({error}); name the Python of the other machine's version")
    return done.stdout.strip()


def copy_packages(lib: Path) -> None:
    """dsa_ext and dsareid as the tree has them, with the kernels' headers and without this Python's _core."""
    if not (ROOT / "dsa_ext/_C_cuda.abi3.so").exists():
        stop("dsa_ext/_C_cuda.abi3.so is missing: make build, on a machine with nvcc")
    shutil.rmtree(lib, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__", "_core.*.so")
    shutil.copytree(ROOT / "dsa_ext", lib / "dsa_ext", ignore=skip)
    shutil.copytree(ROOT / "python/dsareid", lib / "dsareid", ignore=skip)
    (lib / "dsa_ext/csrc").mkdir()
    for pattern in ("*.h", "*.cuh"):
        for header in (ROOT / "csrc").glob(pattern):
            shutil.copy(header, lib / "dsa_ext/csrc")


def build_core(lib: Path, python: str) -> None:
    """dsareid.ground._core for another Python, of which only the headers are used."""
    import pybind11

    suffix = ask(python, "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")
    include = ask(python, "import sysconfig; print(sysconfig.get_path('include'))")
    if not Path(include, "Python.h").exists():
        stop(f"--python {python}: {include}/Python.h is missing; install its headers (python3-dev)")
    extension = build.core_extension()
    command = ["c++", *build.CXX, "-shared", "-fPIC", "-fvisibility=hidden"]
    command += [f"-I{include}", f"-I{pybind11.get_include()}", *map(str, extension.sources)]
    subprocess.run([*command, "-o", str(lib / f"dsareid/ground/_core{suffix}")], cwd=ROOT, check=True)


def add_packages(lib: Path, python: str) -> None:
    """The wheels of PACKAGES for another Python, unpacked."""
    version = ask(python, "import sys; print('%d.%d' % sys.version_info[:2])")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(lib), "--python-version", version, "--only-binary", ":all:", "--no-compile"]
    for platform in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"):
        command += ["--platform", platform]
    subprocess.run([*command, *PACKAGES], check=True)


def size_with_tree(lib: Path) -> int:
    """Bytes of the folder and of the files that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    tracked = (ROOT / name for name in listed.stdout.split("\0") if name)
    files = [*filter(Path.is_file, tracked), *filter(Path.is_file, lib.rglob("*"))]
    return sum(file.stat().st_size for file in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="python3.12", help="a Python of the other machine's version")
    python = parser.parse_args().python
    copy_packages(LIB)
    build_core(LIB, python)
    add_packages(LIB, python)
    size = size_with_tree(LIB)
    if size > MOST_BYTES:
        stop(f"{LIB} and the tree are {size >> 20} MiB, more than {MOST_BYTES >> 20}")
    print(f"{LIB.relative_to(ROOT)}: carry it with the tree, {size >> 20} MiB in all, and run there")
    print("    OUT=FOLDER sh scripts/gpu.sh visit")


if __name__ == "__main__":
    main()
