"""Synthetic data set: rendered people in Market-1501's layout, with IUV maps."""

from dsareid.synth.config import DIFFICULTIES, Difficulty, SynthConfig
from dsareid.synth.dataset import generate, image_count

__all__ = ["DIFFICULTIES", "Difficulty", "SynthConfig", "generate", "image_count"]
