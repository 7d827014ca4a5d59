"""Evaluate a run: its network on query and gallery, beside colour histograms and chance."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dsareid.data.labels import ImageLabel
from dsareid.data.layouts import find_labels
from dsareid.data.layouts.base import GALLERY, MULTI_QUERY, QUERY, MakeMaps, MissingMaps
from dsareid.data.layouts.cuhk01 import DATASET as CUHK01
from dsareid.data.matches import count_matches
from dsareid.data.store.cache import ensure_store, log_maps
from dsareid.data.store.reader import Split, Store
from dsareid.evaluation.baselines import colour_histograms
from dsareid.evaluation.copies import copied_pictures, copies_note
from dsareid.evaluation.distances import FeatureDistances
from dsareid.evaluation.positives import Labels
from dsareid.evaluation.ranking import Ranking, RankResult, chance
from dsareid.evaluation.rerank import k_reciprocal
from dsareid.evaluation.rows import query_lines, table_row
from dsareid.evaluation.run_features import (
    check_features,
    compute_features,
    needs_iuv,
    own_features,
    query_features,
    ranking_labels,
)
from dsareid.evaluation.verification import RATES
from dsareid.ground.distributed import choose_device, current_group, join_group, own_device
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import check_is_text, check_writable, check_writable_folder
from dsareid.models.table import SYMBOLS, MatchedBy
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Run, load_run
from dsareid.runs.records import Answer, EvaluatedAt, Evaluation, RankList, write_query_lines

BELOW_COLOURS = "mAP is below that of balanced colour histograms: train longer, or on more people"
RANK_LISTS = 8  # queries shown, spread evenly over the AP range
RANK_LIST_LENGTH = 10
_SLICE = 256  # stored images in memory at once for the colour histograms


def evaluate(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    features: MatchedBy | None = None,
    *,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    protocol: str | None = None,
    rerank: bool = False,
    queries: str | os.PathLike[str] | None = None,
    make_maps: MakeMaps | None = None,
) -> Evaluation | None:
    """Evaluate a run on query and gallery, and write the results to its folder.

    Processes that torchrun started share the computation of features; rank 0 does the rest.

    Args:
        run: the run's folder.
        data: the root of the data set, or a store of it; default: the run's own.
        features: what images are matched by; default: "mf", f of the MF-Stream, from images alone, or "guide"
            for a network without an MF-Stream. All but mf need IUV maps of query and gallery, unless the
            guide input is image patches.
        batch_size: images passed through the model at once.
        device: where the model runs and the gallery is ranked; "auto" is CUDA if there is one.
        protocol: of the data set; default: the run's own, or the default of `data` if that is given.
        rerank: whether to add k-reciprocal re-ranking, as the first row; the second row is without.
        queries: a file to write, a line of JSON for each query: its image, identity and camera, and its AP,
            INP and place of the first match in the ranking of the first row.
        make_maps: called with the data and its protocol if maps are needed, to make the missing ones, as
            dsareid.densepose.estimate_missing does.

    Returns:
        What is written to the run's folder (see RunFolder.evaluation): the rows of the table with their CMC,
        fractions of 1, and the rank lists of a few queries. None in every process but rank 0.

    Raises:
        DSAError: no run, a data set that cannot be read, features that the model does not make,
            no query with a match, features that are not finite, a batch_size below 1.
        ValueError: there are no features of this name.
    """
    if batch_size < 1:
        raise DSAError(f"`batch_size` must be at least 1, not {batch_size}")
    device = own_device(choose_device(device) if isinstance(device, str) else device)
    with join_group(device) as group:
        loaded = load_run(run, device)
        check_writable_folder(loaded.folder.path)
        if queries:
            check_writable(Path(queries))
        config = loaded.config
        features = features or own_features(config)
        _check(loaded, features)
        if protocol is None:
            protocol = config.protocol if data is None else ""
        root = Path(config.data if data is None else data)
        check_is_text(root)
        mapped = [QUERY, GALLERY, MULTI_QUERY] if needs_iuv(config, features) else []
        if mapped and make_maps:
            make_maps(root, protocol)
        with _naming_features(config, features):
            with group.rank_0_first():
                store = ensure_store(root, config.height, config.width, mapped=mapped, protocol=protocol)
            query, gallery = (store.select(name, iuv=bool(mapped)) for name in (QUERY, GALLERY))
        _check_unseen(loaded, store)
        if group.is_rank_0:
            log_maps(store, mapped)
        try:
            labels = ranking_labels(query, gallery)
            matches = count_matches(*labels.pairs())
            if not matches.matched:
                raise DSAError(f"{root}: {matches.note()}")
            by_chance = chance(labels)
        except ValueError as error:
            raise DSAError(f"{root}: {error}") from error
        embeddings = (
            query_features(loaded, store, features, batch_size),
            compute_features(loaded, gallery, features, batch_size),
        )
        if not group.is_rank_0:
            return None
        rankings = _rankings(loaded, _title(config, features), embeddings, labels, rerank)
        results = {name: ranking.result(rates=RATES) for name, ranking in rankings.items()}
        first, result = next(iter(results.items()))
        words = _words(root, query, gallery)
        balanced = _rank_colours(query, gallery, labels, True)
        found = Evaluation(
            data=str(root),
            dataset=store.header.dataset,
            protocol=store.header.protocol,
            synthetic=store.header.synthetic,
            features=features,
            reranked=rerank,
            model=config.model,
            checkpoint=EvaluatedAt(epoch=loaded.epoch, step=loaded.step),
            queries=len(result.queries),
            skipped=result.skipped,
            gallery=len(gallery),
            notes=list(
                filter(
                    None,
                    [
                        matches.note(),
                        _copies_note(query, gallery, labels),
                        store.skipped_note,
                        BELOW_COLOURS if result.mAP < balanced.mAP else "",
                    ],
                )
            ),
            rows=[table_row(name, each) for name, each in results.items()],
            baselines=[
                table_row("colour histograms, balanced", balanced),
                table_row("colour histograms", _rank_colours(query, gallery, labels, False)),
                table_row("chance", by_chance),
            ],
            rank_lists=_rank_lists(rankings[first], result, query, gallery, words),
        )
        loaded.folder.write_evaluation(found, loaded.data)
        if queries:
            asked = [words[name] for name in query.names]
            write_query_lines(queries, query_lines(query.names, asked, result))
        return found


def _copies_note(query: Split, gallery: Split, labels: Labels) -> str:
    return copies_note(copied_pictures(query, gallery, labels), len(query))


def _check(run: Run, features: MatchedBy) -> None:
    """Check that the run has these features; warn if its training has not ended."""
    try:
        check_features(run.config, features)
    except DSAError as error:
        raise DSAError(f"{run.folder}: {error}") from error
    if run.epoch < run.config.epochs and current_group().is_rank_0:
        logger.warning(f"{run.folder} has trained {run.epoch} of {run.config.epochs} epochs")


def _check_unseen(run: Run, store: Store) -> None:
    """Raise DSAError if the run was trained on another split, with some of this split's test identities."""
    trained, name = run.data, store.header.dataset
    if trained.get("dataset") != name or trained.get("protocol") == store.header.protocol:
        return
    if name == CUHK01.name:  # the only data set whose protocols train on different identities
        raise DSAError(
            f"{store.path}: split by protocol {store.header.protocol}, but the network was trained on "
            f"{trained.get('protocol')}, whose training set has some of these test identities"
        )


