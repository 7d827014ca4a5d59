"""Cases that launch every path of every kernel: what users run, and the rest of what a launch may choose.

The tables of dsa_ext/selftest/operations are of small and odd sizes, which vectors of 16 bytes seldom fit.
Those here do. All of them are in the part of the table that `--quick` runs under compute-sanitizer;
tests/dsa_ext/test_launches.py counts that no path is missing.
"""

import itertools

import torch

from dsa_ext.merge import LEVELS
from dsa_ext.selftest.inputs import FLOATING, NORMALISED
from dsa_ext.selftest.operation import Case
from dsa_ext.selftest.operations.batch import batch_case
from dsa_ext.selftest.operations.merge import FUSED, merge_case
from dsa_ext.selftest.operations.rank import rank_arguments, rank_case, strided
from dsa_ext.selftest.operations.warp import warp_case, warp_gradient_case

LAYOUTS = ("plain", "channels last", "swapped")
"""Planes and [..., H, W, C] are written 16 bytes at a time, the third one element by element."""


def one_tile() -> int:
    """Images of which each is one tile: two for each multiprocessor of the device (csrc/tiles.h), or of an
    H200 where there is none."""
    if not torch.cuda.is_available():
        return 2 * 132
    return 2 * torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count


def warp_paths() -> list[Case]:
    types = [(torch.uint8, torch.uint8), *itertools.product((torch.uint8, *FLOATING), FLOATING)]
    images = one_tile()
    return [
        *(
            warp_case(f"{a} to {b}, {layout} out", (2, 3, 64, 32), a, out=layout, size=16, dtype=b)
            for (a, b), layout in itertools.product(types, LAYOUTS)
        ),
        *(
            warp_case(f"{layout} inputs, out={out}", (3, 3, 48, 16), layout=layout, out=out, size=8)
            for layout, out in itertools.product(("channels last", "gaps"), LAYOUTS)
        ),
        *(
            warp_case(f"{layout} inputs, {kind}, {n} images", (n, 3, 24, 16), layout=layout, size=8, iuv=kind)
            for n, (layout, kind) in itertools.product(
                (2, images),
                (("plain", "random"), ("channels last", "random"), ("gaps", "random"), ("plain", "float")),
            )
        ),
        *(
            warp_case(f"{layout} inputs of 37x21", (2, 3, 37, 21), layout=layout, size=9, parts=13)
            for layout in ("padded planes", "padded pixels")
        ),
        warp_case("more than 48 KiB of shared memory", (images, 3, 32, 16), size=32),
        warp_case("9 channels", (2, 9, 32, 16), size=8, layout="channels last"),
    ]


def warp_users() -> list[Case]:
    return [
        warp_case(
            f"{shape}, {layout}, S={size}, {a} to {b}", shape, a, layout=layout, out=out, size=size, **how
        )
        for shape, (layout, out), size, (a, b, how) in itertools.product(
            ((2, 3, 64, 32), (3, 3, 48, 16), (1, 3, 256, 128), (one_tile(), 3, 32, 16)),
            (("plain", "plain"), ("channels last", "channels last")),
            (8, 32, 51),
            (
                (torch.uint8, torch.uint8, {}),
                (torch.uint8, torch.float32, {"dtype": torch.float32, **NORMALISED}),
                (torch.uint8, torch.bfloat16, {"dtype": torch.bfloat16, **NORMALISED}),
                (torch.float32, torch.float32, {}),
            ),
        )
    ]


def gradient_paths() -> list[Case]:
    return [
        *(
            warp_gradient_case(f"{a} to {b}, {shape}", shape, a, dtype=b, size=16)
            for a, b, shape in itertools.product(FLOATING, FLOATING, ((2, 3, 64, 32), (2, 3, 37, 21)))
        ),
        warp_gradient_case("one tile an image", (one_tile(), 3, 32, 16), size=8),
        warp_gradient_case("a map of odd length", (2, 3, 32, 16), size=9, parts=13),
    ]


def batch_paths() -> list[Case]:
    stored = (5, 64, 32)
    return [
        *(
            batch_case(f"{dtype}, {layout}, {wanted}", stored, wanted, out=layout, dtype=dtype)
            for dtype, layout, wanted in itertools.product(FLOATING, LAYOUTS, ((128, 64), (30, 21)))
        ),
        *(
            batch_case(
                f"{dtype}, images alone, {layout}", stored, (64, 32), iuv=None, out=layout, dtype=dtype
            )
            for dtype, layout in itertools.product(FLOATING, LAYOUTS)
        ),
        *(
            batch_case(f"{at}, {varied}, {augmented=}", at, (64, 32), varied=varied, augmented_dsap=augmented)
            for at, varied, augmented in itertools.product(
                (stored, (5, 37, 21)), (None, "all of it"), (True, False)
            )
        ),
        *(
            batch_case(f"{at}, one tile a sample", at, (32, 16), samples=one_tile(), size=8)
            for at in (stored, (5, 37, 21))
        ),
        *(
            batch_case(f"{dtype}, S=9, {layout}", stored, (32, 16), dtype=dtype, size=9, out=layout)
            for dtype, layout in itertools.product(FLOATING, LAYOUTS)
        ),
        *(
            batch_case(f"rows of 4,000 pixels, {dtype}", (2, 16, 48), (6, 4000), samples=2, dtype=dtype)
            for dtype in FLOATING
        ),
    ]


def batch_users() -> list[Case]:
    return [
        batch_case(
            f"128x64 to 256x128, {dtype}, {form}, {samples} samples",
            (5, 128, 64),
            (256, 128),
            samples=samples,
            dtype=dtype,
            memory_format=form,
            size=32,
            **NORMALISED,
        )
        for dtype, form, samples in itertools.product(
            (torch.float32, torch.bfloat16), (torch.contiguous_format, torch.channels_last), (4, 64)
        )
    ]


def merge_paths() -> list[Case]:
    kinds = itertools.product(LEVELS, FLOATING, ((16, 4), (5, 3)), FUSED, (None, "plain"))
    return [
        merge_case(
            f"{level}, {dtype}, {inner}, residual={r}, relu={relu}, {'gradient' if grad else 'forward'}",
            level,
            inner,
            dtype,
            residual=r,
            relu=relu,
            grad_layout=grad,
        )
        for level, dtype, inner, (r, relu), grad in kinds
    ]


def rank_paths() -> list[Case]:
    return [
        rank_case(f"{dtype}, {rows} rows, {gallery} images", strided(case, step, 0) if step else case)
        for dtype in (torch.float32, torch.float64)
        for gallery, ids in ((1000, 20), (600, 2))  # up to 255 members take one turn
        for case in [rank_arguments(6, gallery, ids=ids, dtype=dtype)]
        for rows, step in (("aligned", 0), ("odd", 1))
    ]


def paths() -> dict[str, list[Case]]:
    """Groups of cases by title, as `Operation.cases` gives them."""
    return {
        "warp: every path": warp_paths(),
        "warp: gradient, every path": gradient_paths(),
        "batch: every path": batch_paths(),
        "merge: every path": merge_paths(),
        "ranks: every path": rank_paths(),
    }


def usual() -> dict[str, list[Case]]:
    """Groups of cases at the sizes and in the layouts that training has."""
    return {"warp: what users run": warp_users(), "batch: what users run": batch_users()}
