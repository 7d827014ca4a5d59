"""The loop over epochs, in one process or in several that torchrun started.

With several processes, each computes its share of every batch, and all take the same steps. Only rank 0 logs
and writes.
"""

import dataclasses
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import FrameType

import torch
from torch import Tensor

from dsa_ext import CUDA_ERROR
from dsareid.data.batch import BatchConfig
from dsareid.data.layouts import is_data_set, list_data
from dsareid.data.layouts.base import TRAIN, MakeMaps
from dsareid.data.loader import Planned, TrainData
from dsareid.data.person_targets import person_targets
from dsareid.data.sampler import PKSampler, check_identities
from dsareid.data.store.cache import ensure_store, log_maps
from dsareid.data.store.reader import Split
from dsareid.engine.epoch import INTERRUPTED, EpochLog, Taken
from dsareid.engine.learner import Learner, Readings
from dsareid.engine.schedule import learning_rate
from dsareid.ground.distributed import (
    ProcessGroup,
    choose_device,
    current_group,
    join_group,
    mean_of_all,
    own_device,
)
from dsareid.ground.errors import DSAError, logger, quoted
from dsareid.ground.files import check_writable_folder, make_folder
from dsareid.models.texture_head import PersonTargets
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Position, RunFolder
from dsareid.runs.log import Log
from dsareid.runs.network import input_config, load_initial_weights, load_pretrained

# Settings that may change when a run is resumed; all others must stay the same.
_FREE_ON_RESUME = ("data", "out", "device")

