"""dsareid reproduce"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import DataOption
from dsareid.engine.presets import PresetName
from dsareid.reproduce.recipes import TableName


def command(
    table: Annotated[TableName, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")],
    data: Annotated[Path, tyro.conf.arg(metavar="ROOT")],
    out: Path,
    preset: PresetName = "paper",
    seeds: int = 1,
    protocol: str = "",
    pretraining: DataOption = None,
    weights: str | None = None,
    device: str = "auto",
) -> None:
    """Train and evaluate every row of a table of the paper, and print the paper's figures beside them.

    Rows that share a network share its training, also between tables with the same --out. You can stop at
    any time; the same command resumes. The table is written after every run, as text, HTML and CSV.

    Args:
        table: table2: the paper's own row, for the data set at hand.
            table3: what each component brings. table4: parts aligned or only cropped.
            table5: ways of fusion. dsap-alone: DSAP-images alone.
            beyond: guidance that is not in the paper (texture, pool, distill), each beside its control.
        data: The data set, or a store of it.
        out: A folder for the runs of this data set and preset; it is created.
        preset: paper: the paper's network, for a GPU. small: one for real people without a GPU. study and
            demo: smaller ones, for synthetic people.
        seeds: Runs of each network, with seeds 0, 1, ...
        protocol: Protocol of the data set, if it has several.
        pretraining: CUHK03, for the row of table2 that is trained there first and fine-tuned on CUHK01.
        weights: Initial weights of the trunk, as for train; default: the preset's.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
    """
    from dsareid.reproduce.page import format_text
    from dsareid.reproduce.run import reproduce

    changes = {"protocol": protocol, "device": device} | ({"weights": weights} if weights else {})
    made = reproduce(table, data, out, preset, changes=changes, seeds=seeds, pretraining=pretraining)
    print(format_text(made))
    print(f"{out.absolute() / table}.html, .csv, .txt")
