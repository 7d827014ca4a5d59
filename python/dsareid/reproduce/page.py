"""A table of the figures reached here beside the paper's: as text, CSV and HTML."""

import csv
import io
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from dsareid.data.layouts.cuhk01 import DATASET as CUHK01
from dsareid.ground.files import atomic_path
from dsareid.ground.templates import render_page
from dsareid.models.table import SYMBOLS, MatchedBy
from dsareid.report.plots import rows_plot
from dsareid.reproduce.recipes import Figures

MEASURES = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10"}


@dataclass(frozen=True)
class Cell:
    """One figure of a row, per cent."""

    own: tuple[float, ...]  # reached here, one for each seed that is done
    paper: float | None  # None if the paper has none for this data set

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.own) if self.own else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds, with n - 1; None for fewer than two."""
        return statistics.stdev(self.own) if len(self.own) > 1 else None

    def __str__(self) -> str:
        if self.mean is None:
            return "-"
        return f"{self.mean:.1f}" if self.spread is None else f"{self.mean:.1f} ±{self.spread:.1f}"


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    name: str
    matched_by: MatchedBy
    network: str
    cells: dict[str, Cell]  # by measure, as in MEASURES

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.matched_by]

    @property
    def seeds(self) -> int:
        return len(self.cells["mAP"].own)


@dataclass(frozen=True)
class Heading:
    """The table and settings that the user asked for."""

    table: str  # as in recipes.TABLES
    title: str
    preset: str
    weights: str
    seeds: int


@dataclass(frozen=True)
class Table:
    """A table of the paper, run on some data."""

    heading: Heading
    dataset: str
    synthetic: bool
    lines: list[Line]
    others: dict[str, Figures]  # methods that the paper prints beside its own
    counts: str  # of the data set's images
    protocol: str
    differences: list[str]  # from the known counts of the public data set

    @property
    def has_paper(self) -> bool:
        return any(cell.paper is not None for line in self.lines for cell in line.cells.values())

    @property
    def title(self) -> str:
        asked = self.heading
        runs = f"{asked.seeds} seeds: mean ±standard deviation" if asked.seeds > 1 else "one seed"
        data = f"{self.dataset} by {self.protocol}" if self.protocol else self.dataset
        return f"{asked.title} on {data}, preset {asked.preset}, {runs}, per cent"

    @property
    def notes(self) -> list[str]:
        """What a reader must know about the comparison."""
        notes = []
        if self.synthetic:
            notes.append("The people are rendered; the paper's figures, of photographs, are left out.")
        elif not self.has_paper:
            notes.append(f"The paper has no figures for these rows on {self.dataset}.")
        else:
            if self.heading.preset != "paper":
                notes.append(f"The preset {self.heading.preset} is not the paper's: its network differs.")
            elif self.heading.weights == "none":
                notes.append("The trunks started from random weights; the paper's, from ImageNet weights.")
            if self.dataset == CUHK01.name:
                notes.append("The paper does not say by which split of CUHK01 it was evaluated.")
            if self.differences:
                notes.append(f"These are not the paper's data: {'; '.join(self.differences)}.")
            if self.protocol in ("multi-query", "distractors", "multi-query+distractors"):
                notes.append(f"The protocol is {self.protocol}; the paper's figures are for single query.")
        if unfinished := [line.name for line in self.lines if line.seeds < self.heading.seeds]:
            notes.append(f"Not finished: {len(unfinished)} of {len(self.lines)} rows lack runs.")
        return notes


def write_table(table: Table, out: Path) -> None:
    """Write OUT/<table>.txt, .csv and .html.

    Raises:
        DSAError: a file cannot be written.
    """
    texts = {"txt": format_text(table) + "\n", "csv": format_csv(table), "html": format_html(table)}
    for suffix, text in texts.items():
        with atomic_path(out / f"{table.heading.table}.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")


def format_text(table: Table) -> str:
    """The table as aligned text, the paper's figures to the right where there are any."""
    names = max(map(len, [*(line.name for line in table.lines), *table.others]))
    by = max(len(line.symbol) for line in table.lines)
    wide = max(len(str(cell)) for line in table.lines for cell in line.cells.values()) + 2
    wide = max(wide, 9)
    head = f"{'':<{names}}  {'by':<{by}}" + "".join(f"{title:>{wide}}" for title in MEASURES.values())
    if table.has_paper:
        head += "   | paper" + "".join(f"{title:>9}" for title in MEASURES.values())
    lines = [table.title, "", head]
    for name, figures in table.others.items():
        blank = f"{name:<{names}}  {'':<{by}}" + f"{'-':>{wide}}" * len(MEASURES)
        lines.append(f"{blank}   |      {_paper(figures)}".rstrip())
    for line in table.lines:
        text = f"{line.name:<{names}}  {line.symbol:<{by}}"
        text += "".join(f"{str(cell):>{wide}}" for cell in line.cells.values())
        if table.has_paper:
            text += "   |      " + _paper(cell.paper for cell in line.cells.values())
        lines.append(text.rstrip())
    return "\n".join([*lines, "", *table.notes]).rstrip()


def _paper(figures: Iterable[float | None]) -> str:
    return "".join(f"{'' if figure is None else f'{figure:.1f}':>9}" for figure in figures)


def format_csv(table: Table) -> str:
    """One line for each row and measure: every seed's figure, mean, spread, the paper's."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    seeds = [f"seed_{seed}" for seed in range(table.heading.seeds)]
    paper = ["paper"] if table.has_paper else []
    writer.writerow(["row", "network", "matched_by", "measure", *seeds, "mean", "standard_deviation", *paper])
    for line in table.lines:
        for measure, cell in line.cells.items():
            own = [f"{value:.4f}" for value in cell.own] + [""] * (table.heading.seeds - len(cell.own))
            figures = [cell.mean, cell.spread, *([cell.paper] if paper else [])]
            rounded = ["" if value is None else f"{value:.4f}" for value in figures]
            writer.writerow([line.name, line.network, line.matched_by, measure, *own, *rounded])
    for name, published in table.others.items():
        for measure, figure in zip(MEASURES, published):
            if figure is not None:
                writer.writerow([name, "", "", measure, *[""] * len(seeds), "", "", f"{figure:.4f}"])
    return buffer.getvalue()


def format_html(table: Table) -> str:
    """One self-contained page."""
    dots = [(f"{x.name}, {x.symbol}", x.cells["mAP"].own, x.cells["mAP"].paper) for x in table.lines]
    drawn = any(line.seeds for line in table.lines)
    return render_page(
        "dsareid.report",
        "reproduce.html",
        {
            "table": table,
            "measures": list(MEASURES.values()),
            "dots": rows_plot("mAP of each seed", dots) if drawn else None,
            "environment": {
                "Written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
                "Device here": torch.cuda.get_device_name()
                if torch.cuda.is_available()
                else platform.machine(),
                "torch": torch.__version__,
            },
        },
    )
