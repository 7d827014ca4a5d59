"""What only a GPU can show: streams, devices, graph capture, tensors beyond 2^31 elements.

The few calls of torch.cuda stand in functions of their own, and sizes are arguments, so that
everything else here is tried out on the CPU by tests/dsa_ext/test_selftest.py.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dsa_ext import parts
from dsa_ext.augment import draw_augmentation
from dsa_ext.batch import assemble_batch
from dsa_ext.merge import merge_parts
from dsa_ext.rank import count_ranks
from dsa_ext.selftest.cases import Case, compare, difference, random, random_iuv, table
from dsa_ext.selftest.measure import rank_labels, ranking
from dsa_ext.warp import iuv_to_dsap


class NotChecked(Exception):
    """Says why a check could not run here; it is printed, and is no failure."""


def stored_samples(device: str, count: int = 4, side: int = 16) -> list[Tensor]:
    """images, iuv, index and params for assemble_batch, all on `device`; views of 24x16 pixels."""
    images = random((count, side, side, 3), torch.uint8)
    iuv = random_iuv(count, side, side, "random").permute(0, 2, 3, 1).contiguous()
    index = torch.arange(count).flip(0)
    params = draw_augmentation(1, 0, index, height=24, width=16, pad=2)
    return [x.to(device) for x in (images, iuv, index, params)]


def batch_outputs(count: int, device: str) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One run of memory, and the image and part images (S = 8) of a batch in it."""
    shapes = (count, 3, 24, 16), (count, 24, 3, 8, 8)
    base = torch.empty(sum(map(math.prod, shapes)), device=device)
    parts_of_it = base.split([math.prod(shape) for shape in shapes])
    image, dsap = (x.view(shape) for x, shape in zip(parts_of_it, shapes))
    return base, (image, dsap)


def out_calls(device: str, seed: int = 3) -> dict[str, tuple[list[Tensor], Tensor, Callable[[], object]]]:
    """The out= forms: inputs that may be overwritten, the output, and the call."""
    image, iuv = (
        x.to(device) for x in (random((2, 3, 64, 48), torch.uint8, seed), random_iuv(2, 64, 48, "random"))
    )
    dsap = torch.empty((2, 24, 3, 16, 16), device=device)
    features, residual = (random((64, 24, 16), torch.float32, s).to(device) for s in (seed, seed + 1))
    merged, summed = (torch.empty((64, 13, 16), device=device) for _ in range(2))
    samples = stored_samples(device)
    both, views = batch_outputs(len(samples[0]), device)
    return {
        "warp": ([image, iuv], dsap, lambda: iuv_to_dsap(image, iuv, size=16, out=dsap)),
        "batch, index and params on the device": (
            samples,
            both,
            lambda: assemble_batch(*samples, height=24, width=16, size=8, out=views),
        ),
        "merge": ([features], merged, lambda: merge_parts(features, "mirror", out=merged)),
        "merge, residual and ReLU": (
            [features, residual],
            summed,
            lambda: merge_parts(features, "mirror", residual, True, out=summed),
        ),
    }


def expected_of(name: str) -> Tensor:
    """What the call of `out_calls` computes, from the CPU backend."""
    _, out, call = out_calls("cpu")[name]
    call()
    return out


def overwrite(inputs: Sequence[Tensor], values: Sequence[Tensor] | None = None) -> None:
    """Copy values into the inputs; zeros where there are none."""
    for index, tensor in enumerate(inputs):
        tensor.copy_(values[index]) if values is not None else tensor.zero_()


def same(got: Tensor, expected: Tensor) -> str | None:
    return difference([got], [expected])


@contextlib.contextmanager
def busy_side_stream() -> Iterator[None]:
    """A stream that is not the default one, and that has something to wait for first."""
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


def check_stream(name: str, device: str) -> str | None:
    """The input becomes right only late on the side stream: work on another one would miss it."""
    inputs, out, call = out_calls(device)[name]
    right = [x.clone() for x in inputs]
    overwrite(inputs)
    out.fill_(-12345)
    with busy_side_stream():
        overwrite(inputs, right)
        call()
    return same(out, expected_of(name))


def check_ranks_stream(device: str) -> str | None:
    arguments = [x.to(device) for x in ranking(8, 500, 20)]
    right = arguments[0].clone()
    arguments[0].zero_()
    with busy_side_stream():
        arguments[0].copy_(right)
        ranks, found = count_ranks(*arguments)
    wanted, wanted_found = count_ranks(*ranking(8, 500, 20))
    return same(ranks, wanted) or same(found, wanted_found)


def check_batch_stream(device: str) -> str | None:
    """With index and params in host memory, which have to be copied in the stream's order."""
    images, iuv, *host = stored_samples("cpu")
    image, dsap = assemble_batch(images, iuv, *host, height=24, width=16, size=8)
    stored = torch.zeros_like(images, device=device)
    with busy_side_stream():
        stored.copy_(images)
        result = assemble_batch(stored, iuv.to(device), *host, height=24, width=16, size=8)
        for x in host:
            x.zero_()  # the caller's again, as soon as the call returns
    return same(result[0], image) or same(result[1], dsap)


