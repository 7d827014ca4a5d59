"""The weights in a TorchScript archive, as torch.jit.save writes it, read without running its program.

The archive's data.pkl is a pickle of a module and the modules in it. It names their classes, which are the
program; each gets a stand-in here that only keeps its attributes. The numbers lie in members of their own.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dsareid.ground.errors import DSAError

STEMS = "backbone.bottom_up.stem.conv1.weight", "backbone.bottom_up.conv_stem.weight"
"""What a model of detectron2 or of DensePoseFnL begins with: names are relative to it."""
MOST_NAMES = 1 << 16
_KINDS = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}


class _Module:
    """Stands for a module of the program."""

    attributes: Any = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _Stored(NamedTuple):
    """Stands for a tensor."""

    storage: Any  # what _Reader.persistent_load returns
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _KINDS:
            return name
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return lambda storage, offset, shape, strides, *_: _Stored(storage, offset, shape, strides)
        if module == "torch.jit._pickle":  # settings, which no weight is
            return lambda *_: None
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise DSAError(f"it names {module}.{name}, which is no module or tensor; nothing in it was run")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_script_weights(path: Path, archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """The weights of the detectron2 model in a TorchScript archive, by detectron2's names.

    Raises:
        DSAError: there is no such model, or its weights have no names (torch.jit.freeze); it names something
            that no TorchScript names.
        Exception: whatever damaged bytes lead pickle, zipfile and torch to raise.
    """
    root, stored = _members(archive)
    try:
        with stored(f"{root}/data.pkl") as file:
            found = _Reader(file, encoding="utf-8").load()
    except DSAError as error:
        raise DSAError(f"{path}: {error}") from error
    named = dict(_tensors_in(found))
    starts = [name.removesuffix(stem) for name in named for stem in STEMS if f".{name}".endswith(f".{stem}")]
    if not starts:
        raise DSAError(
            f"{path}: a TorchScript archive without {STEMS[0]}: it is no model of detectron2, or was frozen, "
            "which takes the names away; give the weights that it was made of (.pkl or .pth)"
        )
    start = min(starts)

    def tensor(each: _Stored) -> Tensor:
        _, kind, key, *_ = each.storage
        with stored(f"{root}/data/{key}") as file:
            numbers = torch.frombuffer(bytearray(file.read()), dtype=_KINDS[kind])
        if math.prod(each.shape) > len(numbers):  # strides of 0 claim any size
            raise ValueError(f"a tensor of {list(each.shape)} on {len(numbers):,} numbers")
        return numbers.as_strided(each.shape, each.strides, each.offset).clone()

    return {name.removeprefix(start): tensor(each) for name, each in named.items() if name.startswith(start)}


def _members(archive: zipfile.ZipFile) -> tuple[str, Any]:
    """The folder of the archive, and a function that opens a member of it that is stored as it is."""
    names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    root = names[0].partition("/")[0]

    def stored(name: str) -> Any:
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed, which torch.jit.save never does")
        return archive.open(name)

    if f"{root}/byteorder" in archive.namelist():
        with stored(f"{root}/byteorder") as file:
            if file.read().strip() != b"little":
                raise ValueError("its numbers are not little-endian")
    return root, stored


def _tensors_in(found: Any) -> Iterator[tuple[str, _Stored]]:
    """Tensors by their attributes' names, joined by points."""
    waiting, count = [("", found)], 0
    while waiting:
        name, each = waiting.pop()
        count += 1
        if count > MOST_NAMES:  # a module inside itself
            raise ValueError(f"more than {MOST_NAMES:,} attributes")
        if isinstance(each, _Stored):
            yield name, each
        elif isinstance(each, _Module) and isinstance(each.attributes, dict):
            start = f"{name}." if name else ""
            waiting += [(f"{start}{key}", value) for key, value in each.attributes.items()]
