"""`dsareid reproduce`: trains and evaluates the networks of a table, and compares them with the paper.

    OUT/<network>/seed-S/             a run's folder, as dsareid train writes it
    OUT/<network>/seed-S/matched.json its figures, by what it is matched by
    OUT/<table>.html, .csv, .txt      the table, written again after every run

Tables share OUT, and so the networks that are in both.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dsareid.data.datasets import CUHK01, PUBLIC
from dsareid.data.listing import GALLERY, QUERY, SPLITS, TRAIN, Count
from dsareid.data.pack import ensure_store
from dsareid.data.store import Store
from dsareid.engine import TrainConfig, load_run, train
from dsareid.engine.config import load_config
from dsareid.engine.run import CHECKPOINT, CONFIG
from dsareid.errors import DSAError
from dsareid.evaluation import Features, match
from dsareid.evaluation.extract import needs_iuv
from dsareid.files import atomic_path, make_folder
from dsareid.reproduce.page import MEASURES, Cell, Line, Table, format_text, write_table
from dsareid.reproduce.recipes import DSA, PRETRAINING, TABLES, TITLES, Network, Row, fine_tuning

MATCHED = "matched.json"
_MATCHED = TypeAdapter(dict[str, dict[str, float]])


@dataclass(frozen=True)
class Task:
    """A run to be done: a network trained with one seed, and what it is matched by."""

    network: Network
    seed: int
    features: tuple[Features, ...]
    config: TrainConfig


def reproduce(
    table: str,
    data: Path,
    out: Path,
    preset: TrainConfig,
    *,
    preset_name: str = "",
    seeds: int = 1,
    pretraining: Path | None = None,
) -> Table:
    """Run what a table needs and is not done yet, print and write the table.

    It can be stopped at any time; the next call goes on where it stood.

    Args:
        table: a name in recipes.TABLES.
        data: the data set or a store of it.
        out: a folder for the runs of this data set and preset.
        preset: settings that are the same for every row; its data, out, seed and model are not looked at.
        preset_name: what the table calls it.
        seeds: how many runs of each network, with seeds 0, 1, ...
        pretraining: the data set on which the network of CUHK01's second row is trained first.

    Raises:
        DSAError: no such table, data that cannot be read, `out` holds runs of other data or settings.
        Interrupted: after Ctrl-C.
    """
    if table not in TABLES:
        raise DSAError(f"there is no table {table!r}; there are {', '.join(TABLES)}")
    if seeds < 1:
        raise DSAError(f"--seeds must be at least 1, not {seeds}")
    data = data.absolute()
    mapped = (TRAIN, QUERY, GALLERY) if any(_needs_maps(row, preset) for row in TABLES[table]) else (TRAIN,)
    store = ensure_store(data, preset.height, preset.width, mapped=mapped, protocol=preset.protocol)
    for split in SPLITS:  # what is missing for the evaluation is to be said before days of training
        store.select(split, iuv=split in mapped)
    rows = _rows(table, store, pretraining)
    tasks = list(_tasks(rows, data, make_folder(out), preset, seeds, pretraining))
    for number, task in enumerate(tasks, 1):
        _check_same(task)
        if not _is_done(task):
            print(f"[{number}/{len(tasks)}] {task.network.name}, seed {task.seed}", flush=True)
            _do(task, store)
        made = _table(table, rows, tasks, store, preset_name, seeds)
        write_table(made, out)
    print(format_text(made))
    print(f"{out / table}.html, .csv, .txt")
    return made


def _needs_maps(row: Row, preset: TrainConfig) -> bool:
    """Whether the row is matched by features that are made from IUV maps too."""
    config = row.network.config(preset, preset.data, preset.out, 0)
    return needs_iuv(config, row.matched_by)


def _rows(table: str, store: Store, pretraining: Path | None) -> list[Row]:
    """The rows that can be run: those that are pre-trained only where there are data to do it on."""
    rows = TABLES[table]
    kept = [row for row in rows if pretraining or not row.network.pretrained]
    if pretraining and not any(row.network.pretrained for row in rows):
        raise DSAError(f"--pretraining {pretraining}: no row of {table} is pre-trained; one of table2 is")
    if len(kept) < len(rows) and store.header.dataset == CUHK01.name:
        print("note: the row that is pre-trained on CUHK03 is left out; --pretraining ROOT adds it")
    return kept


def _tasks(
    rows: Sequence[Row],
    data: Path,
    out: Path,
    preset: TrainConfig,
    seeds: int,
    pretraining: Path | None,
) -> Iterator[Task]:
    """Each network of the rows once for each seed; seed by seed, so that early ones make a whole table."""
    networks = {row.network: () for row in rows}
    for row in rows:
        networks[row.network] += (row.matched_by,)
    for seed in range(seeds):
        for network, features in networks.items():
            run = out / network.name / f"seed-{seed}"
            config = network.config(preset, data, run, seed, preset.protocol)
            if network.pretrained:
                first = out / "pre-trained" / f"seed-{seed}"
                other = dataclasses.replace(preset, protocol="")
                yield Task(PRETRAINING, seed, (), DSA.config(other, pretraining.absolute(), first, seed))
                config = fine_tuning(config, first)
            yield Task(network, seed, tuple(dict.fromkeys(features)), config)


def _check_same(task: Task) -> None:
    """Raise DSAError where the run's folder is of another data set or of other settings."""
    run = task.config.out
    if not (run / CHECKPOINT).exists():
        return
    saved, wanted = load_config(run / CONFIG), task.config
    for field in dataclasses.fields(TrainConfig):
        before, now = getattr(saved, field.name), getattr(wanted, field.name)
        if field.name not in ("out", "device") and before != now:
            raise DSAError(
                f"{run}: its {field.name} is {before}, but {now} is asked for: --out belongs to one data set "
                "and one preset; choose another"
            )


