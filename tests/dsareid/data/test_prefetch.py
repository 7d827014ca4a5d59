"""dsareid.ground._core.Prefetcher, as Python uses it; tests/csrc/core has the tests of its threads."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from dsa_ext import assemble_batch, draw_augmentation
from dsareid.ground._core import Prefetcher, SampleError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENT = {"pad": 3, "flip": 0.5, "erase": 0.5, "drop_person": 0.1, "drop_part": 0.2}
FILL = (0, 0.5, -1)
BATCH, HEIGHT, WIDTH, SIZE = 8, 20, 10, 4
ITEM = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}  # NumPy has no bfloat16


def stored(count=12):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(count, 16, 8, 3), dtype=np.uint8)
    iuv = rng.integers(256, size=images.shape, dtype=np.uint8)
    iuv[..., 0] %= 25
    return images, iuv


def memory(array):
    return array.ctypes.data, array.nbytes


def strides(array):
    return [stride // array.itemsize for stride in array.strides]


def make(images, iuv, ahead=2, type="float32", channels_last=False, **changed):
    """A prefetcher, and of each slot its image [B, 3, H, W] and its dsap [B, 24, 3, S, S]."""
    item, arrays = ITEM.get(type, np.float32), []
    for _ in range(ahead):
        image = np.full((BATCH, 3, HEIGHT, WIDTH), 77, item)
        if channels_last:
            image = np.full((BATCH, HEIGHT, WIDTH, 3), 77, item).transpose(0, 3, 1, 2)
        arrays.append((image, np.full((BATCH, 24, 3, SIZE, SIZE), 77, item)))
    settings = {
        "images": images,
        "iuv": iuv,
        "files": [],
        "type": type,
        "batch": BATCH,
        "height": HEIGHT,
        "slots": [(memory(image), None if iuv is None else memory(dsap)) for image, dsap in arrays],
        "width": WIDTH,
        "image_stride": strides(arrays[0][0]),
        "size": SIZE,
        "parts": 24,
        "dsap_stride": strides(arrays[0][1]),
        "mirror": False,
        "augmented_dsap": True,
        "fill": FILL,
        "mean": MEAN,
        "std": STD,
        **AUGMENT,
        "seed": 9,
        "threads": 2,
        "owners": arrays,
    }
    return Prefetcher(**settings | changed), arrays


def samples(number, count=12):
    """index and repeat of a batch."""
    rng = np.random.default_rng(number)
    return rng.integers(count, size=BATCH), rng.integers(3, size=BATCH)


def expected(images, iuv, epoch, index, repeat, type="float32"):
    drawn = draw_augmentation(
        9, epoch, torch.from_numpy(index), torch.from_numpy(repeat), height=HEIGHT, width=WIDTH, **AUGMENT
    )
    outputs = assemble_batch(
        images,
        iuv,
        torch.from_numpy(index),
        drawn,
        height=HEIGHT,
        width=WIDTH,
        size=SIZE,
        mean=MEAN,
        std=STD,
        fill=FILL,
        dtype=getattr(torch, type),
    )
    bits = [x.view(torch.uint16) if type == "bfloat16" else x for x in outputs if x is not None]
    return [x.numpy() for x in bits]


@pytest.mark.parametrize("type", ITEM)
@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_are_those_of_assemble_batch(type, channels_last):
    images, iuv = stored()
    prefetcher, arrays = make(images, iuv, ahead=3, type=type, channels_last=channels_last)
    for epoch in range(3):
        for slot in range(3):
            prefetcher.submit(slot, epoch, *samples(epoch + slot))
        for slot in range(3):
            prefetcher.wait(slot)
            for made, right in zip(arrays[slot], expected(images, iuv, epoch, *samples(epoch + slot), type)):
                np.testing.assert_array_equal(made, right)


def test_without_iuv():
    images, _ = stored()
    prefetcher, [(image, dsap)] = make(images, None, ahead=1)
    prefetcher.submit(0, 0, *samples(1))
    prefetcher.wait(0)
    np.testing.assert_array_equal(image, expected(images, None, 0, *samples(1))[0])
    assert (dsap == 77).all()


def test_without_mean_and_std_values_are_fractions():
    images, iuv = stored()
    off = dict.fromkeys(AUGMENT, 0)
    prefetcher, [(image, _)] = make(images, iuv, ahead=1, mean=None, std=None, **off)
    prefetcher.submit(0, 0, *samples(1))
    prefetcher.wait(0)
    assert 0 <= image.min() < 0.1 and 0.9 < image.max() <= 1


def test_part_images_of_other_kinds():
    images, iuv = stored()
    cells = (8, 8, 3, SIZE, SIZE)
    prefetcher, [(_, dsap)] = make(
        images,
        iuv,
        ahead=1,
        parts=8,
        mirror=True,
        augmented_dsap=False,
        drop_person=0,
        drop_part=0,
        dsap_stride=strides(np.empty(cells, np.float32)),
    )
    index, repeat = samples(1)
    prefetcher.submit(0, 0, index, repeat)
    prefetcher.wait(0)
    right = assemble_batch(
        images,
        iuv,
        torch.from_numpy(index),
        None,
        height=HEIGHT,
        width=WIDTH,
        size=SIZE,
        parts=8,
        mirror=True,
        mean=MEAN,
        std=STD,
        fill=FILL,
    )[1]
    np.testing.assert_array_equal(dsap.ravel()[: np.prod(cells)].reshape(cells), right)


def test_an_index_outside_of_the_store_names_the_sample_and_all_goes_on():
    images, iuv = stored()
    prefetcher, arrays = make(images, iuv)
    index, repeat = samples(0)
    bad = index.copy()
    bad[[3, 6]] = 12, -1
    prefetcher.submit(0, 0, bad, repeat)
    prefetcher.submit(1, 0, index, repeat)
    with pytest.raises(SampleError, match="index 12 is outside of the store, 0..11") as error:
        prefetcher.wait(0)
    assert (error.value.position, error.value.index) == (3, 12)
    prefetcher.submit(0, 0, index, repeat)
    for slot in range(2):
        prefetcher.wait(slot)
        np.testing.assert_array_equal(arrays[slot][0], expected(images, iuv, 0, index, repeat)[0])


@pytest.mark.parametrize("change", ["cut short", "written to"])
def test_a_store_that_changes_is_an_error(tmp_path, change):
    images, iuv = stored(count=64)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    with open(tmp_path / "images.npy", "rb") as file:
        before = os.fstat(file.fileno())
        files = [(file.fileno(), before.st_size, before.st_mtime_ns)]
        prefetcher, [(image, _)] = make(mapped, iuv, ahead=1, files=files)
        index, repeat = samples(0, count=64)
        prefetcher.submit(0, 0, index, repeat)
        prefetcher.wait(0)
        np.testing.assert_array_equal(image, expected(images, iuv, 0, index, repeat)[0])
        if change == "cut short":
            os.truncate(tmp_path / "images.npy", 128)
        else:
            os.utime(tmp_path / "images.npy", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        prefetcher.submit(0, 0, index, repeat)
        with pytest.raises(SampleError, match="the store changed while it was being read") as error:
            prefetcher.wait(0)
        assert (error.value.position, error.value.index) == (0, index[0])
        prefetcher.close()


@pytest.mark.parametrize(
    "changed,message",
    [
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"slots": []}, "at least one slot"),
        ({"height": 0}, "height and width must be 1..32768, not 0 x 10"),
        ({"width": 1 << 20}, "height and width must be 1..32768, not 20 x 1048576"),
        ({"size": 257}, "size must be 1..256, not 257"),
        ({"parts": 12}, "parts must be 24, 13 or 8, not 12"),
        ({"type": "float64"}, "type must be float32, float16 or bfloat16, not float64"),
        ({"std": None}, "mean and std must be given together"),
        ({"pad": -1}, r"pad must be 0..2\^20, not -1"),
        ({"erase": 1.5}, "erase must be a probability, 0..1, not 1.5"),
        ({"flip": float("nan")}, "flip must be a probability"),
        ({"batch": 9}, "image has 19200 bytes, but its strides reach 21600"),
        ({"height": 21}, "image has 19200 bytes, but its strides reach 19240"),
        ({"size": 5}, "dsap has 36864 bytes, but its strides reach"),
        ({"image_stride": (600, 200, 1 << 62, 1)}, "image has 19200 bytes, too few for a stride of"),
        ({"image_stride": (600, 200, 10, -1)}, "image has 19200 bytes, too few for a stride of -1"),
        ({"slots": [((0, 19200), (64, 36864))]}, "image: 0 is no address of an element"),
        ({"slots": [((66, 19200), (64, 36864))]}, "image: 66 is no address of an element"),
        ({"slots": [((64, 19200), None)]}, "memory for dsap exactly where iuv is given"),
        ({"images": np.zeros((12, 16, 8, 4), np.uint8)}, r"images must be uint8 \[N, h, w, 3\]"),
        ({"images": np.zeros((12, 16, 8, 3), np.int8)}, r"images must be uint8 \[N, h, w, 3\]"),
        ({"images": np.zeros((0, 16, 8, 3), np.uint8)}, "images must hold 1"),
        ({"images": np.zeros((12, 3, 16, 8), np.uint8).transpose(0, 2, 3, 1)}, "must be contiguous within"),
        ({"iuv": np.zeros((12, 16, 9, 3), np.uint8)}, "iuv must be of images' shape"),
    ],
)
def test_arguments_that_are_refused(changed, message):
    images, iuv = stored()
    given = {"images": images, "iuv": iuv} | changed
    with pytest.raises(ValueError, match=message):
        make(**given)


def test_samples_that_are_refused():
    prefetcher, _ = make(*stored())
    index, repeat = samples(0)
    for arguments, message in [
        ((2, 0, index, repeat), "slot must be 0..1, not 2"),
        ((0, 0, index[:7], repeat), r"index must be \[8\], one for each sample"),
        ((0, 0, index, repeat[None]), r"repeat must be \[8\], one for each sample"),
        ((0, 0, index, repeat - 3), "repeat must be 0..2\\^32 - 1, but sample 0 has -"),
    ]:
        with pytest.raises(ValueError, match=message):
            prefetcher.submit(*arguments)
    for arguments in [(0, 0, index.astype(float), repeat), (0, -1, index, repeat), (0, 0, [0] * 8, repeat)]:
        with pytest.raises(TypeError):
            prefetcher.submit(*arguments)
    with pytest.raises(ValueError, match="slot 0 is not under way"):
        prefetcher.wait(0)


def test_owners_live_until_it_is_closed():
    images, iuv = stored()
    prefetcher, arrays = make(images, iuv)
    alive = [weakref.ref(x) for x in (images, iuv, arrays[0][0], arrays[1][1])]
    del images, iuv, arrays
    gc.collect()
    assert all(x() is not None for x in alive)
    prefetcher.submit(0, 0, *samples(0))
    prefetcher.close()
    gc.collect()
    assert all(x() is None for x in alive)
    for call in (lambda: prefetcher.wait(0), lambda: prefetcher.submit(0, 0, *samples(0))):
        with pytest.raises(RuntimeError, match="the prefetcher is closed"):
            call()
    prefetcher.close()


class Alarm(Exception):
    pass


def ring(*_):
    raise Alarm


@pytest.fixture
def endless():
    """A prefetcher whose one batch takes a minute and more; it is under way."""
    batch = 1_000_000
    index, repeat = np.zeros((2, batch), np.int64)
    # Samples lie one element apart and overwrite each other, which is no race with one thread.
    room = [np.empty(600 + batch, np.float32), np.empty(1152 + batch, np.float32)]
    images, iuv = stored()
    prefetcher, _ = make(
        images,
        iuv,
        batch=batch,
        slots=[tuple(map(memory, room))],
        image_stride=(1, 200, 10, 1),
        dsap_stride=(1, 48, 16, 4, 1),
        threads=1,
        owners=room,
    )
    prefetcher.submit(0, 0, index, repeat)
    yield prefetcher
    prefetcher.close()


def test_a_signal_interrupts_waiting(endless):
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Alarm):
            endless.wait(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ValueError, match="slot 0 is under way"):
        endless.submit(0, 0, *np.zeros((2, 1_000_000), np.int64))


def test_closing_ends_another_threads_waiting(endless):
    messages = []

    def wait():
        try:
            endless.wait(0)
        except RuntimeError as error:
            messages.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.1)
    endless.close()  # would not be reached if wait() held the interpreter
    waiting.join(60)
    assert messages == ["the prefetcher is closed"]


# ---- children: run by test_forked_children_end in a process of their own ----


def use_in_child(prefetcher):
    for call in (lambda: prefetcher.wait(0), lambda: prefetcher.submit(1, 0, *samples(0))):
        with pytest.raises(RuntimeError, match="belongs to another process"):
            call()
    prefetcher.close()


def fork(prefetcher):
    """True in a child, which is to end as any program does."""
    child = os.fork()
    if child == 0:
        use_in_child(prefetcher)
        return True
    assert os.waitpid(child, 0)[1] == 0


def have_children():
    images, iuv = stored()
    for number in range(5):
        prefetcher, arrays = make(images, iuv)
        for slot in range(2):
            prefetcher.submit(slot, 0, *samples(number + slot))
        if fork(prefetcher):
            return
        subprocess.run([sys.executable, "-c", ""], check=True)
        process = multiprocessing.get_context("fork").Process(target=use_in_child, args=(prefetcher,))
        process.start()
        process.join()
        assert process.exitcode == 0
        for slot in range(2):
            prefetcher.wait(slot)
            right = expected(images, iuv, 0, *samples(number + slot))
            np.testing.assert_array_equal(arrays[slot][0], right[0])
    print("all ended")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_children_end():
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_prefetch as t"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; t.have_children()"], capture_output=True, text=True, timeout=240
    )
    assert (done.returncode, done.stdout) == (0, "all ended\n"), done.stderr
