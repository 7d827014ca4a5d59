"""What importing the evaluation loads: ranking features of another program needs nothing of training."""

import subprocess
import sys

import pytest

import dsareid.evaluation

HEAVY = ("tyro", "tensorboard", "pydantic", "torchvision", "matplotlib")
TRAINING = ("dsareid.engine", "dsareid.runs", "dsareid.models", "dsareid.data", "dsareid.report")


def loaded_by(program):
    """The modules that a program has loaded in the end."""
    command = [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("names", ["rank", "Labels, Ranking, chance, FeatureDistances", "k_reciprocal"])
def test_ranking_loads_no_training(names):
    modules = loaded_by(f"from dsareid.evaluation import {names}")
    assert "dsareid.evaluation.ranking" in modules or "dsareid.evaluation.rerank" in modules
    assert not [name for name in modules if name.startswith((*HEAVY, *TRAINING))]


def test_an_evaluation_loads_no_training_loop():
    modules = loaded_by("from dsareid.evaluation import evaluate; evaluate.__call__")
    assert "dsareid.evaluation.evaluate_run" in modules
    assert not [name for name in modules if name.startswith(("dsareid.engine", "dsareid.report"))]


@pytest.mark.parametrize("command", ["rank", "search"])
def test_help_loads_no_torch(command):
    program = f"""
from dsareid.commands.main import main
try:
    main(["{command}", "--help"])
except SystemExit:
    pass
print()"""
    modules = loaded_by(program)
    assert f"dsareid.commands.{command}" in modules
    assert not [name for name in modules if name.split(".")[0] in ("torch", "numpy", "pydantic")]


def test_every_public_name_is_there():
    assert set(dsareid.evaluation.__all__) <= set(dir(dsareid.evaluation))
    assert all(getattr(dsareid.evaluation, name) is not None for name in dsareid.evaluation.__all__)
    with pytest.raises(AttributeError, match="dsareid.evaluation.*'rank_all'"):
        dsareid.evaluation.rank_all  # noqa: B018
