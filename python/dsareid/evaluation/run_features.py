"""What images are matched by: the features of a run's network for the images of a store."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from dsareid.data.batch import BatchConfig, assemble
from dsareid.data.layouts.base import GALLERY, MULTI_QUERY, QUERY
from dsareid.data.store.reader import Split, Store
from dsareid.engine import Run, TrainConfig
from dsareid.engine.loop import batch_config
from dsareid.evaluation.ranking import RankResult, rank
from dsareid.ground.distributed import current, gather_rows
from dsareid.ground.errors import DSAError

Features = Literal[
    "mf",
    "mf-global",
    "mf-local",
    "fused",
    "fused-global",
    "fused-local",
    "guide",
    "guide-global",
    "guide-local",
]
"""f, f_G, f_L of the MF-Stream; z, z_G, z_L of both streams; d, d_G, d_L of the DSAG-Stream."""

SYMBOLS: dict[Features, str] = {
    f"{stream}{branch}": symbol + letter
    for stream, symbol in (("mf", "f"), ("fused", "z"), ("guide", "d"))
    for branch, letter in (("", ""), ("-global", "_G"), ("-local", "_L"))
}
"""What the paper calls them."""


def own_features(config: TrainConfig) -> Features:
    """What a network's images are matched by unless asked otherwise: f, which needs images alone."""
    return "guide" if config.streams == "dsag" else "mf"


def check_features(config: TrainConfig, features: Features) -> None:
    """Raise DSAError where a network does not make such features.

    Raises:
        ValueError: there are no features of this name.
    """
    if features not in get_args(Features):
        raise ValueError(f"features must be one of {', '.join(get_args(Features))}, not {features!r}")
    stream, _, branch = features.partition("-")
    streams = {"mf": ("mf", "both"), "guide": ("dsag", "both"), "fused": ("both",)}[stream]
    kind = f"{config.model} with guidance {config.guidance}"
    if config.streams not in streams or (stream == "fused" and config.guidance == "distill"):
        needs = {"mf": "an MF-Stream", "guide": "a DSAG-Stream", "fused": "two streams that are fused"}
        needed = needs[stream]
        raise DSAError(f"{features} features need {needed}, but the model is {kind}")
    if branch and config.branches not in ("both", branch):
        raise DSAError(f"{features} features need {branch} branches, which {config.model} does not have")


def needs_iuv(config: TrainConfig, features: Features) -> bool:
    """Whether such features are made from IUV maps too."""
    return not features.startswith("mf") and config.guide.needs_iuv


@torch.inference_mode()
def extract(run: Run, split: Split, features: Features, batch_size: int) -> Tensor:
    """The features of every image of a split, float32 [N, D] on the model's device, with a progress bar.

    Several processes make a share each, and all have all features in the end.
    """
    stream = features.partition("-")[0]
    device = next(run.model.parameters()).device
    config = batch_config(run.config, device)
    config = replace(config, dtype=torch.float32, guide=None if stream == "mf" else config.guide)
    share = split.rows[current().share(len(split))]
    # Where there are fewer images than processes: one all the same, to know how long a feature is.
    rows = torch.from_numpy(share if len(share) else split.rows[:1])
    embeddings: Tensor | None = None
    hidden = None if current().first else True
    title = f"features of {split.name}"
    with tqdm(total=len(rows), desc=title, unit="image", leave=False, disable=hidden) as bar:
        for start in range(0, len(rows), batch_size):
            image, dsap = _inputs(split.store, rows[start : start + batch_size], config, device)
            part = _embed(run, stream, image, dsap)
            if embeddings is None:
                embeddings = torch.empty(len(rows), part.shape[1], device=device)
            embeddings[start : start + len(part)] = part
            bar.update(len(part))
    return _branch(run.config, features, gather_rows(embeddings[: len(share)]))


def _branch(config: TrainConfig, features: Features, whole: Tensor) -> Tensor:
    """The columns of a stream's features that are of the branch."""
    branch = features.partition("-")[2]
    if not branch or config.branches == branch:
        return whole
    return whole.chunk(2, 1)[branch == "local"].contiguous()


def _inputs(
    store: Store, rows: Tensor, config: BatchConfig, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    store.check_unchanged()
    image, dsap = assemble(store.images, store.iuv, rows, None, config)
    return image.to(device), dsap if dsap is None else dsap.to(device)


def _embed(run: Run, stream: str, image: Tensor, dsap: Tensor | None) -> Tensor:
    if stream == "mf":
        return run.model(image)
    return run.model.guide(dsap) if stream == "guide" else run.model.fused(image, dsap)


def query_features(run: Run, store: Store, features: Features, batch_size: int) -> Tensor:
    """The features of the queries. With Market-1501's multi-query protocol those of all images of the query's
    identity and camera in gt_bbox, averaged."""
    query = store.select(QUERY, iuv=needs_iuv(run.config, features))
    if "multi-query" not in store.header.protocol:
        return extract(run, query, features, batch_size)
    others = store.select(MULTI_QUERY, iuv=needs_iuv(run.config, features))
    found = extract(run, others, features, batch_size)
    group = {key: i for i, key in enumerate(dict.fromkeys(_keys(others)))}
    if missing := [name for name, key in zip(query.names, _keys(query)) if key not in group]:
        raise DSAError(f"{store.path}: gt_bbox has no image of the identity and camera of {missing[0]}")
    member = torch.tensor([group[key] for key in _keys(others)], device=found.device)
    total = torch.zeros(len(group), found.shape[1], device=found.device).index_add_(0, member, found)
    mean = total / member.bincount()[:, None]
    return mean[torch.tensor([group[key] for key in _keys(query)], device=found.device)]


def _keys(split: Split) -> list[tuple[int, int]]:
    return list(zip(split.ids.tolist(), split.cams.tolist()))


def match(
    run: Run, store: Store, features: Sequence[Features], *, every: bool = False, batch_size: int = 64
) -> dict[Features, RankResult]:
    """Rank the gallery of a store by several features of one network.

    Args:
        features: each must be one that the network makes.
        every: whether every test image with an identity is a query, against all others; otherwise the data
            set's own queries are.

    Raises:
        DSAError: a split or a map is missing, no query has a match, features that are not finite.
    """
    results, streams = {}, {}  # branches of a stream are matched by parts of the same features
    for name in features:
        check_features(run.config, name)
        mapped, stream = needs_iuv(run.config, name), name.partition("-")[0]
        query, gallery = (store.select(split, iuv=mapped) for split in (QUERY, GALLERY))
        if stream not in streams:
            streams[stream] = (
                query_features(run, store, stream, batch_size),
                extract(run, gallery, stream, batch_size),
            )
        found = [_branch(run.config, name, whole) for whole in streams[stream]]
        ids, cams = ([torch.from_numpy(getattr(x, y)) for x in (query, gallery)] for y in ("ids", "cams"))
        if every:
            known = torch.cat(ids) > 0
            found, ids, cams = (_every(pair, known) for pair in (found, ids, cams))
        try:
            results[name] = rank(*found, *ids, *cams)
        except ValueError as error:
            raise DSAError(f"{store.path}: the {name} features cannot be ranked: {error}") from error
    return results


def _every(pair: list[Tensor], known: Tensor) -> list[Tensor]:
    """From those of queries and gallery: those of both that are known, and all of both."""
    both = torch.cat(pair)
    return [both[known.to(both.device)], both]
