"""Training: settings, the loop, the run's folder."""

from dsareid.engine.config import PRESETS, TrainConfig
from dsareid.engine.run import Run, load_run
from dsareid.engine.train import Interrupted, train

__all__ = ["PRESETS", "Interrupted", "Run", "TrainConfig", "load_run", "train"]
