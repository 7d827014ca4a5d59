"""Reading a .pt2 file from outside.

torch.export.load was not made for such files: it unpickles what a file marks as a pickle, loads compiled
libraries, imports modules that a pytree names, and evaluates strings as expressions. So the archive is
looked through first, and all that is not on the lists below is refused. What passes is a graph of the listed
operators over plain tensors.
"""

import contextlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from dsareid.ground.errors import DSAError

# Of the network that Network in dsareid.inference.embedder is.
_OPERATORS = {
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_tensor_metadata.default",
        "add.Tensor",
        "batch_norm.default",
        "cat.default",
        "clamp_min.default",
        "conv2d.default",
        "div.Tensor",
        "expand_as.default",
        "flatten.using_ints",
        "linalg_vector_norm.default",
        "max_pool2d.default",
        "mean.dim",
        "permute.default",
        "relu.default",
        "relu_.default",
        "stack.default",
        "sub.Tensor",
        "to.dtype",
        "unbind.int",
        "unflatten.int",
    )
}
_FILES = re.compile(
    r"[^/]+/(archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|extra/[\w.]+)"
)
_PLAIN = re.compile(r"[\w.+-]*")  # nothing in it can be called, whoever evaluates it
_SYMBOL = re.compile(r"Symbol\('s\d+', positive=True, integer=True\)")  # a size
_LEAF = '{"type": null, "context": null, "children_spec": []}'
_EMPTY = '{"type": "builtins.dict", "context": "[]", "children_spec": []}'
_TUPLE = '{"type": "builtins.tuple", "context": "null", "children_spec": [%s]}'
_SPECS = {"", f"[1, {_LEAF}]", f"[1, {_TUPLE % f'{_TUPLE % _LEAF}, {_EMPTY}'}]"}  # image -> features


def read_pt2(path: Path, extra: str) -> tuple[str | None, torch.export.ExportedProgram]:
    """A program and the text of one of its extra files, None where that is missing.

    Raises:
        DSAError: not a .pt2 file, or one with something else than a graph of our operators and its tensors.
    """
    try:
        content = io.BytesIO(path.read_bytes())  # what is checked is what is loaded
        _check(path, content)
        content.seek(0)
        found = {extra: None}
        with _silent("torch.export"):
            program = torch.export.load(content, extra_files=found)
    except (OSError, DSAError):
        raise
    except Exception as error:  # what torch raises depends on what is in the file
        raise DSAError(f"{path}: not readable as a .pt2 file: {str(error)[:200]}") from error
    return found[extra], program


def _check(path: Path, content: io.BytesIO) -> None:
    """Raise DSAError where an archive holds anything that is not on the lists."""
    if not zipfile.is_zipfile(content):
        raise DSAError(f"{path}: not a .pt2 file: it is no zip archive")
    with zipfile.ZipFile(content) as archive:
        names = [item.filename for item in archive.infolist()]
        for item in archive.infolist():
            if not _FILES.fullmatch(item.filename) or item.compress_type != zipfile.ZIP_STORED:
                raise _refused(path, f"the file {item.filename}")
            if item.filename.endswith("/model.pt") and item.file_size:
                raise _refused(path, "sample inputs, a pickle")
        if len(set(names)) != len(names) or len({name.partition("/")[0] for name in names}) != 1:
            raise _refused(path, "two files of one name")
        if sum(item.file_size for item in archive.infolist()) > content.getbuffer().nbytes:
            raise _refused(path, "files that overlap")
        for name in names:
            if name.endswith(".json"):
                for key, value in _strings(json.loads(archive.read(name))):
                    if not _allowed(key, value):
                        raise _refused(path, f"{key} {value!r:.80}")


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Without what a logger says of an error, beside raising it."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _refused(path: Path, what: str) -> DSAError:
    return DSAError(f"{path}: refused: it holds {what}; dsareid export writes none, and it could do harm")


def _allowed(key: str, value: str | bool) -> bool:
    """Whether a string of a graph, under this key, is one of ours."""
    if key == "use_pickle":
        return value is False
    if key == "target":
        return value in _OPERATORS
    if key == "expr_str":
        return bool(_SYMBOL.fullmatch(value))
    if key in ("in_spec", "out_spec"):
        return value in _SPECS
    return isinstance(value, bool) or bool(_PLAIN.fullmatch(value))


def _strings(found: object, key: str = "") -> Iterator[tuple[str, str | bool]]:
    """Every string and truth value of a JSON document with the key it stands under; keys are strings too."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield "key", name
            yield from _strings(value, name)
    elif isinstance(found, list):
        for value in found:
            yield from _strings(value, key)
    elif isinstance(found, (str, bool)):
        yield key, found
