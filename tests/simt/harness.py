"""Turns csrc/*.cu into C++ and builds the native test programs.

    program(name, mode)    the path of tests/simt/<name>.cpp, built with the kernels and the CPU backend
    library(name, glue, ...)    the kernels and the CPU backend as a shared library, which notes its launches
    sites(source)          the barriers and atomics that can be broken on purpose

Modes: "plain", "address", "thread" (the sanitizers), "count" (the counters of counters.cpp) and "ptx": the
kernels are nvcc's code, translated by ptx.py, and the launches those of the .cu files.
"""

import functools
import os
import platform
import re
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import ptx
import shared_cache

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"

COMMON = [
    "-std=c++20",
    "-g1",
    "-pthread",
    "-ffp-contract=off",
    "-fno-trapping-math",
    "-fno-strict-aliasing",
    "-w",
]
# Kernels keep the accesses that their source has, so that they can be counted.
AS_WRITTEN = [
    "-fno-tree-sra",
    "-fno-thread-jumps",
    "-fno-store-merging",
    "-fno-tree-loop-distribute-patterns",
]
HOST = [*COMMON, "-O2", "-fno-tree-loop-distribute-patterns"]
MODES = {
    "plain": {"kernels": ["-O2"], "define": [], "link": []},
    "address": {
        "kernels": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        "define": ["-DSIMT_ASAN"],
        "link": ["-fsanitize=address,undefined"],
    },
    "thread": {
        "kernels": ["-O1", "-fsanitize=thread"],
        "define": ["-DSIMT_TSAN"],
        "link": ["-fsanitize=thread"],
    },
    "ptx": {"kernels": ["-O1"], "define": [], "link": []},
    "count": {"kernels": ["-O1", *AS_WRITTEN, "-fsanitize=thread"], "define": ["-DSIMT_COUNT"], "link": []},
}

BARRIER = re.compile(r"^(?P<indent>\s*)__syncthreads\(\);$")
ATOMIC = re.compile(r"^(?P<indent>\s*)atomic(?P<kind>Max|Min|Add)\((?P<address>&.*), (?P<value>[^,]*)\);$")
SHARED = re.compile(r"extern __shared__ __align__\(16\) unsigned char (\w+)\[\];")


