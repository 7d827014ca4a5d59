"""dsareid reproduce"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dsareid.commands.options import optional_path
from dsareid.engine import PRESETS
from dsareid.reproduce.recipes import TABLES
from dsareid.reproduce.run import reproduce


def command(
    table: Annotated[tyro.conf.Positional[Literal[tuple(TABLES)]], tyro.conf.arg(metavar="TABLE")],
    data: Annotated[Path, tyro.conf.arg(metavar="ROOT")],
    out: Path,
    preset: Literal[tuple(PRESETS)] = "paper",
    seeds: int = 1,
    protocol: str = "",
    pretraining: optional_path("ROOT") = None,
    weights: str | None = None,
    device: str = "auto",
) -> None:
    """Train and evaluate every row of a table of the paper, and print the paper's figures beside them.

    Rows that share a network share its training, also between tables with the same --out. It can be stopped
    at any time; the same command goes on. The table is written after every run, as text, HTML and CSV.

    Args:
        table: table2: the paper's own row, for the data set at hand.
            table3: what each component brings. table4: parts aligned or only cropped.
            table5: ways of fusion. dsap-alone: DSAP-images alone.
            beyond: guidance by distillation, which is not in the paper.
        data: The data set, or a store of it.
        out: A folder for the runs of this data set and preset; it is created.
        preset: paper: the paper's network, for a GPU. study and demo: small ones, for two cores.
        seeds: Runs of each network.
        protocol: Of the data set, where it has several.
        pretraining: CUHK03, for the row of table2 that is trained there first and fine-tuned on CUHK01.
        weights: Where the trunk starts, as for train; the preset's unless given.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
    """
    settings = dataclasses.replace(
        PRESETS[preset],
        data=data,
        out=out,
        protocol=protocol,
        device=device,
        weights=weights or PRESETS[preset].weights,
    )
    reproduce(table, data, out, settings, preset_name=preset, seeds=seeds, pretraining=pretraining)
