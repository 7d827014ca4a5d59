"""Augmentation drawn for each sample by itself (section 4.1: random crop, flip, random erasing)."""

import math

import torch
from torch import Tensor

from dsa_ext._arrays import Array, as_tensor
from dsa_ext._library import operation
from dsa_ext.warp import _is_whole

COLUMNS: tuple[str, ...] = ("shift_y", "shift_x", "flip", "top", "left", "bottom", "right", "keep")
"""The columns of a drawn tensor; csrc/augment.h explains each."""

KEEP_ALL = 0x1FFFFFF
"""The value of the column `keep` if no part is dropped."""

_ATTEMPTS = 100


def draw_augmentation(
    seed: int,
    epoch: int,
    index: Array,
    repeat: Array | None = None,
    *,
    height: int,
    width: int,
    pad: int = 10,
    flip: float = 0.5,
    erase: float = 0.5,
    drop_person: float = 0.0,
    drop_part: float = 0.0,
) -> Tensor:
    """Draw the augmentation of each sample, for `assemble_batch`.

    A sample's draw depends on (seed, epoch, its index, its repeat) and the settings alone: not on the
    batch it is in, on threads, processes or devices. The numbers come from Philox4x32-10.

    Args:
        seed: 0..2**63 - 1.
        epoch: 0..2**32 - 1.
        index: int64 (B,), which image each sample is, 0..2**32 - 1. On the CPU, or any DLPack array.
        repeat: int64 (B,), how often that image was drawn before in this epoch; default: 0 for all, so
            that an image that occurs twice is augmented alike both times.
        height, width: of the network's input, pixels.
        pad: shifts are drawn from -pad..pad, in rows and in columns (a random crop after padding).
        flip: probability of a horizontal flip.
        erase: probability of an erased box: area 0.02..0.4 of the image, aspect 0.3..1/0.3.
        drop_person: probability that the sample's whole IUV map is dropped (not in the paper).
        drop_part: probability that a single part of it is dropped (not in the paper).

    Returns:
        int32 (B, 8) on the CPU. Its columns, in the order of COLUMNS: the row and the column of the
        resized image at which the view begins; 1 if it is flipped, else 0; the erased box in the view
        (bottom and right exclusive, empty if nothing is erased); one bit for each part that stays.

    Raises:
        TypeError: index or repeat is not an int64 array.
        ValueError: a shape, device or setting that is not as above.
        RuntimeError: an index or repeat out of range.
    """
    index = as_tensor("index", index)
    repeat = torch.zeros_like(index) if repeat is None else as_tensor("repeat", repeat)
    for name, value in (("index", index), ("repeat", repeat)):
        if value.dtype != torch.int64:
            raise TypeError(f"{name} must be int64, not {value.dtype}")
        if value.dim() != 1 or value.shape != index.shape:
            raise ValueError(f"{name} must be (B,), one for each sample, not {tuple(value.shape)}")
        if value.device.type not in ("cpu", "meta"):
            raise ValueError(f"{name} must be on the CPU, not on {value.device}")
    _check_settings(seed, epoch, height, width, pad)
    probabilities = {"flip": flip, "erase": erase, "drop_person": drop_person, "drop_part": drop_part}
    for name, probability in probabilities.items():
        if not 0 <= probability <= 1:
            raise ValueError(f"{name} must be a probability, 0..1, not {probability}")
    return torch.ops.dsa_ext.draw_augmentation(
        index.contiguous(),
        repeat.contiguous(),
        seed,
        epoch,
        height,
        width,
        pad,
        flip,
        erase,
        drop_person,
        drop_part,
    )


def _check_settings(seed: int, epoch: int, height: int, width: int, pad: int) -> None:
    ranges = {
        "seed": (0, 2**63 - 1),
        "epoch": (0, 2**32 - 1),
        "height": (1, 1 << 20),
        "width": (1, 1 << 20),
        "pad": (0, 1 << 20),
    }
    values = {"seed": seed, "epoch": epoch, "height": height, "width": width, "pad": pad}
    for name, (least, most) in ranges.items():
        if not _is_whole(values[name]) or not least <= values[name] <= most:
            raise ValueError(f"{name} must be {least}..{most}, not {values[name]!r}")


def _draw_augmentation(
    seed,
    epoch,
    index,
    repeat=None,
    *,
    height,
    width,
    pad=10,
    flip=0.5,
    erase=0.5,
    drop_person=0.0,
    drop_part=0.0,
) -> Tensor:
    repeats = [0] * len(index) if repeat is None else repeat.tolist()
    rows = []
    for image, times in zip(index.tolist(), repeats):

        def words(slot, image=image, times=times):
            return _philox(seed, [image, epoch, times, slot])

        shift_y, shift_x, flipped, erased = words(0)
        box = (0, 0, 0, 0)
        if erased / 2**32 < erase:
            boxes = (_erased_box(words(8 + attempt), height, width) for attempt in range(_ATTEMPTS))
            box = next(filter(None, boxes), box)
        keep = 0 if words(1)[0] / 2**32 < drop_person else KEEP_ALL
        for part in range(24):
            if words(2 + part // 4)[part % 4] / 2**32 < drop_part:
                keep &= ~(2 << part)
        shifts = (_below(word, 2 * pad + 1) - pad for word in (shift_y, shift_x))
        rows.append([*shifts, int(flipped / 2**32 < flip), *box, keep])
    return torch.tensor(rows, dtype=torch.int32).view(-1, len(COLUMNS))


def _erased_box(words: list[int], height: int, width: int) -> tuple[int, int, int, int] | None:
    share, turn = words[0] / 2**32, words[1] / 2**32
    area = (0.02 + (0.4 - 0.02) * share) * height * width
    aspect = math.exp(math.log(0.3) * (1 - 2 * turn))
    tall, wide = int(math.sqrt(area * aspect) + 0.5), int(math.sqrt(area / aspect) + 0.5)
    if not (1 <= tall < height and 1 <= wide < width):
        return None
    top, left = _below(words[2], height - tall + 1), _below(words[3], width - wide + 1)
    return top, left, top + tall, left + wide


def _below(word: int, n: int) -> int:
    return word * n >> 32


def _philox(key: int, counter: list[int]) -> list[int]:
    """Philox4x32-10: four random words of 32 bits for each (key, counter)."""
    k = [key & 0xFFFFFFFF, key >> 32]
    c = list(counter)
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


# ---- the operation ----


@operation(
    "draw_augmentation(Tensor index, Tensor repeat, int seed, int epoch, int height, int width, int pad, "
    "float flip, float erase, float drop_person, float drop_part) -> Tensor"
)
def _draw(index, repeat, seed, epoch, height, width, pad, flip, erase, drop_person, drop_part):
    for sample, pair in enumerate(zip(index.tolist(), repeat.tolist())):
        if not all(0 <= number < 2**32 for number in pair):
            raise RuntimeError(
                f"index and repeat must be 0..2^32 - 1, but sample {sample} has {pair[0]} and {pair[1]}"
            )
    size = {"height": height, "width": width, "pad": pad}
    probabilities = {"flip": flip, "erase": erase, "drop_person": drop_person, "drop_part": drop_part}
    return _draw_augmentation(seed, epoch, index, repeat, **size, **probabilities)


@torch.library.register_fake("dsa_ext::draw_augmentation")
def _(index, repeat, seed, epoch, height, width, pad, flip, erase, drop_person, drop_part):
    return index.new_empty((index.shape[0], len(COLUMNS)), dtype=torch.int32)
