"""The lists that converting and estimating leave beside the maps; all calls for a data set share them.

A list that would be empty is removed.
"""

import csv
import io
from collections.abc import Container, Iterable
from pathlib import Path

from dsareid.densepose.people import Choice
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path

NO_DETECTION, NO_MAP, SEVERAL = "no_detection.txt", "no_map.txt", "several_people.csv"
OTHERS, NOT_READABLE = "others_left_out.txt", "not_readable.txt"
PEOPLE_COLUMNS = ["image", "box", "score", "share", "chosen"]


def update_names(path: Path, names: Iterable[str], converted: Container[str]) -> None:
    """Put names into a list; what it says of images that were not converted stays."""
    write_names(path, {*names, *(name for name in read_names(path) if name not in converted)})


def read_names(path: Path) -> list[str]:
    """The names in a list; none if there is no list."""
    return _read(path).splitlines()


def write_names(path: Path, names: Iterable[str]) -> None:
    """Write the names, sorted, one on each line."""
    _write(path, "".join(f"{name}\n" for name in sorted(names)))


def check_lists(out: Path) -> None:
    """Raise DSAError if a list from an earlier call cannot be read. To be called before the work."""
    _read(out / NO_DETECTION)
    _read_people(out / SEVERAL)


def update_people(path: Path, choices: dict[str, Choice], converted: Container[str]) -> None:
    """Put the people of images into a table; what it says of images that were not converted stays."""
    rows = [row for row in _read_people(path) if row[0] not in converted]
    rows += [row for name, choice in choices.items() for row in _rows(name, choice)]
    rows.sort(key=lambda row: row[0])  # people of an image stay in their order
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([PEOPLE_COLUMNS, *rows])
    _write(path, table.getvalue() if rows else "")


def _read_people(path: Path) -> list[list[str]]:
    """The rows of the table below its header; none if there is no table."""
    try:
        header, *rows = list(csv.reader(io.StringIO(_read(path)), strict=True)) or [PEOPLE_COLUMNS]
    except csv.Error as error:
        raise DSAError(f"cannot read {path}: {error}; move it away") from error
    if header != PEOPLE_COLUMNS or any(len(row) != len(PEOPLE_COLUMNS) for row in rows):
        raise DSAError(f"cannot read {path}: its columns must be {', '.join(PEOPLE_COLUMNS)}; move it away")
    return rows


def _rows(name: str, choice: Choice) -> list[list[str]]:
    rows: list[list[str]] = []
    for each in choice.candidates:
        person = each.person
        box = " ".join(f"{number:.1f}" for number in person.box or ())
        score = "" if person.score is None else f"{person.score:.3f}"
        rows.append([name, box, score, f"{each.share:.3f}", "yes" if each is choice.chosen else "no"])
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise DSAError(f"cannot read {path}: {error}") from error


def _write(path: Path, text: str) -> None:
    if not text:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8", newline="\n")
