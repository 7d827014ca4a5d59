"""The command `dsareid`."""

import importlib
import logging
import os
import re
import sys
import time

from dsareid import __version__
from dsareid.ground.errors import DSAError, logger

# Those that share their work where torchrun starts several processes.
_SHARED = ("train", "eval", "extract")

# Each command's name with what it does, in the order of --help; a name of two words is a module of that
# name with an underscore in dsareid.commands.
COMMANDS: dict[str, str] = {
    "warp": "the 24 part images of a photograph and its DensePose map, as one picture",
    "synth": "make the synthetic data set",
    "data describe": "which data set a folder holds, with its counts beside the expected ones",
    "data extract": "write the images of CUHK03's MATLAB files as image files",
    "densepose convert": "DensePose output of any form as the IUV maps of a data set",
    "pack": "decode a data set into a store, which train, eval and report read",
    "check": "whether a store is still as it was packed",
    "describe": "what a network costs, layer by layer, and what its guide adds: size, work, time, memory",
    "train": "train a network",
    "reproduce": "every row of a table of the paper, trained, evaluated and compared",
    "eval": "mAP and rank-1/5/10 of a trained network",
    "export": "the trained MF-Stream as one file: safetensors, ONNX or torch.export",
    "extract": "features of a folder of images",
    "rank": "mAP and CMC of features that extract wrote, however many",
    "search": "who in a gallery looks like the person in a query, as a list and a picture",
    "report": "one HTML page about a run, with plots, rank lists and DSAP-images",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for an error, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"dsareid {__version__}")
        return 0
    for words in (2, 1):
        name, rest = " ".join(arguments[:words]), arguments[words:]
        if name in COMMANDS:
            return _run(name, rest)
    return _no_such_command(arguments[0])


def _run(name: str, arguments: list[str]) -> int:
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    who = f"dsareid {name}" if world == "1" else f"dsareid {name} (process {rank} of {world})"
    _show_log(rank == "0")
    try:
        import tyro

        if world != "1" and name not in _SHARED:
            raise DSAError(f"only {', '.join(_SHARED)} run in several processes: start it without torchrun")

        # Loaded now, so that no command pays for another's imports.
        module = importlib.import_module(f"dsareid.commands.{name.replace(' ', '_')}")
        command = module.build(arguments) if hasattr(module, "build") else module.command
        tyro.cli(command, prog=f"dsareid {name}", args=arguments)
    except DSAError as error:
        if rank != "0":  # what they all say, the first one says alone: torchrun then ends the others
            time.sleep(3)
        print(f"{who}: error: {with_flags(str(error))}", file=sys.stderr, flush=True)
        return 1
    except BrokenPipeError:  # whoever read what is printed has enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as interrupt:
        if rank == "0":
            print(f"\ndsareid {name}: {with_flags(str(interrupt)) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def with_flags(message: str) -> str:
    """A message of the library with the command line's names: `batch_size` becomes --batch-size, and
    `weights="none"` --weights none."""

    def flag(found: re.Match[str]) -> str:
        name, value = "--" + found[1].replace("_", "-"), (found[2] or "").strip("\"'")
        return name if value in ("", "True") else f"{name} {value}"

    return re.sub(r"`([a-z][\w.]*)(?:=([^`]*))?`", flag, message)


class _Messages(logging.Handler):
    """Prints what the library logs to stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        note = "note: " if record.levelno >= logging.WARNING else ""
        tqdm.write(note + with_flags(record.getMessage()), file=sys.stderr)
        sys.stderr.flush()


def _show_log(shown: bool) -> None:
    """Show the library's messages, of several processes those of the first one."""
    logger.handlers = [_Messages()] if shown else [logging.NullHandler()]
    logger.setLevel(logging.INFO)


def _no_such_command(name: str) -> int:
    group = [full for full in COMMANDS if full.startswith(f"{name} ")]
    if group:
        print(f"dsareid {name}: error: expected one of: dsareid {', dsareid '.join(group)}", file=sys.stderr)
    else:
        print(f"dsareid: error: no command {name!r}\n\n{_usage()}", end="", file=sys.stderr)
    return 2


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    title = "usage: dsareid COMMAND [OPTIONS]        (dsareid COMMAND --help shows the options)"
    return "\n".join([title, "", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
