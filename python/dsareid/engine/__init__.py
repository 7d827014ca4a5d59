"""Training: settings, the loop, the run's folder."""

from dsareid.engine.loop import Interrupted, train
from dsareid.runs.config import PRESETS, TrainConfig
from dsareid.runs.folder import Run, load_run

__all__ = ["PRESETS", "Interrupted", "Run", "TrainConfig", "load_run", "train"]
