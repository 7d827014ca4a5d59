"""`dsareid export`: the MF-Stream of a run as one file.

    .safetensors   the weights that inference uses, float32, for embed()
    .onnx          a graph for onnxruntime and its like: input `image`, output `features`
    .pt2           a graph for torch.export.load, of the same signature

All three hold their settings (settings.ModelSettings) as JSON under the name "dsareid": in the metadata,
the metadata_props, and the extra_files. Images are uint8 (B, H, W, 3) RGB of the network's size, B any
number; they are normalised inside. Features are float32 (B, D), [f_G, f_L], each half L2-normalised. An ONNX
file may take its images by another convention, as trackers make them.
"""

import copy
import os
from pathlib import Path
from typing import NamedTuple

import torch

from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, check_writable
from dsareid.inference.formats.base import Convention, ExportPrecision, LoadedModel
from dsareid.inference.formats.table import MODEL_FORMATS
from dsareid.inference.network import PixelNetwork, network_by_convention, network_of_run, prepare
from dsareid.inference.settings import ModelSettings
from dsareid.runs.folder import load_run

_BATCHES = (1, 7, 64)  # batch sizes at which a file is compared with its run
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of one number in a feature, whose halves have norm 1

_IMAGE = {
    "torchreid": "float32 (B, 3, height, width) RGB, 0..1, minus mean, divided by std of ImageNet",
    "ultralytics": "float32 (B, 3, height, height) RGB, 0..1, stretched to a square",
}


class Exported(NamedTuple):
    """A file that was written."""

    model: str  # the identity
    deviation: float  # largest difference of a feature from the run's
    cosine: float  # smallest cosine similarity of an image's features with the run's


def export(
    run: str | os.PathLike,
    out: str | os.PathLike,
    precision: ExportPrecision = "float32",
    convention: Convention = "dsareid",
) -> Exported:
    """Write the MF-Stream of a run; the suffix of `out` names the format.

    The file is loaded again and compared with the run on random images before it gets its name.

    Args:
        run: the run's folder.
        out: a .safetensors, .onnx or .pt2 file.
        precision: the type that the network computes in. bfloat16, for .pt2 only, is two to three times as
            fast on processors with instructions for it; its features can be compared with float32 ones.
        convention: how the graph takes its images, for .onnx only; see formats.base.Convention.

    Raises:
        DSAError: no run, one without an MF-Stream, an unknown suffix, a package that is missing, a file that
            cannot be written or whose features differ from the run's.
    """
    run, out = Path(run), Path(out)
    chosen = MODEL_FORMATS.get(out.suffix)
    if chosen is None:
        *first, last = MODEL_FORMATS
        raise DSAError(f"{out}: the name must end in {', '.join(first)} or {last}, not {out.suffix!r}")
    if precision not in chosen.precisions:
        others = ", ".join(name for name, other in MODEL_FORMATS.items() if precision in other.precisions)
        raise DSAError(
            f'`precision="{precision}"` works with {others or "no format"} only; {out.suffix} is written in '
            f"{', '.join(chosen.precisions)}"
        )
    if convention not in chosen.conventions:
        raise DSAError(f'`convention="{convention}"` works with .onnx only, not with {out.suffix}')
    check_writable(out)
    settings, model = network_of_run(load_run(run, "cpu"), run)
    settings = settings.model_copy(update={"convention": convention})
    original = network_by_convention(model, settings)
    settings = settings.model_copy(
        update={"precision": precision, "image": _IMAGE.get(convention, settings.image)}
    )
    network = network_by_convention(copy.deepcopy(model), settings)
    with atomic_path(out) as temporary:
        chosen.write(network, settings, temporary)
        written = chosen.load(temporary, "cpu")
        deviation, cosine = _compare(original, settings, written)
        if not deviation <= _TOLERANCE[precision]:
            raise DSAError(
                f"{out}: not written: its features differ from those of {run} by {deviation:.2g}, more than "
                f"{_TOLERANCE[precision]:g}"
            )
    return Exported(settings.model, deviation, cosine)


@torch.inference_mode()
def _compare(original: PixelNetwork, settings: ModelSettings, written: LoadedModel) -> tuple[float, float]:
    """Largest difference and smallest cosine similarity of the features of random images."""
    generator = torch.Generator().manual_seed(0)
    deviation, cosine = 0.0, 1.0
    for batch in _BATCHES:
        shape = (batch, settings.height, settings.width, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        expected = original(prepare(images, settings.convention)).float()
        found = written.compute(images).float()
        deviation = max(deviation, float((found - expected).abs().max()))
        cosine = min(cosine, float(torch.cosine_similarity(found, expected).min()))
    return deviation, cosine
