"""kill -9 at random moments: nothing half-written is seen, the same command goes on, and the end is the same.

    python tests/robustness/kills.py [--times 200] [--seed 0]
        [--command pack|train|convert|estimate|extract|gallery]
        (estimate: where DSAREID_BODYPIX names the folder of its weights)
    python tests/robustness/kills.py --left-behind 5 [--command synth|describe|...] [--seed 0]

Each command is first run to its end, which is timed and is what all others are compared with. Then it is
started in fresh folders and killed, each time at a moment drawn evenly over that time, up to four times in a
row, before it is left to end. After every kill

- each file that has its final name is read whole;
- what was saved before is still there, as it was (a chunk of a store, a map, a step of the training);

and at the end the folder holds the same files with the same contents, and nothing else: no leftovers.
Exit code 1 where anything of this does not hold; the folder is then kept.

--left-behind: no process lives on. Every command, also as torchrun starts it, is ended as often as asked with
SIGKILL and as often with SIGTERM, the signal going to the first process alone. Then all processes that were
started with its mark in their environment, or by one of these, must end by themselves.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from cuhk03_files import CONFIG, KINDS, config, write_images
from processes import MARK, PATIENCE, left_behind, running
from runs import ARGUMENTS, make_run
from safetensors.torch import load_file
from scipy.io import savemat
from soak_loader import write_data
from tiny_market import make_data, write_person
from tqdm import tqdm

from dsareid.data.images import read_image
from dsareid.data.iuv import read_iuv
from dsareid.data.layouts.base import TRAIN
from dsareid.data.store.format import IMAGES, sha256
from dsareid.data.store.pack import pack
from dsareid.data.store.reader import verify
from dsareid.data.store.writer import CHUNK_IMAGES
from dsareid.engine.learner import Learner
from dsareid.gallery.store import GalleryStore
from dsareid.ground.errors import DSAError
from dsareid.inference.feature_folder import HEADER, open_features, write_features
from dsareid.inference.feature_parts import PART, PARTS
from dsareid.models.options import NetworkConfig
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Position, RunFolder

IMAGES_READ = 6144  # by pack and by extract: chunks and parts enough to be killed between
GALLERY_ROWS = 4096
IN_A_ROW = 4  # kills of one folder, before the command is left to end


@dataclass(frozen=True)
class Command:
    """A command of dsareid whose end a kill must not change.

    `out` is the folder that it makes; beside it is nothing.
    """

    arguments: Callable[[Path], list[str]]
    """By `out`: what a user types, also to go on."""
    check: Callable[[Path], None]
    """Reads all that has its final name; DSAError where something is half-written."""
    saved: Callable[[Path], set[Hashable]]
    """What a later call must not do again, each with a mark by which doing it again shows."""
    result: Callable[[Path], object]
    """What must be the same in the end."""


@dataclass
class Tally:
    """What became of a command."""

    whole: float  # seconds of the uninterrupted run
    kills: int = 0
    folders: int = 0
    saved: int = 0  # kills after which something was there to go on with
    leftovers: int = 0  # the most files and folders that were left beside the visible ones
    last: list[float] = field(default_factory=list)  # seconds of the runs that were left to end
    violations: list[str] = field(default_factory=list)


# ---- the commands ----


def packing(folder: Path) -> Command:
    write_data(folder / "data", IMAGES_READ, 64, 32)

    def saved(out: Path) -> set[Hashable]:
        place = out if out.exists() else out.with_name(f".{out.name}.partial")
        with contextlib.suppress(FileNotFoundError):
            images = place / IMAGES
            journal = place / "journal.jsonl"
            whole = out.exists() or not journal.exists()
            chunks = -(-IMAGES_READ // CHUNK_IMAGES) if whole else len(journal.read_text().splitlines()) - 1
            if chunks > 0:
                return {("images.npy", images.stat().st_ino), *range(chunks)}
        return set()

    def check(out: Path) -> None:
        if out.exists():
            verify(out)

    return Command(lambda out: ["pack", str(folder / "data"), str(out)], check, saved, contents)


def training(folder: Path) -> Command:
    write_data(folder / "data", 64, 64, 32)
    store = pack(folder / "data", folder / "store").path
    settings = (
        "--preset demo --epochs 8 --identities 4 --images 2 --height 64 --width 32 --device cpu "
        "--network.depths 1 1 1 1"
    ).split()

    def arguments(out: Path) -> list[str]:
        if RunFolder(out).checkpoint.exists():
            return ["train", "--resume", "--out", str(out)]
        return ["train", "--data", str(store), "--out", str(out), *settings]

    def check(out: Path) -> None:
        if RunFolder(out).config.exists():
            RunFolder(out).read_config()
        if RunFolder(out).checkpoint.exists():
            RunFolder(out).read_checkpoint(torch.device("cpu"))

    def saved(out: Path) -> set[Hashable]:
        """The log's lines, as each holds the speed of its step, which no repetition has again."""
        if not RunFolder(out).checkpoint.exists():
            return set()
        step = RunFolder(out).read_checkpoint(torch.device("cpu"))["position"]["step"]
        return set(RunFolder(out).log.read_text().splitlines()[:step])

    def result(out: Path) -> object:
        state = RunFolder(out).read_checkpoint(torch.device("cpu"))
        log = [json.loads(line) for line in RunFolder(out).log.read_text().splitlines()]
        for record in log:
            record.pop("images_per_second")
        files = sorted(path.name for path in out.parent.rglob("*") if "tfevents" not in path.name)
        return plain(state), log, files

    return Command(arguments, check, saved, result)