def _is_done(task: Task) -> bool:
    """Whether a run is trained, and matched by all that is asked for."""
    path = task.config.out / MATCHED
    return path.exists() and set(task.features) <= _read_matched(path).keys()


def _do(task: Task, store: Store) -> None:
    """Train, where that is not done, and evaluate."""
    run = task.config.out
    train(task.config, resume=(run / CHECKPOINT).exists())
    before = _read_matched(run / MATCHED)
    missing = [name for name in task.features if name not in before]
    found = match(load_run(run, task.config.device), store, missing) if missing else {}
    figures = {
        name: {"mAP": result.mAP, **{f"rank{k}": result.cmc[k - 1].item() for k in (1, 5, 10)}}
        for name, result in found.items()
    }
    with atomic_path(run / MATCHED) as temporary:
        temporary.write_text(json.dumps(before | figures, indent=1) + "\n")


def _read_matched(path: Path) -> dict[str, dict[str, float]]:
    try:
        return _MATCHED.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise DSAError(f"{path}: not as dsareid reproduce wrote it; remove it") from error


def _table(
    name: str, rows: Sequence[Row], tasks: list[Task], store: Store, preset: str, seeds: int
) -> Table:
    """What there is so far."""
    header, lines = store.header, []
    for row in rows:
        runs = [task.config.out for task in tasks if task.network == row.network]
        found = [_read_matched(run / MATCHED).get(row.matched_by) for run in runs]
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
    return Table(
        name=name, title=TITLES[name], dataset=header.dataset, synthetic=header.synthetic, preset=preset,
        seeds=seeds, lines=lines, protocol=header.protocol, differences=_differences(store),
        counts="{:,} training images, {:,} queries, {:,} gallery images".format(*counts),
    )  # fmt: skip


def _differences(store: Store) -> list[str]:
    """In which splits a public data set has other counts than are known of it."""
    if store.header.dataset not in PUBLIC:
        return []
    different = []
    for name, expected in PUBLIC[store.header.dataset].expected.items():
        split = store.select(name, iuv=False)
        found = Count(len(split), len({*split.ids.tolist()} - {0}))
        if found != expected:
            different.append(f"{name} has {found} instead of {expected}")
    return different
