"""assemble_batch beside Pillow and torchvision, bit for bit, and small examples worked out by hand;
test_operations.py has the table of odd cases."""

import itertools
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from dsa_ext import _assemble_batch, _resize, assemble_batch, draw_augmentation, iuv_to_dsap, parts
from dsa_ext._resize import resize_table
from dsa_ext.augment import KEEP_ALL
from dsa_ext.selftest.operations.batch import extremes

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
FLOATING = [torch.float32, torch.float16, torch.bfloat16]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NORMALISED = {"mean": MEAN, "std": STD}


def make_store(count=5, height=20, width=12):
    """uint8 [N, h, w, 3] twice: pixels, and their I, U, V."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, height, width, 3)
    images, iuv = (torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(2))
    iuv[..., 0] %= 30  # also parts above 24, which are background
    return images, iuv


def make_params(height, width):
    return draw_augmentation(
        3,
        1,
        torch.arange(9),
        height=height,
        width=width,
        pad=max(2, height // 4),
        erase=0.8,
        drop_person=0.1,
        drop_part=0.2,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batch_and_empty_store(device):
    nothing = torch.zeros(0, dtype=torch.int64)
    no_params = torch.zeros(0, 8, dtype=torch.int32)
    for count, params in itertools.product((0, 3), (None, no_params)):
        stored = (x.to(device) for x in make_store(count))
        image, dsap = assemble_batch(*stored, nothing, params, height=7, width=5, size=4)
        assert image.shape == (0, 3, 7, 5) and dsap.shape == (0, 24, 3, 4, 4)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_between_images(device):
    images, iuv = (x.to(device) for x in make_store(9))
    index = torch.tensor([2, 0, 1, 2])
    together = torch.stack([images, iuv], 1)  # [N, 2, h, w, 3]
    room = torch.zeros(9, 20 * 12 * 3 + 1, dtype=torch.uint8, device=device)  # images at odd addresses
    room[:, 1:] = images.flatten(1)
    for some, maps in (
        (images[::2], iuv[::2]),
        (images[1::4], iuv[:2]),
        (together[:, 0], together[:, 1]),
        (room[:, 1:].view(images.shape), iuv),
        (images[:1].expand(9, -1, -1, -1), iuv),
    ):
        at = index % len(some)
        expected = assemble_batch(some.clone(), maps.clone(), at, size=8)
        for got, wanted in zip(assemble_batch(some, maps, at, size=8), expected):
            assert torch.equal(got, wanted)


def test_index_and_params_of_any_strides():
    images, iuv = make_store()
    index, params = torch.arange(21) % 5, extremes(20, 12)
    expected = _assemble_batch(images, iuv, index, params, size=8)
    wide = torch.zeros(21, 9, dtype=torch.int32)
    wide[:, :8] = params
    result = assemble_batch(images, iuv, index.repeat_interleave(2)[::2], wide[:, :8], size=8)
    assert all(map(torch.equal, result, expected))


def test_read_only_memory_maps(tmp_path):
    for name, array in zip(("images", "iuv"), make_store()):
        np.save(tmp_path / f"{name}.npy", array.numpy())
    images, iuv = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("images", "iuv"))
    assert isinstance(images, np.memmap) and not images.flags.writeable
    index, params = torch.arange(9) % 5, make_params(40, 24)
    expected = _assemble_batch(*make_store(), index, params, height=40, width=24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch has one for read-only memory
        result = assemble_batch(images, iuv, index.numpy(), params.numpy(), height=40, width=24)
        some, _ = assemble_batch(images[::2], None, index % 3)
    assert all(map(torch.equal, result, expected))
    assert torch.equal(some, _assemble_batch(make_store()[0][::2], None, index % 3)[0])


# ---- out= ----


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_out(device, dtype):
    images, iuv = (x.to(device) for x in make_store())
    index, params = torch.arange(9) % 5, make_params(31, 17)
    options = dict(height=31, width=17, size=8, fill=0.25, **NORMALISED)
    image, dsap = assemble_batch(images, iuv, index, params, dtype=dtype, **options)
    out = torch.full_like(image, 5.0), torch.full_like(dsap, 5.0)
    result = assemble_batch(images, iuv, index, params, out=out, **options)
    assert result[0] is out[0] and result[1] is out[1]
    assert torch.equal(out[0], image) and torch.equal(out[1], dsap)
    # Inside larger buffers that must stay as they were: the channels innermost with one to spare, and
    # the batch innermost with the cells outermost.
    wide = torch.full((9, 31, 17, 4), 5.0, dtype=dtype, device=device)
    cells = torch.full((8, 8, 3, 24, 9, 2), 5.0, dtype=dtype, device=device)
    views = wide[..., :3].permute(0, 3, 1, 2), cells[..., 1].permute(4, 3, 2, 0, 1)
    assemble_batch(images, iuv, index, params, out=views, **options)
    assert torch.equal(views[0], image) and torch.equal(views[1], dsap)
    assert (wide[..., 3] == 5).all() and (cells[..., 0] == 5).all()


def test_out_may_be_numpys():
    images, iuv = (x.numpy() for x in make_store())
    index = torch.tensor([1, 4])
    expected = assemble_batch(images, iuv, index, size=8)
    out = np.full((2, 3, 20, 12), 5, np.float32), np.full((2, 24, 3, 8, 8), 5, np.float32)
    assemble_batch(images, iuv, index, size=8, out=out)
    assert all(torch.equal(torch.from_numpy(got), wanted) for got, wanted in zip(out, expected))


def test_out_must_have_memory_of_its_own():
    images, iuv = make_store(64, 16, 16)
    index = torch.tensor([0])
    dsap = torch.zeros(1, 24, 3, 8, 8)
    with pytest.raises(ValueError, match="overlap itself"):
        assemble_batch(images, iuv, index, size=8, out=(torch.zeros(1, 1, 16, 16).expand(1, 3, 16, 16), dsap))
    with pytest.raises(ValueError, match="overlap itself"):
        out = torch.zeros(1, 3, 16, 16), dsap[:, :1].expand(-1, 24, -1, -1, -1)
        assemble_batch(images, iuv, index, size=8, out=out)
    for name, stored in (("images", images), ("iuv", iuv)):
        with pytest.raises(ValueError, match=f"share memory with {name}"):
            within = stored.flatten().view(torch.float32)[: 3 * 16 * 16].view(1, 3, 16, 16)
            assemble_batch(images, iuv, index, size=8, out=(within, dsap))
    room = torch.zeros(24 * 3 * 64)
    with pytest.raises(ValueError, match="share memory with its other half"):
        out = room[: 3 * 16 * 16].view(1, 3, 16, 16), room.view(1, 24, 3, 8, 8)
        assemble_batch(images, iuv, index, size=8, out=out)


def test_autograd_sees_what_out_overwrites():
    images, iuv = make_store()
    for which in (0, 1):
        out = torch.zeros(1, 3, 20, 12), torch.zeros(1, 24, 3, 8, 8)
        product = (torch.ones_like(out[which], requires_grad=True) * out[which]).sum()
        assemble_batch(images, iuv, torch.tensor([0]), size=8, out=out)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()


# ---- against others ----


def test_threads_change_nothing():
    images, iuv = make_store(5, 40, 21)
    index, params = torch.arange(9) % 5, make_params(64, 32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(assemble_batch(images, iuv, index, params, height=64, width=32))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def pillow(image, *sizes):
    """uint8 [h, w, 3] resized by Pillow to each (height, width) in turn."""
    picture = Image.fromarray(image)
    for height, width in sizes:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture))


def resized(image, height, width):
    """The same by assemble_batch: x / 255 gives each byte away."""
    result, _ = assemble_batch(image[None], None, torch.tensor([0]), height=height, width=width)
    return (result[0] * 255).round().to(torch.uint8).permute(1, 2, 0)


def test_resizing_is_pillows():
    """In two steps: Pillow itself takes y first where the height shrinks much more than the width."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        stored_height, stored_width, height, width = (int(x) for x in rng.integers(1, 90, 4))
        image = rng.integers(0, 256, (stored_height, stored_width, 3), dtype=np.uint8)
        if rng.random() < 0.2:
            image = (image > 127).astype(np.uint8) * 255  # saturated
        expected = pillow(image, (stored_height, width), (height, width))
        assert torch.equal(resized(image, height, width), expected), (image.shape, height, width)