def check_foreign_index(device: str) -> str | None:
    """Nobody looks at an index on the device; a sample of an image that there is not is all fill."""
    images, iuv, index, params = stored_samples(device)
    index[0], index[-1] = -1, len(images)
    image, dsap = assemble_batch(images, iuv, index, params, height=24, width=16, size=8, fill=0.5)
    samples = stored_samples("cpu")
    wanted, wanted_dsap = assemble_batch(*samples, height=24, width=16, size=8, fill=0.5)
    for x in (wanted, wanted_dsap):
        x[0], x[-1] = 0.5, 0.5
    return same(image, wanted) or same(dsap, wanted_dsap)


def check_capture(name: str, device: str) -> str | None:
    inputs, out, call = out_calls(device)[name]
    right = [x.clone() for x in inputs]
    call()
    before = allocations()
    call()
    if allocations() != before:
        return "the call allocates memory"
    replay = capture(call)
    overwrite(inputs)
    replay()
    if same(out, expected_of(name)) is None:
        return "a replay does not read the inputs anew"
    overwrite(inputs, right)
    out.fill_(-12345)
    replay()
    return same(out, expected_of(name))


def check_second_device(cases: Sequence[Case]) -> str | None:
    """While the first device is the current one."""
    if not cases:
        raise NotChecked("there is one device")
    for case in cases:
        wrong = compare(case, "cuda:1")
        if wrong:
            return f"{case.label}: {wrong}"
    return "the current device was changed" if torch.cuda.current_device() != 0 else None


def check_mixed_devices(device: str) -> str | None:
    image, iuv = random((1, 3, 8, 8), torch.uint8), random_iuv(1, 8, 8, "random")
    try:
        iuv_to_dsap(image.to(device), iuv)
    except ValueError:
        return None
    return "an image on CUDA with an IUV map on the CPU was accepted"


def need(bytes_: int) -> None:
    """NotChecked unless so much device memory is free, with a tenth to spare."""
    free, _ = torch.cuda.mem_get_info()
    # What torch holds in its pool and does not use is free to us as well.
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if free < 1.1 * bytes_:
        raise NotChecked(f"needs {1.1 * bytes_ / 1e9:.0f} GB of device memory, {free / 1e9:.0f} are free")


