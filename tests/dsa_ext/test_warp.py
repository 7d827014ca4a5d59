"""iuv_to_dsap by hand and beside torchvision, and what it refuses; test_operations.py has the odd cases."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dsa_ext import iuv_to_dsap, parts
from dsa_ext.warp import OVERSHOOT, _iuv_to_dsap

CSRC = Path(__file__).parents[2] / "csrc"
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
MEAN, STD = [0.485, 0.456, 0.406, 0.3, 0.2], [0.229, 0.224, 0.225, 0.3, 0.1]


def make_image(batch, channels, height, width, dtype=torch.uint8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, height, width)
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype, generator=generator)
    return torch.randn(shape, generator=generator).to(dtype)


def make_iuv(batch, height, width, kind="random", seed=1):
    generator = torch.Generator().manual_seed(seed)
    iuv = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)
    if kind == "random":  # also parts above 24, which are background
        iuv[:, 0] %= 30
    elif kind == "background":
        iuv[:, 0] = 0
    elif kind == "one cell":
        iuv[:, 0], iuv[:, 1], iuv[:, 2] = 7, 255, 0
    elif kind == "sparse":  # whole runs of eight background pixels
        iuv[:, 0] *= torch.rand(iuv[:, 0].shape, generator=generator) < 0.05
        iuv[:, 0] %= 25
    return iuv


def assert_same(image, iuv, device="cpu", **options):
    expected, expected_source = _iuv_to_dsap(image, iuv, **options)
    result, source = iuv_to_dsap(image.to(device), iuv.to(device), return_source=True, **options)
    assert result.dtype == expected.dtype
    assert torch.equal(result.cpu(), expected)
    assert torch.equal(source.cpu(), expected_source)
    # Without the map of winners another instantiation runs.
    assert torch.equal(iuv_to_dsap(image.to(device), iuv.to(device), **options).cpu(), expected)


FLOATING = [torch.float32, torch.float16, torch.bfloat16]


def test_half_precision_conversions_are_torchs():
    """Every finite float16 and a dense sample of float32, through the extension's own conversions."""
    halves = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    halves = halves[halves.isfinite()]
    floats = torch.linspace(-40, 20, 100_001).exp2()
    floats = torch.cat([floats, -floats, halves.float(), halves.float() * (1 + 2**-12)])
    for values in (halves, floats):
        side = int(len(values) ** 0.5)
        image = values[: side * side].view(1, 1, side, side)
        for dtype in FLOATING:
            iuv = torch.ones(1, 3, side, side)
            # One pixel a call would be slow: 256 x 256 cells take one row of pixels each.
            for row in range(0, side, 64):
                strip = image[:, :, row : row + 64, :256]
                iuv = torch.ones(1, 3, *strip.shape[2:])
                iuv[0, 1] = (torch.arange(strip.shape[2])[:, None] + 0.5) / 256
                iuv[0, 2] = (torch.arange(strip.shape[3]) + 0.5) / 256
                out = iuv_to_dsap(strip, iuv, size=256, dtype=dtype)
                expected = strip[0, 0].to(dtype)
                got = out[0, 0, 0, : strip.shape[2], : strip.shape[3]]
                assert torch.equal(got, expected)


def test_to_tensor_and_normalize_give_the_same_bits():
    from torchvision.transforms import functional

    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    iuv = torch.ones(1, 3, 16, 16)
    iuv[:, 1] = (torch.arange(16.0)[:, None] + 0.5) / 16
    iuv[:, 2] = (torch.arange(16.0) + 0.5) / 16
    expected = functional.normalize(image[0].float().div(255), MEAN[:3], STD[:3])
    result = iuv_to_dsap(image, iuv, size=16, dtype=torch.float32, mean=MEAN[:3], std=STD[:3])
    assert torch.equal(result[0, 0], expected)


