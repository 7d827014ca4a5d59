"""What nvcc and the disassembly say of every kernel: registers, stack, spills, 128-bit accesses.

    python tests/helpers/cuda_resources.py     the table (part of make kernels)

Nothing here needs a GPU. The budgets are those that the kernels' head comments state.
"""

import functools
import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import shared_cache

CSRC = Path(__file__).parents[2] / "csrc"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


class Budget(NamedTuple):
    """What a kernel may use, from the lines "// budget NAME_kernel: ..." at the head of its .cuh."""

    registers: int  # a thread at most
    registers_75: int  # on Turing, whose multiprocessors hold fewer threads, with more each
    wide_loads: (
        int  # loads of global memory that are 16 bytes wide at least: one for each place in the source;
    )
    wide_stores: int  # of kernels with a width as a template argument only where it fills 16 bytes
    shared: int  # KiB of shared memory a block, at most, on the typical batch of tests/simt


def read_budgets() -> dict[str, Budget]:
    line = (
        r"^// budget (\w+_kernel): (\d+) registers \(sm_75: (\d+)\), (\d+) wide loads, (\d+) wide stores, "
        r"(\d+) KiB$"
    )
    texts = "".join(path.read_text() for path in sorted(CSRC.glob("*.cuh")))
    return {name: Budget(*map(int, numbers)) for name, *numbers in re.findall(line, texts, flags=re.M)}


BUDGETS = read_budgets()


@dataclass(frozen=True)
class Kernel:
    """One instantiation for one architecture."""

    name: str  # demangled, with its template arguments
    architecture: int
    registers: int
    stack: int
    spills: int
    static_shared: int
    wide_loads: int | None  # None where there is no disassembler
    wide_stores: int | None
    local: int | None  # loads from and stores to local memory

    @property
    def family(self) -> str:
        return re.search(r"(\w+_kernel)", self.name).group(1)

    @property
    def is_vector_form(self) -> bool:
        """Whether 16-byte accesses are promised: not where a width as template argument is one."""
        return ", 1," not in self.name


def tool(name: str) -> str | None:
    """A CUDA tool from PATH, the toolkit, or the copy that triton brings."""
    found = shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")
    if found:
        return found
    try:
        import triton
    except ImportError:
        return None
    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    return str(path) if path.exists() else None


def demangle(names: list[str]) -> dict[str, str]:
    done = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True)
    return {
        name: re.sub(r"dsa::|\(unsigned char\)|\((int|bool)\)|^void |\(.*$", "", text)
        for name, text in zip(names, done.stdout.splitlines())
    }


def compile_kernels(source: Path, architecture: int, folder: Path) -> tuple[str, Path]:
    """What ptxas reports, and the object. Raises RuntimeError with nvcc's words."""
    target = folder / f"{source.stem}-{architecture}.cubin"
    command = [
        "nvcc",
        "-std=c++20",
        "-O3",
        "-fmad=false",
        f"-I{CSRC}",
        f"-arch=sm_{architecture}",
        "-Xptxas",
        "-v",
    ]
    command += ["-cubin", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or "ptxas warning" in done.stderr:
        raise RuntimeError(f"{source.name} for sm_{architecture}:\n{done.stderr}")
    return done.stderr, target


def disassemble(cubin: Path) -> dict[str, list[int]] | None:
    """By mangled name: 128-bit loads, 128-bit stores, accesses to local memory."""
    cuobjdump = tool("cuobjdump")
    if cuobjdump is None:
        return None
    done = subprocess.run([cuobjdump, "-sass", str(cubin)], capture_output=True, text=True, check=True)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    name = ""
    for line in done.stdout.splitlines():
        if found := re.search(r"Function : (\S+)", line):
            name = found.group(1)
        for place, pattern in enumerate((r"\bLDG\.E\S*\.128", r"\bSTG\.E\S*\.128", r"\b(LDL|STL)\b")):
            counts[name][place] += re.search(pattern, line) is not None
    return counts


def kernels_of(source: Path, architecture: int, folder: Path) -> list[Kernel]:
    report, cubin = compile_kernels(source, architecture, folder)
    entries = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
        report,
        flags=re.S,
    )
    names = demangle([entry[0] for entry in entries])
    sass = disassemble(cubin)
    kernels = []
    for mangled, stack, stores, loads, registers, rest in entries:
        shared = re.search(r"(\d+) bytes smem", rest)
        wide = sass[mangled] if sass else (None, None, None)
        kernels.append(
            Kernel(
                names[mangled],
                architecture,
                int(registers),
                int(stack),
                int(stores) + int(loads),
                int(shared.group(1)) if shared else 0,
                *wide,
            )
        )
    return kernels


def cached_kernels(source: Path, architecture: int) -> list[Kernel]:
    """kernels_of, from tests' shared cache."""

    def make(folder: Path) -> None:
        found = kernels_of(source, architecture, folder)
        (folder / "kernels.json").write_text(json.dumps([asdict(kernel) for kernel in found]))

    headers = [*CSRC.glob("*.h"), *CSRC.glob("*.cuh")]
    key = (architecture, nvcc_version(), tool("cuobjdump"), source, *sorted(headers), Path(__file__))
    folder = shared_cache.made(f"nvcc-{source.stem}-{architecture}", key, make)
    return [Kernel(**entry) for entry in json.loads((folder / "kernels.json").read_text())]


@functools.cache
def nvcc_version() -> str:
    return subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def all_kernels() -> tuple[Kernel, ...]:
    """Every kernel of every source for every architecture; the first time about half a minute."""
    jobs = [(source, a) for source in sorted(CSRC.glob("*.cu")) for a in ARCHITECTURES]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(k for found in pool.map(lambda job: cached_kernels(*job), jobs) for k in found)


def main() -> None:
    print("nvcc -Xptxas -v and cuobjdump, all architectures: " + ", ".join(f"sm_{a}" for a in ARCHITECTURES))
    print(f"{'kernel':58s} registers     stack  spills  static shared  local  128-bit loads, stores")
    by_name = defaultdict(list)
    for kernel in all_kernels():
        by_name[kernel.name].append(kernel)
    for name, kernels in sorted(by_name.items()):

        def span(field, kernels=kernels):
            values = [getattr(kernel, field) for kernel in kernels]
            if None in values:
                return "?"
            return str(min(values)) if min(values) == max(values) else f"{min(values)}..{max(values)}"

        print(
            f"{name:58s} {span('registers'):>9s} {span('stack'):>9s} {span('spills'):>7s} "
            f"{span('static_shared'):>14s} {span('local'):>6s}  "
            f"{span('wide_loads')}, {span('wide_stores')}"
        )


if __name__ == "__main__":
    main()
