"""The learning rate over a run."""

import math

from dsareid.runs.config import OptimConfig


def learning_rate(config: OptimConfig, epoch: float, epochs: int) -> float:
    """The rate at a point of the run.

    Args:
        epoch: passes done so far; fractional within an epoch.
        epochs: of the whole run.

    Linear from warm_up_from to rate over warm_up_epochs. Then "step" halves it every halve_every epochs (by
    default at epochs 60, 100, ..., 300, as in the paper), and "cosine" takes it down to 0 at the end.
    """
    if epoch < config.warm_up_epochs:
        done = epoch / config.warm_up_epochs
        return config.warm_up_from + (config.rate - config.warm_up_from) * done
    since = epoch - config.warm_up_epochs
    if config.schedule == "step":
        return config.rate * 0.5 ** math.floor(since / config.halve_every)
    length = max(epochs - config.warm_up_epochs, 1e-9)
    return config.rate * 0.5 * (1 + math.cos(math.pi * min(since / length, 1)))
