"""The thirds of the queries as pictures: the synthetic body in the parts' colours, nobody's photograph."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsareid.densepose.pictures import part_colours
from dsareid.ground.files import atomic_path
from dsareid.report.plots import COLOURS
from dsareid.synth.body import load_body
from dsareid.synth.person import dress, random_person
from dsareid.synth.pose import upright_pose
from dsareid.synth.render import PersonBox, iuv_map, project, put_in_pose, trace_rays
from studies.real.where import NAMES, TITLES, terciles

SIZE = 256, 128  # rows and columns of a body's picture
SEEN = (6, 12, 24)  # how many parts the bodies of "parts" show
AWAY = (0.0, 0.12, 0.3)  # by how much of its height the box of "offset" is off
BODIES: Mapping[str, Sequence[dict]] = {
    "front": [{"azimuth": np.pi}, {"azimuth": np.pi / 2}, {"azimuth": 0.0}],
    "parts": [{"parts": count} for count in SEEN],
    "offset": [{"away": away} for away in AWAY],
}


def body(azimuth: float = 0.35, parts: int = 24, away: float = 0.0) -> np.ndarray:
    """The body in the colours of its parts, uint8 [256, 128, 3].

    Args:
        azimuth: radians; 0 faces us, pi / 2 shows the left side, pi the back.
        parts: how many of the parts that are seen are shown, the largest first; the others are grey.
        away: by how much of the picture's height the person is too low.
    """
    dressed = dress(random_person(np.random.default_rng(2)))
    posed = put_in_pose(dressed, upright_pose(load_body(), dressed.joints))
    projection = project(posed, azimuth, elevation=0.05, roll=0.0, distance=8.0)
    left, top, right, bottom = projection.extent
    height = (bottom - top) * 1.1
    width = height * SIZE[1] / SIZE[0]
    box = PersonBox((left + right - width) / 2, (top + bottom - height) / 2 - away * height, width, height)
    part = iuv_map(dressed, trace_rays(projection, dressed.faces, box, *SIZE), *SIZE)[..., 0]
    largest = np.argsort(-np.bincount(part.ravel(), minlength=25)[1:], kind="stable") + 1
    colours = part_colours()
    colours[largest[parts:]] = 190
    return colours[part]


def draw(
    facts_of: Mapping[str, Sequence[float | None]], arms: Mapping[str, np.ndarray], base: str, path: Path
) -> None:
    """A row for each fact: under the body of each third what each arm adds to `base` there, in points of mAP.

    Args: as where.table.
    """
    figure = Figure(figsize=(8, 3.2 * len(NAMES)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    cells = figure.subplots(2 * len(NAMES), 3, height_ratios=[2, 1] * len(NAMES))
    shown = [arm for arm in arms if arm != base]
    gains = {
        name: [
            [100 * (arms[arm] - arms[base])[terciles(facts_of[name]) == k].mean() for arm in shown]
            for k in range(3)
        ]
        for name in NAMES
    }
    most = 1.1 * max(0.1, *(abs(x) for thirds in gains.values() for third in thirds for x in third))
    for row, name in enumerate(NAMES):
        for k in range(3):
            picture, bars = cells[2 * row, k], cells[2 * row + 1, k]
            picture.imshow(body(**BODIES[name][k]))
            picture.set_title(TITLES[name][k], fontsize=9)
            picture.set_axis_off()
            bars.barh(shown, gains[name][k], color=COLOURS[: len(shown)])
            bars.axvline(0, color="#444", linewidth=0.8)
            bars.set_xlim(-most, most)
            bars.tick_params(labelsize=8, labelleft=k == 0)
            bars.spines[["top", "right", "left"]].set_visible(False)
    figure.supxlabel(f"mAP more than {base}", fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