@contextlib.contextmanager
def _naming_features(config: TrainConfig, features: MatchedBy) -> Iterator[None]:
    try:
        yield
    except MissingMaps as error:
        others = "; `features=mf` needs images alone" if config.streams != "dsag" else ""
        raise DSAError(
            f"{error} ({features} features need the IUV of every query and gallery image{others})"
        ) from error


def _rankings(
    run: Run, title: str, embeddings: tuple[Tensor, Tensor], labels: Labels, rerank: bool
) -> dict[str, Ranking]:
    """The rankings by the names of their rows, the re-ranked one first."""
    try:
        found = {title: Ranking(FeatureDistances(*embeddings), labels)}
        if rerank:
            found = {f"{title}, re-ranked": Ranking(k_reciprocal(*embeddings), labels)} | found
    except ValueError as error:
        raise DSAError(f"{run.folder}: the features cannot be ranked: {error}") from error
    return found


def _title(config: TrainConfig, features: MatchedBy) -> str:
    """The name of a row: the network's, and the features if they are not its default."""
    if features == own_features(config):
        return config.title
    return f"{config.title}, {SYMBOLS[features] if '-' in features else features}"


def _rank_colours(query: Split, gallery: Split, labels: Labels, balanced: bool) -> RankResult:
    colours = (_colours(split, balanced) for split in (query, gallery))
    return Ranking(FeatureDistances(*colours), labels).result(rates=RATES)


def _colours(split: Split, balanced: bool) -> Tensor:
    """The colour histograms of a split, float32 [N, D]; a slice of the stored images at a time."""
    split.store.check_unchanged()
    slices = (split.rows[start : start + _SLICE] for start in range(0, len(split), _SLICE))
    images = (torch.from_numpy(split.store.images[rows]) for rows in slices)
    return torch.cat([colour_histograms(part, balanced=balanced) for part in images])


def _words(root: Path, *splits: Split) -> dict[str, ImageLabel]:
    """The labels of images as the data set writes them; if only a store is there, its numbers."""
    found = find_labels(root, [name for split in splits for name in split.names])
    words = {name: ImageLabel(*label) for name, label in found.items()}
    for split in splits:
        known = split.store.header.cameras
        for name, identity, camera in zip(split.names, split.ids.tolist(), split.cams.tolist()):
            number = ImageLabel(str(identity), str(camera) if known and camera >= 0 else None)
            words.setdefault(name, number)
    return words


def _rank_lists(
    ranking: Ranking, result: RankResult, query: Split, gallery: Split, words: Mapping[str, ImageLabel]
) -> list[RankList]:
    """The tops of the rank lists of queries spread evenly over the AP range, best first."""
    by_ap = result.ap.sort(descending=True, stable=True).indices
    chosen = by_ap[torch.linspace(0, len(by_ap) - 1, min(RANK_LISTS, len(by_ap))).round().long()]
    queries = result.queries[chosen]
    lists = ranking.top(queries, RANK_LIST_LENGTH)
    return [
        RankList(
            query=query.names[i],
            identity=str(words[query.names[i]].identity),
            camera=words[query.names[i]].camera,
            ap=ap,
            gallery=_answers(int(query.ids[i]), places, distances, gallery, words),
        )
        for i, ap, (places, distances) in zip(queries.tolist(), result.ap[chosen].tolist(), lists)
    ]


def _answers(
    identity: int, places: Tensor, distances: Tensor, gallery: Split, words: Mapping[str, ImageLabel]
) -> list[Answer]:
    return [
        Answer(
            name=gallery.names[j],
            identity=str(words[gallery.names[j]].identity),
            camera=words[gallery.names[j]].camera,
            distance=distance,
            right=bool(gallery.ids[j] == identity),
        )
        for j, distance in zip(places.tolist(), distances.tolist())
    ]
