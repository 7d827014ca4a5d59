"""CuPy's RawModule on the CPU, for kernels without barriers: g++ compiles them, threads run in turn."""

import contextlib
import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

PRELUDE = """
#include <algorithm>
#define __global__
#define __device__
using std::min;
struct Index { int x; };
extern "C" { Index blockIdx, blockDim, threadIdx; }
template <class T> void atomicMax(T* at, T value) { *at = std::max(*at, value); }
template <class T> void atomicAdd(T* at, T value) { *at += value; }
"""

int32 = ctypes.c_int32


class RawModule:
    def __init__(self, code: str, options: tuple[str, ...]):
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
            source.write_text(PRELUDE + code)
            command = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", *options]
            subprocess.run([*command, str(source), "-o", str(library)], check=True)
            self.library = ctypes.CDLL(str(library))

    def get_function(self, name: str) -> Callable:
        function = self.library[name]
        block, size, thread = (
            ctypes.c_int.in_dll(self.library, index) for index in ("blockIdx", "blockDim", "threadIdx")
        )

        def launch(grid: tuple[int], threads: tuple[int], arguments: tuple) -> None:
            given = [x if isinstance(x, ctypes.c_int32) else ctypes.c_void_p(x) for x in arguments]
            size.value = threads[0]
            for block.value in range(grid[0]):
                for thread.value in range(threads[0]):
                    function(*given)

        return launch


class cuda:
    ExternalStream = contextlib.nullcontext
