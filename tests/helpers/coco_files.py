"""Annotations as DensePose-COCO's files hold them."""

import numpy as np


def run_lengths(mask):
    """COCO's compressed run lengths of a mask [256, 256], column after column, beginning with background."""
    flat = np.concatenate([[False], mask.T.ravel()])
    runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)), [flat.size - 1]])).tolist()
    text = ""
    for k, run in enumerate(runs):
        value, more = run - (runs[k - 2] if k > 2 else 0), True
        while more:
            code, value = value & 31, value >> 5
            more = value != (-1 if code & 16 else 0)
            text += chr((code | 32 * more) + 48)
    return text


def coco(masks=(), **changes):
    """Two people in a.jpg: the first has no points, the second two."""
    person = {
        "image_id": 7,
        "bbox": [10, 20, 51, 102],
        "dp_I": [2.0, 24.0],
        "dp_U": [0.25, 1.0],
        "dp_V": [0.0, 0.5],
        "dp_x": [0.0, 255.0],
        "dp_y": [127.5, 25.5],
        "dp_masks": [{"counts": run_lengths(mask), "size": [256, 256]} for mask in masks] + [[]],
    }
    return {
        "images": [{"id": 7, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 7, "bbox": [0, 0, 1, 1]}, person | changes],
    }