@pytest.mark.parametrize("stored", [(128, 64), (128, 48), (160, 60)])
def test_resizing_to_the_networks_input_is_pillows_in_one_go(stored):
    image = np.random.default_rng(1).integers(0, 256, (*stored, 3), dtype=np.uint8)
    assert torch.equal(resized(image, 256, 128), pillow(image, (256, 128)))


def test_large_images_stay_within_a_byte():
    """Tens of thousands of rounded weights may add up to more than one."""
    for height, width in ((32768, 1), (1, 32768), (20000, 2)):
        image = np.full((height, width, 3), 255, np.uint8)
        for wanted in ((1, 1), (3, 2)):
            assert (resized(image, *wanted) == 255).all()


def test_normalisation_is_torchvisions():
    from torchvision.transforms import functional

    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(2, 1, 1, 3)
    images[1] = images[1].flip(0)
    result, _ = assemble_batch(images, None, torch.tensor([1, 0]), **NORMALISED)
    for got, stored in zip(result, (images[1], images[0])):
        assert torch.equal(got, functional.normalize(functional.to_tensor(stored.numpy()), MEAN, STD))


@pytest.mark.parametrize("options", [{"parts": 24}, {"parts": 13, "mirror": True}, {"parts": 8}], ids=str)
def test_without_augmentation_the_part_images_are_those_of_the_stored_image(options):
    images, iuv = make_store()
    index = torch.tensor([3, 0, 3])
    expected = iuv_to_dsap(
        images[index].permute(0, 3, 1, 2),
        iuv[index].permute(0, 3, 1, 2),
        size=16,
        fill=0.5,
        dtype=torch.float32,
        **NORMALISED,
        **options,
    )
    image, dsap = assemble_batch(
        images, iuv, index, height=64, width=48, size=16, fill=0.5, **NORMALISED, **options
    )
    assert torch.equal(dsap, expected)
    # Nor does an augmentation that the part images are kept out of.
    params = torch.tensor([[3, -2, 1, 5, 5, 20, 30, KEEP_ALL]], dtype=torch.int32).repeat(3, 1)
    seen, dsap = assemble_batch(
        images,
        iuv,
        index,
        params,
        height=64,
        width=48,
        size=16,
        fill=0.5,
        augmented_dsap=False,
        **NORMALISED,
        **options,
    )
    assert torch.equal(dsap, expected) and not torch.equal(seen, image)


