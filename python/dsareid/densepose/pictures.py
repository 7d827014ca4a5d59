"""Pictures of the 24 parts: their colours, the sheet of one image's parts, and the contact sheet of many.

The contact sheet shows images, their parts and their DSAP-images, to see whether they fit.
"""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dsareid.data.iuv import read_iuv, read_pair
from dsareid.ground.files import atomic_path

ROWS, COLUMNS = 4, 6  # of every sheet: part I at row (I-1) // 6, column (I-1) % 6
BACK, TEXT, DIM = "#16181d", "#e8eae6", "#9aa0aa"

# The contact sheet.
SHEET = "contact_sheet.png"
SAMPLE = 8  # images on the sheet
_LARGEST = 1024  # pixels of a side that are drawn
CELL_SIDE = 64  # pixels of a part image
PITCH, LINE = 96, 92  # from one part image to the next, across and down
HEIGHT, WIDTH = ROWS * LINE, 190  # an image is fitted into this
SIDE = 76  # beside the parts, for their names
GAP = 24
NAMED = {  # the parts that tell most, and what they are called beside the image
    (1,): "back",
    (2,): "front",
    (3,): "right hand",
    (4,): "left hand",
    (5,): "left foot",
    (6,): "right foot",
    (23, 24): "head",
}
HINTS = (
    "The map is right if each name points at that part of the body. Left and right are the person's own: if "
    "the person faces you, the right hand is on your left.",
    "In the part images (row = U, column = V) torso and back of the upper legs are upright, the front of the "
    "upper legs is upside down, the head lies on its side.",
)


def part_colours() -> np.ndarray:
    """uint8 [25, 3]: a colour for each I; background is a light grey."""
    colours = [(224, 226, 230)]
    for part in range(24):
        # Neighbouring numbers are left and right, front and back: golden-angle steps tell them apart.
        hue, light = (part * 0.618034) % 1.0, (0.45, 0.6)[part % 2]
        red, green, blue = colorsys.hls_to_rgb(hue, light, 0.6)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return np.array(colours, np.uint8)


def draw_part_images(colours: np.ndarray, filled: np.ndarray, scale: int) -> Image.Image:
    """One labelled picture of 24 part images, 4 rows of 6; holes show as a grey checkerboard.

    Args:
        colours, filled: uint8 [24, S, S, 3] and bool [24, S, S], as textures.part_images returns them.
        scale: pixels of the picture a cell becomes on each side.
    """
    from dsa_ext.parts import NAMES  # converting needs the compiled part only for a sheet

    cells = _with_holes(colours, filled)
    side, margin, label = colours.shape[1] * scale, 10, 22
    size = COLUMNS * (side + margin) + margin, ROWS * (side + label + margin) + margin
    sheet = Image.new("RGB", size, BACK)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, name in enumerate(NAMES):
        row, column = divmod(index, COLUMNS)
        left, top = margin + column * (side + margin), margin + row * (side + label + margin)
        text = f"{index + 1} {name}"
        draw.text((left, top + 2), text, fill=TEXT if filled[index].any() else DIM, font=font)
        part = Image.fromarray(cells[index]).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(part, (left, top + label))
    return sheet


def write_contact_sheet(path: Path, shown: Sequence[tuple[str, Path | np.ndarray, Path]]) -> None:
    """Draw a sample of images, evenly through the list, each with its parts and its DSAP-images.

    Args:
        path: the picture to write, .png.
        shown: of each image its name, its file or pixels, and the file of its map.

    Raises:
        DSAError: an image or a map that cannot be read, or the picture cannot be written.
    """
    places = np.linspace(0, len(shown) - 1, min(SAMPLE, len(shown))).round().astype(int)
    rows = [_row(*shown[place]) for place in places]
    head = 62
    sheet = Image.new("RGB", (rows[0].width, head + sum(row.height for row in rows)), BACK)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(HINTS):
        draw.text((GAP, 14 + 20 * number), line, fill=TEXT, font=ImageFont.load_default(12))
    top = head
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _row(name: str, image: Path | np.ndarray, map_path: Path) -> Image.Image:
    """An image, its parts and its part images side by side, under the image's name."""
    pair = (image, read_iuv(map_path)) if isinstance(image, np.ndarray) else read_pair(image, map_path)
    image, iuv = _reduced(*pair)
    panels = (_photograph(image), _parts(image, iuv), _part_images(image, iuv))
    title = 26
    row = Image.new("RGB", (sum(p.width + GAP for p in panels) + GAP, HEIGHT + title + GAP), BACK)
    ImageDraw.Draw(row).text((GAP, 4), name, fill=TEXT, font=ImageFont.load_default(14))
    left = GAP
    for panel in panels:
        row.paste(panel, (left, title))
        left += panel.width + GAP
    return row


