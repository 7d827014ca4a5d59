"""dsareid rank"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import FileOption, Flag
from dsareid.ground.errors import DSAError


def command(
    query: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="QUERY")],
    gallery: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="GALLERY")],
    rerank: Flag = False,
    max_rank: int = 10,
    queries: FileOption = None,
    against: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="QUERY GALLERY")] = None,
) -> None:
    """Compute mAP, mINP, rank-1/5/10 and TPR over pairs from extracted features, beside those of chance.

    And for the open set, where the person of a query may be in no gallery image: TPIR@0.01 is the share of
    queries whose person is found first, and near enough, at a threshold by which 1 % of the searches for
    people whom the gallery lacks find somebody.

    Identities and cameras come from images.csv of both folders. Any words will do: the same word is the same
    person. Gallery images of the query's identity and camera are removed, and so is junk, identity -1; 0 is a
    distractor. The gallery need not fit into memory: it is read from disk once for about every 128 queries.

    Args:
        query: A folder that extract wrote.
        gallery: Another one, of the same model.
        rerank: Also rank after k-reciprocal re-ranking (Zhong et al., CVPR 2017). This holds all features in
            memory, and its time grows with the square of the number of images.
        max_rank: The last rank of the table: 50 adds rank-50.
        queries: Write a line of JSON for each query to this file: its image, identity and camera, AP,
            INP and the place of its first match.
        against: Also compare with another model's features of the same images, by paired differences.
    """
    from dsareid.evaluation.rows import format_open_set
    from dsareid.evaluation.verification import RATES
    from dsareid.ground.files import check_writable
    from dsareid.inference.compare_features import format_compared
    from dsareid.inference.rank_folders import rank_folders
    from dsareid.runs.records import (
        RANKS,
        format_pairs,
        format_table,
        write_query_lines,
    )

    if max_rank < 1:
        raise DSAError(f"`max_rank` must be at least 1, not {max_rank}")
    if queries:
        check_writable(queries)
    ranks = [*(rank for rank in RANKS if rank < max_rank), max_rank]
    ranking = rank_folders(query, gallery, max_rank=max_rank, rerank=rerank, against=against)
    if queries:
        write_query_lines(queries, ranking.queries)
    tables = [
        format_table(ranking.rows, ranks),
        format_pairs(ranking.rows, RATES),
        format_open_set(ranking.open_set),
    ]
    print("\n".join([*tables, *ranking.notes]))
    if against:
        print(f"\nfirst: {query}, {gallery}; second: {against[0]}, {against[1]}")
        print(format_compared(ranking.compared))
