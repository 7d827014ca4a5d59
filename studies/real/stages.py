"""The stages of the study, and the arms of each: networks that are compared, and what each changes."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dsareid.engine.presets import preset
from dsareid.models.table import MatchedBy
from dsareid.runs.config import TrainConfig
from studies.real.cost import BASE, equal_epochs
from studies.real.other_guides import GUIDES

RESULTS = Path(__file__).parent
COSTS = "cost.json"
TUNING = "tuning"  # CUHK03's training people without those held out
CUHK03, CUHK01, PKU = "CUHK03/detected", "CUHK01", "pku"


@dataclass(frozen=True)
class Arm:
    """One thing that is compared: a network, the data it is trained on, what it changes in the preset."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """By dotted name, as in --optim.rate."""
    features: tuple[MatchedBy, ...] = ("mf",)
    data: str = TUNING
    protocol: str = ""
    """The data set's; {seed} stands for the run's seed."""
    guide: str = ""
    """Which of studies.real.other_guides takes the DSAG-Stream's place; none: the paper's."""

    def config(self, work: Path, out: Path, weights: Path, seed: int) -> TrainConfig:
        protocol = self.protocol.format(seed=seed)
        config = preset(
            "small", work / "data" / self.data, out, seed=seed, protocol=protocol, weights=str(weights)
        )
        return changed(config, {"model": "two-branch", **self.changes})


@dataclass(frozen=True)
class Stage:
    """Runs that belong together, in the order in which they are run: all arms of a seed, then of the next."""

    find_arms: Callable[[], Mapping[str, Arm]]
    """Raises SystemExit if a stage before must be finished first."""
    seeds: tuple[int, ...]
    counted: bool = False
    """Whether the data set's own queries are matched, and each is kept in the record; otherwise every test
    image is a query."""


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of nested dataclasses with other values, by dotted name."""
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        config = dataclasses.replace(
            config, **{first: changed(getattr(config, first), {rest: value}) if rest else value}
        )
    return config


def rate(value: float) -> dict[str, float]:
    return {"optim.rate": value, "optim.warm_up_from": value / 100}


# --preset small had 10 epochs and erased half of the images when these were run.
_FIRST = {"epochs": 10, "augment.erase": 0.5}
RECIPE = {
    "rate-0.001": Arm(_FIRST | rate(1e-3)),
    "rate-0.003": Arm(_FIRST),
    "rate-0.006": Arm(_FIRST | rate(6e-3)),
    "erase-0.25": Arm(_FIRST | {"augment.erase": 0.25}),
    "batch-32": Arm(_FIRST | {"augment.erase": 0.25, "identities": 8}),
    "erase-0": Arm(_FIRST | {"augment.erase": 0.0}),
}
INPUTS = {
    "dsap": "part-images",
    "csa": "part-crops",
    "masked-patches": "masked-patches",
    "patches": "image-patches",
}
"""The ladder, by the names of its arms: what the guide is fed."""


def guided(guidance: str, guide_input: str) -> Arm:
    changes = {"model": "dsa", "guidance": guidance, "guide_input": guide_input}
    return Arm(changes, ("mf", "fused", "guide"))


CEILING = {
    "two-branch": Arm(),
    **{f"{form}-{name}": guided(form, fed) for name, fed in INPUTS.items() for form in ("gate", "add")},
    "two-branch-masked": Arm(data=f"{TUNING}-masked"),
    "two-branch-long": Arm({"epochs": 12}),  # the CPU time of a guided network: 1.5 times as much (gate-dsap)
}
ALONE: Mapping[str, Any] = {"model": "dsap"}
GUIDE_ARMS = {
    # No guide of its own: the MF-Stream's trunk, pooled through the map; d are the parts, z is f with them.
    "trunk-features": Arm({"model": "dsa", "guidance": "pool"}, ("mf", "fused", "guide")),
    "paper": Arm(ALONE, ("guide",)),
    **{name: Arm(ALONE, ("guide",), guide=name) for name in GUIDES},
    "part-crops": Arm({**ALONE, "guide_input": "part-crops"}, ("guide",)),
    "masked-patches": Arm({**ALONE, "guide_input": "masked-patches"}, ("guide",)),
}


class Tuned(NamedTuple):
    """A form without a second stream, or a control, and the weights of its loss that are tried."""

    guidance: str
    guide_input: str
    weights: tuple[float, float]

    def trial(self, step: float, weight: float) -> tuple[str, Arm]:
        form = {"model": "dsa", "guidance": self.guidance, "guide_input": self.guide_input}
        return f"{step:g}-{weight:g}", Arm({**form, **rate(step), f"loss.{self.guidance}": weight})


