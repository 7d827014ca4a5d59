"""One person's chart, in each form that DensePose programs write.

Every form becomes uint8 [3, h, w] in the order I, U, V, relative to the person's box: I is 0..24, U and V are
trunc(255 * u), as in the classic file and in detectron2's own quantised form, and 0 in the background. So the
same detection gives the same bytes in whichever form it came.

The forms come from untrusted files: whatever is used of them is checked first.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dsareid.ground.errors import DSAError

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
MOST_CHART_PIXELS = 1 << 25  # 8192 x 4096: a small file can claim more than memory holds
LEAST_UV, MOST_UV = -1, 2  # a network's raw U and V leave 0..1 by far less; other units are further out
CSE = (
    "output of a CSE model: embeddings of the surface have no parts and no U and V; use an IUV model "
    "(densepose_rcnn_*, not cse/)"
)
INTEGERS = tuple(f"torch.{kind}" for kind in ("uint8", "int8", "int16", "int32", "int64"))
FLOATS = tuple(f"torch.{kind}" for kind in ("float16", "bfloat16", "float32", "float64"))


class ChartResult:
    """Stands for detectron2's DensePoseChartResult, with confidences or without.

    labels: an integer tensor [h, w]; uv: a floating tensor [2, h, w], raw regression that may leave 0..1.
    """


class QuantizedChart:
    """Stands for detectron2's DensePoseChartResultQuantized: labels_uv_uint8, a uint8 tensor [3, h, w]."""


class CompressedChart:
    """Stands for detectron2's DensePoseChartResultCompressed, and for a COCO result.

    shape_chw: 3, h, w; labels_uv_str: a PNG of I, U, V in R, G, B, in Base64.
    """

    def __init__(self, shape_chw: object, labels_uv_str: object):
        self.shape_chw, self.labels_uv_str = shape_chw, labels_uv_str


def decode_chart(form: object, box: Box, where: str, file_size: int) -> np.ndarray:
    """A chart of any form as uint8 [3, h, w] in the order I, U, V.

    Args:
        form: one of the classes above; its attributes may be anything.
        box: of the person. h and w must be its height and width in whole pixels, give or take one: some
            programs round, others truncate.
        where: the beginning of an error's message.
        file_size: bytes of the file it comes from. No tensor in it can have more.

    Raises:
        DSAError: it is none of these forms, damaged, or does not fit the box.
    """
    try:
        if isinstance(form, ChartResult):
            chart = _from_floats(form, box, file_size)
        elif isinstance(form, QuantizedChart):
            chart = _from_quantized(form, box, file_size)
        elif isinstance(form, CompressedChart):
            chart = _from_png(form, box)
        else:
            raise DSAError(f"a chart must be one of detectron2's chart results, not {type(form).__name__}")
    except DSAError as error:
        raise DSAError(f"{where}: {error}") from error
    return chart


def as_array(value: object, name: str, types: Sequence[str], file_size: int) -> np.ndarray:
    """A tensor from a file, checked to be of one of the named types, as an array.

    Raises:
        DSAError: it is no plain tensor of one of these types, or claims more bytes than its file has.
    """
    import torch  # loaded already if there is a tensor

    if type(value) is not torch.Tensor or str(value.dtype) not in types:
        what = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise DSAError(f"{name} must be a tensor of {types[0]} or the like, not {what}")
    # A tensor of strides 0 claims any size on a few bytes.
    if not value.is_contiguous() or value.nbytes > file_size:
        raise DSAError(
            f"{name} is no plain tensor: it claims the shape {list(value.shape)} with strides "
            f"{list(value.stride())}, of a file of {file_size:,} bytes"
        )
    if value.dtype == torch.bfloat16:  # NumPy has no bfloat16
        value = value.float()
    return value.numpy(force=True)


