"""Batch assembly."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsa_ext.augment import KEEP_ALL, draw_augmentation
from dsa_ext.batch import _assemble_batch, assemble_batch
from dsa_ext.selftest import cuda
from dsa_ext.selftest.inputs import FLOATING, PARTS, SCALINGS, lay_out, random, random_iuv, spread
from dsa_ext.selftest.measure import person_batch
from dsa_ext.selftest.operation import Call, Case, Operation, Typical, difference


def batch_bytes(
    batch: int,
    stored: tuple[int, int],
    wanted: tuple[int, int],
    size: int,
    *,
    parts: int = 24,
    out_bytes: int = 4,
) -> int:
    """assemble_batch, from images of `stored` to `wanted` height and width. The few stored pixels that a
    shift or an erased box hides are counted too."""
    # Image and map of every sample, 3 bytes a pixel each: nearly every sector holds a pixel that is
    # needed, because the image is read whole and U and V lie beside I.
    read = 2 * 3 * stored[0] * stored[1] + 8 + 32  # and its index and parameters
    written = 3 * (wanted[0] * wanted[1] + parts * size * size) * out_bytes
    return batch * (read + written)


def stored_batch(batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """images, iuv, index and params of assemble_batch: a store of `batch` 128x64 images (see
    person_batch), each of them sampled once, augmented for 256x128."""
    images, iuv = (x.permute(0, 2, 3, 1).contiguous() for x in person_batch(batch, 128, 64, seed=seed))
    index = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    return images, iuv, index, draw_augmentation(seed, 0, index, height=256, width=128)


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
    "far and often": {"pad": 16, "erase": 0.8, "drop_person": 0.1, "drop_part": 0.2},
}
"""How samples may be augmented, as arguments of draw_augmentation."""


def extremes(height: int, width: int) -> Tensor:
    """Hand-made params at and beyond every border of a view of this size, int32 (21, 8)."""
    far, middle, most = 1 << 20, height // 2, KEEP_ALL
    return torch.tensor(
        [
            [0, 0, 0, 0, 0, 0, 0, most],
            [height, 0, 0, 0, 0, 0, 0, most],  # just outside, on each side
            [-height, 0, 1, 0, 0, 0, 0, most],
            [0, width, 1, 0, 0, 0, 0, most],
            [0, -width, 0, 0, 0, 0, 0, most],
            [height - 1, width - 1, 1, 0, 0, 0, 0, most],  # one corner is left
            [1 - height, 1 - width, 0, 0, 0, 0, 0, most],
            [far, -far, 1, 0, 0, 0, 0, most],
            [-far, far, 0, 0, 0, height, width, most],
            [0, 0, 0, 0, 0, height, width, most],  # all is erased
            [0, 0, 1, 0, width - 1, height, width, most],
            [0, 0, 0, height - 1, 0, height, width, most],
            [2, -1, 1, height // 3, width // 3, middle + 1, width // 2 + 1, most],
            [-3, 2, 0, height // 3, width // 3, middle + 1, width // 2 + 1, most],
            [0, 0, 1, height, width, height, width, most],  # empty boxes
            [0, 0, 0, 0, middle % width, height, middle % width, most],
            [0, 0, 1, middle, 0, middle, width, most],
            [0, 0, 0, 0, 0, 0, 0, 0],  # parts that stay
            [0, 0, 1, 0, 0, 0, 0, 1 << 7],
            [0, 0, 1, 0, 0, 0, 0, ~(1 << 7)],
            [0, 0, 0, 0, 0, 0, 0, -1],
        ],
        dtype=torch.int32,
    )


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
    **options: Any,
) -> Case:
    """`stored` is (N, h, w); `varied` one of VARIED, "extremes", or None: without params. `layout` is that of
    the store, one of `lay_out` or "image gaps"; `out` that of both tensors of out=, or None: without out=."""
    height, width = wanted
    samples = 21 if varied == "extremes" else samples
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
        elif varied == "extremes":
            params = extremes(height, width)
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
            return _both(assemble_batch(*store(device), *sample(device), **options))
        pairs = into(options.get("dtype", torch.float32), device)
        views = [view for _, view in pairs]
        assemble_batch(*store(device), *sample(device), **options, out=(*views, None)[:2])
        return [base for base, _ in pairs]

    def twin():
        plain = {name: value for name, value in options.items() if name != "memory_format"}
        results = _both(_assemble_batch(*store("cpu"), *sample("cpu"), **plain))
        if out is None:
            return results
        pairs = into(results[0].dtype, "cpu")
        for (_, view), result in zip(pairs, results):
            view.copy_(result)
        return [base for base, _ in pairs]

    return Case(label, ours, twin)


SIZES = (
    ((3, 32, 16), (64, 32)),
    ((3, 32, 16), (32, 16)),
    ((2, 30, 20), (45, 20)),
    ((2, 64, 48), (16, 12)),
    ((2, 37, 21), (13, 50)),
    ((1, 100, 9), (7, 9)),
    ((5, 20, 12), (20, 12)),
    ((5, 13, 7), (31, 19)),
    ((5, 37, 21), (11, 8)),
    ((5, 90, 5), (7, 5)),
    ((5, 9, 30), (31, 13)),
    ((5, 30, 9), (13, 31)),
    ((5, 15, 10), (15, 23)),
    ((1, 1, 1), (1, 1)),
    ((5, 1, 1), (5, 4)),
    ((5, 6, 5), (1, 1)),
    ((2, 1, 7), (9, 1)),
    ((5, 1, 19), (1, 33)),
    ((5, 40, 1), (16, 1)),
)
"""(N, h, w) of the store, and the wanted height and width: up, down, one dimension alone, single pixels."""


def cases() -> dict[str, list[Case]]:
    return {
        "batch: sizes up, down and the same": [
            batch_case(
                f"{stored} to {wanted}, {varied}, {augmented=}",
                stored,
                wanted,
                varied=varied,
                fill=[0.5, -1, 2],
                augmented_dsap=augmented,
            )
            for (stored, wanted), varied, augmented in itertools.product(
                SIZES, (None, "far and often", "extremes"), (True, False)
            )
        ],
        "batch: shift, flip, erased box, dropped parts": [
            batch_case(
                f"{varied}, {wanted}, {augmented=}", stored, wanted, varied=varied, augmented_dsap=augmented
            )
            for varied, (stored, wanted), augmented in itertools.product(
                (None, *VARIED, "extremes"), (((3, 37, 32), (40, 24)), ((3, 37, 21), (37, 21))), (True, False)
            )
        ],
        "batch: types, mean and std, fill": [
            batch_case(
                f"{dtype}, {options or 'plain'}, {form}",
                dtype=dtype,
                fill=[-0.1, 1e-5, 70000.0],
                memory_format=form,
                **options,
            )
            for dtype, options, form in itertools.product(
                FLOATING, SCALINGS, (torch.contiguous_format, torch.channels_last)
            )
        ],
        "batch: 24, 13, 8 parts, mirror": [
            batch_case(f"{parts} parts, mirror={mirror}, {varied}", parts=parts, mirror=mirror, varied=varied)
            for (parts, mirror), varied in itertools.product(PARTS, (None, "flip", "all of it", "extremes"))
        ],
        "batch: S, maps, nothing": [
            *(
                batch_case(f"S={size}, {kind} map, {varied}", iuv=kind, size=size, samples=2, varied=varied)
                for size, kind, varied in itertools.product(
                    (1, 2, 7, 32, 51, 75, 255, 256),
                    ("random", "one cell", "sparse", "background"),
                    (None, "all of it"),
                )
            ),
            batch_case("no map", iuv=None),
            *(
                batch_case(f"{name}, {varied}, iuv {iuv}", stored, samples=0, varied=varied, iuv=iuv)
                for name, stored in (("no sample", (3, 37, 32)), ("no image", (0, 8, 8)))
                for iuv in ("random", None)
                for varied in (None, "all of it")
            ),
        ],
        "batch: strides, out=, where the index lies": [
            batch_case(f"{layout} store, out={out}, {options}", layout=layout, out=out, **options)
            for layout, (out, options) in itertools.product(
                ("plain", "offset", "image gaps", "expanded"), OUTPUTS
            )
        ],
    }


OUTPUTS: tuple[tuple[str | None, dict[str, Any]], ...] = (
    (None, {"memory_format": torch.channels_last, "dtype": torch.float16}),
    (None, {"index_on_device": True}),
    ("plain", {"dtype": torch.float16}),
    ("channels last", {"index_on_device": True}),
    ("swapped", {}),
    ("gaps", {"dtype": torch.bfloat16}),
    ("offset", {}),
    ("offset", {"iuv": None}),
)
"""How out= lies in memory, and options that go with it."""


def stored_samples(device: str, count: int = 4, side: int = 16) -> list[Tensor]:
    """images, iuv, index and params for assemble_batch, all on `device`; views of 24x16 pixels."""
    images = random((count, side, side, 3), torch.uint8)
    iuv = random_iuv(count, side, side, "random").permute(0, 2, 3, 1).contiguous()
    index = torch.arange(count).flip(0)
    params = draw_augmentation(1, 0, index, height=24, width=16, pad=2)
    return [x.to(device) for x in (images, iuv, index, params)]


def batch_outputs(count: int, device: str) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """A contiguous buffer, and the image and part images (S = 8) of a batch in it."""
    shapes = (count, 3, 24, 16), (count, 24, 3, 8, 8)
    base = torch.empty(sum(map(math.prod, shapes)), device=device)
    parts_of_it = base.split([math.prod(shape) for shape in shapes])
    image, dsap = (x.view(shape) for x, shape in zip(parts_of_it, shapes))
    return base, (image, dsap)


def _both(result: tuple[Tensor, Tensor | None]) -> list[Tensor]:
    """Images and part images of an assembled batch, without a None."""
    return [x for x in result if x is not None]


def check_stream_of_host_memory(device: str) -> str | None:
    """index and params are in host memory and must be copied in the stream's order."""
    images, iuv, *host = stored_samples("cpu")
    image, dsap = assemble_batch(images, iuv, *host, height=24, width=16, size=8)
    stored = torch.zeros_like(images, device=device)
    with cuda.busy_side_stream():
        stored.copy_(images)
        result = assemble_batch(stored, iuv.to(device), *host, height=24, width=16, size=8)
        for x in host:
            x.zero_()  # the caller's again, as soon as the call returns
    return difference(_both(result), _both((image, dsap)))


