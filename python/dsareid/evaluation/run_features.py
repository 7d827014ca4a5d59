"""The features of a store's images, by which a run's network matches them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor
from tqdm import tqdm

from dsareid.data.batch import InputConfig, assemble
from dsareid.data.guide_input import Samples
from dsareid.data.layouts.base import GALLERY, MULTI_QUERY, QUERY
from dsareid.data.store.reader import Split, Store
from dsareid.evaluation.distances import FeatureDistances
from dsareid.evaluation.positives import Labels
from dsareid.evaluation.ranking import Ranking, RankResult
from dsareid.ground.distributed import current_group, gather_rows
from dsareid.ground.errors import DSAError
from dsareid.models.options import GUIDE_INPUT_NEEDS_IUV
from dsareid.models.table import MatchedBy
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Run
from dsareid.runs.network import input_config


def own_features(config: TrainConfig) -> MatchedBy:
    """The features that images are matched by, by default: f, from images alone, if the network has it."""
    return "guide" if config.streams == "dsag" else "mf"


def check_features(config: TrainConfig, features: MatchedBy) -> None:
    """Raise DSAError if the network does not make these features.

    Raises:
        ValueError: there are no features of this name.
    """
    if features not in get_args(MatchedBy):
        raise ValueError(f"features must be one of {', '.join(get_args(MatchedBy))}, not {features!r}")
    stream, _, branch = features.partition("-")
    if stream not in _streams(config):
        needs = {
            "mf": "an MF-Stream",
            "guide": "a DSAG-Stream, or guidance pool",
            "fused": "two streams that are fused, or guidance pool",
        }
        kind = f"{config.model} with guidance {config.guidance}"
        raise DSAError(f"{features} features need {needs[stream]}, but the model is {kind}")
    if config.guide_input == "others" and stream != "mf":
        raise DSAError(
            f"{features} features of {config.model} would be made of other people's maps, a control"
        )
    if branch and config.branches not in ("both", branch):
        raise DSAError(f"{features} features need {branch} branches, which {config.model} does not have")
    if branch and stream != "mf" and config.guidance == "pool":
        raise DSAError(
            f"{features} features need a DSAG-Stream, but {config.model} with guidance pool has none"
        )


def _streams(config: TrainConfig) -> tuple[MatchedBy, ...]:
    """What the network gives to match by, with all branches."""
    if config.guidance == "pool":
        return "mf", "guide", "fused"
    if config.streams == "both":
        return ("mf", "guide") if config.guidance == "distill" else ("mf", "guide", "fused")
    return ("mf",) if config.streams == "mf" else ("guide",)


def needs_iuv(config: TrainConfig, features: MatchedBy) -> bool:
    """Whether these features need IUV maps too."""
    return not features.startswith("mf") and config.guide is not None and GUIDE_INPUT_NEEDS_IUV[config.guide]


@torch.inference_mode()
def compute_features(run: Run, split: Split, features: MatchedBy, batch_size: int) -> Tensor:
    """The features of every image of a split, float32 [N, D] on the model's device, with a progress bar.

    Several processes compute a share each, and every process returns all features.
    """
    stream = features.partition("-")[0]
    device = next(run.model.parameters()).device
    config = replace(input_config(run.config, device), dtype=torch.float32)
    if stream == "mf":
        config = replace(config, guide=None)
    share = split.rows[current_group().share(len(split))]
    # A process without a share computes one image nevertheless, to know how long a feature is.
    rows = torch.from_numpy(share if len(share) else split.rows[:1])
    embeddings: Tensor | None = None
    hidden = None if current_group().is_rank_0 else True
    title = f"features of {split.name}"
    with tqdm(total=len(rows), desc=title, unit="image", leave=False, disable=hidden) as bar:
        for start in range(0, len(rows), batch_size):
            image, dsap = _inputs(split.store, rows[start : start + batch_size], config, device)
            part = _embed(run, stream, image, dsap)
            if embeddings is None:
                embeddings = part.new_empty(len(rows), part.shape[1])
            embeddings[start : start + len(part)] = part
            bar.update(len(part))
    assert embeddings is not None
    return _branch(run.config, features, gather_rows(embeddings[: len(share)]))


def _branch(config: TrainConfig, features: MatchedBy, whole: Tensor) -> Tensor:
    """The columns of `whole`, a stream's features, that belong to the branch."""
    branch = features.partition("-")[2]
    if not branch or config.branches == branch:
        return whole
    return whole.chunk(2, 1)[branch == "local"].contiguous()