def swapped(iuv):
    """The IUV values of the mirrored person, from the published tables: one pixel at a time."""
    result = iuv.clone()
    for pixel in result.reshape(-1, 3):
        part = int(pixel[0])
        if 1 <= part <= 24:
            pixel[0] = parts.TWIN[part - 1]
            pixel[1] = 255 - pixel[1] if parts.FLIP_U[part - 1] else pixel[1]
            pixel[2] = 255 - pixel[2] if parts.FLIP_V[part - 1] else pixel[2]
    return result


@pytest.mark.parametrize("target,mirror", [(24, False), (13, False), (13, True), (8, True)])
def test_a_flip_is_the_warp_of_the_mirrored_image(target, mirror):
    images, iuv = make_store()
    flip = torch.tensor([[0, 0, 1, 0, 0, 0, 0, KEEP_ALL]], dtype=torch.int32).expand(5, -1)
    options = dict(size=4, parts=target, mirror=mirror)  # few cells: pixels collide
    mirrored = images.flip(2), swapped(iuv).flip(2)
    expected = assemble_batch(*(x.contiguous() for x in mirrored), torch.arange(5), **options)
    result = assemble_batch(images, iuv, torch.arange(5), flip, **options)
    assert all(map(torch.equal, result, expected))
    warped = iuv_to_dsap(*(x.permute(0, 3, 1, 2) for x in mirrored), dtype=torch.float32, **options)
    assert torch.equal(result[1], warped)


# ---- by hand ----

FILL = -9.0


