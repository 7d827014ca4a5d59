"""Compute the DSAG-Stream, forward and backward, against three other ways to compute its branches.

    python benchmarks/dsag.py              demo and paper widths, batch 4, 16 and 64 (long)
    python benchmarks/dsag.py --batches 4 16 --widths demo

The rivals hold the same weights and are checked to give the same features first:

    modules in a loop     24 small networks (then 13, then 8), one after the other
    grouped convolution   one grouped convolution a layer, tensors contiguous as PyTorch makes them
    batched product       patches unfolded, one batched matrix product a layer

What dsareid does is a grouped convolution (in the first layer of a narrow stream with several branches a
group), on channels_last tensors as far as the second merge: the memory then is [B, H, W, branch, channel],
and merge_parts works on it without a copy. conv5_x, few and wide branches with most of the weights, is
contiguous: in channels_last its weights are reordered in every step. The batched product writes every patch
out nine times, which costs more than the product.
"""

import torch
from common import paired_runs
from result import Result, parser
from torch import nn

from dsa_ext import merge_parts
from dsareid.models.branch import BasicBlock, BranchConv2d, ConvBlock
from dsareid.models.dsag import DSAGStream
from dsareid.models.features import Features

WIDTHS = {"demo": (1 / 8, 16), "paper": (1.0, 32)}  # width, S


class Contiguous(nn.Module):
    """The stream's own modules on contiguous tensors, its branches' convolutions in one form."""

    def __init__(self, stream: DSAGStream, form: str):
        super().__init__()
        self.stream = stream
        for layer in stream.modules():
            if isinstance(layer, BranchConv2d):
                layer.form = form

    def forward(self, dsap):
        s = self.stream
        x = s.conv3(s.conv2(s.conv1(dsap.flatten(1, 2))))
        x = s.conv4(merge_parts(x.unflatten(1, (24, -1)), "mirror").flatten(1, 2))
        x = merge_parts(x.unflatten(1, (13, -1)), "front_back").flatten(1, 2)
        return Features(s.conv5_g(x).mean((2, 3)), s.conv5_l(x).mean((2, 3)).unflatten(1, (8, -1)))


class Looped(nn.Module):
    """A module for each branch, in a loop."""

    def __init__(self, width: float):
        super().__init__()
        c32, c64, c128, c256, c2048 = (int(c * width) for c in (32, 64, 128, 256, 2048))

        def branch():
            return nn.Sequential(
                ConvBlock(1, 3, c32, 5),
                ConvBlock(1, c32, c64, 3),
                BasicBlock(1, c64, c64, 2),
                BasicBlock(1, c64, c64),
            )

        def pair(inputs, outputs, stride):
            return nn.Sequential(BasicBlock(1, inputs, outputs, stride), BasicBlock(1, outputs, outputs))

        self.parts = nn.ModuleList([branch() for _ in range(24)])
        self.conv4 = nn.ModuleList([pair(c64, c128, 2) for _ in range(13)])
        self.conv5_l = nn.ModuleList([pair(c128, c256, 1) for _ in range(8)])
        self.conv5_g = pair(8 * c128, c2048, 1)

    def forward(self, dsap):
        x = torch.stack([part(dsap[:, k]) for k, part in enumerate(self.parts)], 1)
        x = merge_parts(x, "mirror")
        x = merge_parts(torch.stack([m(x[:, k]) for k, m in enumerate(self.conv4)], 1), "front_back")
        local = torch.stack([m(x[:, k]).mean((2, 3)) for k, m in enumerate(self.conv5_l)], 1)
        return Features(self.conv5_g(x.flatten(1, 2)).mean((2, 3)), local)

    def copy_from(self, stream: DSAGStream) -> "Looped":
        stages = [
            (self.parts, nn.Sequential(stream.conv1, stream.conv2, *stream.conv3)),
            (self.conv4, stream.conv4),
            (self.conv5_l, stream.conv5_l),
        ]
        for modules, whole in stages:
            for k, module in enumerate(modules):
                state = {
                    name: x if x.dim() == 0 else x.chunk(len(modules), 0)[k]
                    for name, x in whole.state_dict().items()
                }
                own = module.state_dict()
                module.load_state_dict(dict(zip(own, (state[name] for name in state), strict=True)))
        self.conv5_g.load_state_dict(stream.conv5_g.state_dict())
        return self


def bench(result: Result, name: str, batch: int, rounds: int) -> None:
    width, size = WIDTHS[name]
    torch.manual_seed(0)
    ours = DSAGStream(width)
    rivals: dict[str, nn.Module] = {"modules in a loop": Looped(width).copy_from(ours)}
    for title, form in (("grouped convolution", "grouped"), ("batched product", "patches")):
        stream = DSAGStream(width)
        stream.load_state_dict(ours.state_dict())
        rivals[title] = Contiguous(stream, form)
    candidates = {"dsareid": ours, **rivals}
    dsap = torch.randn(batch, 24, 3, size, size)

    with torch.no_grad():
        reference = ours(dsap)
        for title, module in rivals.items():
            for got, expected in zip(module(dsap), reference):
                torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3, msg=title)

    def run(module):
        def step(_):
            out = module(dsap)
            (out.global_.sum() + out.local.sum()).backward()
            module.zero_grad(set_to_none=True)  # four sets of gradients would not fit at batch 64

        return step

    runs = paired_runs({t: run(m) for t, m in candidates.items()}, rounds, warm_up=1)
    case = f"{name} widths, S = {size}, batch {batch}"
    result.add("A step on all threads", case, runs, against="dsareid")


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--widths", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    options.add_argument("--batches", nargs="+", type=int, default=[4, 16, 64])
    arguments = options.parse_args()
    with Result(arguments) as result:
        for widths in arguments.widths:
            for size in arguments.batches:
                large = widths == "paper" and size >= 16
                bench(result, widths, size, rounds=1 if large and size > 16 else 3 if large else 9)
