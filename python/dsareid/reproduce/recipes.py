"""The rows of the paper's tables: each row's network, and the features that it is matched by.

Rows that share a network share its training. The paper's figures are in per cent, single query, without
re-ranking.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from dsareid.data.layouts.cuhk01 import DATASET as CUHK01
from dsareid.data.layouts.cuhk03 import KINDS as CUHK03
from dsareid.data.layouts.duke import DATASET as DUKE
from dsareid.data.layouts.market1501 import DATASET as MARKET
from dsareid.models.options import Guidance, GuideInputName
from dsareid.models.table import MatchedBy, ModelName
from dsareid.runs.config import TrainConfig

TableName = Literal["table2", "table3", "table4", "table5", "dsap-alone", "beyond"]


@dataclass(frozen=True)
class Network:
    """A network to train: its name, and what it changes in a preset."""

    name: str
    """The name of its folder."""
    model: ModelName = "dsa"
    guidance: Guidance = "add"
    guide_input: GuideInputName = "part-images"
    erasing: bool = True
    smoothing: bool = True
    pretrained: bool = False
    """Fine-tuned from the same network trained on another data set."""

    def config(
        self, preset: TrainConfig, data: Path, out: Path, seed: int, protocol: str = ""
    ) -> TrainConfig:
        """The settings of a run of this network; for a pre-trained one `fine_tuning` sets the rest."""
        config = dataclasses.replace(
            preset,
            data=data,
            out=out,
            seed=seed,
            protocol=protocol,
            model=self.model,
            guidance=self.guidance,
            guide_input=self.guide_input,
        )
        if not self.erasing:
            config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, erase=0.0))
        if not self.smoothing:
            config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, smoothing=0.0))
        return config


def fine_tuning(config: TrainConfig, source: Path) -> TrainConfig:
    """The settings of a run that starts from the network of another run, on other data.

    The paper says no more than "pre-trained" and "fine-tuned". Our decision: the same recipe with a tenth of
    the learning rate.
    """
    optim = config.optim
    optim = dataclasses.replace(optim, rate=optim.rate / 10, warm_up_from=optim.warm_up_from / 10)
    return dataclasses.replace(config, weights=str(source), optim=optim)


class Figures(NamedTuple):
    """Published figures, per cent; None where the paper gives none."""

    mAP: float | None
    rank1: float | None
    rank5: float | None = None
    rank10: float | None = None


@dataclass(frozen=True)
class PaperRow:
    """A row of a table."""

    name: str
    network: Network
    matched_by: MatchedBy
    paper: dict[str, Figures]
    """The paper's figures by data set."""


BASELINE = Network("baseline", "baseline", erasing=False, smoothing=False)
BASELINE_RE = Network("baseline-re", "baseline", smoothing=False)
BASELINE_RE_LS = Network("baseline-re-ls", "baseline")
TWO_BRANCH = Network("two-branch", "two-branch")
DSA_GLOBAL = Network("dsa-global", "dsa-global")
DSA_LOCAL = Network("dsa-local", "dsa-local")
DSA = Network("dsa")
CSA = Network("csa", guide_input="part-crops")
CONCAT = Network("dsa-concat", guidance="concat")
DSAP_ALONE = Network("dsap-alone", "dsap")
PRETRAINING = Network("pre-trained")
FINE_TUNED = Network("dsa-fine-tuned", pretrained=True)
DISTILLED = Network("dsa-distilled", guidance="distill")
TAUGHT_BY_PATCHES = Network("patches-distilled", guidance="distill", guide_input="image-patches")
TEXTURE = Network("texture", guidance="texture")
TEXTURE_OF_OTHERS = Network("texture-of-others", guidance="texture", guide_input="others")
POOLED = Network("pooled", guidance="pool")
POOLED_BY_OTHERS = Network("pooled-by-others", guidance="pool", guide_input="others")


def _market(name: str, network: Network, matched_by: MatchedBy, *figures: float) -> PaperRow:
    return PaperRow(name, network, matched_by, {MARKET.name: Figures(*figures)})


_BASELINE_RE_LS = _market("Baseline (RE+LS)", BASELINE_RE_LS, "mf", 81.2, 93.4, 97.8, 98.5)
_ONLY_MF = _market("DSA-reID (only MF-Stream)", DSA, "mf", 87.6, 95.7, 98.4, 99.1)

