"""A run's folder: its settings, its checkpoint, its log.

RUN/config.json      the settings
RUN/checkpoint.pt    model, optimizer and position, as of the last epoch (or of Ctrl-C)
RUN/log.jsonl        one JSON object for each step
RUN/tensorboard/     the same for tensorboard
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, check_stored
from dsareid.models import DSAReID
from dsareid.runs.config import TrainConfig, load_config
from dsareid.runs.weights import first_difference, load_initial_weights

CONFIG, CHECKPOINT, LOG = "config.json", "checkpoint.pt", "log.jsonl"


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

    config: TrainConfig
    model: DSAReID
    """On the device, in eval mode."""
    epoch: int
    step: int
    data: dict
    """The fingerprint of what it was trained on."""


def build_model(config: TrainConfig, identities: int) -> DSAReID:
    """The network of a run, with random weights drawn from its seed."""
    network, guide = config.network, config.guide
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(config.seed)
        return DSAReID(
            identities,
            streams=config.streams,
            branches=config.branches,
            guidance=config.guidance,
            parts=guide.parts,
            reversed_charts=guide.reversed_charts,
            width=network.width,
            head_width=network.head_width,
            depths=network.depths,
            classifier_kind=network.classifier,
            zero_init=network.zero_init,
        )


def initialise(model: DSAReID, source: str) -> None:
    """Fill a new network as --weights says.

    Args:
        source: as for load_initial_weights, or the folder of a run of a network like this one: its weights
            but for those of the classifiers, as for fine-tuning on another data set.

    Raises:
        DSAError: there is nothing to load, or it does not fit.
    """
    run = Path(source)
    if source in ("imagenet", "none") or not run.is_dir():
        load_initial_weights(model, source)
        return
    state = load_checkpoint(run, next(model.parameters()).device)["model"]
    own = {name: value for name, value in model.state_dict().items() if name.startswith("classify_")}
    state = {name: value for name, value in state.items() if not name.startswith("classify_")} | own
    if difference := first_difference(model, state):
        raise DSAError(f"--weights {source}: a run of another network than this one: {difference}")
    model.load_state_dict(state)


def choose_device(name: str) -> torch.device:
    """The device that a setting names; "auto" is CUDA where there is one.

    Raises:
        DSAError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DSAError(f"--device must be auto, cpu, cuda or cuda:N, not {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DSAError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise DSAError(f"--device must be auto, cpu, cuda or cuda:N, not {name!r}")
    return device


def save_checkpoint(
    run: Path, model: DSAReID, optimizer: torch.optim.Optimizer, scaler, position: Position, data: dict
) -> None:
    """Write RUN/checkpoint.pt; a reader sees the old one or the new one.

    Args:
        data: the fingerprint of what it was trained on.

    Raises:
        DSAError: it cannot be written (a full disk); the old one is still there.
    """
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "position": vars(position),
        "data": data,
        "identities": model.num_classes,
    }
    with atomic_path(run / CHECKPOINT) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's writer does not say why
            raise DSAError(f"cannot write {run / CHECKPOINT} (is the disk full?): {error}") from error


def load_checkpoint(run: Path, device: torch.device) -> dict:
    """Read RUN/checkpoint.pt, as save_checkpoint wrote it.

    Raises:
        DSAError: it is missing, truncated, or something else.
    """
    path = run / CHECKPOINT
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
    expected = {"model", "optimizer", "scaler", "position", "identities"}
    if (
        not isinstance(state, dict)
        or not expected <= state.keys()
        or not isinstance(state["model"], dict)
        or not isinstance(state["identities"], int)
        or state["identities"] < 1
        or state["position"].keys() != vars(Position()).keys()
    ):
        raise DSAError(f"{path}: not a checkpoint of dsareid (expected {', '.join(sorted(expected))})")
    return state


def load_model_state(run: Path, model: nn.Module, state: dict) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        DSAError: they belong to another model.
    """
    if difference := first_difference(model, state["model"]):
        raise DSAError(
            f"{run / CHECKPOINT}: the checkpoint of another model than {run / CONFIG} describes: {difference}"
        )
    model.load_state_dict(state["model"])


def load_run(run: str | os.PathLike, device: torch.device | str = "auto") -> Run:
    """Load a run's network for inference.

    Raises:
        DSAError: no run, no checkpoint, or one of another model.
    """
    run = Path(run)
    device = choose_device(device) if isinstance(device, str) else device
    config = load_config(run / CONFIG)
    state = load_checkpoint(run, device)
    model = build_model(config, state["identities"])
    load_model_state(run, model, state)
    position = state["position"]
    data = state.get("data")
    data = data if isinstance(data, dict) else {}  # of an earlier dsareid
    return Run(config, model.to(device).eval(), position["epoch"], position["step"], data)


class Log:
    """RUN/log.jsonl and tensorboard. A resumed run goes on where its checkpoint stands.

    Every method raises DSAError where the files cannot be written (a full disk).
    """

    def __init__(self, run: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.path = run / LOG
        kept = []
        if self.path.exists():
            with self._said():
                lines = self.path.read_text(errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= step]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(kept))
        with self._said():
            self.file = self.path.open("a")
            self.board = SummaryWriter(run / "tensorboard", purge_step=step + 1 if step else None)

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._said():
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def flush(self) -> None:
        with self._said():
            self.file.flush()
            self.board.flush()

    def close(self) -> None:
        with self._said():
            self.file.close()
            self.board.close()

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DSAError(f"cannot keep the log {self.path}: {error.strerror or error}") from error


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return float("inf")  # the torn last line of a run that was killed
