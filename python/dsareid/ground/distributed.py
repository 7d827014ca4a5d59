"""Process groups, as torchrun starts them; a process without torchrun is a group of one."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from dsareid.ground.errors import DSAError, LostOthers
from dsareid.ground.machine import end_with_launcher

# Ranks wait while rank 0 packs a data set or joins files. torchrun ends all ranks when one dies, so
# none waits in vain.
_TIMEOUT = timedelta(days=7)
_STORE_TIMEOUT = 60  # seconds for torchrun's store to answer


@dataclass(frozen=True)
class ProcessGroup:
    """The rank of this process and the number of processes; without torchrun rank 0 of 1."""

    rank: int = 0
    world: int = 1

    @property
    def is_rank_0(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.world == 1

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        if self.world > 1:
            dist.barrier()

    @contextlib.contextmanager
    def rank_0_first(self) -> Iterator[None]:
        """Run the body on rank 0, then on all other ranks."""
        if not self.is_rank_0:
            self.barrier()
        yield
        if self.is_rank_0:
            self.barrier()

    def share(self, items: int) -> slice:
        """This process's share of so many items: a contiguous slice; all slices together are all items."""
        return slice(items * self.rank // self.world, items * (self.rank + 1) // self.world)


def current_group() -> ProcessGroup:
    """The group that `join_group` has joined; before that, this process alone."""
    return ProcessGroup(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else ProcessGroup()


def rank_and_world() -> tuple[int, int]:
    """RANK and WORLD_SIZE, as torchrun sets them; (0, 1) without torchrun.

    Raises:
        DSAError: they are not as torchrun sets them.
    """
    found = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not all(number.isdecimal() for number in found) or not int(found[0]) < int(found[1]):
        raise DSAError(f"RANK, WORLD_SIZE must be as torchrun sets them, not {found[0]!r}, {found[1]!r}")
    return int(found[0]), int(found[1])


def choose_device(name: str) -> torch.device:
    """The device that a setting names; "auto" is CUDA if available, else the CPU.

    Raises:
        DSAError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DSAError(f"`device` must be auto, cpu, cuda or cuda:N, not {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DSAError(f"`device={name}`: this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise DSAError(f"`device` must be auto, cpu, cuda or cuda:N, not {name!r}")
    return device


def own_device(device: torch.device) -> torch.device:
    """This process's own CUDA device, by its rank on the machine; the CPU, or any device without torchrun, as
    it is.

    Raises:
        DSAError: there are more processes than devices.
    """
    rank = int(os.environ.get("LOCAL_RANK", 0))
    if device.type != "cuda" or rank_and_world()[1] == 1:
        return device
    if rank >= torch.cuda.device_count():
        raise DSAError(
            f"torchrun started process {rank} on this machine, which has {torch.cuda.device_count()} CUDA "
            "devices: start at most that many processes, or give `device=cpu`"
        )
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


@contextlib.contextmanager
def join_group(device: torch.device | None = None) -> Iterator[ProcessGroup]:
    """Join the other processes that torchrun started; without torchrun the group is this process.

    Args:
        device: where the exchanged tensors are: CUDA (nccl) or the CPU (gloo); default: the CPU.

    Raises:
        DSAError: the environment is not torchrun's, or the other processes cannot be reached.
        LostOthers: another process has ended.
    """
    rank, world = rank_and_world()
    if world == 1 or dist.is_initialized():
        yield current_group()
        return
    _end_with_torchrun(rank, world)
    backend = "nccl" if device is not None and device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise DSAError(f"process {rank} of {world} cannot reach the others: {error}") from error
    try:
        yield current_group()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and backend not in str(error).lower():
            raise
        raise LostOthers(f"process {rank} of {world} lost the others; one of them says why") from error
    finally:
        dist.destroy_process_group()


def _end_with_torchrun(rank: int, world: int) -> None:
    """Make this process end when torchrun is killed: a killed torchrun cannot end its processes.

    Raises:
        DSAError: torchrun has ended already; this process would wait for its store until _TIMEOUT.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # not torchrun: another launcher may end before its processes
        return
    end_with_launcher()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    try:  # torchrun opens its store before it starts processes
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        socket.create_connection(address, _STORE_TIMEOUT).close()
    except (OSError, KeyError, ValueError) as error:
        raise DSAError(
            f"process {rank} of {world} cannot reach torchrun, which may have ended: {error}"
        ) from error


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of each value over all processes; on CUDA nothing waits for it."""
    if current_group().alone:
        return values
    total = values.double()
    dist.all_reduce(total)
    return total / current_group().world


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [N, ...] of all processes, in the order of their ranks. N may differ; no gradient passes."""
    if current_group().alone:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = torch.cat(_gather(count)).tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(_gather(padded), counts)])


def gather_batch(rows: Tensor) -> Tensor:
    """As gather_rows, but N must be the same everywhere; gradients go back to the process of each row."""
    return rows if current_group().alone else _GatherBatch.apply(rows)


class _GatherBatch(torch.autograd.Function):
    @staticmethod
    def forward(context, rows: Tensor) -> Tensor:
        return torch.cat(_gather(rows.contiguous()))

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)  # the losses of all processes depend on these rows
        return gradient.chunk(current_group().world)[current_group().rank]


def _gather(tensor: Tensor) -> list[Tensor]:
    tensors = [torch.empty_like(tensor) for _ in range(current_group().world)]
    dist.all_gather(tensors, tensor)
    return tensors
