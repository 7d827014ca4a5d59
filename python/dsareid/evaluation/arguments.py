"""Checks of the ranking functions' arguments; every error names the argument."""

import warnings

import numpy as np
import torch
from torch import Tensor


def feature_tensors(query: Tensor | np.ndarray, gallery: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Both feature matrices, [Q, D] and [G, D], as tensors in the same memory. Their values are not checked.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    one, other = _matrix("query_features", query), _matrix("gallery_features", gallery)
    for name, wanted, came in (
        ("dimensions", one.shape[1], other.shape[1]),
        ("dtype", one.dtype, other.dtype),
        ("device", one.device, other.device),
    ):
        if wanted != came:
            raise ValueError(f"gallery_features must have the {name} of query_features, {wanted}, not {came}")
    return one, other


def _matrix(name: str, features: Tensor | np.ndarray) -> Tensor:
    if isinstance(features, np.ndarray):
        features = _as_tensor(name, features)
    if not isinstance(features, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor or an array, not {type(features).__name__}")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"{name} must be [images, dimensions], at least 1 of each, not {list(features.shape)}"
        )
    if not features.is_floating_point():
        raise ValueError(f"{name} must be floating point, not {features.dtype}")
    return features.detach()


def _as_tensor(name: str, array: np.ndarray) -> Tensor:
    """A tensor in the array's memory, to which nothing here writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        try:
            return torch.from_numpy(array)
        except (TypeError, ValueError) as error:  # a byte order or strides that tensors do not support
            raise ValueError(f"{name} must be an array that torch can read: {error}") from error


def check_finite(name: str, squares: Tensor) -> None:
    """Check features by the squared norm of each row, [N].

    Raises:
        ValueError: names the features and the first row that holds NaN, infinite or too large values.
    """
    # Small enough for the sum and the product of two norms to be squared and stay finite.
    fine = squares < torch.finfo(squares.dtype).max / 16
    if not fine.all():
        row = int((~fine).nonzero()[0])
        raise ValueError(f"{name} holds NaN, infinite or too large values, the first in row {row}")


def check_distances(distances: Tensor) -> None:
    """Check a matrix of distances; NaN is not looked for.

    Raises:
        ValueError: says what was expected and what came.
    """
    if not isinstance(distances, Tensor):
        raise ValueError(f"distances must be a torch.Tensor, not {type(distances).__name__}")
    if distances.ndim != 2 or 0 in distances.shape:
        raise ValueError(
            f"distances must be [queries, gallery], at least 1 of each, not {list(distances.shape)}"
        )
    if not distances.is_floating_point():
        raise ValueError(f"distances must be floating point, not {distances.dtype}")


def check_labels(name: str, labels: Tensor, count: int, device: torch.device) -> Tensor:
    """Check identities or cameras: integer [count]; returned as int64 on `device`.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    if not isinstance(labels, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, not {type(labels).__name__}")
    if labels.shape != (count,):
        raise ValueError(f"{name} must have one label per image, [{count}], not {list(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, not {labels.dtype}")
    return labels.to(device=device, dtype=torch.int64)


def check_positive(name: str, value: int) -> None:
    """Check a count, such as the length of the CMC.

    Raises:
        ValueError: names the argument and what came.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
