"""The report's pictures: images of rank lists and DSAP sheets, as data URIs."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dsareid.data.layouts.base import TRAIN
from dsareid.data.store.reader import Store
from dsareid.densepose.pictures import part_colours
from dsareid.ground.errors import DSAError, logger

THUMBNAIL_HEIGHT = 192  # pixels; twice what the page shows, for dense screens
SHEETS = 3
_ITSELF = 0.98  # agreement that only the estimator's own maps reach, even after resizing
LOOKED_AT = 32  # training images among which those for the sheets are chosen


@dataclass(frozen=True)
class Part:
    """One of the 24 part images of a sheet."""

    name: str
    picture: str  # data URI; cells that no pixel fell into are transparent
    filled: float  # share of the cells, 0..1


@dataclass(frozen=True)
class EstimatedPartMap:
    """The part map that the estimator makes from the image alone, and its agreement with the stored one."""

    picture: str  # data URI
    iou: float  # of the masks, 0..1
    parts: float  # share of equal parts where both see a person, 0..1


@dataclass(frozen=True)
class Sheet:
    """A training image, its part map and its DSAP-images."""

    name: str
    image: str  # data URI
    part_map: str  # data URI
    estimated: "EstimatedPartMap | None"
    parts: list[Part]  # 24, in the order of I = 1..24


def thumbnail(pixels: np.ndarray) -> str:
    """A small JPEG of a stored image, uint8 [H, W, 3], as data URI."""
    image = Image.fromarray(pixels)
    if image.height > THUMBNAIL_HEIGHT:
        width = max(1, round(image.width * THUMBNAIL_HEIGHT / image.height))
        image = image.resize((width, THUMBNAIL_HEIGHT), Image.Resampling.LANCZOS)
    return _data_uri(image, "JPEG", quality=88)


def dsap_sheets(store: Store, size: int) -> list[Sheet]:
    """DSAP sheets of a few training images, made as for training but without augmentation.

    Looks at LOOKED_AT images, evenly spread over those that have an IUV map, and takes the ones that show
    the most parts.

    Args:
        size: side of a part image, in cells.

    Raises:
        DSAError: the store has no training images, or none with an IUV map.
    """
    split, iuv = store.select(TRAIN, iuv=False), store.iuv
    store.check_unchanged()
    mapped = np.flatnonzero(store.has_iuv[split.rows])
    if iuv is None or not len(mapped):
        raise DSAError(f"{store.path}: no training image has an IUV map")
    chosen = mapped[np.unique(np.linspace(0, len(mapped) - 1, LOOKED_AT).round().astype(int))]
    # The sort is stable: among images that show equally many parts the first is taken.
    best = sorted(chosen, key=lambda i: -len(np.unique(iuv[split.rows[i], ..., 0])))[:SHEETS]
    return [
        _sheet(split.names[i].rpartition("/")[2], store.images[row], iuv[row], size)
        for i in sorted(best)
        for row in (split.rows[i],)
    ]


def _sheet(name: str, image: np.ndarray, iuv: np.ndarray, size: int) -> Sheet:
    # Imported here because only the sheets need it.
    from dsa_ext.parts import NAMES
    from dsareid.densepose.textures import part_images

    colours, filled = part_images(image, iuv, size)  # [24, S, S, 3], [24, S, S]
    parts = [
        Part(part, _data_uri(_with_alpha(colour, mask), "PNG"), float(mask.mean()))
        for part, colour, mask in zip(NAMES, colours, filled)
    ]
    return Sheet(
        name,
        _data_uri(Image.fromarray(image), "JPEG", quality=90),
        _part_map(iuv),
        _estimated(image, iuv),
        parts,
    )


def _part_map(iuv: np.ndarray) -> str:
    return _data_uri(Image.fromarray(part_colours()[iuv[..., 0]]), "PNG")


def _estimated(image: np.ndarray, iuv: np.ndarray) -> EstimatedPartMap | None:
    """None if the estimator's weights are not at hand or it fails, or if the map is an estimate itself."""
    from dsareid.densepose.agreement import compare_pixels
    from dsareid.densepose.estimators.weights import weights_at_hand
    from dsareid.densepose.textures import default_estimator

    if not weights_at_hand():
        return None
    try:
        found = default_estimator()(image, uv=False).iuv
    except DSAError as error:
        logger.warning(f"no estimated maps are shown: {error}")
        return None
    scores = compare_pixels(found.transpose(2, 0, 1), iuv.transpose(2, 0, 1)).scores()
    if min(scores.iou, scores.parts) > _ITSELF:
        return None
    return EstimatedPartMap(_part_map(found), scores.iou, scores.parts)


def _with_alpha(colour: np.ndarray, mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colour, np.where(mask, 255, 0).astype(np.uint8)]))


def _data_uri(image: Image.Image, file_format: str, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{file_format.lower()};base64,{encoded}"
