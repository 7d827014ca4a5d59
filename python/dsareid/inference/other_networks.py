"""Other people's networks as embedders: an ONNX file, or a model of timm or torchvision by its name.

Such a network does not say how its input is made, so its user states it (settings.Facts): height and width,
mean and standard deviation, the order of axes and of channels. What is not stated is taken from the file, or
from timm; the rest is usual (NCHW, RGB, ImageNet's mean and standard deviation), and said in a warning.
Features are L2-normalised, so that Euclidean distances order them as cosines do.
"""

import difflib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dsareid.ground.distributed import choose_device
from dsareid.ground.errors import DSAError, first_line, logger
from dsareid.inference.formats.base import LoadedModel
from dsareid.inference.settings import Facts, OtherSettings
from dsareid.models.options import MEAN, STD
from dsareid.models.trunks import ANY_SIZE, import_timm
from dsareid.runs.weights import read_timm_weights

LIBRARIES = ("timm", "torchvision")
_ELSEWHERE = b"\n\x08location\x12"  # how ONNX says where a tensor's data lies outside of the file
Compute = Callable[[Tensor], Tensor]
"""float32 (B, 3, H, W) or (B, H, W, 3), as the network takes it -> its output."""


def library_of(model: str) -> str | None:
    """The library in a name such as timm:resnet50; None for a path."""
    library, colon, _ = model.partition(":")
    return library if colon and library in LIBRARIES else None


def load_session(path: Path, session: Any, facts: Facts) -> LoadedModel:
    """An ONNX file of somebody else, which formats.onnx.open_session has opened.

    Raises:
        DSAError: it takes or gives something else than images and features, or its size is neither stated nor
            in the file.
    """
    if facts.weights:
        raise DSAError(f"`weights`: {path} has its own")
    if len(inputs := session.get_inputs()) != 1 or len(inputs[0].shape or ()) != 4:
        found = ", ".join(f"{x.name} {x.type} {x.shape}" for x in inputs)
        raise DSAError(f"{path}: expected one input of images, 4 axes, not {found}")
    (image,) = inputs
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    if image.type not in types:
        raise DSAError(f"{path}: its input must be float32 or float16, not {image.type}")
    output = _output(path, session, facts)
    facts = _with_size_of(path, facts, image.shape)
    batch = image.shape[0] if isinstance(image.shape[0], int) else None

    def compute(images: Tensor) -> Tensor:
        given = images.cpu().numpy().astype(types[image.type])
        step, found = batch or len(given), []
        for start in range(0, len(given), step):
            part = given[start : start + step]
            rest = np.zeros((step - len(part), *part.shape[1:]), part.dtype)  # a batch of a fixed size
            result = session.run([output], {image.name: np.concatenate([part, rest])})[0]
            found.append(torch.from_numpy(result[: len(part)] if batch else result).float())
        return torch.cat(found)

    content = path.read_bytes()
    if _ELSEWHERE in content:
        raise DSAError(
            f"{path}: its weights lie in another file, so alone it does not say which network it is: make "
            "one file of both, onnx.save(onnx.load(FILE), ONE)"
        )
    digest = hashlib.sha256(content)
    cpu = torch.device("cpu")  # onnxruntime moves images itself
    return _loaded(str(path), path.name, digest, _usual(str(path), facts), cpu, compute)


def load_by_name(model: str, device: str, facts: Facts) -> LoadedModel:
    """Load a model of timm or torchvision by its name; its classifier is taken off.

    Raises:
        DSAError: the library is missing or has no such model, its weights cannot be had, or its size is
            neither stated nor known.
    """
    library, _, name = model.partition(":")
    if facts.output:
        raise DSAError(f"`output`: {model} has one output")
    network, facts = (_timm if library == "timm" else _torchvision)(name, facts)
    target = choose_device(device)
    network = network.eval().requires_grad_(False).to(target)
    digest = hashlib.sha256(model.encode())
    for key, weight in sorted(network.state_dict().items()):
        digest.update(f"{key} {list(weight.shape)}".encode() + weight.cpu().numpy().tobytes())
    return _loaded(model, model, digest, _usual(model, facts), target, network)