def why_not() -> str | None:
    """Why the harness cannot run on this machine, or None."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the fibers are written for x86-64, this is {platform.machine()}"
    if shutil.which("g++") is None:
        return "g++ is not installed"
    if cuda_include() is None:
        return "CUDA's headers are not installed (no include/cuda_runtime.h found)"
    return None


def why_no_nvcc() -> str | None:
    """Why mode "ptx" cannot run, or None."""
    missing = [name for name in ("nvcc", "c++filt") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found" if missing else None


@functools.cache
def cuda_include() -> Path | None:
    nvcc = shutil.which("nvcc")
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/usr"]
    if nvcc:
        folders.insert(2, Path(nvcc).resolve().parent.parent)
    folders += sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("cu*"))  # torch brings them
    for folder in filter(None, folders):
        if (Path(folder) / "include/cuda_runtime.h").exists():
            return Path(folder) / "include"
    return None


@dataclass(frozen=True)
class Site:
    """A barrier or an atomic of a kernel: its number in settings.planted, and where it stands."""

    number: int
    kind: str
    where: str


def convert(text: str, name: str, first: int) -> tuple[str, list[Site]]:
    """CUDA source as C++ for simt.h, and its sites, numbered from `first`."""
    lines, sites = [], []
    for line_number, line in enumerate(text.split("\n"), 1):
        barrier, atomic = BARRIER.match(line), ATOMIC.match(line)
        if barrier or atomic:
            number = first + len(sites)
            kind = "barrier" if barrier else "atomic"
            sites.append(Site(number, kind, f"{name}:{line_number}"))
            if barrier:
                line = f"{barrier['indent']}::simt::barrier({number});"
            else:
                line = (
                    f"{atomic['indent']}SIMT_ATOMIC_{atomic['kind'].upper()}({number}, "
                    f"({atomic['address']}), ({atomic['value']}));"
                )
        lines.append(line)
    text = "\n".join(lines)
    left = re.search(r"__syncthreads|\batomic[A-Z]\w*\(|__shared__ (?!__align__)", SHARED.sub("", text))
    if left:
        line = text[: left.start()].count("\n") + 1
        raise SyntaxError(f"{name}:{line}: {left.group()} must stand alone on its line")
    text = SHARED.sub(r"unsigned char* const \1 = ::simt::shared_memory();", text)
    return convert_launches(text, name), sites


def convert_launches(text: str, file: str) -> str:
    """`kernel<A><<<grid, block, shared, stream>>>(arguments);` becomes a call of simt::launch."""
    while (start := text.find("<<<")) >= 0:
        end = text.index(">>>", start)
        close = matching(text, end + 3)
        begin = kernel_start(text, start)
        kernel, arguments = text[begin:start], text[end + 4 : close]
        grid, block, shared, _stream = split(text[start + 3 : end])
        name = kernel.split("<")[0]
        call = (
            f'::simt::launch("{name}", (const void*)&{kernel}, {grid}, {block}, {shared}, '
            f"[&] {{ {kernel}({arguments}); }})"
        )
        if text[close + 1] != ";":
            raise SyntaxError(f"{file}: a launch must be a statement of its own")
        text = text[:begin] + call + text[close + 1 :]
    return text


def kernel_start(text: str, end: int) -> int:
    """Where the name before `<<<` begins, template arguments included."""
    at, depth = end, 0
    while depth or re.match(r"[\w:>]", text[at - 1]):
        at -= 1
        depth += {">": 1, "<": -1}.get(text[at], 0)
    return at


def mark_loops(text: str) -> str:
    """Every `for (a; b; c)` also counts its iterations, for counters.cpp."""
    at = 0
    while found := re.search(r"\bfor \(", text[at:]):
        start = at + found.start()
        close = matching(text, start + 4)
        parts = text[start + 5 : close].split(";")
        if len(parts) == 3:
            step = f"({parts[2].strip()}), simt_loop.next()" if parts[2].strip() else "simt_loop.next()"
            loop = f"if (::simt::Loop simt_loop; true) for ({parts[0]};{parts[1]}; {step})"
            text = text[:start] + loop + text[close + 1 :]
            at = start + len(loop)
        else:
            at = close
    return text


def mark_launches(text: str, operation: str) -> str:
    """Every launch also notes what its arguments choose, for launches.h."""
    call = re.compile(r"::simt::launch\([^;]*?\[&\] \{ (?P<kernel>[^;]*)\((?P<arguments>\w+)\); \}\)")
    text = call.sub(r"::launches::note<&\g<kernel>>(\g<arguments>), \g<0>", text)
    return f'#include "launches.h"\n{text}\n#include "launches_{operation}.h"\n'


def launch_ptx(text: str) -> str:
    """Every launch runs nvcc's code for that kernel."""
    call = re.compile(
        r"::simt::launch\(\"\w+\", \(const void\*\)&(?P<kernel>[^;]*?), (?P<shape>[^;]*?), "
        r"\[&\] \{ (?P=kernel)\((?P<arguments>\w+)\); \}\)"
    )
    runs = (
        r"::ptx::launch(::launches::name_of<&\g<kernel>>(), \g<shape>, &\g<arguments>, sizeof \g<arguments>)"
    )
    return f'#include "launches.h"\n#include "ptx.h"\n{call.sub(runs, text)}'


NVCC = ["nvcc", "-std=c++20", "-O3", "-fmad=false", "-arch=compute_90", "-ptx", f"-I{CSRC}"]


def nvcc_code() -> list[Path]:
    """C++ of what nvcc makes of the kernels, a file for each operation."""

    def write(folder: Path) -> None:
        for name in operations():
            code = folder / f"{name}.ptx"
            shared_cache.run([*NVCC, CSRC / f"{name}.cu", "-o", code])
            (folder / f"{name}_ptx.cpp").write_text(ptx.translated(code.read_text()))

    key = (NVCC, *cuda_sources(), *sorted(CSRC.glob("*.h")), HERE / "ptx.py")
    return sorted(shared_cache.made("ptx", key, write).glob("*.cpp"))


