"""`dsareid eval`: a run's model on query and gallery, beside chance and colour histograms."""

import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsa_ext import assemble_batch
from dsareid.data.batch import MEAN, STD
from dsareid.data.market import GALLERY, QUERY
from dsareid.data.pack import ensure_store
from dsareid.data.store import Split, Store
from dsareid.engine import Run, load_run
from dsareid.errors import DSAError
from dsareid.evaluation.baselines import chance, colour_histograms
from dsareid.evaluation.ranking import RankResult, rank, top_matches
from dsareid.files import atomic_path

Features = Literal["mf", "fused"]

# Where in the run's folder the result for each kind of features is written.
EVALUATION_FILES: dict[str, str] = {"mf": "evaluation.json", "fused": "evaluation-fused.json"}

RANK_LISTS = 8  # queries shown, evenly over the AP range
RANK_LIST_LENGTH = 10
_SLICE = 256  # stored images in memory at once for the colour histograms

_MODEL_NAMES = {"dsa": "DSA-reID", "two-branch": "two-branch", "baseline": "baseline"}


def evaluate(
    run: Path,
    data: Path | None = None,
    features: Features = "mf",
    batch_size: int = 64,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Evaluate a run on query and gallery, print the table and write it into the run's folder.

    Args:
        run: the run's folder.
        data: the root that holds query/ and bounding_box_test/, or a store of it; the run's own where
            None.
        features: "mf" matches by the features of the MF-Stream, from images alone; "fused" by z
            of both streams, which needs a dsa model and the IUV of query and gallery.
        batch_size: images passed through the model at once.
        device: where the model runs and the gallery is ranked; "auto" is CUDA where there is one.

    Returns:
        What is written to RUN/evaluation.json (RUN/evaluation-fused.json for fused): the rows of
        the table with their CMC, fractions of 1, and the rank lists of a few queries.

    Raises:
        DSAError: no run, a data set that cannot be read, fused features of a model that has none,
            no query with a match, features that are not finite.
        ValueError: features or batch_size has a wrong value.
    """
    if features not in EVALUATION_FILES:
        raise ValueError(f'features must be "mf" or "fused", not {features!r}')
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    run = Path(run)
    loaded = load_run(run, device)
    config = loaded.config
    if loaded.epoch < config.epochs:
        print(f"note: {run} has trained {loaded.epoch} of {config.epochs} epochs", file=sys.stderr)
    fused = features == "fused"
    if fused and config.model != "dsa":
        raise DSAError(
            f"{run}: fused features need a model of kind dsa, both streams; "
            f"this run's is {config.model}"
        )
    root = Path(data if data is not None else config.data)
    try:
        mapped = (QUERY, GALLERY) if fused else ()
        store = ensure_store(root, config.height, config.width, mapped=mapped)
        query, gallery = (store.select(name, iuv=fused) for name in (QUERY, GALLERY))
    except DSAError as error:
        if not fused:
            raise
        raise DSAError(
            f"{error} (fused features need the IUV of every query and gallery image; --features mf needs "
            "images alone)"
        ) from error
    labels = _labels(query, gallery)
    try:
        expected = chance(*labels)
    except ValueError as error:
        raise DSAError(f"{root}: {error}") from error
    embeddings = [_extract(loaded, split, fused, batch_size) for split in (query, gallery)]
    try:
        result = rank(*embeddings, *labels)
    except ValueError as error:
        raise DSAError(f"{run}: the features cannot be ranked: {error}") from error

    name = _MODEL_NAMES.get(config.model, config.model) + (", fused" if fused else "")
    evaluation = {
        "data": str(root),
        "synthetic": store.header.synthetic,
        "features": features,
        "model": config.model,
        "checkpoint": {"epoch": loaded.epoch, "step": loaded.step},
        "queries": len(result.queries),
        "skipped": result.skipped,
        "gallery": len(gallery.names),
        "rows": [
            _row(name, result),
            _row("colour histograms, balanced", _rank_colours(query, gallery, labels, True)),
            _row("colour histograms", _rank_colours(query, gallery, labels, False)),
            _row("chance", expected),
        ],
        "rank_lists": _rank_lists(result, query, gallery, embeddings, labels),
    }
    with atomic_path(run / EVALUATION_FILES[features]) as temporary:
        temporary.write_text(json.dumps(evaluation, indent=1) + "\n", encoding="utf-8")
    print(format_table(evaluation["rows"]))
    return evaluation


def format_table(rows: list[dict[str, Any]]) -> str:
    """The rows of an evaluation as an aligned table, in per cent."""
    width = max(len(row["name"]) for row in rows)
    columns = {"mAP": "mAP", "rank-1": "rank1", "rank-5": "rank5", "rank-10": "rank10"}
    lines = [" " * width + "".join(f"{title:>9}" for title in columns)]
    for row in rows:
        figures = "".join(f"{100 * row[key]:9.1f}" for key in columns.values())
        lines.append(f"{row['name']:<{width}}{figures}")
    return "\n".join(lines)


def _labels(query: Split, gallery: Split) -> list[Tensor]:
    """query_ids, gallery_ids, query_cams, gallery_cams, as `rank` takes them."""
    return [
        torch.from_numpy(labels)
        for labels in (query.ids, gallery.ids, query.cams, gallery.cams)
    ]


@torch.inference_mode()
def _extract(run: Run, split: Split, fused: bool, batch_size: int) -> Tensor:
    """The embedding of every image of a split, float32 [N, D] on the model's device."""
    device = next(run.model.parameters()).device
    features: Tensor | None = None
    title = f"features of {split.name}"
    with tqdm(total=len(split), desc=title, unit="image", leave=False, disable=None) as progress:
        for start in range(0, len(split), batch_size):
            rows = split.rows[start : start + batch_size]
            image, dsap = _assemble(split.store, rows, run.config, fused, device)
            part = run.model.fused(image, dsap) if fused else run.model(image)
            if features is None:
                features = torch.empty(len(split), part.shape[1], device=device)
            features[start : start + len(part)] = part
            progress.update(len(part))
    return features


def _assemble(
    store: Store, rows: np.ndarray, config: Any, fused: bool, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The network's input for some rows of the store: image and, for fused features, DSAP-images."""
    store.check_unchanged()
    batch = assemble_batch(
        store.images, store.iuv if fused else None, torch.from_numpy(rows), height=config.height,
        width=config.width, size=config.dsap_size, mean=MEAN, std=STD, memory_format=torch.channels_last,
    )  # fmt: skip
    image, dsap = (x if x is None else x.to(device) for x in batch)
    return image, dsap


def _rank_colours(
    query: Split, gallery: Split, labels: list[Tensor], balanced: bool
) -> RankResult:
    return rank(*(_colours(split, balanced) for split in (query, gallery)), *labels)


def _colours(split: Split, balanced: bool) -> Tensor:
    """The colour histograms of a split, float32 [N, D]; a slice of the stored images at a time."""
    split.store.check_unchanged()
    slices = (split.rows[start : start + _SLICE] for start in range(0, len(split), _SLICE))
    images = (torch.from_numpy(split.store.images[rows]) for rows in slices)
    return torch.cat([colour_histograms(part, balanced=balanced) for part in images])


def _row(name: str, result: RankResult) -> dict[str, Any]:
    cmc = result.cmc.tolist()
    return {
        "name": name, "mAP": result.mAP,
        "rank1": cmc[0], "rank5": cmc[4], "rank10": cmc[9], "cmc": cmc,
    }


def _rank_lists(
    result: RankResult, query: Split, gallery: Split, embeddings: list[Tensor], labels: list[Tensor]
) -> list[dict[str, Any]]:
    """Queries evenly over the AP range, best first, each with the head of its rank list."""
    by_ap = result.ap.sort(descending=True, stable=True).indices
    places = torch.linspace(0, len(by_ap) - 1, min(RANK_LISTS, len(by_ap))).round().long()
    chosen = by_ap[places]
    queries = result.queries[chosen]
    lists = top_matches(*embeddings, *labels, queries=queries, count=RANK_LIST_LENGTH)
    return [
        {
            "query": query.names[i],
            "id": int(query.ids[i]),
            "cam": int(query.cams[i]),
            "ap": ap,
            "gallery": _answers(i, matches, query, gallery, embeddings),
        }
        for i, ap, matches in zip(queries.tolist(), result.ap[chosen].tolist(), lists)
    ]


def _answers(
    i: int, matches: Tensor, query: Split, gallery: Split, embeddings: list[Tensor]
) -> list[dict[str, Any]]:
    matches = matches.to(embeddings[1].device)
    distances = (embeddings[1][matches] - embeddings[0][i]).norm(dim=1)
    return [
        {
            "name": gallery.names[j],
            "id": int(gallery.ids[j]),
            "cam": int(gallery.cams[j]),
            "distance": distance,
            "right": bool(gallery.ids[j] == query.ids[i]),
        }
        for j, distance in zip(matches.tolist(), distances.tolist())
    ]