# ---- ONNX ----


def _output(path: Path, session: Any, facts: Facts) -> str:
    """The name of the output that holds the features."""
    names = [output.name for output in session.get_outputs()]
    if facts.output is None and len(names) > 1:
        raise DSAError(f"{path} has {len(names)} outputs: name the features', `output={names[0]}` or another")
    if facts.output is not None and facts.output not in names:
        raise DSAError(f"`output={facts.output}`: {path} has no such output; it has {', '.join(names)}")
    return facts.output or names[0]


def _with_size_of(path: Path, facts: Facts, shape: list[Any]) -> Facts:
    """The facts with the layout and size of an input of this shape, whose free axes are no numbers."""
    layout = facts.layout or ("NHWC" if shape[3] == 3 and shape[1] != 3 else "NCHW")
    channels = shape[layout.index("C")]
    height, width = (shape[layout.index(axis)] for axis in "HW")
    for axis, stated, found in (("height", facts.height, height), ("width", facts.width, width)):
        if isinstance(found, int) and stated not in (None, found):
            raise DSAError(f"{path} takes images of {axis} {found}, not {stated}: its input is {shape}")
    if isinstance(channels, int) and channels != 3:
        raise DSAError(f"{path}: expected 3 channels in layout {layout}, but its input is {shape}")
    size = (found if isinstance(found, int) else None for found in (height, width))
    known = {"layout": layout, "height": facts.height, "width": facts.width}
    known |= {axis: known[axis] or found for axis, found in zip(("height", "width"), size)}
    return facts.model_copy(update=known)


# ---- networks by name ----


def _timm(name: str, facts: Facts) -> tuple[nn.Module, Facts]:
    timm = import_timm()
    _check_name("timm", name, timm.list_models())
    with torch.device("meta"):
        expected = timm.create_model(name, num_classes=0).state_dict()
        classifier = timm.create_model(name).state_dict().keys() - expected.keys()
    network = _first_that_works(lambda size: _fetch(timm.create_model, name, facts, num_classes=0, **size))
    _fill(network, facts, expected, classifier)
    known = getattr(network, "pretrained_cfg", {})
    size = known.get("input_size", (3, None, None))
    own = {"height": size[1], "width": size[2], "mean": known.get("mean"), "std": known.get("std")}
    return network, facts.model_copy(update={k: v for k, v in own.items() if getattr(facts, k) is None})


