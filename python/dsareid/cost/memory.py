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
from dsareid.runs.config import TrainConfig

_STATUS = Path("/proc/self/status")


def training_peak(config: TrainConfig, num_classes: int, batch_size: int, device: torch.device) -> int | None:
    """Most bytes that two training steps have in use at a time: parameters, gradients, Adam's moments,
    activations, and what the convolutions need besides. Neither data loading nor Python and its libraries.

    On CUDA what torch allocates. On the CPU what the resident memory of a new process grows by, the steps
    being all that it does; None where there is no /proc.
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
    """What the memory of this process, which has done nothing yet, grows by at most."""
    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    # What is loaded at its first use is not to count: a step of a network of next to no size.
    tiny = NetworkConfig(width=1 / 64, head_width=1 / 32, depths=(1, 1, 1, 1))
    _train(dataclasses.replace(config, network=tiny, height=32, width=32, dsap_size=4), 2, 2, cpu)
    before = _resident("VmRSS")
    _train(config, num_classes, batch_size, cpu)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    """Bytes of memory: VmRSS is what the process has, VmHWM the most it ever had (getrusage's maximum is
    its parent's where that is larger)."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise DSAError(f"{_STATUS} does not say {field}")


def _train(config: TrainConfig, num_classes: int, batch_size: int, device: torch.device) -> None:
    """Two steps, as Adam's moments are there from the end of the first one on."""
    learner = Learner(config, num_classes, device)
    image = torch.randn(
        batch_size, config.height, config.width, 3, dtype=learner.dtype, device=device
    ).permute(0, 3, 1, 2)
    size = config.dsap_size
    dsap = torch.randn(batch_size, 24, 3, size, size, dtype=learner.dtype, device=device)
    label = torch.arange(batch_size, device=device) // config.images % num_classes
    batch = Batch(image, dsap if config.guide else None, label)
    for _ in range(2):
        learner.step(iter([batch]), 0.0, teaching=True)
