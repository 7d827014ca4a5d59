"""What only a GPU can show: streams, devices, graph capture, tensors beyond 2^31 elements.

The few calls of torch.cuda are in functions of their own, so that tests/dsa_ext/test_selftest.py can test
everything else on the CPU.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from dsa_ext.selftest.operation import Case, Check, Operation, compare, difference

BEYOND = 2**31
"""Elements that an index of 32 bits does not reach."""


class NotChecked(Exception):
    """Says why a check could not run here; it is printed, and is no failure."""


@contextlib.contextmanager
def busy_side_stream() -> Iterator[None]:
    """Run the block on a stream that is not the default one and that is busy for a while first."""
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # cycles: about a tenth of a second
        yield
    stream.synchronize()


def capture(call: Callable[[], object]) -> Callable[[], None]:
    """Record the call in a CUDA graph. A wait or an allocation by cudaMalloc inside would raise."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def allocations() -> int:
    return torch.cuda.memory_stats()["allocation.all.allocated"]


def need(bytes_: int) -> None:
    """Raise NotChecked unless this many bytes of device memory are free, with a tenth to spare."""
    free, _ = torch.cuda.mem_get_info()
    # Unused memory in torch's pool is free for us, too.
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if free < 1.1 * bytes_:
        raise NotChecked(f"needs {1.1 * bytes_ / 1e9:.0f} GB of device memory, {free / 1e9:.0f} are free")


def overwrite(inputs: Sequence[Tensor], values: Sequence[Tensor] | None = None) -> None:
    """Copy values into the inputs, or zeros without values."""
    for index, tensor in enumerate(inputs):
        tensor.copy_(values[index]) if values is not None else tensor.zero_()


def expected_of(operation: Operation, name: str) -> Tensor:
    """What the call computes, from the CPU backend."""
    _, out, run = operation.calls("cpu")[name]
    run()
    return out


def check_stream(operation: Operation, name: str, device: str) -> str | None:
    """The right input arrives late on the side stream: work on another stream would miss it."""
    inputs, out, run = operation.calls(device)[name]
    right = [x.clone() for x in inputs]
    overwrite(inputs)
    out.fill_(-12345)
    with busy_side_stream():
        overwrite(inputs, right)
        run()
    return difference([out], [expected_of(operation, name)])


def check_capture(operation: Operation, name: str, device: str) -> str | None:
    inputs, out, run = operation.calls(device)[name]
    right = [x.clone() for x in inputs]
    run()
    before = allocations()
    run()
    if allocations() != before:
        return "the call allocates memory"
    replay = capture(run)
    overwrite(inputs)
    replay()
    if difference([out], [expected_of(operation, name)]) is None:
        return "a replay does not read the inputs anew"
    overwrite(inputs, right)
    out.fill_(-12345)
    replay()
    return difference([out], [expected_of(operation, name)])


def check_second_device(cases: Sequence[Case], device: str) -> str | None:
    """The second device of that kind, while the first one is the current one."""
    if torch.cuda.device_count() < 2:
        raise NotChecked("there is one device")
    for case in cases:
        wrong = compare(case, f"{device}:1")
        if wrong:
            return f"{case.label}: {wrong}"
    return "the current device was changed" if torch.cuda.current_device() != 0 else None


def cuda_checks(operations: Sequence[Operation]) -> dict[str, dict[str, Check]]:
    """Groups of named checks by title."""
    calls = [(operation, name) for operation in operations for name in operation.calls("cpu")]
    one_of_each = [group[0] for operation in operations for group in operation.cases().values()]
    return {
        "another stream than the default": {
            f"{operation.name}, {name}": partial(check_stream, operation, name) for operation, name in calls
        },
        "CUDA graph: capture, replay, no allocation": {
            f"{operation.name}, {name}": partial(check_capture, operation, name) for operation, name in calls
        },
        "a second device": {"one case of each group": partial(check_second_device, one_of_each)},
        "host memory, other devices, foreign indices": {
            f"{operation.name}, {name}": check
            for operation in operations
            for name, check in operation.checks.items()
        },
        "beyond 2^31 elements": {
            f"{operation.name}, {name}": partial(check, beyond=BEYOND)
            for operation in operations
            for name, check in operation.large.items()
        },
    }