def test_rule_in_integers_is_the_exact_one():
    """floor(q / 255 * size) for every q and size, where float64 misses some."""
    for size in range(1, 257):
        q = torch.arange(256, dtype=torch.uint8)
        iuv = torch.stack([torch.ones_like(q), q, torch.zeros_like(q)])[None, :, None]
        _, source = iuv_to_dsap(
            torch.zeros(1, 1, 1, 256, dtype=torch.uint8), iuv, size=size, return_source=True
        )
        last = {min(value * size // 255, size - 1): value for value in range(256)}
        expected = [last.get(row, -1) for row in range(size)]
        assert source[0, 0, :, 0].tolist() == expected


def test_last_pixel_in_raster_order_wins():
    image = torch.tensor([10, 20, 30, 40], dtype=torch.uint8).view(1, 1, 2, 2)
    iuv = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    iuv[:, 0] = 3
    result, source = iuv_to_dsap(image, iuv, size=4, return_source=True)
    assert result[0, 2, 0, 0, 0] == 40
    assert source[0, 2, 0, 0] == 3
    assert (source >= 0).sum() == 1


def test_float_iuv_is_clamped_and_nan_is_background():
    image = torch.arange(1, 7, dtype=torch.uint8).view(1, 1, 1, 6)
    nan = float("nan")
    iuv = torch.tensor(
        [
            [1, 1, 1, nan, 1, 1],
            [-0.01, 1.01, 0.5, 0.5, nan, 0.5],
            [0.0, 1.015, 0.999, 0.5, 0.5, nan],
        ]
    )[None, :, None]
    result = iuv_to_dsap(image, iuv, size=4)[0, 0, 0]
    assert (result[0, 0], result[3, 3], result[2, 3]) == (1, 2, 3)
    assert (result > 0).sum() == 3
    assert_same(image, iuv, size=4)


NAN, INF = float("nan"), float("inf")
RULE = "iuv must hold whole I and u, v in 0..1"
SCALE = "divide U and V by 255, or pass the map as uint8"


def with_pixel(i, u, v, at=(1, 4, 3)):
    """A floating map [2, 3, 9, 5] of background and of part 2, but for one pixel."""
    iuv = torch.zeros(2, 3, 9, 5)
    iuv[:, 0, ::2], iuv[:, 1:] = 2, 0.5
    iuv[at[0], :, at[1], at[2]] = torch.tensor([i, u, v])
    return iuv


IMPOSSIBLE = {  # I, u and v of a pixel, and what is said of it
    (3, 200, 0.5): f"found u = 200 at part 3: {SCALE}",
    (24, 0.5, 255): f"found v = 255 at part 24: {SCALE}",
    (3, 1, 2.5): f"found v = 2.5 at part 3: {SCALE}",
    (1, 1.5, 0): "found u = 1.5 at part 1: clamp u and v to 0..1",
    (1, -0.5, 0): "found u = -0.5 at part 1: clamp u and v to 0..1",
    (7, INF, 0.5): f"found u = inf at part 7: {SCALE}",
    (7, 0.5, -INF): f"found v = -inf at part 7: {SCALE}",
    (0.094, 0, 0): "found I = 0.094: divide U and V by 255, not I, or pass the map as uint8",
    (2.5, 0.5, 0.5): "found I = 2.5: ",
    (24.5, 0.5, 0.5): "found I = 24.5: ",
    (25.5, 0.5, 0.5): "found I = 25.5: ",
    (-0.5, 200, 0.5): "found I = -0.5: ",
    (INF, 0.5, 0.5): "found I = inf: ",
}


@pytest.mark.parametrize("pixel", IMPOSSIBLE)
def test_an_impossible_floating_pixel_is_refused(pixel):
    iuv, words = with_pixel(*pixel), re.escape(f"{RULE}; {IMPOSSIBLE[pixel]}")
    for image, options in (
        (make_image(2, 3, 9, 5), {}),
        (make_image(2, 3, 9, 5), {"return_source": True, "parts": 13, "mirror": True}),
        (make_image(2, 1, 9, 5, torch.float16), {"parts": 8}),
        (make_image(2, 3, 9, 5), {"out": torch.empty(2, 24, 3, 8, 8, dtype=torch.uint8)}),
        (make_image(2, 3, 9, 5, torch.float32).requires_grad_(), {"check_iuv": True}),
        (make_image(2, 3, 9, 5, torch.float32).requires_grad_(), {}),
    ):
        with pytest.raises(ValueError, match=words):
            iuv_to_dsap(image, iuv, size=8, **options)
        with pytest.raises(ValueError, match=words):
            iuv_to_dsap(
                image, iuv.double().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), size=8, **options
            )
    with pytest.raises(ValueError, match=words):
        _iuv_to_dsap(image, iuv)


def test_an_impossible_floating_pixel_is_refused_by_any_number_of_threads():
    """Units of a part or of an image: one of them sees it."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 30):
            torch.set_num_threads(threads)
            for at in ((0, 0, 0), (1, 8, 4)):
                with pytest.raises(ValueError, match="found v = -3 at part 24"):
                    iuv_to_dsap(make_image(2, 3, 9, 5), with_pixel(24, 0, -3, at))
    finally:
        torch.set_num_threads(before)


def test_maps_out_of_scale_are_refused():
    from torchvision.transforms.functional import to_tensor

    image, iuv = make_image(2, 3, 64, 32), make_iuv(2, 64, 32)
    with pytest.raises(ValueError, match=re.escape(RULE) + r"; found [uv] = 255 at part \d+: " + SCALE):
        iuv_to_dsap(image, iuv.float())
    divided = torch.stack([to_tensor(x.permute(1, 2, 0).numpy()) for x in iuv])  # I as well
    with pytest.raises(ValueError, match=re.escape(RULE) + "; found I = 0.0"):
        iuv_to_dsap(image, divided)


@pytest.mark.parametrize(
    "pixel",
    [
        (0, 200, 300),
        (-0.0, INF, 0),
        (-1, 200, 0),
        (25, 255, INF),
        (200, 0.5, -7),
        (NAN, 200, 0),
        (NAN, NAN, NAN),
        (2.5, NAN, 0),
        (3, NAN, 255),
        (3, INF, NAN),
    ],
)
def test_coordinates_of_the_background_are_not_looked_at(pixel):
    image, iuv = make_image(2, 3, 9, 5), with_pixel(*pixel)
    assert_same(image, iuv, size=8)
    assert torch.equal(iuv_to_dsap(image, iuv, check_iuv=True), iuv_to_dsap(image, with_pixel(0, 0, 0)))


@pytest.mark.parametrize("plane", [1, 2])
def test_as_much_as_rounding_can_do_is_clamped(plane):
    image = make_image(2, 3, 9, 5)
    least, most = torch.tensor(-OVERSHOOT), torch.tensor(1 + OVERSHOOT)
    for value, beyond, end in ((least, -INF, 0.0), (most, INF, 1.0)):
        pixel = [3, 0.5, 0.5]
        pixel[plane] = end
        expected = iuv_to_dsap(image, with_pixel(*pixel))
        pixel[plane] = value.item()
        assert torch.equal(iuv_to_dsap(image, with_pixel(*pixel), check_iuv=True), expected)
        assert_same(image, with_pixel(*pixel))
        pixel[plane] = value.nextafter(torch.tensor(beyond)).item()
        for options in ({}, {"check_iuv": True}):
            with pytest.raises(ValueError, match="at part 3: clamp u and v to 0..1"):
                iuv_to_dsap(image, with_pixel(*pixel), **options)


def test_a_direct_call_refuses_an_impossible_map():
    image, iuv = make_image(2, 3, 9, 5), with_pixel(3, 200, 0.5)
    with pytest.raises(RuntimeError, match=re.escape(f"{RULE}: {SCALE}")):
        torch.ops.dsa_ext.iuv_to_dsap(image, iuv, 8, 24, False, torch.uint8, False, [0.0] * 3, [], [])


def test_autograd_sees_what_out_holds_of_an_impossible_map():
    """Compiled code has written before it knows."""
    weight = torch.ones(2, 24, 3, 8, 8, requires_grad=True)
    out = torch.zeros(2, 24, 3, 8, 8)
    product = (weight * out).sum()
    with pytest.raises(ValueError, match="found u = 200"):
        iuv_to_dsap(make_image(2, 3, 9, 5), with_pixel(3, 200, 0.5), size=8, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("device", DEVICES)
def test_check_iuv_looks_before_anything_is_written(device):
    image, iuv = make_image(2, 3, 9, 5).to(device), with_pixel(3, 200, 0.5).to(device)
    out = torch.full((2, 24, 3, 8, 8), 5, dtype=torch.uint8, device=device)
    with pytest.raises(ValueError, match="found u = 200 at part 3"):
        iuv_to_dsap(image, iuv, size=8, out=out, check_iuv=True)
    assert (out == 5).all()
    for good in (with_pixel(3, 0.2, 0.5), make_iuv(2, 9, 5), with_pixel(3, 0.2, 0.5).bfloat16()):
        good = good.to(device)
        assert torch.equal(iuv_to_dsap(image, good, check_iuv=True), iuv_to_dsap(image, good))
    assert iuv_to_dsap(image[:0], iuv[:0], check_iuv=True).shape[0] == 0


@pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")
def test_cuda_clamps_what_it_is_not_asked_to_look_at():
    image, iuv = make_image(2, 3, 9, 5).cuda(), with_pixel(3, 200, 0.5).cuda()
    assert torch.equal(iuv_to_dsap(image, iuv), iuv_to_dsap(image, with_pixel(3, 1, 0.5).cuda()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_iuv_is_taken(dtype):
    image, iuv = make_image(1, 3, 9, 9), make_iuv(1, 9, 9).float()
    iuv[:, 1:] /= 255
    iuv = iuv.to(dtype)
    assert torch.equal(iuv_to_dsap(image, iuv), iuv_to_dsap(image, iuv.float()))


def test_constants_may_be_numbers_sequences_tensors_or_arrays():
    image, iuv = make_image(1, 3, 9, 9), make_iuv(1, 9, 9)
    expected = iuv_to_dsap(image, iuv, dtype=torch.float32, fill=[1.0, 1.0, 1.0], mean=MEAN[:3], std=STD[:3])
    for kind in (tuple, torch.tensor, lambda x: torch.tensor(x, dtype=torch.float64).numpy()):
        got = iuv_to_dsap(image, iuv, dtype=torch.float32, fill=1, mean=kind(MEAN[:3]), std=kind(STD[:3]))
        assert torch.equal(got, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_any_strides(device):
    image, iuv = make_image(4, 3, 20, 12), make_iuv(4, 20, 12)
    expected = iuv_to_dsap(image, iuv, size=8)
    for view in (
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),  # stored [B, H, W, C]
        lambda x: x.flip(2).flip(2),
        lambda x: torch.stack([x, x], -1)[..., 0],
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        got = iuv_to_dsap(view(image.to(device)), view(iuv.to(device)), size=8)
        assert torch.equal(got.cpu(), expected)
    half = iuv_to_dsap(image[::2, :, ::2, ::3].to(device), iuv[::2, :, ::2, ::3].to(device), size=8)
    assert torch.equal(
        half.cpu(), iuv_to_dsap(image[::2, :, ::2, ::3].clone(), iuv[::2, :, ::2, ::3].clone(), size=8)
    )


@pytest.mark.parametrize("device", DEVICES)
def test_out(device):
    image, iuv = make_image(2, 3, 20, 12).to(device), make_iuv(2, 20, 12).to(device)
    expected = iuv_to_dsap(image, iuv, size=8, dtype=torch.float32)
    out = torch.full((2, 24, 3, 8, 8), 5.0, device=device)
    assert iuv_to_dsap(image, iuv, size=8, out=out) is out
    assert torch.equal(out, expected)
    # Each part image stored [S, S, C], inside a larger buffer that must stay as it was.
    buffer = torch.full((2, 24, 8, 8, 5), 5.0, device=device)
    iuv_to_dsap(image, iuv, size=8, out=buffer[..., 1:4].permute(0, 1, 4, 2, 3))
    assert torch.equal(buffer[..., 1:4].permute(0, 1, 4, 2, 3), expected)
    assert (buffer[..., 0] == 5).all() and (buffer[..., 4] == 5).all()


def test_more_threads_than_images_give_the_same():
    image, iuv = make_image(1, 3, 64, 32), make_iuv(1, 64, 32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append(iuv_to_dsap(image, iuv, size=16, return_source=True))
    finally:
        torch.set_num_threads(before)
    for result, source in results[1:]:
        assert torch.equal(result, results[0][0]) and torch.equal(source, results[0][1])


def test_gradient_reaches_the_winner_alone():
    image = torch.zeros(1, 1, 1, 3, requires_grad=True)
    iuv = torch.tensor([1, 1, 2], dtype=torch.uint8).view(1, 1, 1, 3).repeat(1, 3, 1, 1)
    iuv[:, 1:] = 0
    iuv_to_dsap(image, iuv, size=2).sum().backward()
    assert image.grad.flatten().tolist() == [0, 1, 1]


def test_autograd_sees_what_out_overwrites():
    weight = torch.ones(1, 24, 3, 8, 8, requires_grad=True)
    out = torch.zeros(1, 24, 3, 8, 8)
    product = (weight * out).sum()
    iuv_to_dsap(make_image(1, 3, 9, 5), make_iuv(1, 9, 5), size=8, dtype=torch.float32, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_out_must_have_memory_of_its_own():
    image, iuv = make_image(1, 3, 48, 48), make_iuv(1, 48, 48)
    with pytest.raises(ValueError, match="overlap itself"):
        out = torch.empty(1, 24, 1, 8, 8, dtype=torch.uint8).expand(-1, -1, 3, -1, -1)
        iuv_to_dsap(image, iuv, size=8, out=out)
    for name, tensor in (("image", image), ("iuv", iuv)):
        with pytest.raises(ValueError, match=f"share memory with {name}"):
            out = tensor.flatten()[: 24 * 3 * 9].view(1, 24, 3, 3, 3)
            iuv_to_dsap(image, iuv, size=3, out=out)
    whole = torch.zeros(2, 3 * 48 * 48, dtype=torch.uint8)  # parts of one buffer may go along
    part = whole[0].view(1, 3, 48, 48)
    iuv_to_dsap(part, iuv, size=8, out=whole[1, : 24 * 3 * 64].view(1, 24, 3, 8, 8))


def test_a_source_map_of_a_larger_image_touches_no_foreign_memory():
    source = torch.full((1, 24, 8, 8), 10**7, dtype=torch.int32)
    grad = torch.ops.dsa_ext.iuv_to_dsap_backward(torch.rand(1, 24, 3, 8, 8), source, 2, 2, torch.float32, [])
    assert not grad.any()


def test_empty_batch():
    result, source = iuv_to_dsap(make_image(0, 3, 4, 4), make_iuv(0, 4, 4), size=8, return_source=True)
    assert result.shape == (0, 24, 3, 8, 8) and source.shape == (0, 24, 8, 8)


IMAGE, IUV = make_image(2, 3, 8, 4), make_iuv(2, 8, 4)


@pytest.mark.parametrize(
    "error,words,image,iuv,options",
    [
        (TypeError, "image must be uint8", IMAGE.double(), IUV, {}),
        (TypeError, "iuv must be uint8 or floating", IMAGE, IUV.int(), {}),
        (TypeError, "dtype must be", IMAGE, IUV, {"dtype": torch.float64}),
        (
            TypeError,
            "out must be torch.float32",
            IMAGE,
            IUV,
            {"dtype": torch.float32, "out": torch.empty(2, 24, 3, 32, 32, dtype=torch.uint8)},
        ),
        (ValueError, "image must be", IMAGE[0], IUV, {}),
        (ValueError, "image must be", IMAGE[:, :0], IUV, {}),
        (ValueError, "image must be", IMAGE[:, :, :0], IUV[:, :, :0], {}),
        (ValueError, r"iuv must be \(2, 3, 8, 4\)", IMAGE, IUV[:, :, :4], {}),
        (ValueError, "iuv must be", IMAGE, IUV[:1], {}),
        (ValueError, "iuv is on", IMAGE, IUV.to("meta"), {}),
        (ValueError, "size must be 1..256, not 0", IMAGE, IUV, {"size": 0}),
        (ValueError, "size must be 1..256, not 257", IMAGE, IUV, {"size": 257}),
        (ValueError, "parts must be", IMAGE, IUV, {"parts": 12}),
        (ValueError, "mirror=True", IMAGE, IUV, {"mirror": True}),
        (ValueError, "fill must be a number or one per channel", IMAGE, IUV, {"fill": [1, 2]}),
        (ValueError, "fill must be whole", IMAGE, IUV, {"fill": 0.5}),
        (ValueError, "fill must be whole", IMAGE, IUV, {"fill": 256}),
        (ValueError, "fill must be whole", IMAGE, IUV, {"fill": float("nan")}),
        (ValueError, "fill must be a number", IMAGE, IUV, {"fill": "123"}),
        (ValueError, "size must be", IMAGE, IUV, {"size": 32.0}),
        (ValueError, "parts must be", IMAGE, IUV, {"parts": [24]}),
        (
            ValueError,
            "std must be finite",
            IMAGE,
            IUV,
            {"mean": 0, "std": float("nan"), "dtype": torch.float32},
        ),
        (ValueError, "uint8 output needs", IMAGE.float(), IUV, {"dtype": torch.uint8}),
        (ValueError, "together", IMAGE, IUV, {"mean": [0, 0, 0], "dtype": torch.float32}),
        (ValueError, "together", IMAGE, IUV, {"std": [1, 1, 1], "dtype": torch.float32}),
        (ValueError, "floating output", IMAGE, IUV, {"mean": [0, 0, 0], "std": [1, 1, 1]}),
        (
            ValueError,
            "std must be finite and not 0",
            IMAGE,
            IUV,
            {"mean": [0, 0, 0], "std": [1, 0, 1], "dtype": torch.float32},
        ),
        (ValueError, "out must be", IMAGE, IUV, {"out": torch.empty(2, 24, 3, 8, 8, dtype=torch.uint8)}),
        (
            ValueError,
            "out= has no gradient",
            IMAGE.float().requires_grad_(),
            IUV,
            {"out": torch.empty(2, 24, 3, 32, 32)},
        ),
    ],
)
def test_bad_input(error, words, image, iuv, options):
    with pytest.raises(error, match=words):
        iuv_to_dsap(image, iuv, **options)


def test_compile_fullgraph():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(image, iuv):
        warped = iuv_to_dsap(image, iuv, size=8, mean=MEAN[:3], std=STD[:3])
        return (warped * 2).mean((-1, -2))

    image, iuv = make_image(2, 3, 9, 5, torch.float32).requires_grad_(), make_iuv(2, 9, 5)
    expected = (iuv_to_dsap(image, iuv, size=8, mean=MEAN[:3], std=STD[:3]) * 2).mean((-1, -2))
    (wanted,) = torch.autograd.grad(expected.sum(), image)
    result = step(image, iuv)
    (grad,) = torch.autograd.grad(result.sum(), image)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(grad, wanted)


def test_compile_fullgraph_out():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(image, iuv, out):
        iuv_to_dsap(image, iuv, size=8, dtype=torch.float32, out=out)
        return out + 1

    image, iuv, out = make_image(2, 3, 9, 5), make_iuv(2, 9, 5), torch.empty(2, 24, 3, 8, 8)
    expected = iuv_to_dsap(image, iuv, size=8, dtype=torch.float32)
    assert torch.equal(step(image, iuv, out), expected + 1)
    assert torch.equal(out, expected)


def test_compile_fullgraph_refuses_an_impossible_map():
    step = torch.compile(lambda image, iuv: iuv_to_dsap(image, iuv) + 1, fullgraph=True, backend="aot_eager")
    image = make_image(2, 3, 9, 5)
    good = with_pixel(3, 0.2, 0.5)
    assert torch.equal(step(image, good), iuv_to_dsap(image, good) + 1)
    with pytest.raises((RuntimeError, ValueError), match=re.escape(RULE)):  # by the traced operation
        step(image, with_pixel(3, 200, 0.5))


def test_overshoot_is_that_of_the_kernels():
    text = (CSRC / "iuv.h").read_text()
    assert re.findall(r"kOvershoot = 1\.f / (\d+);", text) == [str(int(1 / OVERSHOOT))]


def test_part_tables_are_those_of_the_kernels():
    text = (CSRC / "parts.h").read_text()
    rows = re.findall(r'^    \{"([\w ]+)", (\d+), (\d+), (true|false), (true|false)\},$', text, flags=re.M)
    names, twins, groups, *flips = zip(*rows)
    assert names == parts.NAMES
    assert (tuple(map(int, twins)), tuple(map(int, groups))) == (parts.TWIN, parts.MIRROR_GROUP)
    assert [tuple(x == "true" for x in flip) for flip in flips] == [parts.FLIP_U, parts.FLIP_V]
    names, groups = zip(*re.findall(r'^    \{"([\w ]+)", (\d+)\},$', text, flags=re.M))
    assert (names, tuple(map(int, groups))) == (parts.MIRROR_NAMES, parts.FRONT_BACK_GROUP)
    (names,) = re.findall(r"kBodyGroupName\[kBodyParts\] = \{(.*?)\}", text, flags=re.S)
    assert tuple(re.findall(r'"([\w ]+)"', names)) == parts.BODY_NAMES


def test_part_tables():
    assert len(parts.NAMES) == 24 and len(set(parts.NAMES)) == 24
    assert parts.TWIN == (
        1,
        2,
        4,
        3,
        6,
        5,
        8,
        7,
        10,
        9,
        12,
        11,
        14,
        13,
        16,
        15,
        18,
        17,
        20,
        19,
        22,
        21,
        24,
        23,
    )
    assert [k + 1 for k, flip in enumerate(parts.FLIP_U) if flip] == [3, 4, 5, 6, 23, 24]
    assert [k + 1 for k, flip in enumerate(parts.FLIP_V) if flip] == [1, 2]
    pairs = [(1,), (2,)] + [(k, k + 1) for k in range(3, 24, 2)]
    groups = [tuple(k + 1 for k in range(24) if parts.MIRROR_GROUP[k] == g) for g in range(13)]
    assert groups == pairs
    assert parts.BODY_NAMES == (
        "torso",
        "hands",
        "feet",
        "upper legs",
        "lower legs",
        "upper arms",
        "lower arms",
        "head",
    )
    assert parts.GROUPS[8] == (0, 0, 1, 1, 2, 2, *[3] * 4, *[4] * 4, *[5] * 4, *[6] * 4, 7, 7)


def test_whole_numbers_of_numpy_and_not_bools():
    assert torch.equal(iuv_to_dsap(IMAGE, IUV, size=np.int64(8)), iuv_to_dsap(IMAGE, IUV, size=8))
    with pytest.raises(ValueError, match="size must be 1..256, not True"):
        iuv_to_dsap(IMAGE, IUV, size=True)
    with pytest.raises(ValueError, match="size must be 1..256, not 8.0"):
        iuv_to_dsap(IMAGE, IUV, size=8.0)


@pytest.mark.parametrize(
    "grad,source,dtype",
    [
        (torch.zeros(1, 24, 1, 256, 1), (1, 24, 256, 1), torch.float32),
        (torch.zeros(1, 5, 1, 8, 8), (1, 5, 8, 8), torch.float32),
        (torch.zeros(1, 24, 1, 300, 300), (1, 24, 300, 300), torch.float32),
        (torch.zeros(1, 24, 1, 8, 8), (1, 24, 8, 8), torch.uint8),
    ],
    ids=["not square", "5 parts", "too large", "uint8"],
)
def test_a_direct_call_of_the_gradient_touches_no_foreign_memory(grad, source, dtype):
    source = torch.zeros(source, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="part images must|parts must|gradients are floating"):
        torch.ops.dsa_ext.iuv_to_dsap_backward(grad, source, 64, 64, dtype, [])
