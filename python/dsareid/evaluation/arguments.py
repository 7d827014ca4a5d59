"""Checks of what the ranking functions are given; every error names the argument."""

import math

import torch
from torch import Tensor


def check_features(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Check both feature matrices; float16 and bfloat16 come back as float32, which is exact.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    named = {"query_features": query, "gallery_features": gallery}
    for name, features in named.items():
        if not isinstance(features, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor, not {type(features).__name__}")
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(
                f"{name} must be [images, dimensions], neither 0, not {list(features.shape)}"
            )
        if not features.is_floating_point():
            raise ValueError(f"{name} must be floating point, not {features.dtype}")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            "gallery_features must have the dimensions of query_features, "
            f"{query.shape[1]}, not {gallery.shape[1]}"
        )
    for attribute in ("dtype", "device"):
        wanted, came = getattr(query, attribute), getattr(gallery, attribute)
        if wanted != came:
            raise ValueError(
                f"gallery_features must have the {attribute} of query_features, "
                f"{wanted}, not {came}"
            )
    return tuple(_finite(name, features.detach()) for name, features in named.items())


def check_distances(distances: Tensor) -> None:
    """Check a matrix of distances, but for NaN.

    Raises:
        ValueError: says what was expected and what came.
    """
    if not isinstance(distances, Tensor):
        raise ValueError(f"distances must be a torch.Tensor, not {type(distances).__name__}")
    if distances.ndim != 2 or 0 in distances.shape:
        raise ValueError(f"distances must be [queries, gallery], neither 0, not {list(distances.shape)}")
    if not distances.is_floating_point():
        raise ValueError(f"distances must be floating point, not {distances.dtype}")


def _finite(name: str, features: Tensor) -> Tensor:
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    # Also small enough for the sum and the product of two norms to be squared and stay finite.
    largest = torch.linalg.vector_norm(features, dim=1).max()
    if not largest < math.sqrt(torch.finfo(features.dtype).max) / 4:
        raise ValueError(f"{name} holds NaN, infinite or too large values")
    return features


def check_labels(name: str, labels: Tensor, count: int, device: torch.device) -> Tensor:
    """Check identities or cameras: integer [count]; returned as int64 on `device`.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    if not isinstance(labels, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, not {type(labels).__name__}")
    if labels.shape != (count,):
        raise ValueError(
            f"{name} must have one label per image, [{count}], not {list(labels.shape)}"
        )
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


def check_rule(average_precision: str) -> None:
    """Check the name of a rule for the average precision.

    Raises:
        ValueError: says which there are and what came.
    """
    if average_precision not in ("hits", "trapezoidal"):
        raise ValueError(
            f'average_precision must be "hits" or "trapezoidal", not {average_precision!r}'
        )