TUNED = {
    "pool": Tuned("pool", "part-images", (0.5, 1.5)),
    "texture": Tuned("texture", "part-images", (1.0, 4.0)),
    "pool-others": Tuned("pool", "others", (0.5, 1.5)),
    "pool-stripes": Tuned("pool", "stripes", (0.5, 1.5)),
    "texture-others": Tuned("texture", "others", (1.0, 4.0)),
    "texture-pictures": Tuned("texture", "pictures", (1.0, 4.0)),
}
COUNTED = (BASE, *TUNED)
"""What is tuned and counted."""
FORMS = {"pool": "pool-others", "texture": "texture-others"}
"""The forms, and the closest control of each."""


def trials(arm: str) -> dict[str, Arm]:
    """The trials of an arm, by their settings: both weights at one rate, and once these are finished, the
    better weight at another (the plan's amendment 3). two-branch has no weight, and four rates."""
    if arm == BASE:
        return {f"{each:g}": Arm(rate(each)) for each in (1.5e-3, 2e-3, 3e-3, 4.5e-3)}
    tuned = TUNED[arm]
    found = dict(tuned.trial(3e-3, weight) for weight in tuned.weights)
    scores = [_score(_trial_path(arm, settings)) for settings in found]
    if None not in scores:
        found |= dict([tuned.trial(2e-3, tuned.weights[scores.index(max(scores))])])
    return found


def _trial_path(arm: str, settings: str) -> Path:
    return RESULTS / "tuning" / f"{arm}-{settings}-0.json"


def _score(path: Path) -> float | None:
    """mAP of f of a finished run; None if it is not."""
    return json.loads(path.read_text())["features"]["mf"]["mAP"] if path.exists() else None


def _finished(arm: str) -> bool:
    return all(_trial_path(arm, settings).exists() for settings in trials(arm))


class Chosen(NamedTuple):
    """The best trial of an arm."""

    arm: Arm
    mAP: float  # of f


def chosen(arm: str) -> Chosen:
    """The best trial of an arm, by mAP of f; the first of equal ones.

    Raises:
        SystemExit: a trial is not finished.
    """
    found = []
    for settings, trial in trials(arm).items():
        path = _trial_path(arm, settings)
        if (score := _score(path)) is None:
            raise SystemExit(f"{path}: this trial is not finished; the stage tuning comes first")
        found.append(Chosen(trial, score))
    return max(found, key=lambda trial: trial.mAP)


def best_form() -> str:
    """The form whose best trial is best."""
    return max(FORMS, key=lambda form: chosen(form).mAP)


def counted_arms() -> Mapping[str, Arm]:
    """The arms whose trials are finished, with their best settings, and two-branch for as long as the best
    form takes.

    Raises:
        SystemExit: a trial of a form, of the best one's control or of two-branch is not finished, or costs
            are not measured.
    """
    form = best_form()
    needed = BASE, form, FORMS[form]
    best = {name: chosen(name).arm for name in COUNTED if name in needed or _finished(name)}
    alone, costs = best[BASE], RESULTS / COSTS
    if not costs.exists():
        raise SystemExit(f"{costs}: costs are not measured; `cost` comes first")
    epochs = equal_epochs(json.loads(costs.read_text()), form, preset("small", Path(), Path()).epochs)
    long = dataclasses.replace(alone, changes={**alone.changes, "epochs": epochs})
    return {**best, "two-branch-long": long}


def costed_arms() -> Mapping[str, Arm]:
    """Whose steps are measured: what is counted, and the forms with a second stream."""
    single = {name: next(iter(trials(name).values())) for name in COUNTED}
    return single | {name: CEILING[name] for name in ("add-dsap", "gate-dsap")}


def _on(data: str, protocol: str = "") -> Callable[[], Mapping[str, Arm]]:
    return lambda: {
        name: dataclasses.replace(arm, data=data, protocol=protocol) for name, arm in counted_arms().items()
    }


STAGES: dict[str, Stage] = {
    "recipe": Stage(lambda: RECIPE, (0,)),
    "guides": Stage(lambda: GUIDE_ARMS, (0,)),
    "ceiling": Stage(lambda: CEILING, (0,)),  # seeds 1 and 2 of those that are ahead: amendment 1 of the plan
    "tuning": Stage(
        lambda: {f"{arm}-{name}": trial for arm in COUNTED for name, trial in trials(arm).items()}, (0,)
    ),
    "counted": Stage(_on(CUHK03), (0, 1, 2, 3, 4), counted=True),
    "confirmed": Stage(_on(CUHK01, "485-s{seed}"), (0, 1, 2, 3, 4), counted=True),
}
