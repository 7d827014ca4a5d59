"""Python programs in several processes, with torchrun's environment, from a process that has torch loaded.

    run([SCRIPT or "-m", MODULE, ARGUMENTS...], count)     exit status, stdout, stderr
    start(...)                                             the same, while it runs

torchrun loads torch once for itself and once for each process, which takes longer than what is tested.
Here each process is a fork of one that has it. What is torchrun's own, passing on a Ctrl-C and ending all
when one dies, is tested with torchrun.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
# torch.optim loads torch._dynamo when the first optimizer is made.
_FORKS.set_forkserver_preload(
    ["dsareid.commands.train", "dsareid.commands.eval", "torch.utils.tensorboard", "torch._dynamo"]
)


class Ranks:
    """Some running processes."""

    def __init__(self, arguments: Sequence[object], count: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        port = free_port()
        self.processes = [
            _FORKS.Process(
                target=_run, args=(list(map(str, arguments)), Path(self.folder.name), rank, count, port)
            )
            for rank in range(count)
        ]
        for process in self.processes:
            process.start()

    def running(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def interrupt(self) -> None:
        """As a Ctrl-C in a terminal does."""
        for process in self.processes:
            os.kill(process.pid, signal.SIGINT)

    def ended(self, timeout: float = 300) -> tuple[int, str, str]:
        """The largest exit status, stdout and stderr. When one fails the others are ended, as by torchrun."""
        left, status = {process.sentinel: process for process in self.processes}, 0
        while left:
            done = wait(list(left), timeout)
            failed = not done
            for process in map(left.pop, done):
                process.join()
                status = max(status, abs(process.exitcode))
                failed |= process.exitcode != 0
            if failed:
                for process in left.values():
                    process.terminate()
        out, err = ((Path(self.folder.name) / name).read_text() for name in ("out", "err"))
        self.folder.cleanup()
        return status, out, err


def start(arguments: Sequence[object], count: int = 2) -> Ranks:
    return Ranks(arguments, count)


def run(arguments: Sequence[object], count: int = 2) -> tuple[int, str, str]:
    return start(arguments, count).ended()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _run(arguments: list[str], folder: Path, rank: int, count: int, port: int) -> None:
    os.environ |= environment(rank, count, port)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    status: object = 1
    try:
        sys.argv = arguments[1:] if arguments[0] == "-m" else arguments
        if arguments[0] == "-m":
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)