def check_large_output(device: str, beyond: int, size: int = 256) -> str | None:
    """More than `beyond` elements come out; some images are compared one by one."""
    batch = beyond // (72 * size * size) + 2
    need(batch * 72 * size * size)
    draw = torch.Generator().manual_seed(0)
    image, iuv = (
        torch.randint(0, 256, (batch, 3, 16, 16), dtype=torch.uint8, generator=draw) for _ in range(2)
    )
    iuv[:, 0] %= 25
    out = torch.full((batch, 24, 3, size, size), 165, dtype=torch.uint8, device=device)
    iuv_to_dsap(image.to(device), iuv.to(device), size=size, out=out)
    for at in sorted({0, batch // 2, batch - 2, batch - 1}):
        one = slice(at, at + 1)
        wrong = same(out[one], iuv_to_dsap(image[one], iuv[one], size=size))
        if wrong:
            return f"image {at} of {batch}: {wrong}"
    return None


def check_large_gradient(device: str, beyond: int, size: int = 256) -> str | None:
    batch = beyond // (72 * size * size) + 2
    cells = batch * 24 * size * size
    need(cells * (3 * 2 + 4))
    draw = torch.Generator().manual_seed(0)
    image = torch.randn((batch, 3, 16, 16), generator=draw).half()
    iuv = torch.randint(0, 256, image.shape, dtype=torch.uint8, generator=draw)
    iuv[:, 0] %= 25

    def gradient(image, iuv):
        image = image.requires_grad_()
        dsap = iuv_to_dsap(image, iuv, size=size)
        return torch.autograd.grad(dsap, image, dsap.detach())[0]  # its own gradient: no more memory

    got = gradient(image.to(device), iuv.to(device))
    for at in sorted({0, batch // 2, batch - 2, batch - 1}):
        one = slice(at, at + 1)
        wrong = same(got[one], gradient(image[one].clone(), iuv[one]))
        if wrong:
            return f"image {at} of {batch}: {wrong}"
    return None


def check_large_input(device: str, beyond: int) -> str | None:
    """Two images of more than `beyond` elements; only the last rows of the second are foreground."""
    side = math.isqrt(beyond // 6) + 17
    need(2 * 6 * side * side)
    image = torch.empty((2, 3, side, side), dtype=torch.uint8, device=device)
    image.random_(0, 256)
    iuv = torch.zeros_like(image)
    low = slice(side - 16, side)
    iuv[1, :, low].random_(0, 25)
    dsap, source = iuv_to_dsap(image, iuv, size=32, return_source=True)
    wanted, wanted_source = iuv_to_dsap(
        image[1:, :, low].cpu(), iuv[1:, :, low].cpu(), size=32, return_source=True
    )
    shifted = torch.where(wanted_source < 0, -1, wanted_source + (side - 16) * side)
    if dsap[0].any() or (source[0] >= 0).any():
        return "an image without foreground is not empty"
    return same(dsap[1:], wanted) or same(source[1:], shifted)


def check_large_batch(device: str, beyond: int, stored: int = 128, wanted: int = 256) -> str | None:
    """A store of more than `beyond` bytes, and as many elements of images out of it."""
    images_stored, samples = beyond // (3 * stored * stored) + 2, beyond // (3 * wanted * wanted) + 2
    need(2 * images_stored * 3 * stored * stored + samples * (3 * wanted * wanted + 24 * 3 * 64) * 2)
    images, iuv = (
        torch.empty((images_stored, stored, stored, 3), dtype=torch.uint8, device=device).random_(0, 256)
        for _ in range(2)
    )
    index = torch.arange(samples).flip(0) * (images_stored - 1) // (samples - 1)
    options = {"height": wanted, "width": wanted, "size": 8, "dtype": torch.bfloat16}
    image, dsap = assemble_batch(images, iuv, index, **options)
    for at in sorted({0, samples // 2, samples - 1}):
        which = index[at : at + 1].to(device)
        few = (x[which].cpu() for x in (images, iuv))
        one, one_dsap = assemble_batch(*few, torch.tensor([0]), **options)
        wrong = same(image[at : at + 1], one) or same(dsap[at : at + 1], one_dsap)
        if wrong:
            return f"sample {at} of {samples}: {wrong}"
    return None


def check_large_merge(device: str, beyond: int, inner: int = 1 << 20) -> str | None:
    batch = beyond // (24 * inner) + 2
    need(batch * inner * 2 * (24 + 13 + 24))
    features = torch.empty((batch, 24, inner), dtype=torch.float16, device=device)
    features.normal_().requires_grad_()
    merged = merge_parts(features, "mirror")
    grad = merged.detach()  # its own gradient: no more memory
    (spread_,) = torch.autograd.grad(merged, features, grad)
    group = torch.tensor(parts.MIRROR_GROUP)
    for at in sorted({0, batch // 2, batch - 1}):
        one = slice(at, at + 1)
        wrong = same(merged[one], merge_parts(features.detach()[one].cpu(), "mirror"))
        wrong = wrong or same(spread_[one], grad[one].cpu()[:, group])
        if wrong:
            return f"image {at} of {batch}: {wrong}"
    return None


def check_large_ranks(device: str, beyond: int, gallery: int = 1 << 15) -> str | None:
    queries = beyond // gallery + 2
    need(3 * 4 * queries * gallery)  # room for working memory of its own
    distances = torch.rand((queries, gallery), device=device)
    members, *rows, gallery_cams = rank_labels(queries, gallery, gallery // 16)
    arguments = (members, *rows, gallery_cams)
    ranks, found = count_ranks(distances, *(x.to(device) for x in arguments))
    for at in (slice(0, 4), slice(queries - 4, queries)):
        few = (x[at] for x in rows)
        wanted, wanted_found = count_ranks(distances[at].cpu(), members, *few, gallery_cams)
        here = ranks[at, : wanted.shape[1]]  # the rest of the row is padding: the gallery's length
        wrong = same(found[at], wanted_found) or same(here, wanted)
        wrong = wrong or (None if (ranks[at, wanted.shape[1] :] == gallery).all() else "wrong padding")
        if wrong:
            return f"queries from {at.start}: {wrong}"
    return None


def cuda_checks() -> Iterator[tuple[str, list[tuple[str, Callable[[], str | None]]]]]:
    """Groups of named checks, each of which returns what is wrong, or None."""
    names = tuple(out_calls("cpu"))
    yield (
        "another stream than the default",
        [
            *((name, lambda name=name: check_stream(name, "cuda")) for name in names),
            ("batch, index and params in host memory", lambda: check_batch_stream("cuda")),
            ("ranks", lambda: check_ranks_stream("cuda")),
        ],
    )
    yield (
        "CUDA graph: capture, replay, no allocation",
        [(name, lambda name=name: check_capture(name, "cuda")) for name in names],
    )
    devices = torch.cuda.device_count()
    one_of_each = [cases[0] for _, cases in table()] if devices > 1 else []
    yield (
        "tensors of two devices, the second device",
        [
            ("image on CUDA, IUV on the CPU", lambda: check_mixed_devices("cuda")),
            ("a second device", lambda: check_second_device(one_of_each)),
        ],
    )
    yield (
        "batch: an index on CUDA that is not in the store",
        [("first and last sample", lambda: check_foreign_index("cuda"))],
    )
    yield (
        "beyond 2^31 elements",
        [
            ("warp, output", lambda: check_large_output("cuda", 2**31)),
            ("warp, gradient", lambda: check_large_gradient("cuda", 2**31)),
            ("warp, input", lambda: check_large_input("cuda", 2**31)),
            ("batch, store and images", lambda: check_large_batch("cuda", 2**31)),
            ("merge and its gradient", lambda: check_large_merge("cuda", 2**31)),
            ("ranks", lambda: check_large_ranks("cuda", 2**31)),
        ],
    )