def by_hand(rows, maps, params, *, size=4, height=None, width=None, **options):
    """Channel 0 in units of 1 / 255 of the image (lists of rows) and the filled cells of the part images as
    {(part, row, column): value}, of one sample made of grey values and (I, U, V)."""
    images = torch.tensor([rows], dtype=torch.uint8)[..., None].repeat(1, 1, 1, 3)
    params = torch.tensor([params], dtype=torch.int32)
    image, dsap = assemble_batch(
        images,
        torch.tensor([maps], dtype=torch.uint8),
        torch.tensor([0]),
        params,
        size=size,
        height=height,
        width=width,
        fill=FILL,
        **options,
    )
    assert all(torch.equal(x.select(-3, 0), x.select(-3, c)) for x in (image, dsap) for c in (1, 2))

    def units(x):
        return round(float(x) * 255) if x != FILL else None

    cells = {
        (p + 1, r, c): units(dsap[0, p, 0, r, c])
        for p, r, c in itertools.product(range(24), range(size), range(size))
        if dsap[0, p, 0, r, c] != FILL
    }
    return [[units(x) for x in row] for row in image[0, 0]], cells


GREY = [[10, 20, 30], [40, 50, 60]]
# Row y, column x of the image goes to cell (y, x) of the torso's front.
TORSO = [[(2, 64 * y, 64 * x) for x in range(3)] for y in range(2)]
_ = None


def test_a_shift_by_hand():
    image, cells = by_hand(GREY, TORSO, [1, -1, 0, 0, 0, 0, 0, KEEP_ALL])
    assert image == [[_, 40, 50], [_, _, _]]
    assert cells == {(2, 1, 0): 40, (2, 1, 1): 50}


def test_an_erased_box_by_hand():
    image, cells = by_hand(GREY, TORSO, [0, 0, 0, 0, 1, 1, 3, KEEP_ALL])
    assert image == [[10, _, _], [40, 50, 60]]
    assert cells == {(2, 0, 0): 10, (2, 1, 0): 40, (2, 1, 1): 50, (2, 1, 2): 60}


def test_a_flip_by_hand():
    """The torso stays itself and its V is reversed: 255 - 0, 64, 128 are of the cells 3, 2, 1 of 4."""
    image, cells = by_hand(GREY, TORSO, [0, 0, 1, 0, 0, 0, 0, KEEP_ALL])
    assert image == [[30, 20, 10], [60, 50, 40]]
    assert cells == {(2, y, 3 - x): GREY[y][x] for y in range(2) for x in range(3)}
    # A right hand becomes a left one and is read from its other end, a leg only changes sides.
    _, cells = by_hand([[10, 20]], [[(3, 0, 0), (7, 0, 0)]], [0, 0, 1, 0, 0, 0, 0, KEEP_ALL])
    assert cells == {(4, 3, 0): 10, (8, 0, 0): 20}


def test_shift_flip_and_box_by_hand():
    """First shifted, then flipped, then erased: the box lies in what the network sees."""
    image, cells = by_hand(GREY, TORSO, [0, 1, 1, 0, 2, 1, 3, KEEP_ALL])
    assert image == [[_, 30, _], [_, 60, 50]]
    assert cells == {(2, 0, 1): 30, (2, 1, 1): 60, (2, 1, 2): 50}


def test_the_last_pixel_of_the_view_wins():
    maps = [[(2, 0, 128)] * 3] * 2  # V = 128 and 255 - 128 are of two cells
    assert by_hand(GREY, maps, [0, 0, 0, 0, 0, 0, 0, KEEP_ALL])[1] == {(2, 0, 2): 60}
    assert by_hand(GREY, maps, [0, 0, 1, 0, 0, 0, 0, KEEP_ALL])[1] == {(2, 0, 1): 40}
    # On both sides of an erased box too; and what is erased is not there to win.
    assert by_hand(GREY, maps, [0, 0, 1, 1, 1, 2, 2, KEEP_ALL])[1] == {(2, 0, 1): 40}
    assert by_hand(GREY, maps, [0, 0, 1, 1, 2, 2, 3, KEEP_ALL])[1] == {(2, 0, 1): 50}


