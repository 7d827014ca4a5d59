"""The command `dsareid`."""

import importlib
import inspect
import io
import logging
import os
import re
import sys
import time
from typing import NamedTuple

from dsareid import __version__
from dsareid.ground.errors import DSAError, LostOthers, logger, quoted
from dsareid.ground.machine import keep_freed_memory, leave_cores_to_others


class Command(NamedTuple):
    """A command of the table."""

    what: str  # what it does, for --help
    shared: bool = False  # whether processes that torchrun starts share its work


# The commands in the order of --help. Each has a module in dsareid.commands, with an underscore in place of a
# space.
COMMANDS = {
    "warp": Command("draw the 24 part images of a person, from photographs with DensePose maps or without"),
    "synth": Command("make the synthetic data set"),
    "data describe": Command("say which data set a folder holds, with its counts beside the expected ones"),
    "data extract": Command("write the images of CUHK03's MATLAB files as image files"),
    "densepose convert": Command("write DensePose output of any form as the IUV maps of a data set"),
    "densepose estimate": Command("estimate IUV maps of pictures alone, without DensePose", shared=True),
    "densepose render": Command("draw IUV maps as the pictures and masks that other networks take"),
    "densepose compare": Command("compare IUV maps with others, or with DensePose-COCO's points"),
    "pack": Command("decode a data set into a store, which train, eval and report read"),
    "check": Command("check that a store is still as it was packed"),
    "describe": Command("measure what a network costs, and what its guide adds: size, work, time, memory"),
    "train": Command("train a network", shared=True),
    "reproduce": Command("train, evaluate and compare every row of a table of the paper"),
    "eval": Command("compute mAP and rank-1/5/10 of a trained network", shared=True),
    "export": Command("write the trained MF-Stream as one file: safetensors, ONNX or torch.export"),
    "extract": Command("write the features of a folder of images", shared=True),
    "rank": Command("compute mAP and CMC of any number of features that extract wrote"),
    "calibrate": Command("learn what distances mean: scores, and rates of false matches"),
    "search": Command("find who in a gallery looks like the person in a query, as a list and a picture"),
    "gallery add": Command("add pictures or features to a gallery that grows, in a folder or on a server"),
    "gallery search": Command("find who in a gallery looks like the person in a query"),
    "gallery remove": Command("remove rows from a gallery"),
    "gallery serve": Command("show a page to search a gallery with"),
    "gallery info": Command("say what a gallery holds"),
    "report": Command("write one HTML page about a run, with plots, rank lists and DSAP-images"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for an error, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may not be text in this encoding
            stream.reconfigure(errors="backslashreplace")
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
    """Run a command. The library's messages go to stderr; of several processes only rank 0 prints them."""
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers = [_Messages() if os.environ.get("RANK", "0") == "0" else logging.NullHandler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if COMMANDS[name].shared and not {"-h", "--help"} & set(arguments):  # those that compute for minutes
        leave_cores_to_others()
        keep_freed_memory()
    try:
        return _run_logged(name, arguments)
    finally:
        logger.handlers, logger.level, logger.propagate = before


def _run_logged(name: str, arguments: list[str]) -> int:
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    who = f"dsareid {name}" if world == "1" else f"dsareid {name} (process {rank} of {world})"
    try:
        import tyro

        if world != "1" and not COMMANDS[name].shared:
            shared = ", ".join(name for name, command in COMMANDS.items() if command.shared)
            raise DSAError(f"only {shared} run in several processes: start it without torchrun")

        # Loaded now, so that no command pays for another's imports.
        module = importlib.import_module(f"dsareid.commands.{name.replace(' ', '_')}")
        command = module.build(arguments) if hasattr(module, "build") else module.command
        # tyro would break the help of an argument where its lines end here, and again where a terminal's do.
        command.__doc__ = re.sub(r"\n {8}(?=\S)", " ", inspect.cleandoc(command.__doc__ or ""))
        tyro.cli(command, prog=f"dsareid {name}", args=arguments)
    except DSAError as error:
        # If all processes fail, rank 0 prints alone: torchrun then ends the others. A process that only lost
        # the others waits longest, so that their errors come first.
        time.sleep(6 if isinstance(error, LostOthers) else 3 if rank != "0" else 0)
        print(f"{who}: error: {with_flags(str(error))}", file=sys.stderr, flush=True)
        return 1
    except BrokenPipeError:  # the reader of our output has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as interrupt:
        if rank == "0":
            print(f"\ndsareid {name}: {with_flags(str(interrupt)) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


_QUOTES = "\"'"


def with_flags(message: str) -> str:
    """A message of the library with the command line's names: `batch_size` becomes --batch-size, and
    `weights="none"` --weights none."""

    def flag(found: re.Match[str]) -> str:
        name, value = "--" + found[1].replace("_", "-"), found[2]
        if value is None or value == "True":
            return name
        return f"{name} {quoted(value.strip(_QUOTES))}"

    return re.sub(r"`([a-z][\w.]*)(?:=([^`]*))?`", flag, message)


class _Messages(logging.Handler):
    """Prints what the library logs to stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        note = "note: " if record.levelno >= logging.WARNING else ""
        tqdm.write(note + with_flags(record.getMessage()), file=sys.stderr)
        sys.stderr.flush()


def _no_such_command(name: str) -> int:
    group = [full for full in COMMANDS if full.startswith(f"{name} ")]
    if group:
        print(f"dsareid {name}: error: expected one of: dsareid {', dsareid '.join(group)}", file=sys.stderr)
    else:
        print(f"dsareid: error: no command {name!r}\n\n{_usage()}", end="", file=sys.stderr)
    return 2


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.what}" for name, command in COMMANDS.items()]
    title = "usage: dsareid COMMAND [OPTIONS]        (dsareid COMMAND --help shows the options)"
    return "\n".join([title, "", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
