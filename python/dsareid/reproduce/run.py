"""`dsareid reproduce`: trains and evaluates the networks of a table, and compares them with the paper.

    OUT/<network>/seed-S/             a run's folder, as dsareid train writes it
    OUT/<network>/seed-S/matched.json its figures, by the features used for matching
    OUT/<table>.html, .csv, .txt      the table, written again after every run

Tables share OUT, so a network that is in two tables is trained once.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dsareid.data.layouts.base import GALLERY, MULTI_QUERY, QUERY, SPLITS, TRAIN
from dsareid.data.layouts.cuhk01 import DATASET as CUHK01
from dsareid.data.store.cache import ensure_store
from dsareid.data.store.reader import Store
from dsareid.engine.loop import Interrupted, train
from dsareid.engine.presets import PresetName, preset
from dsareid.evaluation.run_features import match, needs_iuv
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import atomic_path, check_writable_folder, make_folder
from dsareid.models.table import MatchedBy
from dsareid.reproduce.page import MEASURES, Cell, Heading, Line, Table, write_table
from dsareid.reproduce.recipes import (
    OTHER_METHODS,
    PRETRAINING,
    TABLES,
    TITLES,
    Network,
    PaperRow,
    TableName,
    fine_tuning,
)
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import RunFolder, load_run

MATCHED = "matched.json"


class Matched(BaseModel):
    """The features that a finished run was matched by, with their figures."""

    source: str  # fingerprint of the files that it was trained on
    features: dict[MatchedBy, dict[str, float]]  # mAP, rank1, rank5 and rank10, fractions of 1


@dataclass(frozen=True)
class Task:
    """A run: a network, its seed, and the features that it is to be matched by."""

    network: Network
    seed: int
    features: tuple[MatchedBy, ...]
    config: TrainConfig
    source: str  # fingerprint of the data set's files


def reproduce(
    table: TableName,
    data: Path,
    out: Path,
    preset_name: PresetName,
    *,
    changes: Mapping[str, Any] | None = None,
    seeds: int = 1,
    pretraining: Path | None = None,
) -> Table:
    """Do the runs of a table that are not done yet, and write the table after every run.

    You can stop it at any time; the next call resumes.

    Args:
        table: a name in recipes.TABLES.
        data: the data set or a store of it.
        out: a folder for the runs of this data set and preset.
        preset_name: the preset, the same for every row.
        changes: settings that replace the preset's: protocol, weights, device.
        seeds: how many runs of each network, with seeds 0, 1, ...
        pretraining: the data set on which the network of CUHK01's second row is trained first.

    Raises:
        DSAError: no such table, data that cannot be read, or `out` holds runs of other data or settings.
        Interrupted: after Ctrl-C.
    """
    if table not in TABLES:
        raise DSAError(f"`table` must be one of {', '.join(TABLES)}, not {table!r}")
    if seeds < 1:
        raise DSAError(f"`seeds` must be at least 1, not {seeds}")
    out = out.absolute()
    shared = preset(preset_name, data.absolute(), out, **(changes or {}))
    # Check first: whatever a run would miss must be reported before days of training.
    check_writable_folder(out)
    store = _checked_store(table, shared)
    rows = _rows(table, store, pretraining)
    first = dataclasses.replace(shared, data=pretraining.absolute(), protocol="") if pretraining else None
    tasks = list(_tasks(rows, shared, store.header.source, seeds, first))
    for task in tasks:
        _check_same(task)
    make_folder(out)
    for number, task in enumerate(tasks, 1):
        if not _is_done(task):
            logger.info(f"[{number}/{len(tasks)}] {task.network.name}, seed {task.seed}")
            _train_and_match(task, store)
        made = _table(rows, tasks, store, _heading(table, preset_name, shared.weights, seeds))
        write_table(made, out)
    return made


def _checked_store(table: TableName, preset: TrainConfig) -> Store:
    """The store of the data set, checked to have the splits and maps that training and evaluation need."""
    tested = (QUERY, GALLERY, MULTI_QUERY) if any(_needs_maps(row, preset) for row in TABLES[table]) else ()
    mapped = (TRAIN, *tested)
    store = ensure_store(preset.data, preset.height, preset.width, mapped=mapped, protocol=preset.protocol)
    for split in {*SPLITS, *store.header.splits}:
        store.select(split, iuv=split in mapped)
    return store


def _needs_maps(row: PaperRow, preset: TrainConfig) -> bool:
    """Whether the row is matched by features that are made from IUV maps too."""
    config = row.network.config(preset, preset.data, preset.out, 0)
    return needs_iuv(config, row.matched_by)


def _rows(table: TableName, store: Store, pretraining: Path | None) -> list[PaperRow]:
    """The rows that can be run; pre-trained ones only with data to pre-train on."""
    rows = TABLES[table]
    kept = [row for row in rows if pretraining or not row.network.pretrained]
    if pretraining and not any(row.network.pretrained for row in rows):
        raise DSAError(f"`pretraining={pretraining}`: no row of {table} is pre-trained; one of table2 is")
    if len(kept) < len(rows) and store.header.dataset == CUHK01.name:
        logger.warning("the row that is pre-trained on CUHK03 is left out; `pretraining=ROOT` adds it")
    return kept


def _tasks(
    rows: Sequence[PaperRow], preset: TrainConfig, source: str, seeds: int, first: TrainConfig | None
) -> Iterator[Task]:
    """Each network of the rows once for each seed; seed by seed, so that early ones make a whole table.

    Args:
        preset: settings of every row; its `data` is the data set, its `out` the folder of all runs.
        source: fingerprint of the data set's files.
        first: the same for pre-training; its `data` is the data set to pre-train on. None: without it.
    """
    before = None
    if first:
        before = ensure_store(first.data, first.height, first.width, mapped=(TRAIN,))
        before.select(TRAIN, iuv=True)
    networks: dict[Network, list[MatchedBy]] = {row.network: [] for row in rows}
    for row in rows:
        networks[row.network].append(row.matched_by)
    for seed in range(seeds):
        for network, features in networks.items():
            config = _run_of(network, preset, seed)
            if network.pretrained and first and before:
                start = _run_of(PRETRAINING, first, seed)
                yield Task(PRETRAINING, seed, (), start, before.header.source)
                config = fine_tuning(config, start.out)
            yield Task(network, seed, tuple(dict.fromkeys(features)), config, source)


def _run_of(network: Network, preset: TrainConfig, seed: int) -> TrainConfig:
    run = preset.out / network.name / f"seed-{seed}"
    return network.config(preset, preset.data, run, seed, preset.protocol)


def _check_same(task: Task) -> None:
    """Raise DSAError if the run's folder is of another data set or of other settings."""
    run = task.config.out
    matched = _read_matched(run / MATCHED)
    if not matched and not RunFolder(run).checkpoint.exists():
        return
    saved, wanted = RunFolder(run).read_config(), task.config
    for field in dataclasses.fields(TrainConfig):
        before, now = getattr(saved, field.name), getattr(wanted, field.name)
        if field.name not in ("out", "device") and before != now:
            raise DSAError(
                f"{run}: its {field.name} is {before}, but {now} is asked for: `out` belongs to one data set "
                "and one preset; choose another"
            )
    if matched and matched.source != task.source:
        raise DSAError(
            f"{run}: trained on {task.config.data} before its files changed; choose another `out`, or remove "
            "this folder"
        )