def test_dropped_parts_are_background():
    maps = [[(2, 0, 0), (3, 0, 0), (24, 0, 0)], [(0, 0, 0), (25, 0, 0), (255, 0, 0)]]
    whole = {(2, 0, 0): 10, (3, 0, 0): 20, (24, 0, 0): 30}
    assert by_hand(GREY, maps, [0, 0, 0, 0, 0, 0, 0, KEEP_ALL])[1] == whole
    assert by_hand(GREY, maps, [0, 0, 0, 0, 0, 0, 0, 1 << 3])[1] == {(3, 0, 0): 20}
    assert by_hand(GREY, maps, [0, 0, 0, 0, 0, 0, 0, 0]) == (GREY, {})
    # The bit is that of the part in the map, not of what a flip makes of it.
    assert by_hand(GREY, maps, [0, 0, 1, 0, 0, 0, 0, 1 << 3])[1] == {(4, 3, 0): 20}
    # It also holds where the part images are not augmented.
    kept_out = by_hand(GREY, maps, [1, 1, 1, 0, 0, 2, 3, 1 << 3], augmented_dsap=False)
    assert kept_out[1] == {(3, 0, 0): 20}


def test_a_stored_pixel_is_where_its_centre_is():
    """Two stored pixels across four columns: their centres fall into columns 1 and 3."""
    maps = [[(2, 0, 0), (2, 0, 64)]]
    both = {(2, 0, 0): 10, (2, 0, 1): 20}
    for column, left in ((0, both), (1, {(2, 0, 1): 20}), (2, both), (3, {(2, 0, 0): 10})):
        params = [0, 0, 0, 0, column, 1, column + 1, KEEP_ALL]
        assert by_hand([[10, 20]], maps, params, width=4)[1] == left
    shifted = by_hand([[10, 20]], maps, [0, 1, 0, 0, 0, 0, 0, KEEP_ALL], width=4)
    assert shifted[1] == both and shifted[0][0][3] is None
    assert by_hand([[10, 20]], maps, [0, 2, 0, 0, 0, 0, 0, KEEP_ALL], width=4)[1] == {(2, 0, 1): 20}


# ---- what is refused ----

IMAGES, IUV = make_store(3, 8, 4)
INDEX = torch.tensor([0, 2])
PARAMS = torch.tensor([[0, 0, 0, 0, 0, 0, 0, KEEP_ALL]] * 2, dtype=torch.int32)


def out_of(size=32, dtype=torch.float32, height=8):
    shapes = (2, 3, height, 4), (2, 24, 3, size, size)
    return tuple(torch.zeros(shape, dtype=dtype) for shape in shapes)