def writing_maps(arguments: Callable[[Path], list[str]]) -> Command:
    """A command that writes a folder of maps."""

    def maps(out: Path) -> list[Path]:
        return [path for path in sorted(out.rglob("*.png")) if path.name[0] != "." and path.parent != out]

    def check(out: Path) -> None:
        for path in maps(out):
            read_iuv(path)
        if (out / "contact_sheet.png").exists():
            read_image(out / "contact_sheet.png")

    def saved(out: Path) -> set[Hashable]:
        return {(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in maps(out)}

    return Command(arguments, check, saved, contents)


def converting(folder: Path) -> Command:
    write_data(folder / "data", 2048, 64, 32)
    (folder / "data/iuv").rename(folder / "maps")
    source = ["densepose", "convert", str(folder / "maps")]
    return writing_maps(lambda out: [*source, str(out), "--data", str(folder / "data")])


def estimating(folder: Path) -> Command:
    """By the weights that DSAREID_BODYPIX names."""
    write_data(folder / "data", 96, 64, 32)
    source = ["densepose", "estimate", str(folder / "data")]
    return writing_maps(lambda out: [*source, str(out), "--device", "cpu"])


def extracting(folder: Path) -> Command:
    write_data(folder / "data", IMAGES_READ, 64, 32)
    run = folder / "run"
    run.mkdir()
    network = NetworkConfig(width=1 / 16, head_width=1 / 16, depths=(1, 1, 1, 1))
    config = TrainConfig(
        data=folder / "data",
        out=run,
        height=64,
        width=32,
        weights="none",
        model="two-branch",
        network=network,
    )
    RunFolder(run).write_config(config)
    state = Learner(config, 2, torch.device("cpu")).state_dict()
    RunFolder(run).write_checkpoint(state, Position(), 2, {})

    def arguments(out: Path) -> list[str]:
        return ["extract", str(run), str(folder / "data" / TRAIN), str(out), "--device", "cpu"]

    def check(out: Path) -> None:
        if (out / HEADER).exists():
            open_features(out)
        for part in (out / PARTS).glob("[0-9]*"):
            load_file(part)

    def saved(out: Path) -> set[Hashable]:
        if (out / HEADER).exists():
            return {f"{number:06d}.safetensors" for number in range(-(-IMAGES_READ // PART))}
        return {part.name for part in (out / PARTS).glob("[0-9]*")}

    return Command(arguments, check, saved, contents)


def adding(folder: Path) -> Command:
    """Features to a gallery in a folder; what counts are its rows, as Milvus' files are its own."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(GALLERY_ROWS, 64)).astype(np.float32)
    names = [f"{x:06d}.jpg" for x in range(GALLERY_ROWS)]
    write_features(folder / "features", features, names, model="net", images=folder)
    of_file = {str(folder / f"{x:06d}.jpg"): features[x].tobytes() for x in range(GALLERY_ROWS)}

    def place(out: Path) -> Path:
        return out.with_suffix(".db")

    def rows(out: Path) -> dict[str, bytes]:
        """The vectors by their files; DSAError where one is not what was added."""
        try:
            with GalleryStore(place(out)) as store:
                found = {
                    row["file"]: np.array(row["vector"], np.float32).tobytes()
                    for row in store.rows("", ["file", "vector"])
                }
        except DSAError as error:
            if "no such gallery" in str(error):  # killed before there was one
                return {}
            raise
        if wrong := [file for file, vector in found.items() if of_file.get(file) != vector]:
            raise DSAError(f"{len(wrong)} rows are not what was added, the first {wrong[0]}")
        return found

    return Command(
        lambda out: ["gallery", "add", str(place(out)), str(folder / "features")],
        lambda out: rows(out) and None,
        lambda out: set(rows(out)),
        rows,
    )


COMMANDS: dict[str, Callable[[Path], Command]] = {
    "pack": packing,
    "train": training,
    "convert": converting,
    "estimate": estimating,
    "extract": extracting,
    "gallery": adding,
}


def contents(out: Path) -> dict[str, str]:
    """All that is in and beside `out`, hidden files included, with the checksums of files.

    But for locks: an empty file, which the next one to pack takes and removes.
    """
    return {
        str(path.relative_to(out.parent)): sha256(path) if path.is_file() else ""
        for path in sorted(out.parent.rglob("*"))
        if path.suffix != ".lock"
    }


def plain(state: object) -> object:
    """A checkpoint as something that == compares, bit for bit."""
    if isinstance(state, torch.Tensor):
        return str(state.dtype), state.numpy().tobytes()
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [plain(value) for value in state]
    return state


# ---- killing ----


def start(command: Command, out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "dsareid", *command.arguments(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # another number of threads gives other bits
    )


def run_to_end(command: Command, out: Path) -> float:
    """Seconds; a DSAError with what it printed where it fails."""
    began = time.monotonic()
    process = start(command, out)
    _, printed = process.communicate()
    if process.returncode:
        raise DSAError(f"the command failed with {process.returncode}: {printed.strip()[-2000:]}")
    return time.monotonic() - began


def kill_after(command: Command, out: Path, seconds: float) -> bool:
    """Start it and kill it with all its children; False where it ended before that, as it should."""
    process = start(command, out)
    try:
        _, printed = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise DSAError(f"the command failed with {process.returncode}: {printed.strip()[-2000:]}")
    return False


def hidden(out: Path) -> int:
    return sum(path.name.startswith(".") for path in out.parent.rglob("*"))


def one_folder(command: Command, out: Path, expected: object, tally: Tally, most: int, draw) -> None:
    """Kill it up to `most` times, let it end, compare."""
    saved: set[Hashable] = set()
    for _ in range(most):
        if not kill_after(command, out, draw.uniform(0, tally.whole)):
            break
        tally.kills += 1
        command.check(out)
        before, saved = saved, command.saved(out)
        if not before <= saved:
            raise DSAError(f"{len(before - saved)} of {len(before)} saved things are gone or done again")
        tally.saved += bool(saved)
        tally.leftovers = max(tally.leftovers, hidden(out))
    tally.last.append(run_to_end(command, out))
    command.check(out)
    if not saved <= command.saved(out):
        raise DSAError("what was saved was not gone on with")
    if (found := command.result(out)) != expected:
        raise DSAError(f"the end differs from that of an uninterrupted run: {difference(found, expected)}")


def difference(found: object, expected: object) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        names = [x for x in {**expected, **found} if found.get(x) != expected.get(x)]
        return ", ".join(f"{x} ({'is there' if x in found else 'is not there'})" for x in names[:5])
    for one, other in zip(found, expected):
        if one != other:
            return f"{str(one)[:300]} is not {str(other)[:300]}"
    return ""


def kill(name: str, times: int, folder: Path, seed: int, bar: tqdm) -> Tally:
    """A command, killed so many times."""
    draw = np.random.default_rng([seed, *name.encode()])
    inputs = folder / name
    inputs.mkdir()
    command = COMMANDS[name](inputs)

    def fresh(what: str) -> Path:
        place = inputs / what
        place.mkdir()
        return place / "out"

    whole = fresh("whole")
    run_to_end(command, whole)  # once more, as the first one has everything still to read from the disk
    tally = Tally(run_to_end(command, fresh("timed")))
    expected = command.result(whole)
    while tally.kills < times and len(tally.violations) < 5:
        before, out = tally.kills, fresh(f"folder-{tally.folders}")
        tally.folders += 1
        try:
            most = min(int(draw.integers(1, IN_A_ROW + 1)), times - tally.kills)
            one_folder(command, out, expected, tally, most, draw)
            subprocess.run(["rm", "-r", str(out.parent)], check=True)
        except DSAError as error:
            tally.violations.append(f"{out}: {error}")
        bar.update(tally.kills - before)
    return tally


# ---- processes that are left behind ----

FIRST_MOMENTS = 15  # seconds, over which the kills are spread where the command takes longer
WITH_OTHERS = 5  # the same, counted from when there is more than one process


@dataclass
class Endings:
    """What became of the processes of a command."""

    kills: int = 0
    several: int = 0  # kills when more than one process was there
    longest: float = 0.0  # seconds until all had ended
    left: list[str] = field(default_factory=list)  # command lines of those that had not
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Inputs:
    """What the commands read."""

    data: Path  # a data set with people enough for the demo's preset
    noise: Path  # one with more images, to train on
    matlab: Path  # CUHK03's files
    run: Path


def make_inputs(folder: Path) -> Inputs:
    data, noise, matlab = make_data(folder / "data"), folder / "noise", folder / "matlab"
    for identity, shot in np.ndindex(12, 4):
        name = f"{identity + 11:04d}_c{shot % 2 + 1}s1_{shot:06d}_00"
        write_person(data, TRAIN, name, 100 * identity + shot, 20 * identity)
    write_data(noise, 1536, 64, 32)
    matlab.mkdir()
    write_images(matlab / "cuhk-03.mat")
    for kind in KINDS:
        savemat(matlab / CONFIG.format(kind), config())
    return Inputs(data, noise, matlab, make_run(folder / "run", data=data))


def _train(inputs: Inputs, out: Path) -> list[object]:
    """A training that begins with packing, as its data set has no store."""
    data = shutil.copytree(inputs.noise, out.with_name("data"), copy_function=os.link)
    return ["dsareid", "train", "--data", data, "--out", out, "--epochs", 5000, *ARGUMENTS]


def _extract(inputs: Inputs, out: Path) -> list[object]:
    return ["dsareid", "extract", inputs.run, inputs.noise / TRAIN, out]


def _eval(inputs: Inputs, out: Path) -> list[object]:
    return ["dsareid", "eval", inputs.run, "--device", "cpu"]


def _reproduce(inputs: Inputs, out: Path) -> list[object]:
    command = ["dsareid", "reproduce", "table3", "--data", inputs.data, "--out", out]
    return [*command, "--preset", "demo", "--device", "cpu"]


def _describe(inputs: Inputs, out: Path) -> list[object]:
    size = "--height 32 --width 32 --dsap-size 4 --batch-size 8 --device cpu".split()
    return ["dsareid", "describe", "--preset", "demo", *size]


def _twice(command: Callable[[Inputs, Path], list[object]]) -> Callable[[Inputs, Path], list[object]]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m"]
    return lambda inputs, out: [*launcher, *command(inputs, out)]


WORKING: dict[str, Callable[[Inputs, Path], list[object]]] = {
    "synth": lambda inputs, out: ["dsareid", "synth", out, "--identities", 200, "--processes", 3],
    "describe": _describe,
    "data extract": lambda inputs, out: ["dsareid", "data", "extract", inputs.matlab, out],
    "pack": lambda inputs, out: ["dsareid", "pack", inputs.noise, out],
    "train": _train,
    "extract": _extract,
    "eval": _eval,
    "reproduce": _reproduce,
    "2 x train": _twice(_train),
    "2 x extract": _twice(_extract),
    "2 x eval": _twice(_eval),
}
"""What follows `python -m`."""
SEVERAL = ("synth", "describe", "data extract", "2 x train", "2 x extract", "2 x eval")  # processes


def end_once(
    arguments: list[object], how: signal.Signals, seconds: float, endings: Endings, others: bool = False
) -> float | None:
    """Start a command and end its first process; seconds after which it had ended by itself, else None.

    `others`: the moment is counted from when there is more than one process.
    """
    mark, began = uuid.uuid4().hex, time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", MARK: mark},
    )
    while others and process.poll() is None and len(running(mark)) < 2:
        time.sleep(0.01)
    try:
        _, printed = process.communicate(timeout=seconds)
        if process.returncode:
            raise DSAError(f"the command failed with {process.returncode}: {printed.decode()[-2000:]}")
        return time.monotonic() - began
    except subprocess.TimeoutExpired:
        endings.several += len(running(mark)) > 1
        process.send_signal(how)
    killed = time.monotonic()
    while process.poll() is None and time.monotonic() < killed + PATIENCE:  # torchrun ends its own first
        time.sleep(0.01)
    endings.left += left_behind(mark).values()
    endings.longest = max(endings.longest, time.monotonic() - killed)
    endings.kills += 1
    process.communicate()
    return None


def end_often(name: str, times: int, inputs: Inputs, folder: Path, seed: int, bar: tqdm) -> Endings:
    """A command, ended so many times by each signal, every second pair while others are sure to be there."""
    draw, endings, last = np.random.default_rng([seed, *name.encode()]), Endings(), float(FIRST_MOMENTS)
    while len(endings.violations) < 5 and endings.kills < 2 * times:
        how = (signal.SIGKILL, signal.SIGTERM)[endings.kills % 2]
        others = name in SEVERAL and endings.kills % 4 < 2
        seconds = draw.uniform(0, WITH_OTHERS if others else last)
        place = folder / "place"
        place.mkdir()
        try:
            ended = end_once(WORKING[name](inputs, place / "out"), how, seconds, endings, others)
        except DSAError as error:
            endings.violations.append(f"{name}: {error}")
            ended = None
        if ended is None:
            bar.update()
        elif not others:
            last = min(last, ended)
        subprocess.run(["rm", "-r", str(place)], check=True)
    endings.violations += [f"{name}: left behind: {line}" for line in endings.left]
    return endings


def show_endings(endings: dict[str, Endings]) -> None:
    print(f"{'':14}{'kills':>7}{'of several':>12}{'longest, s':>12}{'left behind':>13}")
    for name, found in endings.items():
        print(f"{name:14}{found.kills:7}{found.several:12}{found.longest:12.1f}{len(found.left):13}")
    print(
        "of several: kills while there was more than one process; longest: until all had ended; left behind: "
        f"processes that were still running {PATIENCE} s later"
    )


def show(tallies: dict[str, Tally]) -> None:
    print(
        f"{'':10}{'whole, s':>9}{'kills':>7}{'folders':>9}{'saved':>7}{'leftovers':>11}{'last run, s':>13}"
        f"{'violations':>12}"
    )
    for name, tally in tallies.items():
        last = f"{statistics.median(tally.last):.1f}" if tally.last else "-"
        print(
            f"{name:10}{tally.whole:9.1f}{tally.kills:7}{tally.folders:9}{tally.saved:7}"
            f"{tally.leftovers:11}{last:>13}{len(tally.violations):12}"
        )
    print(
        "saved: kills that left something to go on with; leftovers: the most hidden files at one moment; "
        "last run: median of those that were left to end"
    )


def _kill_all(names: list[str], times: int, folder: Path, seed: int) -> list[str]:
    """Show what becomes of the commands' files; the violations."""
    tallies = {}
    with tqdm(total=times, unit="kill", disable=None, leave=False) as bar:
        for turn, name in enumerate(names):
            share = times * (turn + 1) // len(names) - times * turn // len(names)
            tallies[name] = kill(name, share, folder, seed, bar)
    show(tallies)
    return [line for tally in tallies.values() for line in tally.violations]


def _end_all(names: list[str], times: int, folder: Path, seed: int) -> list[str]:
    """Show what becomes of the commands' processes; the violations."""
    endings, inputs = {}, make_inputs(folder)
    with tqdm(total=2 * times * len(names), unit="kill", disable=None, leave=False) as bar:
        for name in names:
            endings[name] = end_often(name, times, inputs, folder, seed, bar)
    show_endings(endings)
    return [line for found in endings.values() for line in found.violations]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=200, help="kills in all")
    parser.add_argument(
        "--left-behind", type=int, metavar="N", help="look for processes; N kills by each signal"
    )
    parser.add_argument("--command", choices=[*COMMANDS, *(x for x in WORKING if x not in COMMANDS)])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    processes = arguments.left_behind is not None
    known = WORKING if processes else COMMANDS
    names = [arguments.command] if arguments.command else list(known)
    if unknown := set(names) - set(known):
        parser.error(f"--command {unknown.pop()} is not one of {', '.join(known)}")
    folder = Path(tempfile.mkdtemp(prefix="dsareid-kills-"))
    check_all, times = (_end_all, arguments.left_behind) if processes else (_kill_all, arguments.times)
    violations = check_all(names, times, folder, arguments.seed)
    print(*violations, sep="\n", file=sys.stderr)
    if not violations:
        subprocess.run(["rm", "-r", str(folder)], check=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
