"""The learner: a network, its optimizer, and the optimizer step."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dsareid.data.batch import Batch
from dsareid.engine.tuning import choose_forms, noted
from dsareid.ground.distributed import current_group
from dsareid.models.branch import BranchConv2d
from dsareid.models.heads import Output
from dsareid.models.losses import losses
from dsareid.models.texture_head import PersonTargets
from dsareid.runs.config import TrainConfig
from dsareid.runs.network import build_model, input_config


class Readings(NamedTuple):
    """The values of a step, still on the device: to take the numbers means to wait for the step."""

    names: tuple[str, ...]
    values: Tensor  # float32 (len(names),)

    def numbers(self) -> dict[str, float]:
        """The values by name: the loss and its terms, norms, accuracies."""
        return dict(zip(self.names, self.values.tolist()))


class Learner:
    """A network in training, in one process or in several that each compute a share of every batch.

    Args:
        config: the settings; `data` and `out` are not used.
        identities: number of identities in the training set.
        device: where it computes.
        targets: what each identity looks like, for guidance texture.

    Attributes:
        model: the network, for its weights.
        dtype: the type that it computes in.
    """

    def __init__(
        self,
        config: TrainConfig,
        identities: int,
        device: torch.device,
        targets: PersonTargets | None = None,
    ):
        self.config, self.device = config, device
        self.targets = None if targets is None else PersonTargets(*(x.to(device) for x in targets))
        self.dtype = input_config(config, device).dtype
        self.model = build_model(config, identities).to(device)
        if config.layout == "channels_last" or (config.layout == "auto" and device.type == "cuda"):
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.batchnorm == "sync":
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # every step has the same shapes
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=0.0, weight_decay=config.optim.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self._network: nn.Module | None = None  # as a step calls it, see _wrapped
        self._measures = config.convolution == "auto" and device.type == "cuda" and not config.compile
        if config.convolution != "auto":
            for layer in self.model.modules():
                if isinstance(layer, BranchConv2d):
                    layer.form = config.convolution
        self._mode_is_set = False

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: the states of model, optimizer and scaler."""
        return {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scaler")}

    def load_optimizer(self, state: Mapping[str, Any]) -> None:
        """Restore optimizer and scaler from a state_dict(); RunFolder.load_weights restores the model."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def step(self, batches: Iterator[Batch], rate: float, *, count: int = 1, teaching: bool) -> Readings:
        """Take one optimizer step along the mean gradient of the next batches.

        On a CUDA device it returns while the device still computes. The step is taken whatever the loss is:
        the caller reads the values and stops if they are not finite.

        Args:
            batches: batches on the device; each is done with before the next is taken.
            rate: learning rate.
            count: how many batches.
            teaching: with guidance "distill", whether the guide teaches yet.

        Returns:
            The values to log, as means over the batches.
        """
        if not self._measures:
            return self._step(batches, rate, count, teaching)
        self._measures = False
        with noted(self.model) as layers:
            readings = self._step(batches, rate, count, teaching)
        choose_forms(layers, self.device, self.dtype)
        return readings

    def _step(self, batches: Iterator[Batch], rate: float, count: int, teaching: bool) -> Readings:
        network = self._wrapped()
        self._set_mode()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        found = []
        for number in range(count):
            with contextlib.ExitStack() as stack:
                if isinstance(network, DistributedDataParallel) and number < count - 1:
                    stack.enter_context(network.no_sync())
                found.append(self._add_gradient(network, next(batches), count, teaching))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        values = torch.stack([torch.stack([x.float() for x in values.values()]) for values in found])
        return Readings(tuple(found[0]), values.mean(0))

    def _add_gradient(
        self, network: nn.Module, batch: Batch, count: int, teaching: bool
    ) -> dict[str, Tensor]:
        """Add a batch's part to the gradient of a step of `count` batches; returns the values to log."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = network(batch.image, batch.dsap)
        terms = losses(output, batch.label, self.config.loss, teaching, self.targets)
        total = sum(terms.values(), torch.zeros((), device=self.device))
        self.scaler.scale(total / count).backward()
        logged = {"loss": total.detach()} | {f"loss/{name}": x.detach() for name, x in terms.items()}
        return logged | _diagnostics(output, batch.label)

    def _wrapped(self) -> nn.Module:
        """The model, compiled if the settings say so, and wrapped to average gradients over the processes."""
        if self._network is None:
            if self.config.compile:
                self.model.compile()
            self._network = self.model
            if not current_group().alone:
                # Harmless: the strides of a channels_last 1x1 kernel can be written in two ways.
                warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
                devices = [self.device] if self.device.type == "cuda" else None
                self._network = DistributedDataParallel(
                    self.model, device_ids=devices, gradient_as_bucket_view=True
                )
        return self._network

    def _set_mode(self) -> None:
        if self._mode_is_set and self.model.training:
            return
        self._mode_is_set = True
        self.model.train()
        if self.config.batchnorm == "frozen":
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


@torch.no_grad()
def _diagnostics(output: Output, label: Tensor) -> dict[str, Tensor]:
    """Norms and accuracies of f and d: they show whether one stream starves the other."""

    def accuracy(logits: Tensor) -> Tensor:
        return (logits.argmax(1) == label).float().mean()

    def norm(x: Tensor) -> Tensor:
        return x.float().norm(dim=1).mean()

    logits, f, d = output.logits, output.f, output.d
    first = logits.f_global
    if first is None:
        assert logits.f_local is not None  # every network has classifiers on f
        first = logits.f_local[:, 0]
    # A stream is measured by its global branch, if it has one.
    values = {
        "norm/f": norm(f.vectors()[0]),
        "accuracy/f": accuracy(first),
    }
    fused = logits.z_local if logits.z_global is None else logits.z_global
    assert fused is not None  # every network has classifiers on z
    values["accuracy/fused"] = accuracy(fused)
    if d is not None:
        values["norm/d"] = norm(d.vectors()[0])
    if output.parts is not None:
        right = (output.parts.logits.argmax(2) == label[:, None]) & output.parts.seen
        values["accuracy/parts"] = right.sum() / output.parts.seen.sum().clamp(min=1)
    if logits.d_global is not None:
        values["accuracy/guide"] = accuracy(logits.d_global)
    return values
