"""A training step of MobileNetV2 as a trunk, forward and backward, against the same network as timm makes it.

    python benchmarks/trunk.py [--rounds 8] [--threads 1]

48 images of 128x64, the last stride taken out. "timm" dilates there, as timm does; "not dilated" does not,
but computes strided depthwise convolutions as torch does; "ours" takes, in bfloat16, every second output of
the convolution without a stride, because oneDNN has no fast gradient with one. Before anything is timed, the
second and the third must give the same features and gradients. Below, the convolutions with a stride alone.
"""

import timm
import torch
from common import paired_runs
from result import Result, parser
from torch import nn

from dsareid.models.trunks import TimmTrunk

NAME, BATCH, SIZE = "mobilenetv2_100", 48, (128, 64)
ALONE = [(96, 64, 32), (144, 32, 16), (192, 16, 8)]  # channels, rows and columns of its three


def not_dilated(ours: TimmTrunk) -> nn.Module:
    """The trunk with torch's own convolutions, and its weights."""
    body = TimmTrunk(NAME, "whole").body
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = nn.Conv2d
    body.load_state_dict(ours.body.state_dict())
    return body


def step(network: nn.Module, image: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        features = network(image)[-1]
    features.float().square().mean().backward()
    return features


def check_same(name: str, ours: list[torch.Tensor], theirs: list[torch.Tensor], bound: float) -> None:
    """Raise SystemExit if two results differ by more than rounding."""
    for a, b in zip(ours, theirs, strict=True):
        if (a - b).norm() > bound * b.norm():
            raise SystemExit(f"{name} does not compute the same")


def bench_trunk(result: Result, rounds: int) -> None:
    trunk = TimmTrunk(NAME, "whole")
    networks = {
        "ours": trunk.body,
        "not dilated": not_dilated(trunk),
        "timm": timm.create_model(NAME, features_only=True, out_indices=(4,), output_stride=16),
    }
    image = torch.randn(BATCH, 3, *SIZE)
    found = {}
    for name in ("ours", "not dilated"):
        features = step(networks[name].train(), image, torch.float32)
        found[name] = [features.detach(), *(p.grad for p in networks[name].parameters())]
    check_same("the trunk", found["ours"], found["not dilated"], 1e-3)
    for precision in (torch.float32, torch.bfloat16):
        work = {name: lambda turn, x=x, p=precision: step(x, image, p) for name, x in networks.items()}
        case = str(precision).removeprefix("torch.")
        result.add("A step", case, paired_runs(work, rounds), against="ours")


def strided(trunk: nn.Module, channels: int) -> nn.Conv2d:
    """The trunk's depthwise convolution with a stride and so many channels."""
    layers = [x for x in trunk.modules() if isinstance(x, nn.Conv2d) and x.groups == channels]
    return next(x for x in layers if max(x.stride) > 1)


def bench_alone(result: Result, rounds: int) -> None:
    for channels, height, width in ALONE:
        plain = nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False)
        ours = strided(TimmTrunk(NAME, "whole"), channels)
        plain.load_state_dict(ours.state_dict())
        for precision in (torch.float32, torch.bfloat16):
            x = torch.randn(BATCH, channels, height, width).to(memory_format=torch.channels_last)
            work, found = {}, {}
            for name, layer in (("ours", ours.train()), ("torch", plain)):
                given = x.to(precision).requires_grad_()

                def run(turn: int, layer: nn.Module = layer, given: torch.Tensor = given) -> None:
                    given.grad = None
                    with torch.autocast("cpu", given.dtype, enabled=given.dtype != torch.float32):
                        layer(given).float().square().mean().backward()

                run(0)
                found[name] = [given.grad.float()]
                work[name] = run
            bound = 1e-6 if precision == torch.float32 else 1e-2
            check_same("a convolution", found["ours"], found["torch"], bound)
            case = f"{channels} x {height} x {width}, {str(precision).removeprefix('torch.')}"
            result.add("A strided depthwise convolution", case, paired_runs(work, rounds), against="ours")


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=8, help="timed runs of each candidate")
    options.add_argument("--threads", type=int, default=1)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with Result(arguments) as result:
        bench_trunk(result, arguments.rounds)
        bench_alone(result, arguments.rounds)
