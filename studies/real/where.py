"""Where a form helps: the test's queries in terciles, by what their maps say of them.

    python -m studies.real.run where --cuhk03 ROOT     # writes where.json: a line for each query

A query has, read off its map: the share of front among its torso's pixels (None with fewer than LEAST), the
number of parts that are seen, and how far the person's centre lies from the crop's, in crop heights.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dsareid.data.iuv import read_iuv
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import QUERY
from dsareid.ground.files import atomic_path

BACK, FRONT = 1, 2  # parts of the torso
LEAST = 8  # pixels of a part that is seen
NAMES = ("front", "parts", "offset")
TITLES = {
    "front": ("back", "side", "front"),
    "parts": ("few parts", "some parts", "many parts"),
    "offset": ("box well placed", "box a little off", "box far off"),
}


def facts(iuv: np.ndarray) -> dict[str, float | None]:
    """What a map, uint8 [H, W, 3], says of its person; None where it does not show enough to say it."""
    part = iuv[..., 0]
    front, back = ((part == k).sum() for k in (FRONT, BACK))
    counts = np.bincount(part.ravel(), minlength=25)[1:25]
    rows, columns = np.nonzero(part)
    offset = None
    if len(rows):
        middle = (np.array(part.shape) - 1) / 2
        offset = float(np.hypot(rows.mean() - middle[0], columns.mean() - middle[1]) / len(part))
    return {
        "front": float(front / (front + back)) if front + back >= LEAST else None,
        "parts": float((counts >= LEAST).sum()),
        "offset": offset,
    }


def write_facts(root: Path, path: Path) -> None:
    """Write the facts of a data set's queries, in the order of the runs' records."""
    entries = [entry for entry in list_data(root).entries if entry.split == QUERY]
    found = [facts(read_iuv(root / entry.iuv)) for entry in entries if entry.iuv is not None]
    if len(found) < len(entries):
        raise SystemExit(f"{root}: {len(entries) - len(found)} queries have no map")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({name: [_short(x[name]) for x in found] for name in NAMES}) + "\n")


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def terciles(values: Sequence[float | None]) -> np.ndarray:
    """Which third each value belongs to, 0, 1 or 2, the borders being the values' own; -1 for None."""
    known = np.array([np.nan if value is None else value for value in values], dtype=float)
    first, second = np.nanquantile(known, [1 / 3, 2 / 3])
    third = (known > first).astype(int) + (known > second)
    return np.where(np.isnan(known), -1, third)


def table(facts_of: Mapping[str, Sequence[float | None]], arms: Mapping[str, np.ndarray], base: str) -> str:
    """mAP of each arm in each tercile, and its difference to an arm.

    Args:
        facts_of: see write_facts.
        arms: the average precision of each query, the mean over the seeds, [Q].
        base: the arm that differences are taken to.
    """
    lines = ["| queries | " + " | ".join(arms) + " |", "|---|" + "---|" * len(arms)]
    for name in NAMES:
        third = terciles(facts_of[name])
        left = int((third < 0).sum())
        for k, title in enumerate(TITLES[name]):
            chosen = third == k
            cells = []
            for arm, ap in arms.items():
                change = "" if arm == base else f" ({100 * (ap[chosen] - arms[base][chosen]).mean():+.1f})"
                cells.append(f"{100 * ap[chosen].mean():.1f}{change}")
            note = f"; {left} left out" if left and not k else ""
            lines.append(f"| {title} ({int(chosen.sum())}{note}) | {' | '.join(cells)} |")
    return "\n".join(lines)
