"""`dsareid eval`: a run's model on query and gallery, beside chance and colour histograms."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from dsareid.data.layouts.base import GALLERY, QUERY
from dsareid.data.layouts.cuhk01 import DATASET as CUHK01
from dsareid.data.store.cache import ensure_store
from dsareid.data.store.reader import Split, Store
from dsareid.engine import Run, TrainConfig, load_run
from dsareid.evaluation.baselines import chance, colour_histograms
from dsareid.evaluation.ranking import RankResult, rank, rank_distances, top_by_distances, top_matches
from dsareid.evaluation.rerank import Reranked, k_reciprocal
from dsareid.evaluation.run_features import (
    SYMBOLS,
    Features,
    check_features,
    extract,
    needs_iuv,
    own_features,
    query_features,
)
from dsareid.ground.distributed import current, own_device, processes
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path
from dsareid.runs.folder import choose_device

# Where in the run's folder the result for each kind of features is written.
EVALUATION_FILES: dict[Features, str] = {
    name: "evaluation.json" if name == "mf" else f"evaluation-{name}.json" for name in get_args(Features)
}

RANKS = (1, 5, 10)  # of the CMC, in the table
RANK_LISTS = 8  # queries shown, evenly over the AP range
RANK_LIST_LENGTH = 10
_SLICE = 256  # stored images in memory at once for the colour histograms

_MODEL_NAMES = {"dsa": "DSA-reID", "dsap": "DSAP-images alone"}


def evaluate(
    run: Path,
    data: Path | None = None,
    features: Features | None = None,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    protocol: str | None = None,
    rerank: bool = False,
) -> dict[str, Any]:
    """Evaluate a run on query and gallery, print the table and write it into the run's folder.

    Processes that torchrun started share the making of features; the first one alone does the rest.

    Args:
        run: the run's folder.
        data: the root of the data set, or a store of it; the run's own where None.
        features: what images are matched by (see extract.Features); None: "mf", f of the MF-Stream, from
            images alone; "guide" of a network that has no MF-Stream. All but mf need the IUV of query and
            gallery, unless the guide is fed patches.
        batch_size: images passed through the model at once.
        device: where the model runs and the gallery is ranked; "auto" is CUDA where there is one.
        protocol: of the data set; where None the run's own, or the default of `data`.
        rerank: whether the result is that of k-reciprocal re-ranking; that without is the table's second row.

    Returns:
        What is written to RUN/evaluation.json (RUN/evaluation-fused.json for fused, -reranked.json with
        rerank, with the protocol in the name where it is not the run's own), that is the rows of the table
        with their CMC, fractions of 1, and the rank lists of a few queries. Nothing, of another than the
        first process.

    Raises:
        DSAError: no run, a data set that cannot be read, features that the model does not make,
            no query with a match, features that are not finite.
        ValueError: features or batch_size has a wrong value.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    device = own_device(choose_device(device) if isinstance(device, str) else device)
    with processes(device):
        return _evaluate(Path(run), data, features, batch_size, device, protocol, rerank)


def _evaluate(
    run: Path,
    data: Path | None,
    features: Features | None,
    batch_size: int,
    device: torch.device,
    protocol: str | None,
    rerank: bool,
) -> dict[str, Any]:
    loaded = load_run(run, device)
    config = loaded.config
    features = features or own_features(config)
    try:
        check_features(config, features)
    except DSAError as error:
        raise DSAError(f"{run}: {error}") from error
    if loaded.epoch < config.epochs and current().first:
        print(f"note: {run} has trained {loaded.epoch} of {config.epochs} epochs", file=sys.stderr)
    root = Path(data if data is not None else config.data)
    if protocol is None:
        protocol = config.protocol if data is None else ""
    with current().first_alone():
        store = ensure_store(root, config.height, config.width, protocol=protocol)
    _check_unseen(loaded, store)
    query, gallery = (_select(store, name, config, features) for name in (QUERY, GALLERY))
    labels = _labels(query, gallery)
    try:
        expected = chance(*labels)
    except ValueError as error:
        raise DSAError(f"{root}: {error}") from error
    embeddings = [
        query_features(loaded, store, features, batch_size),
        extract(loaded, gallery, features, batch_size),
    ]
    if not current().first:
        return {}
    try:
        result = rank(*embeddings, *labels)
        reranked = k_reciprocal(*embeddings) if rerank else None
    except ValueError as error:
        raise DSAError(f"{run}: the features cannot be ranked: {error}") from error

    name = _name(config) + _suffix(config, features)
    rows = [table_row(name, result)]
    if reranked:
        result = rank_distances(reranked, *labels)
        rows.insert(0, table_row(f"{name}, re-ranked", result))
    evaluation = {
        "data": str(root),
        "dataset": store.header.dataset,
        "protocol": store.header.protocol,
        "synthetic": store.header.synthetic,
        "features": features,
        "reranked": rerank,
        "model": config.model,
        "checkpoint": {"epoch": loaded.epoch, "step": loaded.step},
        "queries": len(result.queries),
        "skipped": result.skipped,
        "gallery": len(gallery.names),
        "rows": [
            *rows,
            table_row("colour histograms, balanced", _rank_colours(query, gallery, labels, True)),
            table_row("colour histograms", _rank_colours(query, gallery, labels, False)),
            table_row("chance", expected),
        ],
        "rank_lists": _rank_lists(result, query, gallery, embeddings, labels, reranked),
    }
    with atomic_path(run / _file_name(loaded, store, features, rerank)) as temporary:
        temporary.write_text(json.dumps(evaluation, indent=1) + "\n", encoding="utf-8")
    print(format_table(evaluation["rows"]))
    return evaluation


def _check_unseen(run: Run, store: Store) -> None:
    """Raise DSAError where another split of the same people was trained on, some of the test's among them."""
    trained, name = run.data, store.header.dataset
    if trained.get("dataset") != name or trained.get("protocol") == store.header.protocol:
        return
    if name == CUHK01.name:  # the only one whose protocols differ in the training
        raise DSAError(
            f"{store.path}: split by {store.header.protocol}, but the network was trained by "
            f"{trained.get('protocol')}, which has some of its test identities to train on"
        )


def _select(store: Store, name: str, config: TrainConfig, features: Features) -> Split:
    split = store.select(name, iuv=False)
    if not needs_iuv(config, features):
        return split
    try:
        return store.select(name, iuv=True)
    except DSAError as error:
        others = "; --features mf needs images alone" if config.streams != "dsag" else ""
        raise DSAError(
            f"{error} ({features} features need the IUV of every query and gallery image{others})"
        ) from error


def _file_name(run: Run, store: Store, features: Features, rerank: bool) -> str:
    """Re-ranked evaluations, and those by another protocol than the run's own, lie beside that."""
    own, name = run.data.get("protocol", store.header.protocol), EVALUATION_FILES[features]
    name = name.replace(".json", "-reranked.json") if rerank else name
    return name if own == store.header.protocol else name.replace(".json", f"-{store.header.protocol}.json")


def _name(config: TrainConfig) -> str:
    """The model's, with what makes it another than the method."""
    changes = [config.guidance] if config.guidance != "add" else []
    changes += [f"guide fed {config.guide.fed}"] if config.guided and config.guide.fed != "dsap" else []
    name = _MODEL_NAMES.get(config.model, config.model)
    return f"{name} ({', '.join(changes)})" if changes else name


def _suffix(config: TrainConfig, features: Features) -> str:
    """What a row is matched by, where it is not what the network is made for."""
    if features == own_features(config):
        return ""
    return f", {SYMBOLS[features]}" if "-" in features else f", {features}"


def format_table(rows: list[dict[str, Any]], ranks: Sequence[int] = RANKS) -> str:
    """The rows of an evaluation as an aligned table, in per cent."""
    width = max(len(row["name"]) for row in rows)
    columns = {"mAP": "mAP"} | {f"rank-{k}": f"rank{k}" for k in ranks}
    lines = [" " * width + "".join(f"{title:>9}" for title in columns)]
    for row in rows:
        figures = "".join(f"{100 * row[key]:9.1f}" for key in columns.values())
        lines.append(f"{row['name']:<{width}}{figures}")
    return "\n".join(lines)


def table_row(name: str, result: RankResult, ranks: Sequence[int] = RANKS) -> dict[str, Any]:
    """A row of the table; `ranks` must be within the CMC."""
    cmc = result.cmc.tolist()
    return {"name": name, "mAP": result.mAP, **{f"rank{k}": cmc[k - 1] for k in ranks}, "cmc": cmc}


def _labels(query: Split, gallery: Split) -> list[Tensor]:
    """query_ids, gallery_ids, query_cams, gallery_cams, as `rank` takes them."""
    return [torch.from_numpy(labels) for labels in (query.ids, gallery.ids, query.cams, gallery.cams)]


def _rank_colours(query: Split, gallery: Split, labels: list[Tensor], balanced: bool) -> RankResult:
    return rank(*(_colours(split, balanced) for split in (query, gallery)), *labels)


def _colours(split: Split, balanced: bool) -> Tensor:
    """The colour histograms of a split, float32 [N, D]; a slice of the stored images at a time."""
    split.store.check_unchanged()
    slices = (split.rows[start : start + _SLICE] for start in range(0, len(split), _SLICE))
    images = (torch.from_numpy(split.store.images[rows]) for rows in slices)
    return torch.cat([colour_histograms(part, balanced=balanced) for part in images])


def _rank_lists(
    result: RankResult,
    query: Split,
    gallery: Split,
    embeddings: list[Tensor],
    labels: list[Tensor],
    reranked: Reranked | None,
) -> list[dict[str, Any]]:
    """Queries evenly over the AP range, best first, each with the head of its rank list."""
    by_ap = result.ap.sort(descending=True, stable=True).indices
    places = torch.linspace(0, len(by_ap) - 1, min(RANK_LISTS, len(by_ap))).round().long()
    chosen = by_ap[places]
    queries = result.queries[chosen]
    if reranked:
        lists = top_by_distances(reranked, *labels, queries=queries, count=RANK_LIST_LENGTH)
    else:
        found = top_matches(*embeddings, *labels, queries=queries, count=RANK_LIST_LENGTH)
        lists = [(matches, _euclidean(i, matches, embeddings)) for i, matches in zip(queries, found)]
    return [
        {
            "query": query.names[i],
            "id": int(query.ids[i]),
            "cam": int(query.cams[i]),
            "ap": ap,
            "gallery": _answers(int(query.ids[i]), *found, gallery),
        }
        for i, ap, found in zip(queries.tolist(), result.ap[chosen].tolist(), lists)
    ]


def _euclidean(i: int, matches: Tensor, embeddings: list[Tensor]) -> Tensor:
    return (embeddings[1][matches.to(embeddings[1].device)] - embeddings[0][i]).norm(dim=1)


def _answers(identity: int, matches: Tensor, distances: Tensor, gallery: Split) -> list[dict[str, Any]]:
    return [
        {
            "name": gallery.names[j],
            "id": int(gallery.ids[j]),
            "cam": int(gallery.cams[j]),
            "distance": distance,
            "right": bool(gallery.ids[j] == identity),
        }
        for j, distance in zip(matches.tolist(), distances.tolist())
    ]
