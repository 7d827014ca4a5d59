"""One synthetic image and its exact IUV map: pose, camera, visibility, light, lens."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from dsareid.ground import _core
from dsareid.synth.body import BodyLayer, load_body
from dsareid.synth.chart import Places, locate, to_charts
from dsareid.synth.config import Difficulty
from dsareid.synth.paint import find_spots, paint
from dsareid.synth.person import Dressed
from dsareid.synth.pose import bone_transforms, random_pose, rotation
from dsareid.synth.scene import Camera, random_backdrop, random_occluder

SUPERSAMPLING = 2  # colours are taken at 2 x 2 places in each pixel; IUV at its centre


@dataclass(frozen=True)
class Posed:
    """A dressed person in a pose, in metres, before projection."""

    dressed: Dressed
    points: np.ndarray  # float32 [P, 3]
    normals: np.ndarray  # float32 [P, 3], not of unit length


@dataclass(frozen=True)
class Projection:
    """A posed person before a camera, in units of the image plane at distance 1."""

    points: np.ndarray  # float32 [P, 3]: right, down, depth in metres
    rotation: np.ndarray  # [3, 3]: world to camera (right, into the scene, up)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the person."""
        low, high = self.points.min(0), self.points.max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@dataclass(frozen=True)
class PersonBox:
    """The part of the image plane that the image shows."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Hits:
    """The n samples of a grid that a person covers."""

    sample: np.ndarray  # int64 [n]: row * width + column in the grid
    face: np.ndarray  # int32 [n]
    corners: np.ndarray  # int32 [n, 3]: the face's points
    weights: np.ndarray  # float32 [n, 3]: their shares, adding up to 1

    def interpolate(self, values: np.ndarray) -> np.ndarray:
        """float32 [n, k] at the samples of values [P, k] at the points."""
        return np.einsum("nc,nck->nk", self.weights, values[self.corners])


def render(
    dressed: Dressed,
    camera: Camera,
    difficulty: Difficulty,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Image.Image, np.ndarray]:
    """A random image of a person, seen by a camera.

    Args:
        size: height and width of the image, pixels.

    Returns:
        The image, and its exact IUV map, uint8 [height, width, 3] in the order I, U, V.
    """
    height, width = size
    posed = put_in_pose(dressed, random_pose(load_body(), dressed.joints, rng))
    projection = project(
        posed,
        azimuth=rng.uniform(0, 2 * np.pi),
        elevation=camera.elevation + rng.normal(0, 0.03),
        roll=rng.normal(0, 0.02),
        distance=rng.uniform(5, 11),
    )
    extent = projection.extent
    box = random_box(extent, width / height, difficulty, rng)
    fine = SUPERSAMPLING * height, SUPERSAMPLING * width
    coloured = trace_rays(projection, dressed.faces, box, *fine)
    colours = light_up(posed, projection, coloured, camera, rng)
    picture = random_backdrop(camera, height, width, rng)
    picture = _cast_shadow(picture, extent, box)
    picture = _blend(picture, coloured.sample, colours)
    iuv = iuv_map(dressed, trace_rays(projection, dressed.faces, box, height, width), height, width)
    if rng.random() < difficulty.occluder_rate:
        before, covered = random_occluder(height, width, rng)
        picture += (before - picture) * covered[..., None]
        iuv[covered > 0.5] = 0
    return _photograph(picture, camera, rng), iuv


def put_in_pose(dressed: Dressed, pose: dict[str, np.ndarray]) -> Posed:
    """Bring a dressed person into a pose (rotations [3, 3] by bone name)."""
    transforms = bone_transforms(load_body(), dressed.joints, pose)
    return Posed(dressed, *dressed.skin.move(transforms, dressed.points, dressed.normals))


def project(posed: Posed, azimuth: float, elevation: float, roll: float, distance: float) -> Projection:
    """Look at a posed person from a distance in metres; angles in radians.

    At azimuth 0 the person faces the camera; at pi / 2 it sees their left side, at pi their back.
    """
    towards = rotation([1, 0, 0], elevation) @ rotation([0, 0, 1], -azimuth)
    turn = (rotation([0, 1, 0], roll) @ towards).astype(np.float32)
    centre = (posed.points.max(0) + posed.points.min(0)) / 2
    seen = np.einsum("pj,ij->pi", posed.points - centre, turn)
    depth = seen[:, 1] + np.float32(distance)
    return Projection(np.stack([seen[:, 0] / depth, -seen[:, 2] / depth, depth], 1), turn)


def random_box(
    extent: tuple[float, float, float, float],
    aspect: float,
    difficulty: Difficulty,
    rng: np.random.Generator,
) -> PersonBox:
    """The box that a detector draws around a person: never exactly right.

    extent: left, top, right, bottom of the person; aspect: the image's width / height.
    """
    left, top, right, bottom = extent
    tall = bottom - top
    above, below = rng.uniform(*difficulty.margin, 2)
    loose, legs, head = rng.random(3)
    if loose < difficulty.loose_rate:
        above, below = above + rng.uniform(0.05, 0.2), below + rng.uniform(0.05, 0.2)
    if legs < difficulty.cut_legs_rate:
        below = -rng.uniform(0.12, 0.4)
    elif head < difficulty.cut_head_rate:
        above = -rng.uniform(0.08, 0.16)
    height = tall * (1 + above + below)
    width = height * aspect * rng.uniform(*difficulty.aspect)
    width = max(width, (right - left) * rng.uniform(0.97, 1.1))
    middle = (left + right) / 2 + width * rng.normal(0, 1) * difficulty.shift
    return PersonBox(middle - width / 2, top - above * tall, width, height)


def trace_rays(projection: Projection, faces: np.ndarray, box: PersonBox, height: int, width: int) -> Hits:
    """Find what is seen at the centres of a grid of height x width samples over a box."""
    points = projection.points.copy()
    points[:, 0] = (points[:, 0] - box.left) * (width / box.width)
    points[:, 1] = (points[:, 1] - box.top) * (height / box.height)
    face, weights = _core.rasterize(points, faces, height, width)
    sample = np.flatnonzero(face.ravel() >= 0)
    face = face.ravel()[sample]
    return Hits(sample, face, faces[face], weights.reshape(-1, 3)[sample])


def places_of(dressed: Dressed, hits: Hits, position: np.ndarray) -> Places:
    """Where on the body the samples lie; position [n, 3] on the canonical body."""
    group = dressed.face_group[hits.face]
    border = np.flatnonzero(group < 0)
    scores = dressed.group_scores[hits.corners[border]]
    group[border] = np.einsum("nc,ncg->ng", hits.weights[border], scores).argmax(1)
    rows = dressed.cylinders[hits.corners, group[:, None]]
    return locate(np.einsum("nc,nck->nk", hits.weights, rows), group, position[:, 0])


def iuv_map(dressed: Dressed, hits: Hits, height: int, width: int) -> np.ndarray:
    """The exact IUV map, uint8 [height, width, 3], of the samples that a person covers."""
    position = hits.interpolate(dressed.canonical)
    part, u, v = to_charts(places_of(dressed, hits, position))
    iuv = np.zeros((height * width, 3), np.uint8)
    iuv[hits.sample, 0] = part
    iuv[hits.sample, 1] = np.rint(255 * np.clip(u, 0, 1))
    iuv[hits.sample, 2] = np.rint(255 * np.clip(v, 0, 1))
    return iuv.reshape(height, width, 3)


def light_up(
    posed: Posed, projection: Projection, hits: Hits, camera: Camera, rng: np.random.Generator
) -> np.ndarray:
    """Colours of the samples in a camera's light, before its lens: float32 [n, 3] in [0, 1]."""
    dressed = posed.dressed
    position = hits.interpolate(dressed.canonical)
    places = places_of(dressed, hits, position)
    layer = dressed.face_layer[hits.face]
    spots = find_spots(dressed.person.clothes, layer, places, position)
    colours = paint(dressed.person, spots)
    normal = np.einsum("ni,ji->nj", hits.interpolate(posed.normals), projection.rotation)
    normal /= np.sqrt(np.einsum("ni,ni->n", normal, normal) + np.float32(1e-9))[:, None]
    from_inside = normal[:, 1:2] > 0  # of a skirt or of hair
    normal *= np.where(from_inside, np.float32(-1), np.float32(1))
    lit = np.clip(np.einsum("ni,i->n", normal, camera.light.astype(np.float32)), 0, 1)
    from_above = 0.62 + 0.38 * (0.5 + 0.5 * normal[:, 2])
    is_cloth = (layer == BodyLayer.SUIT) | (layer == BodyLayer.SKIRT)
    folds = _folds(position, rng) * np.where(is_cloth, np.float32(0.03), np.float32(0.008))
    light = camera.ambient * from_above + camera.directed * lit + folds
    return np.clip(colours * light[:, None], 0, 1).astype(np.float32)


