"""Tables of pairs of images: pairs that somebody compared, or crops of tracks.

a,b,same              two files, and 1 if they show one person, else 0
file,track,frame      crops of a tracker: those of one track show one person; those of two tracks show two
                      people if both tracks are seen in one frame, else nobody knows
"""

import csv
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsareid.ground.errors import DSAError

COMPARED, TRACKED = ["a", "b", "same"], ["file", "track", "frame"]
"""The first line of either table."""


Block = tuple[np.ndarray, np.ndarray, bool]
"""Pairs by the rows of both images, int64 [P] each, and whether each pair shows one person."""


class PairTable(NamedTuple):
    """Pairs of images, made block by block: crops of tracks have far more pairs than lines."""

    blocks: Iterator[Block]
    pairs: int
    """How many, in all blocks."""
    crops: int
    """0 for pairs that somebody compared; else how many crops of tracks they are made of."""
    tracks: int


def read_pair_table(path: Path, rows: Mapping[str, int], where: Path) -> PairTable:
    """Read either table.

    Args:
        rows: the row of each file that a table may name.
        where: the file that lists them, for messages.

    Raises:
        DSAError: it is neither, or not as expected.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            if columns not in (COMPARED, TRACKED):
                raise DSAError(
                    f"{path}: the first line must be {','.join(COMPARED)} or {','.join(TRACKED)}, not "
                    f"{','.join(columns)[:80]!r}"
                )
            files = 2 if columns == COMPARED else 1
            lines: list[list[str]] = []
            for line in filter(any, reader):
                said = f"{path}, line {reader.line_num}"
                if len(line) != 3 or not all(line) or (columns == COMPARED and line[2] not in ("0", "1")):
                    wanted = "two files and 0 or 1" if columns == COMPARED else "a file, a track and a frame"
                    raise DSAError(f"{said}: expected {wanted}, not {','.join(line)[:80]!r}")
                for name in line[:files]:
                    if name not in rows:
                        raise DSAError(f"{said}: {where} has no file {name[:200]!r}")
                lines.append(line)
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise DSAError(f"{path}: not readable as CSV: {error}") from error
    return _compared(lines, rows) if columns == COMPARED else _tracked(path, lines, rows)


def _compared(lines: list[list[str]], rows: Mapping[str, int]) -> PairTable:
    def blocks() -> Iterator[Block]:
        for same in (True, False):
            pairs = [(rows[a], rows[b]) for a, b, said in lines if (said == "1") == same]
            one, other = np.array(pairs, np.int64).reshape(-1, 2).T
            yield one, other, same

    return PairTable(blocks(), len(lines), 0, 0)


def _tracked(path: Path, lines: list[list[str]], rows: Mapping[str, int]) -> PairTable:
    """All pairs within each track, and between each two tracks that share a frame."""
    crops: dict[str, list[int]] = defaultdict(list)
    frames: dict[str, set[str]] = defaultdict(set)
    seen = set()
    for file, track, frame in lines:
        if file in seen:
            raise DSAError(f"{path}: {file[:200]} stands twice")
        if track in frames[frame]:
            raise DSAError(f"{path}: track {track[:80]} has two crops of frame {frame[:80]}")
        seen.add(file)
        crops[track].append(rows[file])
        frames[frame].add(track)
    found = {track: np.array(numbers, np.int64) for track, numbers in crops.items()}
    together = {pair for tracks in frames.values() for pair in itertools.combinations(sorted(tracks), 2)}

    def blocks() -> Iterator[Block]:
        for numbers in found.values():
            for place, row in enumerate(numbers):
                rest = numbers[place + 1 :]
                yield np.full(len(rest), row), rest, True
        for a, b in sorted(together):
            for row in found[a]:
                yield np.full(len(found[b]), row), found[b], False

    count = sum(len(x) * (len(x) - 1) // 2 for x in found.values())
    count += sum(len(found[a]) * len(found[b]) for a, b in together)
    return PairTable(blocks(), count, len(lines), len(found))


def _joined(held: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([one for one, _ in held]), np.concatenate([other for _, other in held])


def chunks(table: PairTable, size: int) -> Iterator[Block]:
    """The pairs in pieces of about `size`, at most twice as many; once."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    count, kind = 0, True
    for one, other, same in table.blocks:
        for start in range(0, len(one), size):
            if held and (same != kind or count >= size):
                yield *_joined(held), kind
                held, count = [], 0
            held.append((one[start : start + size], other[start : start + size]))
            count, kind = count + len(held[-1][0]), same
    if held:
        yield *_joined(held), kind
