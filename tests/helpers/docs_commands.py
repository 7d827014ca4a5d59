"""`dsareid` for the pages' shell blocks: small networks and data sets, started without an import of torch.

    python commands.py SOCKET     serve the commands `dsareid` and `torchrun` of `write_commands`

A command is a fork of this process, which has imported everything. What the presets and the data sets are
made smaller by is in the two tables below, and nowhere else: options that a page gives are kept.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
from pathlib import Path

import ranks

# Every preset, where the page's command line does not say otherwise.
SMALLER = {
    "epochs": 1,
    "height": 64,
    "width": 32,
    "dsap_size": 8,
    "identities": 4,
    "images": 2,
    "weights": "none",
}
SMALLER_NETWORK = {
    "trunk": "resnet50",
    "trunk_stage": "sixteenth",
    "width": 1 / 16,
    "head_width": 1 / 32,
    "depths": (1, 1, 1, 1),
}

# Options that are put behind those of the page, and win.
APPENDED = {
    "synth": ["--identities", "12", "--images", "4", "--height", "64", "--width", "32", "--processes", "1"],
    "reproduce": ["--seeds", "1"],
}
MOST_PROCESSES = 2  # of torchrun

_COMMAND = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({socket!r})
    socket.send_fds(connection, [b"."], [0, 1, 2])
    connection.sendall(json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd()]).encode())
    connection.shutdown(socket.SHUT_WR)
    sys.exit(int(connection.recv(16) or b"1"))
"""


def write_commands(folder: Path, server: Path) -> None:
    """Write `dsareid` and `torchrun` into a folder, for PATH."""
    folder.mkdir()
    for name in ("dsareid", "torchrun"):
        (folder / name).write_text(_COMMAND.format(python=sys.executable, socket=str(server)))
        (folder / name).chmod(0o755)


def shrink_presets() -> None:
    from dsareid.engine import presets
    from dsareid.models.options import NetworkConfig

    for name, changes in presets.PRESETS.items():
        network = dataclasses.replace(changes.get("network", NetworkConfig()), **SMALLER_NETWORK)
        presets.PRESETS[name] = {**changes, **SMALLER, "network": network}


def run(command: str, arguments: list[str]) -> int:
    """One command, in a process of its own."""
    if command == "torchrun":
        return run_several(arguments)
    from dsareid.commands.main import main

    return main(arguments + APPENDED.get(arguments[0] if arguments else "", []))


def run_several(arguments: list[str]) -> int:
    """torchrun --nproc-per-node N -m dsareid ...: as many processes as that, at most two."""
    option, count, *module = arguments[:4]
    if [option, *module] != ["--nproc-per-node", "-m", "dsareid"]:
        raise SystemExit(f"torchrun of the pages takes --nproc-per-node N -m dsareid, not {arguments[:4]}")
    world, port = min(int(count), MOST_PROCESSES), ranks.free_port()
    children = []
    for rank in range(world):
        if not (child := os.fork()):
            os.environ |= ranks.environment(rank, world, port)
            finish(lambda: run("dsareid", arguments[4:]))
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def finish(work) -> None:
    """End this process with the status of `work`."""
    status = 1
    try:
        status = work()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1 if end.code else 0
        if status == 1:
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def serve(path: str) -> None:
    import onnxscript  # noqa: F401 (all that is slow to load)
    import torch._dynamo
    import torch.utils.tensorboard  # noqa: F401

    import dsareid.commands.report  # noqa: F401
    import dsareid.commands.train  # noqa: F401
    import dsareid.cost.timing

    torch.set_num_threads(1)
    shrink_presets()
    dsareid.cost.timing.SECONDS = 0.1  # for which each time is measured
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                _, files, _, _ = socket.recv_fds(connection, 1, 3)
                if os.fork() == 0:
                    server.close()
                    answer(connection, files)
                for file in files:
                    os.close(file)


def answer(connection: socket.socket, files: list[int]) -> None:
    """Run the command that a connection asks for, with the asker's files, and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text = b"".join(iter(lambda: connection.recv(65536), b""))
    command, arguments, folder = json.loads(text)
    child = os.fork()
    if child == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.chdir(folder)
        finish(lambda: run(command, arguments))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(status if status >= 0 else 128 - status).encode())
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