def _folds(position: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Waves over the body that look like creased cloth, float32 [n] of amplitude about 1."""
    folds = np.zeros(len(position), np.float32)
    for _ in range(4):
        wave = (rng.normal(0, 1, 3) * (18, 18, 34)).astype(np.float32)
        folds += np.sin(np.einsum("ni,i->n", position, wave) + np.float32(rng.uniform(0, 6.28)))
    return folds


def _cast_shadow(picture: np.ndarray, extent: tuple, box: PersonBox) -> np.ndarray:
    """Darken the ground [H, W, 3] under the feet of a person."""
    height, width = picture.shape[:2]
    left, _, right, bottom = extent
    x = ((left + right) / 2 - box.left) / box.width
    y = (bottom - box.top) / box.height - 0.02
    columns = (np.arange(width, dtype=np.float32) + 0.5) / width
    rows = (np.arange(height, dtype=np.float32) + 0.5) / height
    dark = np.exp(-(((rows - y) / 0.035) ** 2))[:, None] * np.exp(-(((columns - x) / 0.3) ** 2))
    return picture * (1 - 0.45 * dark.astype(np.float32))[..., None]


def _blend(picture: np.ndarray, sample: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Draw the person's samples, which are of a finer grid, over a picture [H, W, 3]."""
    height, width = picture.shape[:2]
    s = SUPERSAMPLING
    fine = np.zeros((height * s * width * s, 4), np.float32)
    fine[sample, :3] = colours
    fine[sample, 3] = 1
    fine = fine.reshape(height, s, width, s, 4)
    person = np.zeros((height, width, 4), np.float32)
    for row, column in np.ndindex(s, s):
        person += fine[:, row, :, column]
    person /= np.float32(s * s)
    return person[..., :3] + picture * (1 - person[..., 3:])


def _photograph(picture: np.ndarray, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Apply a camera to a scene [H, W, 3]: its colours, a soft lens, a noisy sensor."""
    height, width = picture.shape[:2]
    picture = np.clip(picture * camera.cast.astype(np.float32), 0, 1)
    image = Image.fromarray((255 * picture).astype(np.uint8))
    sharpness = camera.sharpness * rng.uniform(0.8, 1.1)
    if sharpness < 1:
        low = (max(8, int(width * sharpness)), max(8, int(height * sharpness)))
        image = image.resize(low, Image.Resampling.BILINEAR)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    image = image.filter(ImageFilter.GaussianBlur(camera.blur * height / 256))
    noisy = np.asarray(image, np.float32) + rng.normal(0, 3, (height, width, 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
