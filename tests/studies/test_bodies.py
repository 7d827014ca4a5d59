"""The bodies that stand for thirds of the queries."""

import numpy as np
from PIL import Image

from dsareid.densepose.pictures import part_colours
from studies.real import bodies, where


def parts_of(picture):
    """Which parts a picture shows, and with how many pixels."""
    counts = {k: int((picture == part_colours()[k]).all(2).sum()) for k in range(1, 25)}
    return {k: count for k, count in counts.items() if count}


def test_bodies_show_what_their_thirds_are():
    shares = []
    for options in bodies.BODIES["front"]:
        found = parts_of(bodies.body(**options))
        front, back = (found.get(part, 0) for part in (where.FRONT, where.BACK))
        shares.append(front / (front + back))
    assert shares[0] < 0.05 < 0.25 < shares[1] < 0.75 < 0.95 < shares[2]
    counts = [len(parts_of(bodies.body(**options))) for options in bodies.BODIES["parts"]]
    assert counts[:2] == list(bodies.SEEN[:2]) and counts[2] > 12
    rows = [np.nonzero(bodies.body(**x)[..., 0] != 224)[0].mean() for x in bodies.BODIES["offset"]]
    assert rows[0] < rows[1] < rows[2]


def test_a_figure_is_drawn(tmp_path):
    draw = np.random.default_rng(0)
    facts_of = {name: draw.random(30).tolist() for name in where.NAMES}
    arms = {"two-branch": draw.random(30), "form": draw.random(30), "control": draw.random(30)}
    bodies.draw(facts_of, arms, "two-branch", tmp_path / "where.png")
    assert Image.open(tmp_path / "where.png").size[0] > 500