def _is_done(task: Task) -> bool:
    """Whether a run is trained, and matched by all features that are asked for."""
    matched = _read_matched(task.config.out / MATCHED)
    return matched is not None and set(task.features) <= matched.features.keys()


def _train_and_match(task: Task, store: Store) -> None:
    """Train, unless that is done, and evaluate."""
    run = task.config.out
    try:
        train(task.config, resume=RunFolder(run).checkpoint.exists())
    except Interrupted as interrupt:
        raise Interrupted(f"stopped in {run}; the same command resumes there") from interrupt
    matched = _read_matched(run / MATCHED)
    before = matched.features if matched else {}
    missing = [name for name in task.features if name not in before]
    found = match(load_run(run, task.config.device), store, missing) if missing else {}
    figures = {
        name: {"mAP": result.mAP, **{f"rank{k}": result.cmc[k - 1].item() for k in (1, 5, 10)}}
        for name, result in found.items()
    }
    with atomic_path(run / MATCHED) as temporary:
        made = Matched(source=task.source, features=before | figures)
        temporary.write_text(made.model_dump_json(indent=1) + "\n")


def _read_matched(path: Path) -> Matched | None:
    try:
        return Matched.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise DSAError(f"{path}: not what dsareid reproduce writes; remove it") from error


def _heading(table: TableName, preset_name: PresetName, weights: str, seeds: int) -> Heading:
    return Heading(table, TITLES[table], preset_name, weights, seeds)


def _table(rows: Sequence[PaperRow], tasks: list[Task], store: Store, heading: Heading) -> Table:
    """The table with the runs that are done so far."""
    header, lines = store.header, []
    for row in rows:
        runs = [task.config.out for task in tasks if task.network == row.network]
        every = [matched for run in runs if (matched := _read_matched(run / MATCHED))]
        found = [matched.features.get(row.matched_by) for matched in every]
        paper = None if header.synthetic else row.paper.get(header.dataset)
        cells = {
            measure: Cell(
                tuple(100 * figures[measure] for figures in found if figures),
                getattr(paper, measure) if paper else None,
            )
            for measure in MEASURES
        }
        lines.append(Line(row.name, row.matched_by, row.network.name, cells))
    counts = [len(store.select(split, iuv=False)) for split in SPLITS]
    others = {} if header.synthetic or heading.table != "table2" else OTHER_METHODS.get(header.dataset, {})
    return Table(
        heading=heading,
        dataset=header.dataset,
        synthetic=header.synthetic,
        lines=lines,
        others=others,
        protocol=header.protocol,
        differences=[f"{x} has {found} instead of {known}" for x, known, found in store.different_counts()],
        counts="{:,} training images, {:,} queries, {:,} gallery images".format(*counts),
    )