def _from_floats(form: ChartResult, box: Box, file_size: int) -> np.ndarray:
    labels = as_array(vars(form).get("labels"), "labels", INTEGERS, file_size)
    uv = as_array(vars(form).get("uv"), "uv", FLOATS, file_size)
    if labels.ndim != 2 or uv.shape != (2, *labels.shape):
        raise DSAError(
            f"labels must be [h, w] and uv [2, h, w], not {list(labels.shape)} and {list(uv.shape)}"
        )
    _check_size(labels.shape, box)
    return _checked(labels, _as_bytes(uv, labels > 0))


def _as_bytes(uv: np.ndarray, body: np.ndarray) -> np.ndarray:
    """U and V, floats, as uint8 [2, h, w], clamped as in detectron2; the background may hold anything."""
    uv = np.where(body, uv, 0)
    if np.isnan(uv).any():
        raise DSAError("U or V is not a number (NaN)")
    if uv.min() < LEAST_UV or uv.max() > MOST_UV:
        of_bytes = " (are these 0..255?)" if uv.min() >= 0 and uv.max() <= 255 else ""
        found = f"{uv.min():g}..{uv.max():g}"
        raise DSAError(f"U and V must be near 0..1, within {LEAST_UV}..{MOST_UV}, found {found}{of_bytes}")
    return (np.clip(uv, 0, 1) * np.float32(255)).astype(np.uint8)


def _from_quantized(form: QuantizedChart, box: Box, file_size: int) -> np.ndarray:
    chart = as_array(vars(form).get("labels_uv_uint8"), "labels_uv_uint8", ("torch.uint8",), file_size)
    if chart.ndim != 3 or len(chart) != 3:
        raise DSAError(f"labels_uv_uint8 must be [3, h, w], not {list(chart.shape)}")
    _check_size(chart.shape[1:], box)
    return _checked(chart[0], chart[1:])


def _from_png(form: CompressedChart, box: Box) -> np.ndarray:
    shape, text = vars(form).get("shape_chw"), vars(form).get("labels_uv_str")
    numbers = list(shape) if isinstance(shape, (list, tuple)) else []
    if len(numbers) != 3 or any(type(x) is not int for x in numbers) or numbers[0] != 3:
        numbers = []
    if not numbers or not isinstance(text, str):
        raise DSAError("a compressed chart must have the shape 3, h, w and a PNG in Base64")
    _, height, width = numbers
    _check_size((height, width), box)
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
            # Before it is decoded: a small PNG can be a huge image.
            if image.mode != "RGB" or image.size != (width, height):
                raise DSAError(
                    f"the PNG of the chart must be RGB of {width}x{height}, "
                    f"not {image.mode} of {image.width}x{image.height}"
                )
            pixels = np.asarray(image)  # [h, w, 3], R = I
    except DSAError:
        raise
    except Exception as error:  # what damaged bytes lead Pillow to raise
        raise DSAError(f"the PNG of the chart is damaged: {error}") from error
    chart = pixels.transpose(2, 0, 1)
    return _checked(chart[0], chart[1:])


def _check_size(shape: Sequence[int], box: Box) -> None:
    """Raise DSAError if a chart of h, w does not fit its box, or is too large."""
    height, width = shape
    x0, y0, x1, y1 = box
    if abs(height - max(int(y1 - y0), 1)) > 1 or abs(width - max(int(x1 - x0), 1)) > 1 or 0 in shape:
        raise DSAError(f"the chart is {width}x{height}, but its box is {x1 - x0:.1f}x{y1 - y0:.1f}")
    if height * width > MOST_CHART_PIXELS:
        raise DSAError(f"the chart is {width}x{height}, more than {MOST_CHART_PIXELS:,} pixels")


def _checked(labels: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Join labels, any integers [h, w], and U, V, uint8 [2, h, w], to a chart; the background becomes 0."""
    if labels.min() < 0 or labels.max() > 24:
        raise DSAError(f"a part must be 0..24, found {labels.min()}..{labels.max()}")
    chart = np.empty((3, *labels.shape), np.uint8)
    chart[0] = labels
    np.multiply(uv, labels > 0, out=chart[1:])
    return chart
