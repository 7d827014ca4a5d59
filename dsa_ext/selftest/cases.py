"""The self-test's table: every operation and its gradients at odd sizes, types and strides."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dsa_ext.augment import _draw_augmentation, draw_augmentation
from dsa_ext.batch import _assemble_batch, assemble_batch
from dsa_ext.merge import LEVELS, _merge_parts, merge_parts
from dsa_ext.rank import _count_ranks, count_ranks
from dsa_ext.selftest.measure import ranking
from dsa_ext.warp import _iuv_to_dsap, iuv_to_dsap

MEAN, STD = (0.485, 0.456, 0.406, 0.3, 0.2), (0.229, 0.224, 0.225, 0.3, 0.1)
FLOATING = (torch.float32, torch.float16, torch.bfloat16)
INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # of as many bytes


class Case(NamedTuple):
    """`ours(device)` and `twin()` give lists of tensors that must be the same."""

    label: str
    ours: Callable[[str], list[Tensor]]
    twin: Callable[[], list[Tensor]]


def spread(shape: Sequence[int], dtype: torch.dtype, layout: str, device: str) -> tuple[Tensor, Tensor]:
    """A poisoned buffer, and a view of it of the given shape that lies in it in some way."""
    shape = list(shape)
    view: Callable[[Tensor], Tensor]
    if layout == "plain":
        stored, view = shape, lambda base: base
    elif layout == "channels last":  # of [..., C, H, W]
        stored, view = [*shape[:-3], *shape[-2:], shape[-3]], lambda base: base.movedim(-1, -3)
    elif layout == "swapped":
        stored, view = [*shape[:-2], shape[-1], shape[-2]], lambda base: base.transpose(-1, -2)
    elif layout == "gaps":
        stored, view = [*shape[:-1], 2 * shape[-1] + 1], lambda base: base[..., 1::2]
    elif layout == "offset":  # contiguous, and not aligned to more than one element
        stored, view = [math.prod(shape) + 1], lambda base: base[1:].view(shape)
    else:
        raise ValueError(f"unknown layout {layout!r}")
    base = torch.full(stored, 165 if dtype == torch.uint8 else -12345, dtype=dtype, device=device)
    return base, view(base)


def lay_out(values: Tensor, layout: str, device: str) -> Tensor:
    """The same values on `device`, lying in memory as `layout` says."""
    if layout == "expanded":  # every element along the first dimension is the same memory
        return values.to(device)[:1].expand(values.shape)
    _, view = spread(values.shape, values.dtype, layout, device)
    return view.copy_(values)


def random(shape: Sequence[int], dtype: torch.dtype, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 256, tuple(shape), dtype=dtype, generator=draw)
    return torch.randn(tuple(shape), generator=draw).to(dtype)


def random_iuv(batch: int, height: int, width: int, kind: str) -> Tensor:
    iuv = random((batch, 3, height, width), torch.uint8, seed=1)
    if kind == "one cell":
        iuv[:, 0], iuv[:, 1], iuv[:, 2] = 7, 255, 0
    elif kind == "background":
        iuv[:, 0] = 0
    else:
        iuv[:, 0] %= 28  # also parts above 24, which are background
    if kind != "float":
        return iuv
    iuv = iuv.float()
    iuv[:, 1:] = iuv[:, 1:] / 200 - 0.1  # beyond [0, 1] at both ends
    flat = iuv.view(-1)
    flat[::17] = math.nan  # in each of the three planes, as 17 divides none of the sizes used
    return iuv


def difference(got: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    """What differs, bit for bit, in words; None if nothing does."""
    if len(got) != len(expected):
        return f"{len(got)} results instead of {len(expected)}"
    for index, (a, b) in enumerate(zip(got, expected)):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"result {index} is {a.dtype} {list(a.shape)}, not {b.dtype} {list(b.shape)}"
        a, b = a.detach().cpu().contiguous(), b.detach().cpu().contiguous()
        as_bits = INTEGER[a.element_size()]
        wrong = a.view(as_bits) != b.view(as_bits)
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            return (
                f"result {index}: {int(wrong.sum())} of {wrong.numel()} elements differ, "
                f"the first at {at}: {a[at].item()!r} instead of {b[at].item()!r}"
            )
    return None


def warp_case(
    label: str,
    shape: Sequence[int] = (2, 3, 37, 21),
    image: torch.dtype = torch.uint8,
    iuv: str = "random",
    layout: str = "plain",
    out: str | None = None,
    **options,
) -> Case:
    """`layout` is that of image and IUV, `out` that of out=, if there is to be one."""
    batch, _, height, width = shape

    def inputs(device):
        values = random(shape, image), random_iuv(batch, height, width, iuv)
        return [lay_out(x, layout, device) for x in values]

    def into(dsap_shape, dtype, device):
        return spread(dsap_shape, dtype, out or "plain", device)

    def ours(device):
        if out is None:
            # Without the map of winners other code runs.
            with_map = iuv_to_dsap(*inputs(device), return_source=True, **options)
            return [*with_map, iuv_to_dsap(*inputs(device), **options)]
        side, count = options.get("size", 32), options.get("parts", 24)
        dtype = options.get("dtype") or image
        base, view = into((batch, count, shape[1], side, side), dtype, device)
        _, source = iuv_to_dsap(*inputs(device), return_source=True, out=view, **options)
        return [base, source]

    def twin():
        dsap, source = _iuv_to_dsap(*inputs("cpu"), **options)
        if out is None:
            return [dsap, source, dsap]
        base, view = into(dsap.shape, dsap.dtype, "cpu")
        view.copy_(dsap)
        return [base, source]

    return Case(label, ours, twin)


def warp_gradient_case(
    label: str,
    shape: Sequence[int] = (2, 3, 37, 21),
    image: torch.dtype = torch.float32,
    grad_layout: str = "plain",
    second: bool = False,
    **options,
) -> Case:
    def run(warp, device):
        x = random(shape, image).to(device).requires_grad_()
        dsap = warp(x, random_iuv(shape[0], *shape[2:], "random").to(device), **options)
        weight = lay_out(random(dsap.shape, dsap.dtype, seed=2), grad_layout, device)
        if not second:
            return list(torch.autograd.grad(dsap, x, weight))
        (first,) = torch.autograd.grad((dsap * dsap * weight).sum(), x, create_graph=True)
        return [first, *torch.autograd.grad((first * first).sum(), x)]

    return Case(
        label,
        lambda device: run(iuv_to_dsap, device),
        lambda: run(lambda *a, **k: _iuv_to_dsap(*a, **k)[0], "cpu"),
    )


PLAIN = {"pad": 0, "flip": 0.0, "erase": 0.0}
VARIED = {
    "nothing": PLAIN,
    "shift": PLAIN | {"pad": 5},
    "beyond the image": PLAIN | {"pad": 200},
    "flip": PLAIN | {"flip": 1.0},
    "erased box": PLAIN | {"erase": 1.0},
    "parts dropped": PLAIN | {"drop_part": 0.5},
    "nobody left": PLAIN | {"drop_person": 1.0},
    "all of it": {"pad": 5, "erase": 0.7, "drop_part": 0.2},
}
"""How samples may be varied, as arguments of draw_augmentation."""


def batch_case(
    label: str,
    stored: Sequence[int] = (3, 37, 32),
    wanted: tuple[int, int] = (40, 24),
    samples: int = 5,
    varied: str | None = "all of it",
    iuv: str | None = "random",
    layout: str = "plain",
    out: str | None = None,
    index_on_device: bool = False,
    **options,
) -> Case:
    """`stored` is (N, h, w). `layout` is that of the store: one of `lay_out` or "image gaps"; `out` that of
    both tensors of out=, if there is to be one."""
    height, width = wanted
    options = {"height": height, "width": width, "size": 16} | options

    def store(device):
        values = [random((*stored, 3), torch.uint8)]
        if iuv is not None:
            values.append(random_iuv(*stored, iuv).permute(0, 2, 3, 1).contiguous())
        if layout == "image gaps":
            laid_out = [x.repeat_interleave(2, 0).to(device)[1::2] for x in values]
        else:
            laid_out = [lay_out(x, layout, device) for x in values]
        return laid_out if iuv is not None else [*laid_out, None]

    def sample(device):
        draw = torch.Generator().manual_seed(3)
        index = torch.randint(0, max(1, stored[0]), (samples,), generator=draw)
        if varied is None:
            params = None
        elif varied == "all erased":
            params = torch.tensor([[0, 0, 1, 0, 0, height, width, -1]], dtype=torch.int32).repeat(samples, 1)
        else:  # by the sample's number, so that one image is seen in several ways
            view = {"height": height, "width": width}
            params = draw_augmentation(4, 1, torch.arange(samples), **view, **VARIED[varied])
        on = device if index_on_device else "cpu"
        return [index.to(on), params if params is None else params.to(on)]

    def into(dtype, device):
        size, parts = options["size"], options.get("parts", 24)
        shapes = [(samples, 3, height, width), (samples, parts, 3, size, size)]
        return [spread(shape, dtype, out or "plain", device) for shape in shapes[: 2 if iuv else 1]]

    def ours(device):
        if out is None:
            return [x for x in assemble_batch(*store(device), *sample(device), **options) if x is not None]
        pairs = into(options.get("dtype", torch.float32), device)
        views = [view for _, view in pairs]
        assemble_batch(*store(device), *sample(device), **options, out=(*views, None)[:2])
        return [base for base, _ in pairs]

    def twin():
        plain = {name: value for name, value in options.items() if name != "memory_format"}
        results = [x for x in _assemble_batch(*store("cpu"), *sample("cpu"), **plain) if x is not None]
        if out is None:
            return results
        pairs = into(results[0].dtype, "cpu")
        for (_, view), result in zip(pairs, results):
            view.copy_(result)
        return [base for base, _ in pairs]

    return Case(label, ours, twin)


def draw_case(label: str, seed: int, epoch: int, **options) -> Case:
    """draw_augmentation, which runs on the CPU whatever the device."""
    index = torch.tensor([0, 1, 1, 7, 2**32 - 1, 12935])
    repeat = torch.tensor([0, 0, 1, 2, 3, 2**32 - 1])

    def run(draw):
        return [draw(seed, epoch, index, repeat, **options), draw(seed, epoch, index, **options)]

    return Case(label, lambda device: run(draw_augmentation), lambda: run(_draw_augmentation))


def merge_case(
    label: str,
    level: str,
    inner: Sequence[int] = (5, 3),
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    layout: str = "plain",
    residual: bool = False,
    relu: bool = False,
    out: str | None = None,
    grad_layout: str | None = None,
) -> Case:
    """With `grad_layout` the results are the gradients of features and residual."""
    groups = max(LEVELS[level]) + 1

    def run(merge, device):
        shape = (batch, len(LEVELS[level]), *inner)
        tensors = [lay_out(random(shape, dtype, seed), layout, device) for seed in range(1 + residual)]
        for x in tensors if grad_layout else ():
            x.requires_grad_()
        return tensors, merge(*tensors[:1], level, *tensors[1:] or [None], relu)

    def ours(device):
        if out is None:
            return results(*run(merge_parts, device), device)
        base, view = spread((batch, groups, *inner), dtype, out, device)
        run(lambda *arguments: merge_parts(*arguments, out=view), device)
        return [base]

    def twin():
        tensors, merged = run(_merge_parts, "cpu")
        if out is None:
            return results(tensors, merged, "cpu")
        base, view = spread(merged.shape, dtype, out, "cpu")
        view.copy_(merged)
        return [base]

    def results(tensors, merged, device):
        if not grad_layout:
            return [merged]
        weight = lay_out(random(merged.shape, dtype, seed=5), grad_layout, device)
        return list(torch.autograd.grad(merged, tensors, weight))

    return Case(label, ours, twin)


def rank_case(label: str, *sizes: int, **options) -> Case:
    def run(count, device):
        return list(count(*(x.to(device) for x in ranking(*sizes, **options))))

    return Case(label, lambda device: run(count_ranks, device), lambda: run(_count_ranks, "cpu"))


def table() -> Iterator[tuple[str, list[Case]]]:
    """The groups of cases."""
    yield (
        "warp: S from 1 to 256, full, crowded and empty maps",
        [
            warp_case(f"S={size}, {kind}", iuv=kind, size=size)
            for size, kind in itertools.product(
                (1, 2, 7, 32, 51, 90, 91, 255, 256), ("random", "one cell", "background")
            )
        ],
    )
    yield (
        "warp: 1 to 9 channels, odd shapes, no image",
        [
            warp_case(f"{shape}", shape=shape, size=9, fill=list(range(shape[1])))
            for shape in (
                *((2, channels, 13, 11) for channels in (1, 2, 3, 4, 5, 8, 9)),
                (1, 3, 1, 1),
                (1, 3, 1, 9),
                (3, 2, 13, 300),
                (1, 1, 300, 400),
                (0, 3, 8, 8),
                (70, 1, 3, 5),
            )
        ],
    )
    yield (
        "warp: types, mean and std, fill",
        [
            warp_case("uint8 to uint8", fill=[0, 7, 255], dtype=torch.uint8),
            *(
                warp_case(
                    f"{a} to {b}, {options or 'plain'}",
                    image=a,
                    size=12,
                    dtype=b,
                    fill=[-0.1, 1e-5, 70000.0],
                    **options,
                )
                for a, b, options in itertools.product(
                    (torch.uint8, *FLOATING), FLOATING, ({}, {"mean": MEAN[:3], "std": STD[:3]})
                )
            ),
        ],
    )
    yield (
        "warp: 24, 13, 8 parts, mirror, float IUV",
        [
            warp_case(
                f"{count} parts, mirror={mirror}, {kind} IUV",
                iuv=kind,
                size=16,
                parts=count,
                mirror=mirror,
                dtype=torch.float32,
            )
            for (count, mirror), kind in itertools.product(
                ((24, False), (13, False), (13, True), (8, False), (8, True)), ("random", "float")
            )
        ],
    )
    yield (
        "warp: strides of the inputs and of out=",
        [
            warp_case(f"{layout} inputs, out={out}", layout=layout, out=out, size=size, dtype=dtype)
            for layout, (out, size, dtype) in itertools.product(
                ("plain", "channels last", "swapped", "gaps", "offset", "expanded"),
                (
                    (None, 8, torch.uint8),
                    ("plain", 32, torch.float16),
                    ("channels last", 8, torch.float32),
                    ("swapped", 9, torch.uint8),
                    ("gaps", 7, torch.float32),
                    ("offset", 8, torch.bfloat16),
                ),
            )
        ],
    )
    normalised = {"mean": MEAN[:3], "std": STD[:3]}
    yield (
        "warp: gradient, and its gradient",
        [
            *(
                warp_gradient_case(f"{a} to {b}, {options or 'plain'}", image=a, dtype=b, size=8, **options)
                for a, b, options in itertools.product(FLOATING, FLOATING, ({}, normalised))
            ),
            *(
                warp_gradient_case(f"gradient {layout}", grad_layout=layout, size=9, parts=13, mirror=True)
                for layout in ("channels last", "swapped", "gaps", "offset", "expanded")
            ),
            warp_gradient_case("9 channels, S=256", shape=(1, 9, 20, 31), size=256),
            warp_gradient_case("no image", shape=(0, 3, 5, 5), size=4),
            warp_gradient_case("second", second=True, size=8),
            warp_gradient_case("second, normalised", second=True, size=8, **normalised),
        ],
    )
    yield (
        "batch: sizes up, down and the same",
        [
            batch_case(f"{stored} to {wanted}, {varied}", stored=stored, wanted=wanted, varied=varied)
            for (stored, wanted), varied in itertools.product(
                (
                    ((3, 32, 16), (64, 32)),
                    ((3, 32, 16), (32, 16)),
                    ((2, 30, 20), (45, 20)),
                    ((2, 64, 48), (16, 12)),
                    ((2, 37, 21), (13, 50)),
                    ((1, 100, 9), (7, 9)),
                    ((1, 1, 1), (1, 1)),
                    ((2, 1, 7), (9, 1)),
                ),
                (None, "all of it"),
            )
        ],
    )
    yield (
        "batch: shift, flip, erased box, dropped parts",
        [
            batch_case(
                f"{varied}, {wanted}, {options or 'in the view'}",
                wanted=wanted,
                varied=varied,
                stored=(3, 37, stored_width),
                **options,
            )
            for varied, (stored_width, wanted), options in itertools.product(
                (None, *VARIED, "all erased"),
                ((32, (40, 24)), (21, (37, 21))),
                ({}, {"augmented_dsap": False}),
            )
        ],
    )
    yield (
        "batch: types, mean and std, fill",
        [
            batch_case(f"{dtype}, {options or 'plain'}", dtype=dtype, fill=[-0.1, 1e-5, 70000.0], **options)
            for dtype, options in itertools.product(FLOATING, ({}, normalised))
        ],
    )
    yield (
        "batch: 24, 13, 8 parts, mirror, S, maps",
        [
            *(
                batch_case(
                    f"{count} parts, mirror={mirror}, {varied}", parts=count, mirror=mirror, varied=varied
                )
                for (count, mirror), varied in itertools.product(
                    ((24, False), (13, False), (13, True), (8, False), (8, True)), ("flip", "all of it")
                )
            ),
            *(batch_case(f"S={size}", size=size) for size in (1, 7, 32, 51, 255, 256)),
            *(batch_case(f"{kind} map", iuv=kind) for kind in ("one cell", "background", None)),
            *(
                batch_case(f"{name}, iuv {iuv}", samples=0, iuv=iuv, **sizes)
                for name, sizes in (("no sample", {}), ("no image", {"stored": (0, 8, 8)}))
                for iuv in ("random", None)
            ),
        ],
    )
    yield (
        "batch: strides, out=, where the index lies",
        [
            batch_case(f"{layout} store, out={out}, {options}", layout=layout, out=out, **options)
            for layout, (out, options) in itertools.product(
                ("plain", "offset", "image gaps", "expanded"),
                (
                    (None, {"memory_format": torch.channels_last, "dtype": torch.float16}),
                    (None, {"index_on_device": True}),
                    ("plain", {"dtype": torch.float16}),
                    ("channels last", {"index_on_device": True}),
                    ("swapped", {}),
                    ("gaps", {"dtype": torch.bfloat16}),
                    ("offset", {}),
                    ("offset", {"iuv": None}),
                ),
            )
        ],
    )
    yield (
        "batch: drawing the augmentation",
        [
            draw_case(f"seed {seed}, epoch {epoch}, {options}", seed, epoch, **options)
            for (seed, epoch), options in itertools.product(
                ((0, 0), (2**63 - 1, 2**32 - 1), (12345678901, 3)),
                (
                    {"height": 256, "width": 128},
                    {"height": 1, "width": 1, "pad": 0},
                    {"height": 3, "width": 300},
                    {"height": 64, "width": 32, **VARIED["all of it"], "drop_person": 0.5},
                ),
            )
        ],
    )
    both = tuple(LEVELS)
    fused = ((False, False), (True, False), (False, True), (True, True))  # residual, relu
    yield (
        "merge: sizes and types",
        [
            merge_case(f"{level}, {inner}, {dtype}", level, inner, dtype)
            for level, inner, dtype in itertools.product(
                both, ((), (1,), (7,), (8,), (5, 3, 3), (64, 16, 16)), FLOATING
            )
        ],
    )
    yield (
        "merge: residual and ReLU",
        [
            merge_case(
                f"{level}, {inner}, {dtype}, {r=}, {relu=}", level, inner, dtype, residual=r, relu=relu
            )
            for level, inner, dtype, (r, relu) in itertools.product(both, ((7,), (4, 8)), FLOATING, fused[1:])
        ],
    )
    yield (
        "merge: strides, out=, no image",
        [
            *(
                merge_case(f"{level}, {layout}, out={out}", level, layout=layout, out=out, residual=r, relu=r)
                for level, layout, out, r in itertools.product(
                    both,
                    ("plain", "channels last", "swapped", "gaps", "offset"),
                    (None, "plain"),
                    (False, True),
                )
            ),
            *(merge_case(f"{level}, no image", level, batch=0) for level in both),
            *(merge_case(f"{level}, no feature", level, inner=(0, 3)) for level in both),
        ],
    )
    yield (
        "merge: gradient",
        [
            merge_case(
                f"{level}, {dtype}, {r=}, {relu=}, {layout}",
                level,
                (4, 6),
                dtype,
                residual=r,
                relu=relu,
                layout=layout,
                grad_layout=layout,
            )
            for level, dtype, (r, relu), layout in itertools.product(
                both, FLOATING, fused, ("plain", "swapped", "offset")
            )
        ],
    )
    yield (
        "ranks: sizes, ties, types",
        [
            rank_case(f"{sizes}, {values or 'no'} values, {dtype}", *sizes, values=values, dtype=dtype)
            for sizes, values, dtype in itertools.product(
                # queries, gallery, identities, cameras: one of each, no query, all junk, rare matches, ...
                (
                    (1, 1, 1, 2),
                    (0, 5, 2, 2),
                    (3, 7, 1, 1),
                    (5, 33, 2, 3),
                    (17, 257, 40, 2),
                    (9, 1000, 3000, 6),
                    (4, 2500, 2, 6),
                    (64, 4099, 200, 6),
                ),
                (0, 1, 5),
                (torch.float32, torch.float64),
            )
        ],
    )


def compare(case: Case, device: str) -> str | None:
    """CUDA against the CPU backend; the CPU backend against the twin."""
    return difference(case.ours(device), case.twin() if device == "cpu" else case.ours("cpu"))