def matching(text: str, start: int) -> int:
    """The place of the parenthesis that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise SyntaxError("unbalanced parentheses")


def split(arguments: str) -> list[str]:
    """Top-level commas."""
    parts, depth = [""], 0
    for character in arguments:
        depth += {"(": 1, "<": 1, ")": -1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def cuda_sources() -> list[Path]:
    return [*sorted(CSRC.glob("*.cu")), *sorted(CSRC.glob("*.cuh"))]


def operations() -> list[str]:
    """Those that have kernels."""
    return sorted(path.stem for path in CSRC.glob("*.cuh"))


def converted(sources: list[Path]) -> tuple[dict[str, str], list[Site]]:
    """CUDA sources as C++, by file name, and all their sites."""
    texts, sites = {}, []
    for path in sources:
        texts[path.name], found = convert(path.read_text(), path.name, len(sites) + 1)
        sites += found
    return texts, sites


def sites() -> list[Site]:
    return converted(cuda_sources())[1]


def hosts(name: str, mode: str) -> list[Path]:
    """The C++ files of a program, apart from the CPU backend: its own and the harness."""
    cases = sorted(HERE.glob({"kernels": "cases_*.cpp", "counts": "counts_*.cpp"}.get(name, "no cases")))
    counters = [HERE / {"count": "counters.cpp", "ptx": "ptx.cpp"}[mode]] if mode in ("count", "ptx") else []
    return [HERE / f"{name}.cpp", *cases, HERE / "simt.cpp", *counters]


def kernels(name: str) -> list[Path]:
    return [HERE / "planted.cu"] if name == "planted" else cuda_sources()


def program(name: str, mode: str) -> Path:
    """The native program tests/simt/<name>.cpp, from tests' shared cache.

    Raises RuntimeError with the compiler's words.
    """

    def write(folder: Path) -> None:
        for file, text in converted(kernels(name))[0].items():
            (folder / file).write_text(change(text) if mode == "count" or file.endswith(".cu") else text)
        for header in headers:  # beside the converted ones, which an #include in them must find
            text = header.read_text()
            (folder / header.name).write_text(mark_loops(text) if counted and "__device__" in text else text)

    headers, flags = sorted([*CSRC.glob("*.h"), *HERE.glob("*.h")]), MODES[mode]
    counted = mode == "count"
    change = {"count": mark_loops, "ptx": launch_ptx}.get(mode, lambda text: text)
    changed = f"-{mode}" if mode in ("count", "ptx") else ""
    folder = shared_cache.made(
        f"simt-{name}{changed}", (changed, *kernels(name), *headers, HERE / "harness.py"), write
    )
    include = [f"-I{CSRC}", f"-I{HERE}", f"-isystem{cuda_include()}"]
    kernel_flags = [
        *COMMON,
        *flags["kernels"],
        *flags["define"],
        f"-I{folder}",
        *include,
        "-include",
        "simt.h",
    ]
    jobs = [(path, kernel_flags, [*folder.glob("*.*h")]) for path in sorted(folder.glob("*.cu"))]
    for path in hosts(name, mode):
        # Which sanitizer it is concerns the scheduler alone, so the other objects serve several modes.
        define = flags["define"] if counted or path.name == "simt.cpp" else []
        jobs.append((path, [*HOST, *define, *include], headers))
    jobs += [(path, [*HOST, f"-I{CSRC}"], CSRC.glob("*.h")) for path in sorted(CSRC.glob("*.cpp"))]
    if mode == "ptx":
        jobs += [(path, [*COMMON, "-O1", *include], headers) for path in nvcc_code()]
    return shared_cache.program(name, jobs, flags["link"])


def library(name: str, glue: dict[str, str], flags: list[str], link: list[str]) -> Path:
    """A shared library of the kernels, the CPU backend and `glue`, C++ texts by file name.

    Its `launched` gives the lines of launches.h. Raises RuntimeError with the compiler's words.

    Args:
        flags: of the compiler, for the glue.
        link: of the linker.
    """

    def write(folder: Path) -> None:
        for file, text in converted(cuda_sources())[0].items():
            path = folder / file
            path.write_text(mark_launches(text, path.stem) if path.suffix == ".cu" else text)
        for file, text in glue.items():
            (folder / file).write_text(text)

    headers = sorted([*CSRC.glob("*.h"), *CSRC.glob("torch/*.h"), *HERE.glob("*.h")])
    folder = shared_cache.made(f"simt-{name}", (*cuda_sources(), HERE / "harness.py", glue), write)
    made = [*headers, *folder.iterdir()]
    include = [f"-I{folder}", f"-I{CSRC}", f"-I{HERE}", f"-isystem{cuda_include()}", "-fPIC"]
    kernel_flags = [*COMMON, *MODES["plain"]["kernels"], *include, "-include", "simt.h"]
    jobs = [(path, kernel_flags, made) for path in sorted(folder.glob("*.cu"))]
    jobs += [(path, [*HOST, *include, *flags], made) for path in sorted(folder.glob("*.cpp"))]
    jobs += [(path, [*HOST, *include], headers) for path in (HERE / "simt.cpp", HERE / "launched.cpp")]
    jobs += [(path, [*HOST, "-fPIC", f"-I{CSRC}"], CSRC.glob("*.h")) for path in sorted(CSRC.glob("*.cpp"))]
    return shared_cache.program(f"{name}.so", jobs, ["-shared", "-Wl,-Bsymbolic", *link])
