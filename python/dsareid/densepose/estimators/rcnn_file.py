"""Files of weights of DensePose R-CNN, read without running anything in them.

.pkl          of detectron2's zoo: a pickle of NumPy arrays
.pth          of a training with detectron2: torch.save of tensors
.pt           TorchScript of a model of detectron2, such as DensePose-TorchScript's: its program is not run
.safetensors  tensors by the same names
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsareid.densepose.estimators.array_pickle import read_array_pickle
from dsareid.densepose.estimators.script_file import read_script_weights
from dsareid.ground.errors import DSAError, first_line
from dsareid.ground.files import ZIP


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file, by detectron2's names. What the file has beside them is left out.

    Raises:
        DSAError: it holds something else, or is damaged.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(len(ZIP))
    if path.suffix == ".safetensors":
        found = _read_safetensors(path)
    elif head == ZIP:
        found = _read_torch(path)
    else:
        found = read_array_pickle(path)
    return _tensors(path, found)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise DSAError(f"{path}: not readable as a .safetensors file: {error}") from error


def _read_torch(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in member for member in archive.namelist()):
                return read_script_weights(path, archive)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (DSAError, OSError):
        raise
    except Exception as error:  # damaged bytes lead zipfile and torch to raise whatever it may be
        raise DSAError(
            f"{path}: not readable as a file of torch.save or torch.jit.save: {first_line(error)[:200]}"
        ) from error


def _tensors(path: Path, found: Any) -> dict[str, Tensor]:
    """The dictionary of weights in what a file holds: itself, or below "model"."""
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        found = found["model"]
    if not isinstance(found, dict) or not found:
        raise DSAError(f"{path}: it holds no weights by their names")
    weights: dict[str, Tensor] = {}
    for name, value in found.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
        if not isinstance(value, Tensor):
            raise DSAError(f"{path}: {name} is a {type(value).__name__}, not an array")
        weights[str(name)] = value
    return weights
