"""The results of a ranking as records: a row of the table, and a line for each query."""

import math
from collections.abc import Iterator, Sequence

from dsareid.data.labels import ImageLabel
from dsareid.evaluation.ranking import RankResult
from dsareid.runs.records import QueryLine, Row


def table_row(name: str, result: RankResult) -> Row:
    """A row of the table."""
    tpr = [None if math.isnan(share) else share for share in result.tpr.values()]
    return Row(name=name, mAP=result.mAP, mINP=result.mINP, tpr=tpr, cmc=result.cmc.tolist())


def query_lines(
    names: Sequence[str], labels: Sequence[ImageLabel], result: RankResult
) -> Iterator[QueryLine]:
    """A line for each query, in their order."""
    figures = zip(result.ap.tolist(), result.inp.tolist(), result.first.tolist())
    counted = dict(zip(result.queries.tolist(), figures))
    for number, (name, (identity, camera)) in enumerate(zip(names, labels)):
        ap, inp, first = counted.get(number, (None, None, None))
        yield QueryLine(query=name, identity=str(identity), camera=camera, ap=ap, inp=inp, first=first)