TABLES: Mapping[TableName, tuple[PaperRow, ...]] = {
    "table2": (
        PaperRow(
            "DSA-reID",
            DSA,
            "mf",
            {
                MARKET.name: Figures(87.6, 95.7),
                DUKE.name: Figures(74.3, 86.2),
                CUHK03["labeled"].name: Figures(75.2, 78.9),
                CUHK03["detected"].name: Figures(73.1, 78.2),
                CUHK01.name: Figures(None, 88.6, 97.1),
            },
        ),
        PaperRow("DSA-reID (pre-trained)", FINE_TUNED, "mf", {CUHK01.name: Figures(None, 90.4, 97.8)}),
    ),
    "table3": (
        _market("Baseline", BASELINE, "mf", 76.4, 91.2, 96.5, 97.9),
        _market("Baseline (RE)", BASELINE_RE, "mf", 78.6, 92.3, 97.6, 98.3),
        _BASELINE_RE_LS,
        _market("Baseline (Two branches)", TWO_BRANCH, "mf", 83.4, 94.0, 98.0, 98.7),
        _market("DSA-Global (Single)", DSA_GLOBAL, "fused-global", 84.7, 94.8, 98.2, 98.9),
        _market("DSA-Local (Single)", DSA_LOCAL, "fused-local", 83.2, 94.0, 97.9, 98.6),
        _market("DSA-Global (Joint)", DSA, "fused-global", 87.4, 95.6, 98.6, 99.1),
        _market("DSA-Local (Joint)", DSA, "fused-local", 86.5, 95.2, 98.4, 99.0),
        _market("DSA (Two streams fused)", DSA, "fused", 87.5, 95.8, 98.4, 99.1),
        _ONLY_MF,
    ),
    "table4": (
        _BASELINE_RE_LS,
        _market("CSA", CSA, "mf", 84.1, 94.1, 98.1, 98.8),
        _ONLY_MF,
    ),
    "table5": (
        _market("Concatenation+fc", CONCAT, "mf", 81.6, 93.0, 97.6, 98.6),
        _ONLY_MF,
    ),
    # The paper says "failed to deliver good results", without a figure.
    "dsap-alone": (PaperRow("DSAP-images alone", DSAP_ALONE, "guide", {}),),
    # Not in the paper: other guidance, each with its control, and the network without any.
    "beyond": (
        PaperRow("two branches, no guidance", TWO_BRANCH, "mf", {}),
        PaperRow("texture, f", TEXTURE, "mf", {}),
        PaperRow("texture of other people, f", TEXTURE_OF_OTHERS, "mf", {}),
        PaperRow("pooled through the map, f", POOLED, "mf", {}),
        PaperRow("pooled through maps of others, f", POOLED_BY_OTHERS, "mf", {}),
        PaperRow("distilled, f", DISTILLED, "mf", {}),
        PaperRow("distilled, its guide d", DISTILLED, "guide", {}),
        PaperRow("distilled from patches, f", TAUGHT_BY_PATCHES, "mf", {}),
        PaperRow("distilled from patches, its guide d", TAUGHT_BY_PATCHES, "guide", {}),
    ),
}

# The strongest methods of Table 2 beside the paper's own, as it prints them.
OTHER_METHODS: dict[str, dict[str, Figures]] = {
    MARKET.name: {
        "PCB+RPP": Figures(81.6, 93.8),
        "MGN": Figures(86.9, 95.7),
        "Mancs": Figures(82.3, 93.1),
        "SPReID": Figures(81.3, 92.5),
    },
    CUHK03["labeled"].name: {
        "PCB+RPP": Figures(57.5, 63.7),
        "MGN": Figures(67.4, 68.0),
        "Mancs": Figures(63.9, 69.0),
    },
    CUHK03["detected"].name: {"MGN": Figures(66.0, 66.8), "Mancs": Figures(60.5, 65.5)},
    DUKE.name: {
        "PCB+RPP": Figures(69.2, 83.3),
        "MGN": Figures(78.4, 88.7),
        "Mancs": Figures(71.8, 84.9),
        "SPReID": Figures(71.0, 84.4),
    },
}

TITLES: Mapping[TableName, str] = {
    "table2": "Table 2, the paper's row",
    "table3": "Table 3",
    "table4": "Table 4",
    "table5": "Table 5",
    "dsap-alone": "DSAP-images alone (section 4)",
    "beyond": "Guidance that is not in the paper",
}
