"""CUHK03's MATLAB files in miniature."""

import h5py
import numpy as np

# The shots of each person, by pair of cameras: three persons of pair 1, one of pair 4.
PEOPLE = {
    (1, 1): [1, 2, 6],
    (1, 2): [2, 7],
    (1, 3): [1, 6, 10],
    (4, 1): [3, 9],
}
KINDS = ("labeled", "detected")
CONFIG = "cuhk03_new_protocol_config_{}.mat"


def shot_image(kind, pair, person, shot):
    """uint8 [5, 3, 3], another for each shot."""
    rng = np.random.default_rng([KINDS.index(kind), pair, person, shot])
    return rng.integers(0, 256, (5, 3, 3), dtype=np.uint8)


def write_images(path, people=PEOPLE):
    """As MATLAB writes cells into HDF5: references to arrays whose axes are reversed."""
    with h5py.File(path, "w") as file:
        cells = file.create_group("#refs#")

        def put(value):
            return cells.create_dataset(str(len(cells)), data=value).ref

        for kind in KINDS:
            pairs = file.create_dataset(kind, (1, 5), h5py.ref_dtype)
            for pair in range(1, 6):
                persons = max((p for c, p in people if c == pair), default=0)
                table = np.empty((10, persons), h5py.ref_dtype)
                for shot, person in np.ndindex(10, persons):
                    there = shot + 1 in people[pair, person + 1]
                    image = shot_image(kind, pair, person + 1, shot + 1)
                    table[shot, person] = put(image.T if there else np.zeros(2, np.uint64))
                pairs[0, pair - 1] = cells.create_dataset(f"pair {kind} {pair}", data=table).ref


def config(**changes):
    """The contents of a config; persons (1, 2) and (4, 1) are trained on."""
    cells = [(*person, shot) for person, shots in PEOPLE.items() for shot in shots]
    names = [f"{c}_{p:03d}_{1 if s <= 5 else 2}_{s:02d}.png" for c, p, s in cells]
    labels = [k for k, shots in enumerate(PEOPLE.values(), 1) for _ in shots]
    return {
        "filelist": np.array(names, object)[:, None],
        "labels": np.array(labels, np.uint16)[:, None],
        "camId": np.array([int(name[6]) for name in names], np.uint8)[:, None],
        "train_idx": np.array([4, 5, 9, 10], np.uint16)[:, None],
        "query_idx": np.array([1, 3, 8], np.uint16)[:, None],
        "gallery_idx": np.array([2, 6, 7], np.uint16)[:, None],
    } | {key: np.array(value) if isinstance(value, list) else value for key, value in changes.items()}
