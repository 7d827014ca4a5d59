"""The peak memory of a training step."""

import dataclasses
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from dsareid.data.batch import Batch
from dsareid.engine.learner import Learner
from dsareid.ground.errors import DSAError
from dsareid.ground.machine import end_with_parent
from dsareid.models.options import NetworkConfig
from dsareid.models.texture_head import PersonTargets
from dsareid.runs.config import TrainConfig
from dsareid.runs.network import input_config

_STATUS = Path("/proc/self/status")


def training_peak(config: TrainConfig, num_classes: int, batch_size: int, device: torch.device) -> int | None:
    """Peak memory of two training steps, in bytes: parameters, gradients, Adam's moments, activations and the
    convolutions' workspace. Data loading, Python and its libraries are not included.

    On CUDA, the memory that torch allocates. On the CPU, the growth of the resident memory of a new process
    that does nothing else; None without /proc.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _train(config, num_classes, batch_size, device)
        return torch.cuda.max_memory_allocated(device) - before
    if not _STATUS.exists():
        return None
    arguments = config, num_classes, batch_size, torch.get_num_threads()
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as process:
        return process.submit(_peak_of_process, *arguments).result()


def _peak_of_process(config: TrainConfig, num_classes: int, batch_size: int, threads: int) -> int:
    """The most that the memory of this process grows by; it must be a new one."""
    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    # Whatever is loaded on first use must not count, so a tiny network trains first.
    tiny = NetworkConfig(width=1 / 64, head_width=1 / 32, depths=(1, 1, 1, 1))
    _train(dataclasses.replace(config, network=tiny, height=32, width=32, dsap_size=4), 2, 2, cpu)
    before = _resident("VmRSS")
    _train(config, num_classes, batch_size, cpu)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    """Bytes of memory: VmRSS is what the process has, VmHWM the most it ever had (getrusage's maximum is
    its parent's if that is larger)."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise DSAError(f"{_STATUS} does not say {field}")


def _train(config: TrainConfig, num_classes: int, batch_size: int, device: torch.device) -> None:
    """Take two steps, because Adam's moments exist only from the end of the first one."""
    size = num_classes, config.target_length
    targets = PersonTargets(torch.zeros(size), torch.ones(size, dtype=torch.bool))
    learner = Learner(config, num_classes, device, targets)
    image = torch.randn(
        batch_size, config.height, config.width, 3, dtype=learner.dtype, device=device
    ).permute(0, 3, 1, 2)
    shape = input_config(config, device).guide_shape(batch_size)
    dsap = torch.rand(shape, dtype=learner.dtype, device=device)  # as a map: all background
    label = torch.arange(batch_size, device=device) // config.images % num_classes
    batch = Batch(image, dsap if config.guide else None, label)
    for _ in range(2):
        learner.step(iter([batch]), 0.0, teaching=True)
