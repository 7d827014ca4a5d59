"""Compile the warp's kernel with CuPy at run time and launch it on CuPy arrays.

    python examples/cupy_warp.py

Most people do not need this: dsa_ext.iuv_to_dsap takes CuPy arrays as they are. It is for those
who want to run the kernel in a process without torch (the source is only text), or to change it.
Needs a CUDA device and CuPy.
"""

import sys

import numpy as np

BATCH, CHANNELS, HEIGHT, WIDTH, SIZE, PARTS = 4, 3, 256, 128, 32, 24
THREADS, CHANNELS_A_LAUNCH = 512, 8

NORMALISE = np.dtype([("active", "?"), ("mean", "f4"), ("std", "f4")], align=True)
ARGUMENTS = np.dtype(
    [
        ("channels", "i4"),
        ("height", "i4"),
        ("width", "i4"),
        ("size", "i4"),
        ("rows", "i4"),
        ("tile_rows", "i4"),
        ("tiles", "i4"),
        ("scan", "i4"),
        ("write", "i4"),
        ("dense_image", "?"),
        ("image", "u8"),
        ("image_stride", "i8", 4),
        ("iuv", "u8"),
        ("iuv_stride", "i8", 4),
        ("out", "u8"),
        ("out_stride", "i8", 5),
        ("source", "u8"),
        ("part_image", "u1", PARTS + 1),
        ("reverse", "?", PARTS + 1),
        ("fill", "f4", CHANNELS_A_LAUNCH),
        ("normalise", NORMALISE, CHANNELS_A_LAUNCH),
    ],
    align=True,
)
"""dsa::WarpArguments of kernel_source("warp"), field by field."""

KERNEL = "dsa::warp_kernel<unsigned char, float>"


def arguments(image: int, iuv: int, out: int, tile_rows: int) -> np.ndarray:
    """The kernel's argument for contiguous arrays at these addresses, aligned to 16 bytes: planes are scanned
    (scan = 0) and written (write = 0) 16 bytes at a time."""
    a = np.zeros((), ARGUMENTS)
    a["channels"], a["height"], a["width"], a["size"] = CHANNELS, HEIGHT, WIDTH, SIZE
    a["rows"] = PARTS * SIZE
    a["tile_rows"], a["tiles"] = tile_rows, -(-PARTS * SIZE // tile_rows)
    a["dense_image"] = True
    a["image"], a["iuv"], a["out"] = image, iuv, out
    plane, cells = HEIGHT * WIDTH, SIZE * SIZE
    a["image_stride"] = CHANNELS * plane, plane, WIDTH, 1
    a["iuv_stride"] = 3 * plane, plane, WIDTH, 1
    a["out_stride"] = PARTS * CHANNELS * cells, CHANNELS * cells, cells, SIZE, 1
    a["part_image"][1:] = np.arange(PARTS)
    a["normalise"]["std"] = 1
    return a


def shared_bytes(tile_rows: int) -> int:
    """Bytes of the winners, of the parts' targets, of what waits, and of 264 converted values a channel."""
    return tile_rows * SIZE * 4 + 128 + 4096 + CHANNELS * 264 * 4


def main() -> None:
    try:
        import cupy
    except ImportError:
        sys.exit("this example needs CuPy: pip install cupy-cuda13x")
    if not cupy.is_available():
        sys.exit("this example needs a CUDA device, and CuPy found none")
    from dsa_ext import kernel_source

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (BATCH, CHANNELS, HEIGHT, WIDTH), dtype=np.uint8)
    iuv = rng.integers(0, 256, (BATCH, 3, HEIGHT, WIDTH), dtype=np.uint8)
    iuv[:, 0] %= PARTS + 1
    image_on_device, iuv_on_device = cupy.asarray(image), cupy.asarray(iuv)
    out = cupy.empty((BATCH, PARTS, CHANNELS, SIZE, SIZE), dtype=cupy.float32)

    module = cupy.RawModule(code=kernel_source("warp"), options=("-std=c++20",), name_expressions=(KERNEL,))
    tile_rows = 6 * SIZE  # six part images a block: 24 KiB of winners
    a = arguments(image_on_device.data.ptr, iuv_on_device.data.ptr, out.data.ptr, tile_rows)
    blocks = BATCH * int(a["tiles"])
    kernel = module.get_function(KERNEL)
    kernel((blocks,), (THREADS,), (a,), shared_mem=shared_bytes(tile_rows))

    from dsa_ext import iuv_to_dsap  # the same on the CPU

    expected = iuv_to_dsap(image, iuv, size=SIZE, out=np.empty(out.shape, dtype=np.float32))
    print("equal to the CPU backend:", bool((cupy.asnumpy(out) == expected.numpy()).all()))


if __name__ == "__main__":
    main()
