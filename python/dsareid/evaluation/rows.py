"""The results of a ranking as records and text: a row of the table, a line for each query, the open set."""

import math
from collections.abc import Iterator, Sequence

from dsareid.data.labels import ImageLabel
from dsareid.evaluation.bootstrap import LEVEL, Interval
from dsareid.evaluation.open_set import FPIR
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


def format_open_set(tpir: Sequence[Interval]) -> str:
    """TPIR at each rate of open_set.FPIR with its interval, in per cent, a line each; "-" if not known."""
    lines = [f"open set, and {100 * LEVEL:g} % interval over people:"]
    for rate, found in zip(FPIR, tpir):
        lines.append(f"  TPIR@{rate:<6g}{per_cent(found.value):>6}   {span(found)}")
    return "\n".join(lines)


def span(found: Interval, signed: bool = False) -> str:
    """An interval in per cent."""
    low, high = (per_cent(end, signed) for end in (found.low, found.high))
    return f"{low} to {high}"


def per_cent(fraction: float, signed: bool = False) -> str:
    """A fraction in per cent; "-" for NaN."""
    return "-" if math.isnan(fraction) else f"{100 * fraction:{'+' if signed else ''}.1f}"
