"""What the page of a gallery shows: the whole page, the rows found, and the panel that says why."""

from typing import Any, NamedTuple

import numpy as np

import dsa_ext.parts
from dsareid.evaluation.calibration import Calibration, format_score
from dsareid.gallery.rows import GalleryInfo
from dsareid.gallery.search import Found, format_time
from dsareid.ground.templates import render_page
from dsareid.inference.settings import AnySettings, ModelSettings

_PACKAGE = "dsareid.gallery"


class Query(NamedTuple):
    """What is searched for."""

    name: str
    vector: np.ndarray  # float32 [D]
    source: str  # of its picture, for the page
    key: str  # of the row that it is; "" for a picture that was dropped
    identity: str | None
    pixels: np.ndarray | None = None  # uint8 [h, w, 3] of a picture that was dropped
    note: str = ""  # what a reader should know of it
    mean: bool = False  # whether it is the row of a track


class Search(NamedTuple):
    """A query and the rows found for it."""

    query: Query
    found: list[Found]
    limit: float | None
    beyond: Found | None
    doubt: str = ""  # of the scores and the limit


class Panel(NamedTuple):
    """A query beside one row."""

    query: Query
    row: Any
    sheets: list[str]
    """The part images of both, JPEG in base 64; empty without maps."""
    settings: AnySettings


def show_page(name: str, info: GalleryInfo, rows: int, cameras: list[str], rates: list[float]) -> str:
    """The whole page."""
    content = {"name": name, "info": info, "rows": rows, "cameras": cameras, "rates": rates}
    return render_page(_PACKAGE, "page.html", content)


def show_results(search: Search) -> str:
    """The rows found, for the page's right side."""
    return render_page(
        _PACKAGE, "results.html", {"search": search, "format_time": format_time, "format_score": format_score}
    )


def show_panel(panel: Panel) -> str:
    """Why a row is like the query."""
    content = {
        "panel": panel,
        "parts": alike_by_part(panel.query.vector, panel.row["vector"], panel.settings),
    }
    return render_page(_PACKAGE, "panel.html", content)


def alike_by_part(one: np.ndarray, other: np.ndarray, settings: AnySettings) -> list[tuple[str, float]]:
    """The cosine of f_G and of each of the eight f_L, most alike first; empty for networks without f_L.

    Args:
        one, other: features, float32 [D].
        settings: of the network.
    """
    if not isinstance(settings, ModelSettings) or settings.branches == "global":
        return []
    names = [name.replace("_", " ") for name in dsa_ext.parts.BODY_NAMES]
    halves = np.split(np.stack([one, other]).astype(np.float64), 2, axis=1)
    whole, local = (
        (halves[0], halves[1]) if settings.branches == "both" else (None, np.concatenate(halves, 1))
    )
    pairs = dict(zip(names, np.split(local, len(names), axis=1)))
    found = [(name, _cosine(*pair)) for name, pair in pairs.items()]
    found.sort(key=lambda part: -part[1])
    return found if whole is None else [("whole picture", _cosine(*whole)), *found]


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else 0.0


def usable_rates(fitted: Calibration | None) -> list[float]:
    """The false-match rates that a calibration can tell, largest first."""
    return [] if fitted is None else [rate for rate in (0.1, 0.01, 0.001, 0.0001) if rate * fitted.other >= 1]