@pytest.mark.parametrize(
    "error,words,change",
    [
        (TypeError, "images must be uint8, not torch.float32", {"images": IMAGES.float()}),
        (TypeError, "images must be a torch.Tensor or a DLPack array", {"images": [[1]]}),
        (TypeError, "iuv must be uint8", {"iuv": IUV.int()}),
        (TypeError, "index must be int64, not torch.int32", {"index": INDEX.int()}),
        (TypeError, "index must be a torch.Tensor or a DLPack array, not list", {"index": [0, 2]}),
        (TypeError, "params must be int32", {"params": PARAMS.long()}),
        (TypeError, "dtype must be", {"dtype": torch.float64}),
        (TypeError, "dtype must be", {"dtype": torch.uint8}),
        (TypeError, "out must be a pair", {"out": out_of()[0]}),
        (TypeError, "out must be of one floating dtype", {"out": out_of(dtype=torch.float64)}),
        (TypeError, "out must be of one floating dtype", {"out": (out_of()[0], out_of()[1].half())}),
        (TypeError, "torch.float16, not torch.float32", {"out": out_of(), "dtype": torch.float16}),
        (ValueError, r"images must be \(N, h, w, 3\)", {"images": IMAGES[0]}),
        (ValueError, r"images must be \(N, h, w, 3\)", {"images": IMAGES.permute(0, 3, 1, 2)}),
        (ValueError, r"images must be \(N, h, w, 3\)", {"images": IMAGES[:, :0]}),
        (
            ValueError,
            "images must be at most 32768 pixels",
            {"images": torch.zeros(1, 32769, 1, 3, dtype=torch.uint8)},
        ),
        (ValueError, "images must be contiguous within each image", {"images": IMAGES[:, ::2]}),
        (
            ValueError,
            "iuv must be contiguous within each image",
            {"iuv": IUV.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)},
        ),
        (ValueError, r"iuv must be \(3, 8, 4, 3\) like images", {"iuv": IUV[:2]}),
        (ValueError, "iuv is on meta", {"iuv": IUV.to("meta")}),
        (ValueError, r"index must be \(B,\)", {"index": INDEX[None]}),
        (ValueError, "index must be on the CPU", {"index": INDEX.to("meta")}),
        (ValueError, r"params must be \(2, 8\), not \(2, 7\)", {"params": PARAMS[:, 1:]}),
        (ValueError, r"params must be \(2, 8\), not \(1, 8\)", {"params": PARAMS[:1]}),
        (ValueError, "params must be on the CPU", {"params": PARAMS.to("meta")}),
        (ValueError, "height must be 1..32768, not 0", {"height": 0}),
        (ValueError, "width must be 1..32768, not 32769", {"width": 32769}),
        (ValueError, "height must be 1..32768, not 8.0", {"height": 8.0}),
        (ValueError, "width must be 1..32768, not True", {"width": True}),
        (ValueError, "height must be 1..32768, not '8'", {"height": "8"}),
        (ValueError, "size must be 1..256, not 0", {"size": 0}),
        (ValueError, "size must be 1..256, not 257", {"size": 257}),
        (ValueError, "parts must be", {"parts": 12}),
        (ValueError, "mirror=True", {"mirror": True}),
        (ValueError, "fill must be a number or one per channel", {"fill": [1, 2]}),
        (ValueError, "together", {"mean": MEAN}),
        (ValueError, "together", {"std": STD}),
        (ValueError, "mean must be a number or one per channel", {"mean": MEAN[:2], "std": STD}),
        (ValueError, "std must be finite and not 0", {"mean": MEAN, "std": [1, 0, 1]}),
        (ValueError, "memory_format must be", {"memory_format": torch.preserve_format}),
        (ValueError, "out must hold an image, and a dsap exactly where", {"out": (out_of()[0], None)}),
        (ValueError, "out must hold an image, and a dsap exactly where", {"out": out_of(), "iuv": None}),
        (ValueError, "out must hold an image", {"out": (None, None), "iuv": None}),
        (ValueError, r"out must hold \(2, 3, 8, 4\), not \(2, 3, 9, 4\)", {"out": out_of(height=9)}),
        (ValueError, r"out must hold \(2, 24, 3, 32, 32\)", {"out": out_of(size=8)}),
        (ValueError, "out is on meta", {"out": tuple(x.to("meta") for x in out_of())}),
        (ValueError, "out= has no gradient", {"out": (out_of()[0].requires_grad_(), out_of()[1])}),
        (RuntimeError, "index must be 0..2, but sample 1 has 3", {"index": torch.tensor([0, 3])}),
        (RuntimeError, "index must be 0..2, but sample 0 has -1", {"index": torch.tensor([-1, 3])}),
        (RuntimeError, "index must be 0..-1, but sample 0 has 0", {"images": IMAGES[:0], "iuv": IUV[:0]}),
    ],
)
def test_bad_input(error, words, change):
    arguments = {"images": IMAGES, "iuv": IUV, "index": INDEX, "params": PARAMS} | change
    with pytest.raises(error, match=words):
        assemble_batch(**arguments)


@pytest.mark.parametrize(
    "row",
    [
        [(1 << 20) + 1, 0, 0, 0, 0, 0, 0],
        [0, -(1 << 20) - 1, 0, 0, 0, 0, 0],
        [0, 0, 0, -1, 0, 2, 2],
        [0, 0, 0, 0, -1, 2, 2],
        [0, 0, 0, 0, 0, 9, 2],
        [0, 0, 0, 0, 0, 2, 5],
        [0, 0, 0, 3, 0, 2, 2],
        [0, 0, 0, 0, 3, 2, 2],
        [0, 0, 0, -(1 << 31), -(1 << 31), (1 << 31) - 1, (1 << 31) - 1],
    ],
)
def test_params_out_of_range(row):
    params = PARAMS.clone()
    params[1, :7] = torch.tensor(row)
    words = "params: the shift of sample 1" if any(row[:2]) else "params: the erased box of sample 1"
    with pytest.raises(RuntimeError, match=re.escape(words)):
        assemble_batch(IMAGES, IUV, INDEX, params)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_foreign_index_on_the_device_is_all_fill():
    images, iuv = IMAGES.cuda(), IUV.cuda()
    index = torch.tensor([1, 3, -1, 10**12], device="cuda")
    image, dsap = (x.cpu() for x in assemble_batch(images, iuv, index, size=8, fill=0.25))
    assert all((x[1:] == 0.25).all() for x in (image, dsap))
    assert torch.equal(image[0], assemble_batch(IMAGES, None, torch.tensor([1]))[0][0])


