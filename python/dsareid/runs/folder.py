"""A run's folder: the names of its files, and how each is written and read.

RUN/config.json      the settings
RUN/checkpoint.pt    model, optimizer and position, as of the last epoch (or of Ctrl-C)
RUN/log.jsonl        one JSON object for each step
RUN/tensorboard/     the same for tensorboard
RUN/evaluation*.json evaluations. The name adds what is not the default: -FEATURES (other than f), -reranked,
                     -DATASET and -PROTOCOL (other than the training's)
RUN/report.html      the page that shows all of this
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from dsareid.ground.distributed import choose_device
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, check_stored
from dsareid.models.reid import DSAReID
from dsareid.models.table import MatchedBy
from dsareid.runs.config import CONFIG, TrainConfig, load_config, save_config
from dsareid.runs.log import Log
from dsareid.runs.network import build_model, first_difference, renewed
from dsareid.runs.records import Evaluation, read_evaluation, write_evaluation


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0
    """Epochs finished."""
    batch: int = 0
    """Batches of the next epoch that are done already (after Ctrl-C)."""
    step: int = 0
    """Optimizer steps in all."""


@dataclass
class Run:
    """A trained network, ready to be used."""

    folder: "RunFolder"
    config: TrainConfig
    model: DSAReID
    """On the device, in eval mode."""
    epoch: int
    step: int
    data: Mapping[str, Any]
    """The fingerprint of the training data."""


class RunFolder:
    """The folder of a run; it need not exist yet."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.config = self.path / CONFIG
        self.checkpoint = self.path / "checkpoint.pt"
        self.log = self.path / "log.jsonl"
        self.board = self.path / "tensorboard"
        self.report = self.path / "report.html"

    def __str__(self) -> str:
        return str(self.path)

    def open_log(self, step: int) -> Log:
        """Open the log, to continue it after a step."""
        return Log(self.log, self.board, step)

    # ---- settings ----

    def read_config(self) -> TrainConfig:
        return load_config(self.config)

    def write_config(self, config: TrainConfig) -> None:
        save_config(config, self.config)

    # ---- checkpoint ----

    def write_checkpoint(
        self, learner: Mapping[str, Any], position: Position, identities: int, data: Mapping[str, Any]
    ) -> None:
        """Write the checkpoint; a reader sees the old one or the new one.

        Args:
            learner: the states of model, optimizer and scaler, by these names.
            data: the fingerprint of the training data.

        Raises:
            DSAError: it cannot be written (a full disk); the old one is still there.
        """
        state = {**learner, "position": vars(position), "data": dict(data), "identities": identities}
        with atomic_path(self.checkpoint) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # torch's writer does not say why
                raise DSAError(f"cannot write {self.checkpoint} (is the disk full?): {error}") from error

    def read_checkpoint(self, device: torch.device) -> dict[str, Any]:
        """Read what write_checkpoint wrote.

        Raises:
            DSAError: it is missing, truncated, or something else.
        """
        path = self.checkpoint
        try:
            check_stored(path)
            state = torch.load(path, map_location=device, weights_only=True)
        except FileNotFoundError as error:
            raise DSAError(f"{path}: no checkpoint yet; train first: dsareid train") from error
        except DSAError:
            raise
        except Exception as error:  # what the unpickler raises depends on what is in the file
            raise DSAError(
                f"{path}: not a readable checkpoint: it is cut short, or dsareid train did not write it"
            ) from error
        kinds: dict[str, type] = dict.fromkeys(("model", "optimizer", "scaler", "position", "data"), dict)
        kinds["identities"] = int
        if (
            not isinstance(state, dict)
            or not all(isinstance(state.get(name), kind) for name, kind in kinds.items())
            or state["identities"] < 1
            or state["position"].keys() != vars(Position()).keys()
        ):
            raise DSAError(f"{path}: not a checkpoint of dsareid (expected {', '.join(sorted(kinds))})")
        return state

    def load_weights(self, model: DSAReID, state: Mapping[str, Any], resume: bool = False) -> None:
        """Put a checkpoint's weights into a model; those of older versions too, unless it is to be resumed.

        Raises:
            DSAError: they belong to another model; an older version's are to be resumed.
        """
        weights = renewed(model, state["model"])
        if difference := first_difference(model, weights):
            raise DSAError(
                f"{self.checkpoint}: holds another model than {self.config} describes: {difference}"
            )
        if resume and weights.keys() != state["model"].keys():
            raise DSAError(
                f"{self.checkpoint}: an older version wrote it, and its optimizer's state has no place in "
                f"this one. It can be evaluated and exported; to go on, start a new run with `weights={self}`"
            )
        model.load_state_dict(weights)

    # ---- evaluations ----

    def evaluation(self, features: MatchedBy, reranked: bool = False, *others: str) -> Path:
        """The file of an evaluation.

        Args:
            others: names of the data set and the protocol, if they are not the training's.
        """
        parts = [*([features] if features != "mf" else []), *(["reranked"] if reranked else []), *others]
        return self.path / f"{'-'.join(['evaluation', *parts])}.json"

    def write_evaluation(self, evaluation: Evaluation, trained_on: Mapping[str, Any]) -> None:
        """Write an evaluation to its file, see evaluation().

        Args:
            trained_on: the fingerprint of the training data, whose data set and protocol the name leaves out.
        """
        others = []
        if evaluation.dataset != trained_on.get("dataset", evaluation.dataset):
            others.append(re.sub(r"\W+", "-", evaluation.dataset.lower()))
        if evaluation.protocol != trained_on.get("protocol", evaluation.protocol):
            others.append(evaluation.protocol or "default")
        write_evaluation(evaluation, self.evaluation(evaluation.features, evaluation.reranked, *others))

    def evaluations(self) -> list[Evaluation]:
        """All evaluations: those on the training's data set and protocol first, then f, then plain distances.

        Raises:
            DSAError: one of the files is damaged.
        """
        names = get_args(MatchedBy)

        def order(found: tuple[Path, Evaluation]) -> tuple[bool, int, bool, str]:
            path, x = found
            other = path != self.evaluation(x.features, x.reranked)
            return other, names.index(x.features), x.reranked, x.protocol

        files = sorted(self.path.glob("evaluation*.json"))
        return [x for _, x in sorted(((path, read_evaluation(path)) for path in files), key=order)]


def load_run(run: str | os.PathLike[str], device: torch.device | str = "auto") -> Run:
    """Load a run's network for inference.

    Raises:
        DSAError: no run, no checkpoint, or one of another model.
    """
    folder = RunFolder(run)
    device = choose_device(device) if isinstance(device, str) else device
    config = folder.read_config()
    state = folder.read_checkpoint(device)
    model = build_model(config, state["identities"])
    folder.load_weights(model, state)
    position = state["position"]
    return Run(folder, config, model.to(device).eval(), position["epoch"], position["step"], state["data"])
