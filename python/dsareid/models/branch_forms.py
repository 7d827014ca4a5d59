"""The forms in which one convolution per branch can be computed: the same products, in other orders.

Which one is fast depends on the device, the width and the library: on CPUs a rule decides, on CUDA
dsareid.engine.tuning measures. A form is a function of x (B, branches * in, H, W), the weight (branches *
out, in, k, k), the number of branches and the stride.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Callable[[Tensor, Tensor, int, int], Tensor]

_LANES = 16
"""Floats that a CPU computes at once, at most; a group with fewer outputs leaves some idle."""


def grouped(x: Tensor, weight: Tensor, branches: int, stride: int) -> Tensor:
    """One grouped convolution, in the memory format of x."""
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=branches)


def planes(x: Tensor, weight: Tensor, branches: int, stride: int) -> Tensor:
    """The same on contiguous memory."""
    return grouped(x.contiguous(), weight, branches, stride)


def channels_last(x: Tensor, weight: Tensor, branches: int, stride: int) -> Tensor:
    """The same on channels_last memory."""
    return grouped(x.contiguous(memory_format=torch.channels_last), weight, branches, stride)


def joined(x: Tensor, weight: Tensor, branches: int, stride: int, join: int) -> Tensor:
    """A grouped convolution with fewer groups: each holds `join` branches, whose weights are the blocks on
    its diagonal, with zeros beside them."""
    outputs, inputs, kernel, _ = weight.shape
    blocks = weight.to(x.dtype).view(branches // join, join, outputs // branches, 1, inputs, kernel, kernel)
    diagonal = torch.eye(join, dtype=x.dtype, device=x.device).view(1, join, 1, join, 1, 1, 1)
    whole = (blocks * diagonal).reshape(outputs, join * inputs, kernel, kernel)
    return grouped(x, whole, branches // join, stride)


def pairs(x: Tensor, weight: Tensor, branches: int, stride: int) -> Tensor:
    """Two branches in each group, or one where their number is odd."""
    return joined(x, weight, branches, stride, 1 if branches % 2 else 2)


def patches(x: Tensor, weight: Tensor, branches: int, stride: int) -> Tensor:
    """Patches, and one batched matrix product."""
    outputs, _, kernel, _ = weight.shape
    height, width = ((n - 1) // stride + 1 for n in x.shape[2:])
    if kernel == 1:
        columns = x[:, :, ::stride, ::stride].flatten(2)
    else:
        columns = F.unfold(x, kernel, padding=kernel // 2, stride=stride)
    columns = columns.view(len(x), branches, -1, height * width)  # [B, branches, in*k*k, H*W]
    product = weight.view(branches, outputs // branches, -1) @ columns
    return product.reshape(len(x), outputs, height, width)


FORMS: dict[str, Form] = {
    "grouped": grouped,
    "planes": planes,
    "channels_last": channels_last,
    "pairs": pairs,
    "patches": patches,
}
"""What a card chooses among, by name. The first is the default."""


def in_training(x: Tensor, weight: Tensor, branches: int, stride: int) -> Tensor:
    """The form that training takes by itself: on CPUs branches are joined where they read the colours alone,
    which leaves lanes idle."""
    join = 1
    if x.device.type == "cpu" and weight.shape[1] <= 3:
        most = max(1, _LANES * branches // len(weight))
        join = max(n for n in range(1, most + 1) if branches % n == 0)
    return joined(x, weight, branches, stride, join) if join > 1 else grouped(x, weight, branches, stride)
