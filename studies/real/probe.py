"""What f knows of a person's colours: a linear probe, fitted on the people of training, tested on others."""

import numpy as np
import torch
from torch import Tensor

from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.data.store.reader import Split, Store
from dsareid.evaluation.run_features import compute_features
from dsareid.runs.folder import Run
from studies.real.colours import body_parts

RIDGE = 0.01
"""The penalty, as a share of the number of images."""


def probe(run: Run, store: Store, batch_size: int = 64) -> float:
    """How much of the variance of the body parts' mean colours f explains on test people: R squared, the mean
    over eight parts and three channels. 0 is what the mean colour of training explains."""
    train, query, gallery = (store.select(split, iuv=True) for split in (TRAIN, QUERY, GALLERY))
    f = [compute_features(run, split, "mf", batch_size).double() for split in (train, query, gallery)]
    colours, seen = zip(*(_colours(split) for split in (train, query, gallery)))
    return explained(f[0], colours[0], seen[0], torch.cat(f[1:]), torch.cat(colours[1:]), torch.cat(seen[1:]))


def _colours(split: Split) -> tuple[Tensor, Tensor]:
    """Mean colours of the body parts, [N, 8, 3], and which are seen."""
    pixels, iuv = (
        torch.from_numpy(np.stack([x[row] for row in split.rows]))
        for x in (split.store.images, split.store.iuv)
    )
    found = [body_parts(*some) for some in zip(pixels.split(256), iuv.split(256))]
    colours, seen = (torch.cat(x) for x in zip(*found))
    return colours.double(), seen


def explained(
    f: Tensor, colours: Tensor, seen: Tensor, f_test: Tensor, test: Tensor, seen_test: Tensor
) -> float:
    """R squared on the test of ridge regressions from f, one for each part, by the images that show it."""
    mean = f.mean(0)
    scale = f.std(0).clamp(min=1e-6)
    x, x_test = ((y - mean) / scale for y in (f, f_test))
    found = []
    for part in range(colours.shape[1]):
        rows, rows_test = seen[:, part], seen_test[:, part]
        if rows.sum() < 2 or rows_test.sum() < 2:
            continue
        # f of the images that show the part has a mean of its own.
        a, b = x[rows] - x[rows].mean(0), colours[rows, part]
        middle = b.mean(0)
        gram = a.T @ a + RIDGE * len(a) * torch.eye(a.shape[1], dtype=a.dtype)
        weights = torch.linalg.solve(gram, a.T @ (b - middle))
        guess = middle + (x_test[rows_test] - x[rows].mean(0)) @ weights
        left = (test[rows_test, part] - guess).square().mean(0)
        whole = (test[rows_test, part] - middle).square().mean(0)
        found.append((1 - left / whole).mean())
    return float(torch.stack(found).mean())
