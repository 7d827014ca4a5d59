"""Puts a run's files, its data set's pictures and the curves into one HTML page."""

import os
import platform
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from dsareid.data.store.cache import ensure_store
from dsareid.data.store.reader import Store
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path
from dsareid.report.pictures import Sheet, dsap_sheets, thumbnail
from dsareid.report.plots import cmc_plot, training_plots
from dsareid.report.runfiles import RunFiles, read_run
from dsareid.report.templates import render

_MODELS = {
    "dsa": "DSA-reID: both streams in training, the MF-Stream alone for matching",
    "dsa-global": "DSA-reID with global branches only",
    "dsa-local": "DSA-reID with local branches only",
    "dsap": "the DSAG-Stream alone, on DSAP-images",
    "two-branch": "the MF-Stream alone (two branches)",
    "baseline": "ResNet-50 with a global feature (baseline)",
}


def write_report(run: Path, data: Path | None = None) -> Path:
    """Write RUN/report.html: one page that needs no other file, no model and no network.

    It shows the table of the evaluation beside chance and colour histograms, CMC, training curves,
    rank lists, DSAP sheets, settings and environment. What the run does not have yet is named in
    the page with the command that brings it.

    Args:
        run: the run's folder.
        data: the data set's root or a store of it, for the pictures; that of the evaluation, else of
            the training, where None.

    Returns:
        The path of the page.

    Raises:
        DSAError: `run` is no run folder, one of its files is damaged, or the page cannot be
            written.
    """
    run = Path(run)
    files = read_run(run)
    root = _data_root(files, data)
    content = _content(files, root, data)
    if content["pictures_missing"]:
        print(f"note: {content['pictures_missing']}", file=sys.stderr)
    page = render("template.html", content)
    path = run / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # a lone surrogate in a JSON file
    return path


def _content(files: RunFiles, root: Path | None, data: Path | None) -> dict[str, Any]:
    """What the template is given."""
    rows = files.rows()
    trained_on = Path(files.setting("data")) if files.setting("data") else None
    trained_by = files.setting("protocol", "")
    store, pictures_missing = _open(files, root, (files.evaluation or {}).get("protocol", trained_by))
    if data is not None or trained_on == root:
        sheets, sheets_missing = _sheets(files, store, pictures_missing)
    else:
        sheets, sheets_missing = _sheets(files, *_open(files, trained_on, trained_by))
    size = files.setting("dsap_size", 32)
    return {
        "title": files.run.resolve().name,
        "model": _model(files),
        "root": root,
        "trained_on": trained_on if trained_on != root else None,
        "epochs": files.setting("epochs"),
        "synthetic": _synthetic(files, store),
        "evaluation": files.evaluation,
        "rows": rows,
        "stale": _stale(files),
        "cmc": cmc_plot(rows) if rows else None,
        "curves": training_plots(files.log),
        "rank_lists": list(_rank_lists(files, store)),
        "pictures_missing": pictures_missing,
        "sheets": sheets,
        "sheets_missing": sheets_missing,
        "size": size,
        "settings": files.settings,
        "environment": _machine(),
        "eval_command": _command("eval", files.run, root),
        "report_command": _command("report", files.run, "ROOT"),
    }


def _model(files: RunFiles) -> str:
    """What the network is, with what makes it another than the method."""
    name = files.setting("model") or "unknown model"
    changes = [("guidance", "add", "guidance"), ("guide.fed", "dsap", "its guide fed")]
    differing = [f"{word} {x}" for key, usual, word in changes if (x := files.setting(key, usual)) != usual]
    return "; ".join([_MODELS.get(name, name), *differing])


def _data_root(files: RunFiles, data: Path | None) -> Path | None:
    if data is not None:
        return Path(data)
    evaluated = (files.evaluation or {}).get("data")
    root = evaluated or files.setting("data")
    return Path(root) if root else None


def _stale(files: RunFiles) -> str | None:
    """A sentence where the training has gone on since the evaluation."""
    evaluated = ((files.evaluation or {}).get("checkpoint") or {}).get("step")
    logged = files.log[-1]["step"] if files.log else None
    # The last step need not have been logged; only a later one says something.
    if evaluated is None or logged is None or logged <= evaluated:
        return None
    return f"The table is of step {evaluated}, but the log goes on to step {logged}."


def _open(files: RunFiles, root: Path | None, protocol: str) -> tuple[Store | None, str | None]:
    """The store of a data set, or a sentence that says why its images cannot be shown."""
    if root is None:
        return None, "The data set of this run is not known, so its images cannot be shown."
    if not os.path.isdir(root):  # unlike root.is_dir() also where it is no name of a folder
        return None, f"The data set {root} is not there, so its images cannot be shown."
    try:
        height, width = files.setting("height", 256), files.setting("width", 128)
        return ensure_store(root, height, width, protocol=protocol), None
    except DSAError as error:
        return None, f"The images cannot be shown: {error}."


def _synthetic(files: RunFiles, store: Store | None) -> bool:
    """By the data where they are there, else by what the evaluation noted."""
    if store is not None:
        return store.header.synthetic
    return bool((files.evaluation or {}).get("synthetic"))


def _rank_lists(files: RunFiles, store: Store | None) -> Iterator[dict[str, Any]]:
    evaluation = files.evaluation or {"rank_lists": []}
    rows = {} if store is None else {name: row for row, name in enumerate(store.names)}
    thumbnails: dict[str, str | None] = {}

    def picture(name: str) -> str | None:
        if name not in thumbnails:
            thumbnails[name] = thumbnail(store.images[rows[name]]) if name in rows else None
        return thumbnails[name]

    for entry in evaluation["rank_lists"]:
        answers = [answer | {"picture": picture(answer["name"])} for answer in entry["gallery"]]
        yield entry | {"picture": picture(entry["query"]), "gallery": answers}


def _sheets(files: RunFiles, store: Store | None, missing: str | None) -> tuple[list[Sheet], str | None]:
    """DSAP sheets, or the reason why there are none."""
    if store is None:
        return [], missing
    try:
        return dsap_sheets(store, files.setting("dsap_size") or 32), None
    except DSAError as error:
        return [], f"No DSAP-images can be made: {error}."
    except ImportError as error:
        return [], f"No DSAP-images can be made: the extension is not built ({error})."


def _machine() -> dict[str, str]:
    cuda = torch.cuda.is_available()
    return {
        "Report written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "Device here": torch.cuda.get_device_name() if cuda else f"CPU, {platform.machine()}",
        "Python": platform.python_version(),
        "torch": torch.__version__,
    }


def _command(name: str, run: Path, root: Path | str | None) -> str:
    return shlex.join(["dsareid", name, str(run), "--data", str(root or "ROOT")])
