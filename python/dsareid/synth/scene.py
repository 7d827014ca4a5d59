"""Cameras of the synthetic data set: what stands behind the people, light, colours, occluders."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dsareid.synth.config import Difficulty
from dsareid.synth.person import cloth_colour

CAMERAS = 6
_WIDTH, _HEIGHT = 700, 420  # pixels of a camera's whole view

_DARK_TO_FAIR = np.array([[0.1, 0.08, 0.07], [0.3, 0.2, 0.12], [0.6, 0.5, 0.35]])  # hair

Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw


@dataclass(frozen=True)
class Camera:
    """One of the cameras that see the people."""

    view: np.ndarray  # uint8 [H, W, 3]: the empty scene
    elevation: float  # radians by which the camera looks down
    light: np.ndarray  # [3] unit vector towards the light: right, into the scene, up
    ambient: float
    directed: float
    cast: np.ndarray  # [3] gains of red, green and blue, brightness included
    blur: float  # pixels at a height of 256
    sharpness: float  # resolution of the sensor in image heights; below 1 details are lost


def random_camera(difficulty: Difficulty, rng: np.random.Generator) -> Camera:
    """Draw a camera with its place, light and colours."""
    light = np.array([rng.normal(0, 0.7), rng.normal(-0.4, 0.5), rng.uniform(0.4, 1.0)])
    return Camera(
        view=_draw_view(rng),
        elevation=np.radians(rng.uniform(4, 22)),
        light=light / np.linalg.norm(light),
        ambient=rng.uniform(*difficulty.ambient),
        directed=rng.uniform(*difficulty.directed),
        cast=(1 + rng.normal(0, difficulty.cast, 3)) * rng.uniform(*difficulty.gain),
        blur=rng.uniform(0.2, 0.9),
        sharpness=rng.uniform(*difficulty.sharpness),
    )


def random_backdrop(camera: Camera, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A cut-out of the camera's view, scaled to float32 [height, width, 3] in [0, 1]."""
    tall = int(rng.uniform(0.6, 0.95) * _HEIGHT)
    wide = min(max(1, int(tall * width / height)), _WIDTH)
    top, left = rng.integers(_HEIGHT - tall + 1), rng.integers(_WIDTH - wide + 1)
    crop = Image.fromarray(camera.view[top : top + tall, left : left + wide])
    return np.asarray(crop.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255


def random_occluder(height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Something that hides a part of a person.

    Returns:
        colours float32 [height, width, 3] in [0, 1], and how much of each pixel they cover,
        float32 [height, width] in [0, 1].
    """
    kind = rng.choice(["pole", "wall", "shrub", "passer-by"])
    size = (2 * width, 2 * height)  # drawn twice as large, for smooth edges
    mask, paint = Image.new("L", size), Image.new("RGB", size)
    left = rng.uniform(-0.1, 0.9) * size[0]
    top = rng.uniform(0.45, 0.85) * size[1]
    colour = _shade(cloth_colour(rng), rng.uniform(0.6, 1))
    draw_mask, draw_paint = ImageDraw.Draw(mask), ImageDraw.Draw(paint)
    box: tuple[float, float, float, float]
    if kind == "pole":
        box = (left, 0, left + rng.uniform(0.04, 0.14) * size[0], size[1])
        _draw_both(draw_mask.rectangle, draw_paint.rectangle, box, colour)
        bright = (box[0] + 0.2 * (box[2] - box[0]), 0, box[0] + 0.45 * (box[2] - box[0]), size[1])
        draw_paint.rectangle(bright, fill=_lighter(colour))
    elif kind == "wall":
        box = (left, top, left + rng.uniform(0.3, 1.0) * size[0], size[1] + 9)
        _draw_both(draw_mask.rectangle, draw_paint.rectangle, box, colour)
        draw_paint.rectangle((box[0], top, box[2], top + 0.03 * size[1]), fill=_lighter(colour))
    elif kind == "shrub":
        for _ in range(60):
            x, y = left + rng.normal(0, 0.13) * size[0], top + rng.uniform(0, 0.6) * size[1]
            radius = rng.uniform(0.03, 0.1) * size[0]
            box = (x - radius, y - radius, x + radius, y + radius)
            _draw_both(draw_mask.ellipse, draw_paint.ellipse, box, _leaf(rng))
    else:
        _draw_passer_by(draw_mask, draw_paint, size, left, rng)
    half = (width, height)
    covered = np.asarray(mask.resize(half, Image.Resampling.BOX), np.float32) / 255
    colours = np.asarray(paint.resize(half, Image.Resampling.BOX), np.float32) / 255
    colours = colours / np.maximum(covered, 1 / 255)[..., None]  # undo the mixture with black
    grain = rng.normal(0, 0.02, (height, width, 1)).astype(np.float32)
    return np.clip(colours + grain, 0, 1), covered


def _draw_passer_by(
    draw_mask: Draw, draw_paint: Draw, size: tuple[int, int], left: float, rng: np.random.Generator
) -> None:
    """Head and shoulders of somebody nearer to the camera, cut by the image's lower border."""
    wide, top = rng.uniform(0.35, 0.6) * size[0], rng.uniform(0.35, 0.6) * size[1]
    shirt, hair = _shade(cloth_colour(rng), 0.9), _shade(rng.choice(_DARK_TO_FAIR), 1)
    head, middle = 0.36 * wide, left + wide / 2
    face = (middle - head / 2, top, middle + head / 2, top + 1.3 * head)
    neck = (middle - head / 4, top + head, middle + head / 4, top + 1.7 * head)
    shoulders = (left, top + 1.45 * head, left + wide, size[1] + wide)
    _draw_both(draw_mask.rectangle, draw_paint.rectangle, neck, hair)
    for draw, fill in ((draw_mask, 255), (draw_paint, shirt)):
        draw.rounded_rectangle(shoulders, radius=0.32 * wide, fill=fill)
    _draw_both(draw_mask.ellipse, draw_paint.ellipse, face, hair)


def _draw_both(on_mask: Callable, on_paint: Callable, box: tuple, colour: Colour) -> None:
    on_mask(box, fill=255)
    on_paint(box, fill=colour)


def _draw_view(rng: np.random.Generator) -> np.ndarray:
    """An empty street, lawn, square or hall: uint8 [H, W, 3]."""
    image = Image.new("RGB", (_WIDTH, _HEIGHT))
    draw = ImageDraw.Draw(image)
    horizon = int(_HEIGHT * rng.uniform(0.2, 0.35))
    ground = _shade(np.array([1, 0.98, 0.94]), rng.uniform(0.45, 0.75))
    sky = _shade(rng.uniform(0.5, 0.85, 3), 1)
    draw.rectangle((0, 0, _WIDTH, horizon), fill=sky)
    _draw_skyline(draw, horizon, rng)
    draw.rectangle((0, horizon, _WIDTH, _HEIGHT), fill=ground)
    match rng.choice(["street", "lawn", "square", "hall"]):
        case "street":
            _draw_street(draw, ground)
        case "lawn":
            _draw_lawn(draw, horizon, rng)
        case _:
            _draw_tiles(draw, horizon, ground)
    for _ in range(rng.integers(3, 9)):
        _draw_thing(draw, horizon, rng)
    blurred = image.filter(ImageFilter.GaussianBlur(1.2))
    return _roughened(np.asarray(blurred, np.float32), rng)


def _draw_skyline(draw: Draw, horizon: int, rng: np.random.Generator) -> None:
    """Houses with windows, and trees, side by side."""
    left = 0
    while left < _WIDTH:
        wide = int(rng.uniform(30, 140))
        colour = cloth_colour(rng)
        wall = (0.4 * colour + 0.6 * colour.mean()) * 0.6 + 0.2
        top = int(horizon * rng.uniform(-0.6, 0.5))
        draw.rectangle((left, top, left + wide, horizon + 8), fill=_shade(wall, 1))
        if rng.random() < 0.6:
            _draw_windows(draw, left, wide, top, horizon, wall, rng)
        elif rng.random() < 0.6:
            for _ in range(60):
                x, y = rng.uniform(left, left + wide), rng.uniform(0, horizon)
                radius = rng.uniform(4, 16)
                box = (x - radius, y - radius, x + radius, y + radius)
                draw.ellipse(box, fill=_leaf(rng))
        left += wide


def _draw_windows(
    draw: Draw,
    left: int,
    wide: int,
    top: int,
    horizon: int,
    wall: np.ndarray,
    rng: np.random.Generator,
) -> None:
    step_x, step_y = int(rng.uniform(12, 34)), int(rng.uniform(14, 40))
    glass = wall * rng.uniform(0.45, 0.8)
    for x in range(left + 5, left + wide - 8, step_x):
        for y in range(max(top, 0) + 5, horizon - 5, step_y):
            box = (x, y, x + step_x // 2, y + int(0.6 * step_y))
            draw.rectangle(box, fill=_shade(glass, rng.uniform(0.85, 1.1)))


def _draw_street(draw: Draw, ground: Colour) -> None:
    h, w = _HEIGHT, _WIDTH
    road = [(0, int(0.55 * h)), (w, int(0.4 * h)), (w, int(0.7 * h)), (0, h)]
    draw.polygon(road, fill=_shade(np.array(ground) / 255, 0.6))
    draw.line([(0, int(0.8 * h)), (w, int(0.55 * h))], fill=(225, 225, 215), width=4)


def _draw_lawn(draw: Draw, horizon: int, rng: np.random.Generator) -> None:
    right = horizon + int(_HEIGHT * rng.uniform(0.15, 0.4))
    left = horizon + int(_HEIGHT * rng.uniform(0.1, 0.4))
    grass = _shade(rng.uniform((0.25, 0.33, 0.17), (0.42, 0.5, 0.3)), 1)
    draw.polygon([(0, horizon), (_WIDTH, horizon), (_WIDTH, right), (0, left)], fill=grass)


def _draw_tiles(draw: Draw, horizon: int, ground: Colour) -> None:
    joint = _shade(np.array(ground) / 255, 0.83)
    for i in range(-40, 50):
        far, near = _WIDTH / 2 + 8 * i, _WIDTH / 2 + 55 * i
        draw.line([(far, horizon), (near, _HEIGHT)], fill=joint)
    y, step = float(horizon), 3.0
    while y < _HEIGHT:
        draw.line([(0, y), (_WIDTH, y)], fill=joint)
        y, step = y + step, step * 1.12


def _draw_thing(draw: Draw, horizon: int, rng: np.random.Generator) -> None:
    """A post, a shrub, a car or a bicycle somewhere on the ground; larger when nearer."""
    x, depth = rng.uniform(0, _WIDTH), rng.uniform(0, 0.5)
    y, scale = horizon + depth * (_HEIGHT - horizon), 0.4 + 1.2 * depth
    colour = _shade(cloth_colour(rng), 0.8)
    match rng.choice(["post", "shrub", "car", "bicycle"]):
        case "post":
            draw.rectangle((x, y - 150 * scale, x + 7 * scale, y), fill=colour)
        case "shrub":
            draw.ellipse((x - 50 * scale, y - 60 * scale, x + 50 * scale, y + 10), fill=_leaf(rng))
        case "car":
            draw.rounded_rectangle((x, y - 50 * scale, x + 140 * scale, y), 10, fill=colour)
            draw.ellipse((x + 10, y - 14, x + 36, y + 12), fill=(20, 20, 20))
        case "bicycle":
            for wheel in (x, x + 55 * scale):
                box = (wheel, y - 45 * scale, wheel + 45 * scale, y)
                draw.ellipse(box, outline=colour, width=3)
            frame = [(20, 20), (40, 60), (78, 22)]
            draw.line([(x + a * scale, y - b * scale) for a, b in frame], fill=colour, width=3)


def _roughened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the texture of ground and walls to float32 [H, W, 3]; returns uint8."""
    h, w = image.shape[:2]
    fine = rng.normal(0, 4, (h, w))
    middle = rng.normal(0, 6, (h // 2 + 1, w // 2 + 1)).repeat(2, 0).repeat(2, 1)[:h, :w]
    field = Image.fromarray(rng.normal(0, 13, (14, 24)).astype(np.float32))
    coarse = np.asarray(field.resize((w, h), Image.Resampling.BICUBIC))
    return np.clip(image + (fine + middle + coarse)[..., None], 0, 255).astype(np.uint8)


def _leaf(rng: np.random.Generator) -> Colour:
    return _shade(rng.uniform((0.1, 0.22, 0.05), (0.33, 0.48, 0.22)), 1)


def _shade(colour: np.ndarray, brightness: float) -> Colour:
    """A colour in [0, 1] as Pillow takes it."""
    red, green, blue = np.clip(255 * np.asarray(colour) * brightness, 0, 255).astype(int)
    return int(red), int(green), int(blue)


def _lighter(colour: Colour) -> Colour:
    return _shade(np.array(colour) / 255 * 0.75 + 0.25, 1)
