"""The training loop, in one process or in several that torchrun started.

Of several processes each computes its share of every batch, and all take the same steps. The first one alone
prints and writes.
"""

import contextlib
import dataclasses
import signal
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from dsa_ext import CUDA_ERROR
from dsareid.data.batch import Batch, BatchConfig, TrainData
from dsareid.data.layouts.base import TRAIN
from dsareid.data.sampler import PKSampler
from dsareid.data.store.cache import ensure_store
from dsareid.engine.schedule import learning_rate
from dsareid.ground.distributed import Processes, current, mean_of_all, own_device, processes
from dsareid.ground.errors import DSAError
from dsareid.ground.files import make_folder
from dsareid.models import Output
from dsareid.models.losses import losses
from dsareid.runs.config import TrainConfig, load_config, save_config
from dsareid.runs.folder import (
    CHECKPOINT,
    CONFIG,
    Log,
    Position,
    build_model,
    choose_device,
    initialise,
    load_checkpoint,
    load_model_state,
    save_checkpoint,
)

# May differ between a run and its continuation; everything else must be the same.
_FREE_ON_RESUME = ("data", "out", "device")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed and the checkpoint is written."""


def train(config: TrainConfig, *, resume: bool = False) -> None:
    """Train a network into the folder config.out.

    On the CPU a resumed run computes the same numbers, bit for bit, as an uninterrupted one with
    the same number of threads. It may be resumed by another number of processes.

    Raises:
        DSAError: settings or data that cannot be trained on, a loss that is not finite.
        Interrupted: after Ctrl-C.
    """
    device = own_device(choose_device(config.device))
    with processes(device) as those:
        _train(config, resume, device, those)


def _train(config: TrainConfig, resume: bool, device: torch.device, those: Processes) -> None:
    if device.type == "cuda" and config.guided and CUDA_ERROR:
        raise DSAError(f"--device {device}: {CUDA_ERROR}; use --device cpu, or rebuild")
    if config.batchnorm == "sync" and device.type != "cuda":
        raise DSAError(f"--batchnorm sync needs --device cuda, not {device}")
    _check_out(config, resume)
    those.wait()  # all have looked into the folder before one writes to it
    mapped = [TRAIN] if config.needs_iuv else []
    with those.first_alone():
        store = ensure_store(
            config.data, config.height, config.width, mapped=mapped, protocol=config.protocol
        )
    split = store.select(TRAIN, iuv=config.needs_iuv)
    sampler = PKSampler(split.ids, config.identities, config.images, config.seed, those.rank, those.world)
    data = TrainData(split, batch_config(config, device), device)
    trainer = Trainer(config, data, sampler, device)
    if resume:
        trainer.restore()
    else:
        with those.first_alone():  # it downloads
            initialise(trainer.model, config.weights)
        if those.first:
            make_folder(config.out)
            save_config(config, config.out / CONFIG)
    trainer.run()


def batch_config(config: TrainConfig, device: torch.device) -> BatchConfig:
    """What the batches of a run are made of; of several processes, this one's share of them."""
    return BatchConfig(
        batch=config.identities * config.images // current().world,
        height=config.height,
        width=config.width,
        guide=config.guide if config.guided else None,
        dsap_size=config.dsap_size,
        augment=config.augment,
        seed=config.seed,
        dtype=_precision(config, device),
    )


def _check_out(config: TrainConfig, resume: bool) -> None:
    has_checkpoint = (config.out / CHECKPOINT).exists()
    if has_checkpoint and not resume:
        raise DSAError(
            f"--out {config.out}: this run exists; add --resume to go on, or choose another folder"
        )
    if resume and not has_checkpoint:
        raise DSAError(f"--resume: {config.out / CHECKPOINT} does not exist; start the run without --resume")
    if resume:
        saved = load_config(config.out / CONFIG)
        for field in dataclasses.fields(TrainConfig):
            before, now = getattr(saved, field.name), getattr(config, field.name)
            if field.name not in _FREE_ON_RESUME and before != now:
                raise DSAError(
                    f"--resume: {field.name} was {before} when the run began and is now {now}; a run "
                    "goes on with its own settings, a new one (--out) may have others"
                )