def check_foreign_index(device: str) -> str | None:
    """An index on the device is not checked; a sample whose index is outside of the store is all fill."""
    images, iuv, index, params = stored_samples(device)
    index[0], index[-1] = -1, len(images)
    image, dsap = assemble_batch(images, iuv, index, params, height=24, width=16, size=8, fill=0.5)
    samples = stored_samples("cpu")
    wanted, wanted_dsap = assemble_batch(*samples, height=24, width=16, size=8, fill=0.5)
    for x in _both((wanted, wanted_dsap)):
        x[0], x[-1] = 0.5, 0.5
    return difference(_both((image, dsap)), _both((wanted, wanted_dsap)))


def check_large_batch(device: str, beyond: int, stored: int = 128, wanted: int = 256) -> str | None:
    """The store has more than `beyond` bytes, and the images made of it more than `beyond` elements."""
    images_stored, samples = beyond // (3 * stored * stored) + 2, beyond // (3 * wanted * wanted) + 2
    cuda.need(2 * images_stored * 3 * stored * stored + samples * (3 * wanted * wanted + 24 * 3 * 64) * 2)
    images, iuv = (
        torch.empty((images_stored, stored, stored, 3), dtype=torch.uint8, device=device).random_(0, 256)
        for _ in range(2)
    )
    index = torch.arange(samples).flip(0) * (images_stored - 1) // (samples - 1)

    def assemble(images: Tensor, iuv: Tensor, index: Tensor) -> list[Tensor]:
        size: dict[str, Any] = {"height": wanted, "width": wanted, "size": 8}
        return _both(assemble_batch(images, iuv, index, **size, dtype=torch.bfloat16))

    got = assemble(images, iuv, index)
    for at in sorted({0, samples // 2, samples - 1}):
        which = index[at : at + 1].to(device)
        one = assemble(images[which].cpu(), iuv[which].cpu(), torch.tensor([0]))
        wrong = difference([x[at : at + 1] for x in got], one)
        if wrong:
            return f"sample {at} of {samples}: {wrong}"
    return None


def calls(device: str) -> dict[str, Call]:
    samples = stored_samples(device)
    images, iuv, index, params = samples
    out, views = batch_outputs(len(images), device)
    size: dict[str, Any] = {"height": 24, "width": 16, "size": 8}
    run = lambda: assemble_batch(images, iuv, index, params, **size, out=views)  # noqa: E731
    return {"index and params on the device": Call(samples, out, run)}


def typical(batch: int) -> list[Typical]:
    moved = batch_bytes(batch, (128, 64), (256, 128), 32)
    return [Typical("assemble_batch, 128x64 to 256x128, float32", moved, _batch(batch))]


def _batch(batch: int):
    def prepare(device):
        arguments = tuple(x.to(device) for x in stored_batch(batch))
        out = (
            torch.empty((batch, 3, 256, 128), device=device),
            torch.empty((batch, 24, 3, 32, 32), device=device),
        )
        return lambda: assemble_batch(*arguments, height=256, width=128, size=32, out=out)

    return prepare


OPERATION = Operation(
    name="batch",
    function=assemble_batch,
    twin=_assemble_batch,
    cases=cases,
    typical=typical,
    kernels=("dsa::batch_kernel<float>", "dsa::batch_kernel<dsa::Half>"),
    calls=calls,
    large={"store and images": check_large_batch},
    checks={
        "index and params in host memory": check_stream_of_host_memory,
        "an index on CUDA that is not in the store": check_foreign_index,
    },
)
