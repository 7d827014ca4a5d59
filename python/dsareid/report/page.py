"""The HTML page of a run: its tables, curves, rank lists, pictures and settings."""

import os
import platform
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from dsareid.data.store.cache import ensure_store
from dsareid.data.store.reader import Store
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import atomic_path, check_writable
from dsareid.ground.templates import render_page
from dsareid.report.pictures import Sheet, dsap_sheets, thumbnail
from dsareid.report.plots import cmc_plot, training_plots
from dsareid.report.results import Results, group_results
from dsareid.runs.config import TrainConfig, config_values
from dsareid.runs.folder import RunFolder
from dsareid.runs.log import read_log


def write_report(run: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> Path:
    """Write RUN/report.html: one page that needs no other file and no internet.

    It shows every evaluation of the run beside chance and colour histograms, CMC, training curves,
    rank lists, DSAP sheets, settings and environment. If the run has not been evaluated yet, or its
    data set is not found, the page gives the command to run.

    Args:
        run: the run's folder.
        data: the data set's root or a store of it, for the pictures; default: the one that the run was
            evaluated on, else trained on.

    Returns:
        The path of the page.

    Raises:
        DSAError: `run` is no run folder, one of its files is damaged, or the page cannot be
            written.
    """
    files = _read(RunFolder(run))
    check_writable(files.folder.report)
    content = _content(files, None if data is None else Path(data))
    if content["pictures_missing"]:
        logger.warning(content["pictures_missing"])
    page = render_page("dsareid.report", "template.html", content)
    with atomic_path(files.folder.report) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # for a lone surrogate in a JSON file
    return files.folder.report


@dataclass(frozen=True)
class _Files:
    """What a run's folder holds, except the network."""

    folder: RunFolder
    config: TrainConfig
    log: list[dict[str, Any]]
    results: list[Results]

    @property
    def evaluated(self) -> str | None:
        """The data of the first evaluation."""
        return self.results[0].first.data if self.results else None


def _read(folder: RunFolder) -> _Files:
    return _Files(folder, folder.read_config(), read_log(folder.log), group_results(folder.evaluations()))


def _content(files: _Files, data: Path | None) -> dict[str, Any]:
    """The variables of the template."""
    config, main = files.config, files.results[0] if files.results else None
    root = data or Path(files.evaluated or config.data)
    store, pictures_missing = _open(config, root, main.first.protocol if main else config.protocol)
    if data is not None or config.data == root:
        sheets, sheets_missing = _sheets(config, store, pictures_missing)
    else:
        sheets, sheets_missing = _sheets(config, *_open(config, config.data, config.protocol))
    return {
        "title": files.folder.path.resolve().name,
        "model": "; ".join([config.about, *config.differences]),
        "root": root,
        "trained_on": config.data if config.data != root else None,
        "epochs": config.epochs,
        "synthetic": _synthetic(main, store),
        "tables": [
            {"results": results, "cmc": cmc_plot(results.rows), "stale": _stale(results, files.log)}
            for results in files.results
        ],
        "curves": training_plots(files.log),
        "rank_lists": list(_rank_lists(main, store)) if main else [],
        "cameras": main is not None and any(entry.camera for entry in main.first.rank_lists),
        "pictures_missing": pictures_missing,
        "sheets": sheets,
        "sheets_missing": sheets_missing,
        "size": config.dsap_size,
        "settings": dict(_flatten(config_values(config))),
        "environment": _machine(),
        "eval_command": _command("eval", files.folder.path, root),
        "report_command": _command("report", files.folder.path, "ROOT"),
    }


def _stale(results: Results, log: list[dict[str, Any]]) -> str | None:
    """A sentence for the page if training has continued since the evaluation, else None."""
    evaluated, logged = results.first.checkpoint.step, log[-1]["step"] if log else 0
    # The last step may not have been logged, so only a later logged step means that training continued.
    if logged <= evaluated:
        return None
    return f"The table shows step {evaluated}; the training has continued to step {logged}."


def _open(config: TrainConfig, root: Path, protocol: str) -> tuple[Store | None, str | None]:
    """The store of a data set, or a sentence that says why its images cannot be shown."""
    if not os.path.isdir(root):  # unlike root.is_dir(), never raises, for example for a name that is too long
        return None, f"The data set {root} is not there, so its images cannot be shown."
    try:
        return ensure_store(root, config.height, config.width, protocol=protocol), None
    except DSAError as error:
        return None, f"The images cannot be shown: {error}."


def _synthetic(main: Results | None, store: Store | None) -> bool:
    """Whether the people are synthetic: by the store if there is one, else by the evaluation."""
    if store is not None:
        return store.header.synthetic
    return main is not None and main.first.synthetic


def _rank_lists(main: Results, store: Store | None) -> Iterator[dict[str, Any]]:
    rows = {} if store is None else {name: row for row, name in enumerate(store.names)}
    thumbnails: dict[str, str | None] = {}

    def picture(name: str) -> str | None:
        if name not in thumbnails:
            thumbnails[name] = thumbnail(store.images[rows[name]]) if store and name in rows else None
        return thumbnails[name]

    for entry in main.first.rank_lists:
        answers = [answer.model_dump() | {"picture": picture(answer.name)} for answer in entry.gallery]
        yield entry.model_dump() | {"picture": picture(entry.query), "gallery": answers}


def _sheets(config: TrainConfig, store: Store | None, missing: str | None) -> tuple[list[Sheet], str | None]:
    """DSAP sheets, or the reason why there are none."""
    if store is None:
        return [], missing
    try:
        return dsap_sheets(store, config.dsap_size), None
    except DSAError as error:
        return [], f"No DSAP-images can be made: {error}."


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _machine() -> dict[str, str]:
    cuda = torch.cuda.is_available()
    return {
        "Report written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "Device here": torch.cuda.get_device_name() if cuda else f"CPU, {platform.machine()}",
        "Python": platform.python_version(),
        "torch": torch.__version__,
    }


def _command(name: str, run: Path, root: Path | str) -> str:
    return shlex.join(["dsareid", name, str(run), "--data", str(root)])
