"""Files of initial weights: finds torchvision's ResNet-50, or a network of timm, anywhere in a file."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import check_stored

# Keys of a state dict in other programs' files; teacher, student: SOLIDER and TransReID-SSL.
_HOLDERS = ("state_dict", "model", "net", "network", "model_state_dict", "teacher", "student")
_DEEPEST = 2  # levels of nested holders
_FIRST, _INNER = "conv1.weight", "layer1.0.conv1.weight"  # a block has a conv1.weight too, but no _INNER


class _NamedNetwork(NamedTuple):
    """A network in a file."""

    holders: str  # the keys that lead to its state dict, for example "state_dict"; "": the file itself
    prefix: str  # of its names, for example "module."; "": none
    state: Mapping[str, Any]

    def __str__(self) -> str:
        names = f"{self.prefix}{_FIRST}, ..."
        return f"{names} in its {self.holders}" if self.holders else names


def read_weights(path: Path) -> dict[str, Any]:
    """Read a .pth or .safetensors file that holds one ResNet.

    The file is the state dict, or holds it under one of the keys _HOLDERS beside anything else. A prefix of
    the names, such as DataParallel's "module." or "module.encoder_q.", is removed and logged.

    Returns:
        Tensors by torchvision's names, and whatever else has that prefix in the state dict.

    Raises:
        DSAError: the file is missing, damaged, or holds objects that could run code, no ResNet, or
            several.
    """
    content = _load(path)
    dicts = list(_state_dicts(content, "", 0))
    if not dicts:
        kind = type(content).__name__
        raise DSAError(f"`weights={path}`: expected a state dict, names to tensors, not {kind}")
    found = [
        _NamedNetwork(holders, prefix, state)
        for holders, state in dicts
        for prefix in _prefixes(state, _FIRST)
        if prefix + _INNER in state
    ]
    if not found:
        raise DSAError(
            f"`weights={path}`: not the weights of a ResNet-50: no {_FIRST} and {_INNER}, with any "
            f"prefix; {_names(dicts)}"
        )
    if len(found) > 1:
        raise DSAError(
            f"`weights={path}`: several networks ({'; '.join(map(str, found))}); give a file with "
            "only one of them"
        )
    if found[0].prefix or found[0].holders:
        logger.info(f"{path}: the weights are {found[0]}")
    (_, prefix, state) = found[0]
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(prefix)
    }


def read_timm_weights(
    path: Path, expected: Mapping[str, Tensor], classifier: Collection[str]
) -> dict[str, Tensor]:
    """Read a .pth or .safetensors file that holds one network of timm, with timm's or other names.

    Works as read_weights. If a .pth file has none of timm's names, but tensors of the same shapes and last
    names in the same order, as torchvision's files of some networks do, they are matched by order, which is
    logged. (A .safetensors file keeps no order.) With a teacher and a student, the teacher is used.

    Args:
        path: the file.
        expected: the state dict of the network without its classifier, by timm's names; its values may be on
            the meta device.
        classifier: the names of its classifier's tensors, which the file may hold too.

    Returns:
        The file's tensors, by timm's names and in the expected shapes; some may be missing.

    Raises:
        DSAError: as read_weights.
    """
    dicts = list(_state_dicts(_load(path), "", 0))
    found = [
        network
        for holders, state in dicts
        for network in _by_name(path, holders, state, expected, classifier)
    ]
    found = [network for network in found if network.holders.endswith("teacher")] or found
    if not found and path.suffix != ".safetensors":  # which keeps no order
        ordered = [_NamedNetwork(holders, "", _by_order(state, expected)) for holders, state in dicts]
        found = [network for network in ordered if network.state]
        if found:
            logger.info(
                f"{path}: the names are not timm's: tensors are matched by order, in which all shapes fit"
            )
    if len(found) != 1:
        several = "; ".join(f"{x.prefix or 'no prefix'} in {x.holders or 'the file'}" for x in found)
        what = f"several networks ({several})" if found else _names(dicts) if dicts else "no state dict in it"
        raise DSAError(f"`weights={path}`: not the weights of this trunk: {what}")
    if found[0].prefix or found[0].holders:
        logger.info(f"{path}: the weights have the prefix {found[0].prefix!r}, in {found[0].holders or 'it'}")
    return dict(found[0].state)


def _by_name(
    path: Path, holders: str, state: Mapping, expected: Mapping[str, Tensor], classifier: Collection[str]
) -> Iterator[_NamedNetwork]:
    """Find networks in a state dict by timm's names, with any prefix; over half of the names must be there.

    Raises:
        DSAError: a tensor has another shape or kind, or belongs to a deeper network.
    """
    anchor = next(name for name in expected if name.endswith(".weight"))
    stages = {name.split(".")[0] for name in expected}
    for prefix in _prefixes(state, anchor):
        entries = {k.removeprefix(prefix): v for k, v in state.items() if str(k).startswith(prefix)}
        part = {name: value for name, value in entries.items() if name in expected}
        if 2 * len(part) <= len(expected):
            continue
        for name, value in part.items():
            wanted = list(expected[name].shape)
            if not is_plain(value) or list(value.shape) != wanted:
                came = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise DSAError(f"`weights={path}`: {prefix}{name} must be real numbers {wanted}, not {came}")
        unknown = [name for name in entries if name not in expected and name not in classifier]
        if deeper := [name for name in unknown if name.split(".")[0] in stages]:
            raise DSAError(f"`weights={path}`: the weights of another network: this trunk has no {deeper[0]}")
        yield _NamedNetwork(holders, prefix, part)


def is_plain(value: object) -> bool:
    """Whether it is a dense tensor of real numbers, with data: not quantized, not on the meta device."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return not (value.is_complex() or value.is_quantized or value.is_meta)


