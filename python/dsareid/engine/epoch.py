"""What the steps of an epoch gave: read step by step, logged, shown in a bar, averaged."""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

from tqdm import tqdm

from dsareid.engine.learner import Readings
from dsareid.ground.errors import DSAError
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Position
from dsareid.runs.log import Log

INTERRUPTED = "interrupted"
"""The name of the processes' votes to stop among a step's values."""


class Taken(NamedTuple):
    """A step that was taken, and whose values are not read yet."""

    position: Position  # before it
    batches: int
    rate: float
    readings: Readings
    began: float


class EpochLog:
    """The log, the bar and the means of one epoch."""

    def __init__(
        self, epoch: int, config: TrainConfig, log: Log | None, done: int, batches: int, is_rank_0: bool
    ):
        self.config, self.log = config, log
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.last_read = 0.0
        self.bar = tqdm(
            total=batches,
            initial=done,
            unit="batch",
            leave=False,
            desc=f"epoch {epoch + 1}/{config.epochs}",
            disable=None if is_rank_0 else True,
        )

    def read(self, taken: Taken) -> dict[str, float]:
        """Wait for a step's values, log them, and return them.

        Raises:
            DSAError: the loss is not finite.
        """
        config, position = self.config, taken.position
        found = taken.readings.numbers()
        _check_finite(found, position)
        now = time.monotonic()
        seconds, self.last_read = now - max(taken.began, self.last_read), now
        speed = taken.batches * config.identities * config.images / seconds
        values = {name: value for name, value in found.items() if name != INTERRUPTED}
        values |= {"epoch": position.epoch, "learning_rate": taken.rate, "images_per_second": speed}
        if self.log:
            self.log.write(position.step + 1, values)
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.bar.set_postfix(loss=f"{values['loss']:.3f}", images_per_second=f"{speed:.0f}")
        self.bar.update(taken.batches)
        return found

    def means(self) -> dict[str, float]:
        return {name: total / self.steps for name, total in self.sums.items()}

    def close(self) -> None:
        self.bar.close()
        if self.log:
            self.log.flush()


def _check_finite(values: Mapping[str, float], position: Position) -> None:
    if math.isfinite(values["loss"]):
        return
    terms = ", ".join(
        f"{name.removeprefix('loss/')} {value:g}"
        for name, value in values.items()
        if name.startswith("loss/")
    )
    kept = "The checkpoint of the last epoch is kept; a" if position.epoch else "A"
    raise DSAError(
        f"the loss is not finite in epoch {position.epoch + 1}, batch {position.batch + 1} (step "
        f"{position.step + 1}): {terms}. {kept} lower `optim.rate` or `precision=float32` may help"
    )