def _torchvision(name: str, facts: Facts) -> tuple[nn.Module, Facts]:
    try:
        from torchvision import models
    except ImportError as error:
        raise DSAError(f"torchvision:{name} needs torchvision: pip install torchvision ({error})") from error
    _check_name("torchvision", name, models.list_models(module=models))
    network = _fetch(models.get_model, name, facts)
    layers = [key for key, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise DSAError(f"torchvision:{name}: has no linear layer to take off as its classifier")
    network.set_submodule(layers[-1], nn.Identity())
    classifier = {f"{layers[-1]}.weight", f"{layers[-1]}.bias"}
    _fill(network, facts, network.state_dict(), classifier)
    return network, facts


def _check_name(library: str, name: str, known: list[str]) -> None:
    if name not in known:
        close = ", ".join(difflib.get_close_matches(name, known, 3))
        raise DSAError(f"{library} has no model {name!r}{f'; similar: {close}' if close else ''}")


def _first_that_works(create: Callable[[dict[str, bool]], nn.Module]) -> nn.Module:
    """What is created with the first of timm's options for images of any size that the model knows."""
    for size in ANY_SIZE[:-1]:
        try:
            return create(size)
        except TypeError:  # it does not know the option
            continue
    return create(ANY_SIZE[-1])


def _fetch(create: Callable[..., nn.Module], name: str, facts: Facts, **options: Any) -> nn.Module:
    """A network, with its library's own weights unless a file is stated."""
    own: dict[str, Any] = {} if facts.weights else {"pretrained": True}
    if create.__name__ == "get_model":  # torchvision's
        own = {} if facts.weights else {"weights": "DEFAULT"}
    try:
        return create(name, **own, **options)
    except TypeError:
        raise
    except Exception as error:  # whatever a download raises
        raise DSAError(
            f"the weights of {name} cannot be fetched ({first_line(error)}): copy them from elsewhere and "
            "give `weights=FILE`"
        ) from error


def _fill(network: nn.Module, facts: Facts, expected: dict[str, Tensor], classifier: set[str]) -> None:
    """Fill a network from the stated file, if one is; all its tensors must be in it."""
    if not facts.weights:
        return
    state = read_timm_weights(Path(facts.weights), expected, classifier)
    counters = {k for k in expected if k.endswith("num_batches_tracked")}
    if missing := [key for key in expected if key not in state and key not in counters]:
        raise DSAError(
            f"`weights={facts.weights}`: {len(missing)} of {len(expected)} tensors are missing, the first "
            f"{missing[0]}"
        )
    network.load_state_dict(state, strict=False)  # not strict: a file may lack the counters


# ---- both ----


def _usual(name: str, facts: Facts) -> Facts:
    """The facts with what is usual where nothing is known; DSAError without a size."""
    if facts.height is None or facts.width is None:
        raise DSAError(f"{name} does not say how large its images are: state `input=HEIGHTxWIDTH`")
    guessed = {"mean": MEAN, "std": STD, "layout": "NCHW", "channels": "RGB"}
    guessed = {k: v for k, v in guessed.items() if getattr(facts, k) is None}
    if not_said := [k for k in ("mean", "std") if k in guessed]:
        logger.warning(f"{name}: {' and '.join(not_said)} not stated: ImageNet's are taken")
    return facts.model_copy(update=guessed)


def _loaded(
    name: str, source: str, digest: Any, facts: Facts, device: torch.device, compute: Compute
) -> LoadedModel:
    """The network behind its preparation, tried on two images.

    Raises:
        DSAError: it does not take such images, or does not give a feature for each.
    """
    assert facts.height and facts.width and facts.mean and facts.std
    mean, std = (torch.tensor(x, device=device) for x in (facts.mean, facts.std))

    def features(images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) RGB -> float32 (B, D), of norm 1."""
        x = (images.float() / 255 - mean) / std
        x = x.flip(3) if facts.channels == "BGR" else x
        x = x.permute(0, 3, 1, 2) if facts.layout == "NCHW" else x
        found = compute(x.contiguous()).float()
        if found.ndim == 4 and found.shape[2:] == (1, 1):
            found = found.flatten(1)
        if found.ndim != 2 or len(found) != len(images):
            shape = list(found.shape)
            raise DSAError(f"{name}: expected features (B, D) of {len(images)} images, not {shape}")
        if not (norms := found.norm(dim=1, keepdim=True)).isfinite().all() or not norms.all():
            raise DSAError(f"{name}: a feature that is zero or not finite: are mean and std right?")
        return found / norms

    shape = (2, facts.height, facts.width, 3)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            dimension = features(image.to(device)).shape[1]
    except DSAError:
        raise
    except Exception as error:  # whatever a network raises
        size = f"{facts.height}x{facts.width}"
        raise DSAError(
            f"{name} does not take {facts.layout} images of {size}: {first_line(error)}"
        ) from error
    digest.update(json.dumps(facts.model_dump(exclude={"weights"}), sort_keys=True).encode())
    settings = OtherSettings(
        model=digest.hexdigest()[:16],
        source=source,
        dimension=dimension,
        height=facts.height,
        width=facts.width,
        facts=facts,
    )
    return LoadedModel(settings, device, features)