def _by_order(state: Mapping, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict by the expected names, if all have the same shapes and the same last names
    (weight, bias, running_mean) in the same order, else {}. One or two more may follow: a classifier's."""
    wanted, theirs = (
        [name for name in names if not str(name).endswith("num_batches_tracked")]
        for names in (expected, state)
    )
    if len(theirs) - len(wanted) not in (0, 1, 2):
        return {}
    pairs = list(zip(wanted, theirs))
    same = all(
        is_plain(state[other])
        and state[other].shape == expected[name].shape
        and str(other).rpartition(".")[2] == name.rpartition(".")[2]
        for name, other in pairs
    )
    return {name: state[other] for name, other in pairs} if same else {}


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        check_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DSAError(f"`weights={path}`: no such file") from error
    except DSAError as error:
        raise DSAError(f"`weights`: {error}") from error
    except Exception as error:  # what the unpickler raises depends on what is in the file
        why = "expected a state dict that torch.save or safetensors wrote, with nothing but tensors"
        if refused := re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error)):
            why = (
                f"it holds an object ({refused[1]}) that could run code, so it is not loaded; in a program "
                "that trusts the file, save only its state dict"
            )
        raise DSAError(f"`weights={path}`: not readable as weights: {why}") from error


def _state_dicts(content: object, holders: str, depth: int) -> Iterator[tuple[str, Mapping]]:
    """Each dict that may be the state dict, the outermost first, and the keys that lead to it."""
    if not isinstance(content, dict):
        return
    yield holders, content
    for key in _HOLDERS if depth < _DEEPEST else ():
        yield from _state_dicts(content.get(key), f"{holders}.{key}".removeprefix("."), depth + 1)


def _prefixes(state: Mapping, first: str) -> list[str]:
    """All prefixes with which `first`, the name of a network's first weights, is in a state dict."""
    ends = [name.removesuffix(first) for name in state if isinstance(name, str) and name.endswith(first)]
    return [prefix for prefix in ends if prefix[-1:] in ("", ".")]


def _names(dicts: list[tuple[str, Mapping]]) -> str:
    """What a file holds instead of the network: some names of the dict that has most tensors."""
    holders, state = max(
        dicts, key=lambda found: sum(isinstance(value, Tensor) for value in found[1].values())
    )
    names = [repr(name)[:60] for name in list(state)[:3]]
    more = ", ..." if len(state) > 3 else ""
    where = f"its {holders}" if holders else "it"
    return f"{where} holds {', '.join(names) or 'nothing'}{more}"
