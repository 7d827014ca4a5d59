"""Merge parts, with residual and ReLU or plain, against torch operators and a copy of the same bytes.

    python benchmarks/merge.py [--rounds 30] [--threads 1]

The tensors are those of the DSAG-Stream: (pixels, parts, channels) of 16x16 and 8x8 maps. The operators are
three forms that a torch user would write, each verified against merge_parts before anything is timed; all
write into memory that is reused. The copy moves as many bytes as the operation must: half of its reads and
writes are read, half are written.
"""

import torch
from common import paired_runs
from result import Result, parser

from dsa_ext import merge_parts, parts

SETS = 2
CASES = [  # level, parts, channels, pixels
    ("mirror", 24, 64, 16 * 256),
    ("front_back", 13, 128, 16 * 64),
    ("mirror", 24, 16, 16 * 256),  # the demo's widths
    ("front_back", 13, 32, 16 * 64),
]


def members(level: str) -> list[list[int]]:
    group = parts.MIRROR_GROUP if level == "mirror" else parts.FRONT_BACK_GROUP
    return [[p for p, g in enumerate(group) if g == wanted] for wanted in range(max(group) + 1)]


def by_index_add(level, features, residual, out):
    group = parts.MIRROR_GROUP if level == "mirror" else parts.FRONT_BACK_GROUP
    torch.index_add(out.zero_(), 1, torch.tensor(group), (features + residual).relu_(), out=out)


def by_slices(level, features, residual, out):
    x = (features + residual).relu_()
    torch.stack([x[:, m].sum(1) if len(m) > 1 else x[:, m[0]] for m in members(level)], 1, out=out)


def by_two_gathers(level, features, residual, out):
    x = (features + residual).relu_()
    groups = members(level)
    pairs = [g for g, m in enumerate(groups) if len(m) == 2]
    torch.index_select(x, 1, torch.tensor([m[0] for m in groups]), out=out)
    out.index_add_(1, torch.tensor(pairs), x[:, [groups[g][1] for g in pairs]])


def ours(level, features, residual, out):
    merge_parts(features, level, residual=residual, relu=True, out=out)


def bench(
    result: Result, level: str, count: int, channels: int, pixels: int, dtype: torch.dtype, rounds: int
) -> None:
    groups = len(members(level))
    features, residuals = (
        [torch.randn(pixels, count, channels).to(dtype) for _ in range(SETS)] for _ in range(2)
    )
    outs = [torch.zeros(pixels, groups, channels, dtype=dtype) for _ in range(SETS)]
    moved = features[0].nbytes + residuals[0].nbytes + outs[0].nbytes
    plain = features[0].nbytes + outs[0].nbytes
    sources, targets = ([torch.zeros(moved // 2, dtype=torch.uint8) for _ in range(SETS)] for _ in range(2))
    forms = {"index_add": by_index_add, "slices": by_slices, "two gathers": by_two_gathers}
    expected = merge_parts(features[0], level, residual=residuals[0], relu=True)
    for name, form in forms.items():
        form(level, features[0], residuals[0], outs[0].fill_(-1))
        if not torch.allclose(outs[0], expected, rtol=0.02, atol=0.05 if dtype != torch.float32 else 1e-6):
            raise SystemExit(f"{name} does not compute the same as dsa_ext.merge_parts")

    def turned(form):
        return lambda i: form(level, features[i % SETS], residuals[i % SETS], outs[i % SETS])

    work = {"merge_parts": turned(ours)} | {name: turned(form) for name, form in forms.items()}
    work["copy"] = lambda i: targets[i % SETS].copy_(sources[i % SETS])
    bare = {
        "merge_parts": lambda i: merge_parts(features[i % SETS], level, out=outs[i % SETS]),
        "copy": lambda i: targets[i % SETS][: plain // 2].copy_(sources[i % SETS][: plain // 2]),
    }
    case = f"{level} {pixels} x {count} x {channels}, {str(dtype).removeprefix('torch.')}"
    result.add("With residual and ReLU", case, paired_runs(work, rounds), against="merge_parts")
    result.add("Plain", case, paired_runs(bare, rounds), against="merge_parts")


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=30, help="timed runs of each candidate")
    options.add_argument("--threads", type=int, default=1)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with Result(arguments) as result:
        for case in CASES:
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                bench(result, *case, dtype, arguments.rounds)
