"""Damaged files for every reader: each read must end in a result or in a DSAError.

    export PYTHONPATH=tests/helpers
    make fuzz                       100,000 inputs
    export PYTHONPATH=tests/helpers
    python tests/robustness/fuzz.py [--inputs 100000] [--reader NAME] [--seed 0] [--keep FOLDER]
    python tests/robustness/fuzz.py --reader NAME --seed 0 --again 4711      one input, in this process

The readers and the ways of damaging are in readers.py and mutate.py. An input is drawn by the seed, the
reader's name and its number alone. Readers run in processes of their own, which say the number of an input
before they read it: so a crash, a hang of more than 30 s, and memory (more than 1 GB on top of what the
process had) are known by their input too. What fails is written to FOLDER. Exit code 1 where anything does.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

PATIENCE = 30  # seconds for an input
MEMORY = 1 << 30  # bytes on top of what the process had before
ADDRESSES = 16 << 30  # of a process, so that no input takes the whole machine down
MOST_FAILURES = 10  # of a reader, before it is left


@dataclass
class Tally:
    """What became of a reader's inputs."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0  # seconds
    memory: int = 0  # the most bytes that an input took
    failures: list[str] = field(default_factory=list)


# ---- in the process that reads ----


def damaged(reader, name: str, seed: int, number: int, valid: dict[str, bytes]) -> tuple[str, bytes]:
    """The file that an input is about, and its bytes; input 0 is the valid one."""
    rng = random.Random(f"{seed} {name} {number}")
    file, mutator = rng.choice(reader.files), rng.choice(reader.mutators)
    return file, valid[file] if number == 0 else mutator(valid[file], rng)


def read_one(
    reader, name: str, seed: int, number: int, valid: dict[str, bytes], folder: Path
) -> tuple[str, float, int, str]:
    """Read one input: accepted, refused or failed; seconds, bytes of memory, and how it failed."""
    from dsareid.ground.errors import DSAError

    file, data = damaged(reader, name, seed, number, valid)
    (folder / file).write_bytes(data)
    before, began, error = _resident(reset=True), time.monotonic(), ""
    try:
        reader.read(folder)
        outcome = "accepted"
    except DSAError:
        outcome = "refused"
    except BaseException:
        outcome, error = "failed", traceback.format_exc()
    seconds, memory = time.monotonic() - began, _resident() - before
    if number == 0 and outcome == "refused":
        outcome, error = "failed", "the valid file is refused"
    if memory > MEMORY:
        outcome, error = "failed", error or f"{memory / 1e9:.1f} GB of memory"
    (folder / file).write_bytes(valid[file])
    return outcome, seconds, memory, error


def read_inputs(name: str, seed: int, numbers: range, folder: Path) -> None:
    """Read some inputs; on stdout a line before and one after each."""
    from readers import find

    faulthandler.enable()
    reader, say = find(name), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what readers print is not for whoever listens
    valid = reader.made(folder)
    _limit_addresses()
    for number in numbers:
        print(number, file=say, flush=True)
        found = read_one(reader, name, seed, number, valid, folder)
        print(json.dumps(found), file=say, flush=True)


def _limit_addresses() -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))


def _resident(reset: bool = False) -> int:
    """Bytes: the most that was resident since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    raise SystemExit("this system does not tell VmHWM in /proc/self/status")


# ---- in the process that watches ----


class Worker:
    """A process that reads inputs from a number on."""

    def __init__(self, name: str, seed: int, numbers: range):
        self.folder = Path(tempfile.mkdtemp(prefix="dsareid-fuzz-"))
        self.errors = (self.folder / "stderr").open("w+")
        command = [
            sys.executable,
            __file__,
            "--reader",
            name,
            "--seed",
            str(seed),
            "--worker",
            f"{numbers.start}:{numbers.stop}",
            "--keep",
            str(self.folder / "files"),
        ]
        (self.folder / "files").mkdir()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.selector, self.buffer = selectors.DefaultSelector(), b""
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def line(self, seconds: float) -> str | None:
        """The next one, "" at the end; None where there is none in time."""
        until = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            if not self.selector.select(max(0, until - time.monotonic())):
                return None
            if not (read := os.read(self.process.stdout.fileno(), 1 << 16)):
                return ""
            self.buffer += read
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def end(self) -> str:
        """Make an end of it; what it wrote to stderr last."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.errors.seek(0)
        words = self.errors.read()[-4000:]
        self.errors.close()
        self.process.stdout.close()
        self.selector.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return words