class Trainer:
    """A model, its optimizer and their position in the run."""

    def __init__(self, config: TrainConfig, data: TrainData, sampler: PKSampler, device: torch.device):
        self.config, self.data, self.sampler, self.device = config, data, sampler, device
        self.processes = current()
        self.model = build_model(config, data.identities).to(device)
        if config.layout == "channels_last" or (config.layout == "auto" and device.type == "cuda"):
            self.model.to(memory_format=torch.channels_last)
        if config.batchnorm == "sync":
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=0.0, weight_decay=config.optim.weight_decay
        )
        self.network: nn.Module = self.model  # as a step calls it; run() wraps it
        self.dtype = _precision(config, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.position = Position()

    def restore(self) -> None:
        """Go back to the run's checkpoint.

        Raises:
            DSAError: it is unreadable, or of another model or training set.
        """
        run = self.config.out
        state = load_checkpoint(run, self.device)
        if state["identities"] != self.data.identities:
            raise DSAError(
                f"--resume: {run / CHECKPOINT} was trained on {state['identities']} identities, but "
                f"{self.config.data} has {self.data.identities}"
            )
        before, now = state.get("data"), self.data.fingerprint
        if not isinstance(before, dict):
            raise DSAError(
                f"--resume: {run / CHECKPOINT} is of an earlier dsareid, whose batches were others; it can "
                "be evaluated, but not gone on with"
            )
        if before != {key: now.get(key) for key in before}:
            raise DSAError(
                f"--resume: {run / CHECKPOINT} was trained on {before.get('images')} images, and the "
                f"{now['images']} of {self.config.data} are not the same pixels; go on with the same data"
            )
        load_model_state(run, self.model, state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.position = Position(**state["position"])

    def save(self) -> None:
        """Write the checkpoint, which is the same in every process."""
        if self.processes.first:
            data = self.data.fingerprint
            save_checkpoint(self.config.out, self.model, self.optimizer, self.scaler, self.position, data)

    def run(self) -> None:
        """All epochs that are left; a checkpoint after each, and on Ctrl-C after the step."""
        self._announce()
        self.network = self._wrapped()
        self.began, self.epochs_before = time.monotonic(), self.position.epoch
        log = Log(self.config.out, self.position.step) if self.processes.first else None
        try:
            with _InterruptFlag(self.processes) as interrupted:
                while self.position.epoch < self.config.epochs:
                    self._epoch(log, interrupted)
        finally:
            if log:
                log.close()

    def _wrapped(self) -> nn.Module:
        """The model, compiled where asked for, and its gradients averaged over the processes."""
        if self.config.compile:
            self.model.compile()
        if self.processes.alone:
            return self.model
        # Of 1x1 kernels channels_last, whose strides can be told in two ways: it costs nothing.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.model, device_ids=devices, gradient_as_bucket_view=True)

    def _announce(self) -> None:
        config, position = self.config, self.position
        if not self.processes.first:
            return
        if position.epoch >= config.epochs:
            print(f"{config.out}: all {config.epochs} epochs are done")
            return
        where = f" from epoch {position.epoch + 1}" if position.step else ""
        times = "" if self.processes.alone else f", {self.processes.world} processes"
        print(
            f"training {config.model}{where} on {self.device} in {str(self.dtype)[6:]}{times}: "
            f"{self.data.images} images of {self.data.identities} identities, {config.epochs} "
            f"epochs; curves: tensorboard --logdir {config.out}\ndata: {self.data.described}",
            flush=True,
        )

    def _epoch(self, log: Log | None, interrupted: "_InterruptFlag") -> None:
        position, config = self.position, self.config
        index, repeat = self.sampler.epoch(position.epoch)
        batches = self.data.batches(position.epoch, index[position.batch :], repeat[position.batch :])
        self._train_mode()
        mean = _Mean()
        bar = tqdm(
            total=len(index),
            initial=position.batch,
            unit="batch",
            leave=False,
            desc=f"epoch {position.epoch + 1}/{config.epochs}",
            disable=None if self.processes.first else True,
        )
        while position.batch < len(index):
            began = time.monotonic()
            rate = learning_rate(config.optim, position.epoch + position.batch / len(index), config.epochs)
            count = min(config.accumulate, len(index) - position.batch)
            values = mean_of_all(self._step(batches, count, rate) | interrupted.vote(), self.device)
            interrupted.count(values)
            position.step += 1
            position.batch += count
            speed = count * config.identities * config.images / (time.monotonic() - began)
            values |= {"epoch": position.epoch, "learning_rate": rate, "images_per_second": speed}
            if log:
                log.write(position.step, values)
            mean.add(values)
            bar.set_postfix(loss=f"{values['loss']:.3f}", images_per_second=f"{speed:.0f}")
            bar.update(count)
            if interrupted and position.batch < len(index):
                self._stop(log, bar)
        bar.close()
        position.epoch, position.batch = position.epoch + 1, 0
        if log:
            log.flush()
        self.save()
        left = (time.monotonic() - self.began) / (position.epoch - self.epochs_before)
        left *= config.epochs - position.epoch
        if self.processes.first:
            tqdm.write(_epoch_line(position.epoch, config.epochs, mean.values(), left))
        if interrupted and position.epoch < config.epochs:
            self._stop(log, bar)

    def _train_mode(self) -> None:
        self.model.train()
        if self.config.batchnorm == "frozen":
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _stop(self, log: Log | None, bar: tqdm) -> None:
        bar.close()
        if log:
            log.flush()
        self.save()
        self.processes.wait()  # torchrun ends all when the first of them ends
        raise Interrupted(
            f"stopped after step {self.position.step}; go on with: dsareid train --resume "
            f"--out {self.config.out}"
        )

    def _step(self, batches: Iterator[Batch], count: int, rate: float) -> dict[str, float]:
        """One optimizer step by the mean gradient of the next `count` batches; returns what is logged.

        Raises:
            DSAError: the loss is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        mean = _Mean()
        for number in range(count):
            exchanged = self.processes.alone or number == count - 1
            with contextlib.nullcontext() if exchanged else self.network.no_sync():
                mean.add(self._learn(next(batches), count))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return mean.values()

    def _learn(self, batch: Batch, count: int) -> dict[str, float]:
        """Add a batch's part to the gradient of a step of `count` batches."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.network(batch.image, batch.dsap)
        teaching = self.position.epoch >= self.config.optim.warm_up_epochs
        terms = losses(output, batch.label, self.config.loss, teaching)
        total = sum(terms.values())
        if not torch.isfinite(total):
            self._not_finite(terms)
        self.scaler.scale(total / count).backward()
        values = {"loss": total.item()}
        values |= {f"loss/{name}": term.item() for name, term in terms.items()}
        return values | _diagnostics(output, batch.label)

    def _not_finite(self, terms: dict[str, torch.Tensor]) -> None:
        shown = ", ".join(f"{name} {term.item():g}" for name, term in terms.items())
        position = self.position
        kept = "The checkpoint of the last epoch is kept; a" if position.epoch else "A"
        raise DSAError(
            f"the loss is not finite in epoch {position.epoch + 1}, batch {position.batch + 1} "
            f"(step {position.step + 1}): {shown}. {kept} lower "
            "--optim.rate or --precision float32 may help"
        )


def _precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    if config.precision != "auto":
        return getattr(torch, config.precision)
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@torch.no_grad()
def _diagnostics(output: Output, label: torch.Tensor) -> dict[str, float]:
    """|f| and |d| tell whether one stream starves the other; so does the accuracy of each."""

    def accuracy(logits: torch.Tensor) -> float:
        return (logits.argmax(1) == label).float().mean().item()

    def norm(x: torch.Tensor) -> float:
        return x.float().norm(dim=1).mean().item()

    logits, f, d = output.logits, output.f, output.d
    # The global branch speaks for its stream where there is one.
    values = {
        "norm/f": norm(f.vectors()[0]),
        "accuracy/f": accuracy(logits.f_local[0] if logits.f_global is None else logits.f_global),
        "accuracy/fused": accuracy(logits.z_local if logits.z_global is None else logits.z_global),
    }
    if d is not None:
        values["norm/d"] = norm(d.vectors()[0])
    if logits.d_global is not None:
        values["accuracy/guide"] = accuracy(logits.d_global)
    return values


class _Mean:
    """Mean of each logged value over an epoch."""

    def __init__(self):
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, values: dict[str, float]) -> None:
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def values(self) -> dict[str, float]:
        return {name: value / max(self.count, 1) for name, value in self.sums.items()}


def _epoch_line(epoch: int, epochs: int, mean: dict[str, float], left: float) -> str:
    return (
        f"epoch {epoch:{len(str(epochs))}}/{epochs}  loss {mean['loss']:6.3f}  "
        f"accuracy {mean['accuracy/fused']:.2f}  rate {mean['learning_rate']:.1e}  "
        f"{mean['images_per_second']:.0f} images/s  {timedelta(seconds=int(left))} left"
    )


class _InterruptFlag:
    """Turns the first Ctrl-C into a flag, so that a step is never cut in half; the second one kills.

    Of several processes all stop after the same step. Torchrun sends them a second signal itself, so there
    only its patience of 30 seconds ends a step.
    """

    def __init__(self, those: Processes):
        self.alone, self.seen, self.pressed = those.alone, False, False

    def __enter__(self):
        try:
            self.before = signal.signal(signal.SIGINT, self._press)
        except ValueError:  # not in the main thread: Ctrl-C is somebody else's business
            self.before = None
        return self

    def _press(self, *_) -> None:
        self.seen = True
        if self.alone:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def vote(self) -> dict[str, float]:
        """What is averaged over the processes, with what is logged."""
        return {"interrupted": float(self.seen)}

    def count(self, values: dict[str, float]) -> None:
        """Take the votes out of the averages."""
        self.pressed = values.pop("interrupted") > 0

    def __bool__(self) -> bool:
        return self.pressed

    def __exit__(self, *exception) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