def _inputs(
    store: Store, rows: Tensor, config: InputConfig, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    store.check_unchanged()
    image, dsap = assemble(Samples(store.images, store.iuv, rows, None), config)
    return image.to(device), dsap if dsap is None else dsap.to(device)


def _embed(run: Run, stream: str, image: Tensor, dsap: Tensor | None) -> Tensor:
    if stream == "mf":
        return run.model(image)
    assert dsap is not None
    if stream == "fused":
        return run.model.fused(image, dsap)
    return run.model.parts(image, dsap) if run.model.pooling else run.model.guide(dsap)


def query_features(run: Run, store: Store, features: MatchedBy, batch_size: int) -> Tensor:
    """The features of the queries. With Market-1501's multi-query protocol, the mean over all images of the
    query's identity and camera in gt_bbox."""
    query = store.select(QUERY, iuv=needs_iuv(run.config, features))
    if "multi-query" not in store.header.protocol:
        return compute_features(run, query, features, batch_size)
    others = store.select(MULTI_QUERY, iuv=needs_iuv(run.config, features))
    found = compute_features(run, others, features, batch_size)
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
    run: Run, store: Store, features: Sequence[MatchedBy], *, every: bool = False, batch_size: int = 64
) -> dict[MatchedBy, RankResult]:
    """Rank the gallery of a store by each of several features of one network.

    Args:
        features: each must be one that the network makes.
        every: whether every test image with an identity is a query, against all others; default: the data
            set's own queries.

    Raises:
        DSAError: a split or a map is missing, no query has a match, features that are not finite.
    """
    results: dict[MatchedBy, RankResult] = {}
    streams: dict[str, tuple[Tensor, Tensor]] = {}  # branches of a stream are parts of the same features
    for name in features:
        check_features(run.config, name)
        mapped, stream = needs_iuv(run.config, name), _stream(name)
        query, gallery = (store.select(split, iuv=mapped) for split in (QUERY, GALLERY))
        if stream not in streams:
            streams[stream] = (
                query_features(run, store, stream, batch_size),
                compute_features(run, gallery, stream, batch_size),
            )
        found, others = (_branch(run.config, name, whole) for whole in streams[stream])
        labels = ranking_labels(query, gallery)
        if every:
            found, others, labels = _all_as_queries(found, others, labels)
        try:
            results[name] = Ranking(FeatureDistances(found, others), labels).result()
        except ValueError as error:
            raise DSAError(f"{store.path}: the {name} features cannot be ranked: {error}") from error
    return results


def ranking_labels(query: Split, gallery: Split) -> Labels:
    """Identities and cameras, as `Ranking` takes them."""
    return Labels(*(torch.from_numpy(x) for x in (query.ids, gallery.ids, query.cams, gallery.cams)))


def _stream(features: MatchedBy) -> MatchedBy:
    """The features of the same stream with all its branches."""
    streams: tuple[MatchedBy, ...] = ("mf", "fused", "guide")
    return next(stream for stream in streams if features.startswith(stream))


def _all_as_queries(query: Tensor, gallery: Tensor, labels: Labels) -> tuple[Tensor, Tensor, Labels]:
    """Features and labels with all images as the gallery, and all that have an identity as queries."""
    ids = torch.cat([labels.query_ids, labels.gallery_ids])
    cams = torch.cat([labels.query_cams, labels.gallery_cams])
    features, known = torch.cat([query, gallery]), ids > 0
    return features[known.to(features.device)], features, Labels(ids[known], ids, cams[known], cams)