def test_nothing_is_written_where_something_is_refused():
    out = out_of(size=8)
    with pytest.raises(RuntimeError, match="sample 1 has 3"):
        assemble_batch(IMAGES, IUV, torch.tensor([0, 3]), size=8, out=out)
    assert not any(x.any() for x in out)


@pytest.mark.parametrize(
    "change",
    ["batch", "channels", "table", "foreign rows", "foreign columns", "dsap", "strides", "params"],
)
def test_a_direct_call_touches_no_foreign_memory(change):
    image, dsap = out_of(size=8)
    rows, columns = (torch.ops.dsa_ext.resize_table(n, n, torch.device("cpu")) for n in (8, 4))
    images, index, params = IMAGES, INDEX, PARAMS
    if change == "batch":
        index = INDEX[:1]
    elif change == "channels":
        images = IMAGES[..., :2]
    elif change == "table":
        rows = rows[:7]
    elif change == "foreign rows":
        rows[3, 0] = 8
    elif change == "foreign columns":
        columns[0, 0] = -1
    elif change == "dsap":
        dsap = dsap[:, :5]
    elif change == "strides":
        images = IMAGES.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    else:
        params = PARAMS[:, :7].contiguous()
    with pytest.raises(RuntimeError, match="must"):
        torch.ops.dsa_ext.assemble_batch_out(
            images, IUV, index, params, rows, columns, image, dsap, True, False, [0.0] * 3, [], []
        )


# ---- torch's own machinery ----


def test_opcheck_of_the_table_in_a_graph():
    torch.library.opcheck(torch.ops.dsa_ext.resize_table.default, (8, 20, torch.device("cpu")))


def test_compile_fullgraph():
    options = dict(height=16, width=9)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(images, iuv, index):
        params = draw_augmentation(1, 2, index, **options)
        image, dsap = assemble_batch(images, iuv, index, params, size=8, **options, **NORMALISED)
        return image + 1, dsap.mean((-1, -2))

    params = draw_augmentation(1, 2, INDEX, **options)
    image, dsap = assemble_batch(IMAGES, IUV, INDEX, params, size=8, **options, **NORMALISED)
    result = step(IMAGES, IUV, INDEX)
    assert torch.equal(result[0], image + 1)
    torch.testing.assert_close(result[1], dsap.mean((-1, -2)))


def test_compile_fullgraph_out():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(images, iuv, index, image, dsap):
        assemble_batch(images, iuv, index, size=8, out=(image, dsap))
        return image + 1

    out = out_of(size=8)
    expected = assemble_batch(IMAGES, IUV, INDEX, size=8)
    assert torch.equal(step(IMAGES, IUV, INDEX, *out), expected[0] + 1)
    assert all(map(torch.equal, out, expected))


def test_tables_of_a_captured_call_are_kept(monkeypatch):
    """A CUDA graph holds their address: the cache of 64 sizes may not drop them."""
    device, capturing = torch.device("cpu"), [False]
    monkeypatch.setattr(_resize, "_capturing", lambda device: capturing[0])
    monkeypatch.setattr(_resize, "_captured", {})
    table = resize_table(31, 47, device)
    capturing[0] = True
    assert resize_table(31, 47, device) is table
    with pytest.raises(RuntimeError, match="resizes 31 to 48 pixels must be made once before"):
        resize_table(31, 48, device)
    capturing[0] = False
    for wanted in range(100, 180):
        resize_table(31, wanted, device)
    assert resize_table(31, 47, device) is not table  # the cache has dropped it
    assert list(_resize._captured.values()) == [table]