# Steps that are taken before the values of one are read, by type of device. A GPU computes the next one
# meanwhile; on the CPU a step that was taken is done.
_STEPS_AHEAD = {"cpu": 0, "cuda": 1}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed and the checkpoint is written."""


def train(config: TrainConfig, *, resume: bool = False, make_maps: MakeMaps | None = None) -> RunFolder:
    """Train a network into the folder config.out.

    On the CPU a resumed run computes the same numbers, bit for bit, as an uninterrupted one with
    the same number of threads. The number of processes may change on resume.

    Args:
        config: all settings.
        resume: whether to resume the run in config.out.
        make_maps: called with the data and its protocol if the network needs maps, to make the missing ones,
            as dsareid.densepose.estimate_missing does.

    Returns:
        The run's folder.

    Raises:
        DSAError: settings or data that cannot be trained on, a loss that is not finite.
        Interrupted: after Ctrl-C.
    """
    device = own_device(choose_device(config.device))
    with join_group(device) as group:
        _check_device(config, device)
        run = RunFolder(config.out)
        _check_folder(run, config, resume)
        group.barrier()  # nothing is written before all processes have checked the folder
        if make_maps and config.needs_iuv:
            if is_data_set(config.data):  # fail before minutes of work
                check_identities(
                    list_data(config.data, config.protocol).count(TRAIN).identities, config.identities
                )
            make_maps(config.data, config.protocol)
        _prepare(run, config, device, group, resume).run()
    return run


def _prepare(
    run: RunFolder, config: TrainConfig, device: torch.device, group: ProcessGroup, resume: bool
) -> "_Training":
    """Load the data; make a new learner, or restore one from the checkpoint."""
    with group.rank_0_first():
        store = ensure_store(
            config.data,
            config.height,
            config.width,
            mapped=[TRAIN] if config.needs_iuv else [],
            protocol=config.protocol,
        )
    split = store.select(TRAIN, iuv=config.needs_iuv)
    if config.needs_iuv and group.is_rank_0:
        log_maps(store, [TRAIN])
    sampler = PKSampler(split.ids, config.identities, config.images, config.seed, group.rank, group.world)
    data = TrainData(split, batch_config(config, device), device)
    if (targets := texture_targets(config, split)) is not None:
        data.fingerprint["targets"] = targets.digest()
    learner = Learner(config, data.identities, device, targets)
    if resume:
        return _Training(run, learner, data, sampler, group, _restore(run, learner, data))
    with group.rank_0_first():  # rank 0 downloads
        _initialise(learner, config.weights)
    if group.is_rank_0:
        make_folder(run.path)
        run.write_config(config)
    return _Training(run, learner, data, sampler, group, Position())


def texture_targets(config: TrainConfig, split: Split) -> PersonTargets | None:
    """What each person of a training split looks like; None unless guidance is texture."""
    if config.guidance != "texture":
        return None
    return person_targets(split, config.guide_input, config.dsap_size, config.picture)


def batch_config(config: TrainConfig, device: torch.device) -> BatchConfig:
    """The configuration of a run's training batches; with several processes, of this one's share."""
    batch = config.identities * config.images // current_group().world
    if config.guide == "others" and batch < 2 * config.images:
        raise DSAError("`guide_input=others` needs two people or more in each process's share of a batch")
    return BatchConfig(input_config(config, device), batch, config.augment, config.seed)


def _initialise(learner: Learner, weights: str) -> None:
    """Set the new network's weights: ImageNet's, random ones, a file's or another run's."""
    source = RunFolder(weights)
    if weights not in ("imagenet", "none") and source.path.is_dir():
        load_pretrained(learner.model, source.read_checkpoint(learner.device)["model"], weights)
    else:
        load_initial_weights(learner.model, weights)


def _check_device(config: TrainConfig, device: torch.device) -> None:
    if device.type == "cuda" and config.streams != "mf" and CUDA_ERROR:
        raise DSAError(f"`device={device}`: {CUDA_ERROR}; use `device=cpu`, or rebuild")
    if config.batchnorm == "sync" and device.type != "cuda":
        raise DSAError(f"`batchnorm=sync` needs `device=cuda`, not {device}")


def _check_folder(run: RunFolder, config: TrainConfig, resume: bool) -> None:
    """Raise DSAError if a run cannot start in this folder, or cannot resume with these settings."""
    if run.checkpoint.exists() and not resume:
        raise DSAError(f"{run}: this run exists; resume it with `resume=True`, or choose another `out`")
    check_writable_folder(run.path)
    if not resume:
        return
    if not run.checkpoint.exists():
        raise DSAError(f"{run.checkpoint}: no checkpoint to resume from; start without `resume`")
    saved = run.read_config()
    for field in dataclasses.fields(TrainConfig):
        before, now = getattr(saved, field.name), getattr(config, field.name)
        if field.name not in _FREE_ON_RESUME and before != now:
            raise DSAError(
                f"`resume`: {field.name} was {before} when the run began and is now {now}; resume "
                "with the run's own settings, or start a new run in another `out`"
            )


def _restore(run: RunFolder, learner: Learner, data: TrainData) -> Position:
    """Load the checkpoint into the learner; returns how far the run had come.

    Raises:
        DSAError: it is unreadable, or of another model or training set.
    """
    state = run.read_checkpoint(learner.device)
    where = learner.config.data
    if state["identities"] != data.identities:
        raise DSAError(
            f"{run.checkpoint} was trained on {state['identities']} identities, but {where} has "
            f"{data.identities}"
        )
    before, now = state["data"], data.fingerprint
    if before != {key: now.get(key) for key in before}:
        raise DSAError(
            f"{run.checkpoint} was trained on {before.get('images')} images, but the {now['images']} "
            f"images of {where} do not have the same pixels; resume with the same data"
        )
    run.load_weights(learner.model, state, resume=True)
    learner.load_optimizer(state)
    return Position(**state["position"])


class _Training:
    """A run in progress."""

    def __init__(
        self,
        run: RunFolder,
        learner: Learner,
        data: TrainData,
        sampler: PKSampler,
        group: ProcessGroup,
        position: Position,
    ):
        self.folder, self.learner, self.data, self.sampler = run, learner, data, sampler
        self.group, self.position, self.config = group, position, learner.config
        self.batches = data.planned(self._plan())  # also over the ends of epochs, where no step waits for one

    def run(self) -> None:
        """Train the remaining epochs; write a checkpoint after each, and after the current step on Ctrl-C."""
        self._announce()
        self.began, self.epochs_before = time.monotonic(), self.position.epoch
        log = self.folder.open_log(self.position.step) if self.group.is_rank_0 else None
        try:
            with _InterruptFlag(self.group) as interrupted:
                while self.position.epoch < self.config.epochs:
                    self._epoch(log, interrupted)
        finally:
            self.batches.close()
            if log:
                log.close()

    def _announce(self) -> None:
        config, position = self.config, self.position
        if not self.group.is_rank_0:
            return
        if position.epoch >= config.epochs:
            logger.info(f"{self.folder}: all {config.epochs} epochs are done")
            return
        start = f" from epoch {position.epoch + 1}" if position.step else ""
        several = "" if self.group.alone else f", {self.group.world} processes"
        logger.info(
            f"training {config.model}{start} on {self.learner.device} in {str(self.learner.dtype)[6:]}"
            f"{several}: {self.data.images} images of {self.data.identities} identities, {config.epochs} "
            f"epochs; curves: tensorboard --logdir {quoted(self.folder.path)}"
        )
        logger.info(f"data: {self.data.description}")

    def _plan(self) -> Iterator[Planned]:
        """All batches from the position on. It is called before the position moves."""
        first, done = self.position.epoch, self.position.batch
        for epoch in range(first, self.config.epochs):
            index, repeat = self.sampler.epoch(epoch)
            skip = done if epoch == first else 0
            for rows, times in zip(index[skip:], repeat[skip:]):
                yield epoch, rows, times

    def _epoch(self, log: Log | None, interrupted: "_InterruptFlag") -> None:
        position, config = self.position, self.config
        in_epoch = len(self.sampler.epoch(position.epoch)[0])
        epoch = EpochLog(position.epoch, config, log, position.batch, in_epoch, self.group.is_rank_0)
        taken: list[Taken] = []
        while position.batch < in_epoch:
            count = min(config.accumulate, in_epoch - position.batch)
            taken.append(self._take(in_epoch, count, interrupted))
            position.step += 1
            position.batch += count
            if len(taken) > _STEPS_AHEAD[self.learner.device.type]:
                interrupted.count(epoch.read(taken.pop(0)))
            if interrupted and position.batch < in_epoch:
                break
        for step in taken:
            interrupted.count(epoch.read(step))
        epoch.close()
        if position.batch < in_epoch:
            self._stop()
        position.epoch, position.batch = position.epoch + 1, 0
        self._save()
        left = (time.monotonic() - self.began) / (position.epoch - self.epochs_before)
        left *= config.epochs - position.epoch
        if self.group.is_rank_0:
            logger.info(_epoch_line(position.epoch, config.epochs, epoch.means(), left))
        if interrupted and position.epoch < config.epochs:
            self._stop()

    def _take(self, in_epoch: int, count: int, interrupted: "_InterruptFlag") -> Taken:
        """Take a step. Its values, means of all processes, hold the processes' votes to stop."""
        began, position, config = time.monotonic(), self.position, self.config
        rate = learning_rate(config.optim, position.epoch + position.batch / in_epoch, config.epochs)
        teaching = position.epoch >= config.optim.warm_up_epochs
        names, values = self.learner.step(self.batches, rate, count=count, teaching=teaching)
        values = mean_of_all(torch.cat([values, interrupted.vote(values)]))
        readings = Readings((*names, INTERRUPTED), values)
        return Taken(dataclasses.replace(position), count, rate, readings, began)

    def _save(self) -> None:
        """Write the checkpoint, from rank 0 only: it is the same in every process."""
        if self.group.is_rank_0:
            self.folder.write_checkpoint(
                self.learner.state_dict(), self.position, self.data.identities, self.data.fingerprint
            )

    def _stop(self) -> None:
        self._save()
        self.group.barrier()  # torchrun ends all processes when one ends, so wait for rank 0
        raise Interrupted(
            f"stopped after step {self.position.step}; resume the run in {self.config.out} with `resume=True`"
        )