def fuzz(name: str, inputs: int, seed: int, keep: Path, bar: tqdm) -> Tally:
    """Let processes read the inputs 0..inputs; after a crash the next one goes on behind it."""
    tally = Tally()
    while tally.inputs < inputs and len(tally.failures) < MOST_FAILURES:
        worker, ended = Worker(name, seed, range(tally.inputs, inputs)), ""
        try:
            ended = _watch(worker, tally, name, seed, keep, bar)
        finally:
            words = worker.end()
        if ended:
            _keep(tally, name, seed, tally.inputs - 1, keep, f"{words}\n{ended}")
    return tally


def _watch(worker: Worker, tally: Tally, name: str, seed: int, keep: Path, bar: tqdm) -> str:
    """Until the process has read all, or has failed so often; how it ended where it did so before."""
    if not worker.line(120):  # the first number, after all imports
        raise SystemExit(f"{name}: its process does not begin: {worker.end()}")
    while True:
        number = tally.inputs
        told = worker.line(PATIENCE)
        tally.inputs += 1
        bar.update()
        if not told:
            return "no end" if told is None else f"the process ended with {worker.process.wait()}"
        outcome, seconds, memory, error = json.loads(told)
        tally.accepted += outcome == "accepted"
        tally.refused += outcome == "refused"
        tally.slowest, tally.memory = max(tally.slowest, seconds), max(tally.memory, memory)
        if outcome == "failed":
            _keep(tally, name, seed, number, keep, error)
        if len(tally.failures) == MOST_FAILURES or not worker.line(PATIENCE):
            return ""


def _keep(tally: Tally, name: str, seed: int, number: int, keep: Path, why: str) -> None:
    """Write down how an input failed, with the damaged file itself."""
    from readers import find

    script = "PYTHONPATH=tests/helpers python tests/robustness/fuzz.py"
    again = f"{script} --reader {name!r} --seed {seed} --again {number}"
    tally.failures.append(f"{again}\n    {why.strip().splitlines()[-1]}")
    place = keep / f"{name}-{seed}-{number}".replace(" ", "-").replace("/", "-")
    place.mkdir(parents=True, exist_ok=True)
    (place / "why.txt").write_text(f"{again}\n\n{why}\n")
    with tempfile.TemporaryDirectory() as folder:
        reader = find(name)
        valid = reader.made(Path(folder))
    file, data = damaged(reader, name, seed, number, valid)
    (place / Path(file).name).write_bytes(data)


def shares(names: list[str], inputs: int) -> dict[str, int]:
    """Inputs for each reader: a slow one gets a twentieth."""
    from readers import READERS

    weight = {name: 1 / 20 if READERS[name].slow else 1 for name in names}
    return {name: max(2, round(inputs * weight[name] / sum(weight.values()))) for name in names}


def show(tallies: dict[str, Tally]) -> None:
    print(
        f"{'':22}{'inputs':>8}{'accepted':>10}{'refused':>9}{'failed':>8}{'slowest, s':>12}{'memory, MB':>12}"
    )
    for name, tally in tallies.items():
        print(
            f"{name:22}{tally.inputs:8,}{tally.accepted:10,}{tally.refused:9,}{len(tally.failures):8}"
            f"{tally.slowest:12.2f}{tally.memory / 1e6:12.0f}"
        )
    total = sum(tally.inputs for tally in tallies.values())
    print(f"{total:,} inputs, {sum(len(tally.failures) for tally in tallies.values())} failed")


def read_again(name: str, seed: int, number: int) -> None:
    """One input in this process, for a debugger; errors come as they are."""
    from readers import find

    reader = find(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        valid = reader.made(folder)
        file, data = damaged(reader, name, seed, number, valid)
        (folder / file).write_bytes(data)
        print(reader.read(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="in all")
    parser.add_argument("--reader", help="this one alone, by its name in tests/robustness/readers.py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="the folder for what fails")
    parser.add_argument("--again", type=int, help="read this input of --reader once")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        first, last = map(int, arguments.worker.split(":"))
        read_inputs(arguments.reader, arguments.seed, range(first, last), arguments.keep)
        return 0
    from readers import READERS

    if arguments.reader and arguments.reader not in READERS:
        parser.error(f"--reader must be one of {', '.join(READERS)}")
    if arguments.again is not None:
        read_again(arguments.reader, arguments.seed, arguments.again)
        return 0
    tallies = {}
    names = [arguments.reader] if arguments.reader else list(READERS)
    with tqdm(total=arguments.inputs, unit="input", disable=None, leave=False) as bar:
        for name, inputs in shares(names, arguments.inputs).items():
            bar.set_description(name)
            tallies[name] = fuzz(name, inputs, arguments.seed, arguments.keep, bar)
    show(tallies)
    failures = [line for tally in tallies.values() for line in tally.failures]
    if failures:
        print(f"\nkept in {arguments.keep}:", *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