def _reduced(image: np.ndarray, iuv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A large image and its map, smaller: the sheet cannot show more pixels, they would only cost memory."""
    step = max(1, max(image.shape[:2]) // _LARGEST)
    return image[::step, ::step], iuv[::step, ::step]


def _fitted(pixels: np.ndarray, how: Image.Resampling) -> Image.Image:
    scale = min(HEIGHT / pixels.shape[0], WIDTH / pixels.shape[1])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return Image.fromarray(pixels).resize(size, how)


def _photograph(image: np.ndarray) -> Image.Image:
    panel = Image.new("RGB", (WIDTH, HEIGHT), BACK)
    panel.paste(_fitted(image, Image.Resampling.LANCZOS))
    return panel


def _parts(image: np.ndarray, iuv: np.ndarray) -> Image.Image:
    """The image in grey with its parts in colour, and names that point at some of them."""
    part = iuv[..., 0]  # [H, W]
    grey = image.mean(2, keepdims=True)  # [H, W, 1]

    mixed = np.where(part[..., None] > 0, 0.3 * grey + 0.7 * part_colours()[part], 0.5 * grey)
    drawn = _fitted(mixed.astype(np.uint8), Image.Resampling.NEAREST)
    panel = Image.new("RGB", (WIDTH + 2 * SIDE, HEIGHT), BACK)
    left = (panel.width - drawn.width) // 2
    panel.paste(drawn, (left, 0))
    found = []
    for parts, name in NAMED.items():
        y, x = np.nonzero(np.isin(part, parts))
        if len(y):
            nearest = np.argmin((y - y.mean()) ** 2 + (x - x.mean()) ** 2)  # the mean may lie outside
            scale = drawn.width / part.shape[1]
            found.append((left + (x[nearest] + 0.5) * scale, (y[nearest] + 0.5) * scale, name))
    middle = left + drawn.width / 2
    _point(panel, [at for at in found if at[0] < middle], left - 6, "rm")
    _point(panel, [at for at in found if at[0] >= middle], left + drawn.width + 6, "lm")
    return panel


def _point(panel: Image.Image, found: list[tuple[float, float, str]], edge: float, anchor: str) -> None:
    """Names in a column at `edge`, none over another, with a line to where each part is."""
    draw, font, space = ImageDraw.Draw(panel), ImageFont.load_default(11), 15
    lowest = 8.0
    for rank, (x, y, name) in enumerate(sorted(found, key=lambda at: at[1])):
        beneath = len(found) - rank - 1
        line = max(lowest, min(y, panel.height - 8 - space * beneath))
        draw.line([(edge, line), (x, y)], fill="white", width=1)
        draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill="white")
        draw.text((edge + (-3 if anchor == "rm" else 3), line), name, fill=TEXT, font=font, anchor=anchor)
        lowest = line + space


def _part_images(image: np.ndarray, iuv: np.ndarray) -> Image.Image:
    """The 24 part images with their names, and the colours of their parts in the panel beside."""
    from dsa_ext.parts import NAMES
    from dsareid.densepose.textures import part_images

    cells = 32 if np.count_nonzero(iuv[..., 0]) > 8000 else 16  # so that a small image fills them
    colours, filled = part_images(image, iuv, cells)  # [24, S, S, 3], [24, S, S]
    pictures = _with_holes(colours, filled)
    panel = Image.new("RGB", (COLUMNS * PITCH, HEIGHT), BACK)
    draw, font, side = ImageDraw.Draw(panel), ImageFont.load_default(10), CELL_SIDE

    for index, (name, colour) in enumerate(zip(NAMES, part_colours()[1:])):
        left, top = index % COLUMNS * PITCH, index // COLUMNS * LINE
        part = Image.fromarray(pictures[index]).resize((side, side), Image.Resampling.NEAREST)
        panel.paste(part, (left, top))
        draw.rectangle([left + side + 3, top, left + side + 9, top + side - 1], fill=tuple(map(int, colour)))
        first, _, last = name.rpartition(" ")
        text = f"{index + 1} {name}" if len(name) < 13 else f"{index + 1} {first}\n{last}"
        draw.text((left, top + side), text, fill=TEXT if filled[index].any() else DIM, font=font, spacing=0)
    return panel


def _with_holes(colours: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Part images, uint8 [24, S, S, 3], whose holes are a grey checkerboard."""
    y, x = np.mgrid[: colours.shape[1], : colours.shape[1]]
    board = np.where((x + y) % 2, 62, 48).astype(np.uint8)[..., None]  # [S, S, 1]
    return np.where(filled[..., None], colours, board)