def _epoch_line(epoch: int, epochs: int, mean: dict[str, float], left: float) -> str:
    return (
        f"epoch {epoch:{len(str(epochs))}}/{epochs}  loss {mean['loss']:6.3f}  "
        f"accuracy {mean['accuracy/fused']:.2f}  rate {mean['learning_rate']:.1e}  "
        f"{mean['images_per_second']:.0f} images/s  {timedelta(seconds=int(left))} left"
    )


class _InterruptFlag:
    """Turns the first Ctrl-C into a flag, so that a step is never cut in half.

    A second Ctrl-C kills a process that is alone. Several processes ignore it, because torchrun sends a
    second signal itself and kills after 30 seconds; they stop after the same step.
    """

    def __init__(self, group: ProcessGroup):
        self.alone, self.seen, self.pressed = group.alone, False, False

    def __enter__(self) -> "_InterruptFlag":
        try:
            self.before = signal.signal(signal.SIGINT, self._press)
        except ValueError:  # only the main thread may handle Ctrl-C
            self.before = None
        return self

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        if self.alone:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def vote(self, values: Tensor) -> Tensor:
        """This process's vote (1,), to be averaged over the processes together with the logged values."""
        return values.new_full((1,), float(self.seen))  # no copy from the host, which would wait

    def count(self, values: Mapping[str, float]) -> None:
        """Remember whether any process voted to stop, from the averages."""
        self.pressed = self.pressed or values[INTERRUPTED] > 0

    def __bool__(self) -> bool:
        return self.pressed

    def __exit__(self, *exception: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
