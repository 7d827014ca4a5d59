"""`dsareid export`: the MF-Stream of a run as one file.

    .safetensors   the weights that inference uses, float32, for load_embedder
    .onnx          a graph for onnxruntime and its like: input `image`, output `features`
    .pt2           a graph for torch.export.load, of the same signature

All three hold their settings (embedder.Settings) as JSON under the name "dsareid": in the metadata,
the metadata_props, and the extra_files. Images are uint8 (B, H, W, 3) RGB of the network's size, B any
number; they are normalised inside. Features are float32 (B, D), [f_G, f_L], each half L2-normalised.
"""

import contextlib
import copy
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save

from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path
from dsareid.inference.embedder import (
    METADATA,
    Embedder,
    Network,
    Precision,
    Settings,
    inference_model,
    load_embedder,
    on_images,
    weights_of,
)
from dsareid.runs.folder import load_run

_BATCHES = (1, 3, 8)  # sizes at which a file is compared with its run
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of a feature; its half has length 1


class Exported(NamedTuple):
    """A file that was written."""

    model: str  # the identity
    deviation: float  # largest difference of a feature from the run's
    cosine: float  # smallest cosine similarity of an image's features with the run's


def export(run: str | os.PathLike, out: str | os.PathLike, precision: Precision = "float32") -> Exported:
    """Write the MF-Stream of a run; the suffix of `out` says in which form.

    The file is loaded again and compared with the run on random images before it gets its name.

    Args:
        run: the run's folder.
        out: a .safetensors, .onnx or .pt2 file.
        precision: what the network computes in. bfloat16, of .pt2 alone, is two to three times as fast on
            processors with instructions for it, and its features are of the same model.

    Raises:
        DSAError: no run, one without an MF-Stream, an unknown suffix, a package that is missing, a file that
            cannot be written or whose features differ from the run's.
    """
    run, out = Path(run), Path(out)
    writers = {".safetensors": _write_safetensors, ".onnx": _write_onnx, ".pt2": _write_pt2}
    if out.suffix not in writers:
        raise DSAError(f"{out}: the name must end in .safetensors, .onnx or .pt2, not {out.suffix!r}")
    if precision != "float32" and out.suffix != ".pt2":
        raise DSAError(f"--precision {precision} goes with .pt2 alone; {out.suffix} is written in float32")
    settings, model = inference_model(load_run(run, "cpu"), run)
    own = Embedder(run, settings, torch.device("cpu"), on_images(model))
    network = on_images(copy.deepcopy(model), precision)
    settings = settings.model_copy(update={"precision": precision})
    with atomic_path(out) as temporary:
        writers[out.suffix](network, settings, temporary)
        deviation, cosine = _compare(own, load_embedder(temporary, "cpu"))
        if not deviation <= _TOLERANCE[precision]:
            raise DSAError(
                f"{out}: not written: its features differ from those of {run} by {deviation:.2g}, more than "
                f"{_TOLERANCE[precision]:g}"
            )
    return Exported(settings.model, deviation, cosine)


def _write_safetensors(network: Network, settings: Settings, path: Path) -> None:
    weights = {name: weight.contiguous() for name, weight in weights_of(network.model).items()}
    path.write_bytes(save(weights, {METADATA: settings.model_dump_json()}))


def _write_onnx(network: Network, settings: Settings, path: Path) -> None:
    try:
        import onnxruntime  # noqa: F401  the file is compared by it
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DSAError(f".onnx: {error.name} is missing: pip install dsareid[onnx]") from error
    with _quiet():
        program = torch.onnx.export(
            _program(network, settings),
            input_names=["image"],
            output_names=["features"],
            dynamo=True,
            verbose=False,
            external_data=False,
        )
    model, text = program.model, settings.model_dump_json()
    model.metadata_props[METADATA] = text
    model.doc_string = model.graph.doc_string = (
        f"The MF-Stream of DSA-reID. image: {settings.image}. features: {settings.features}."
    )
    for node in model.graph.all_nodes():  # which line of our sources a node comes from: not for others
        node.metadata_props.clear()
    program.save(path)


def _write_pt2(network: Network, settings: Settings, path: Path) -> None:
    program = _program(network, settings)
    program._example_inputs = None  # else they are stored, as a pickle
    content = io.BytesIO()  # of a file the archive would hold the temporary name
    with _quiet():
        torch.export.save(program, content, extra_files={METADATA: settings.model_dump_json()})
    path.write_bytes(content.getbuffer())


def _program(network: Network, settings: Settings) -> torch.export.ExportedProgram:
    """The network as a graph, for any number of images."""
    network = network.to(memory_format=torch.channels_last)
    image = torch.zeros(2, settings.height, settings.width, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.export.export(network, (image,), dynamic_shapes=({0: batch},))
    for module in program.graph_module.modules():
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
                node.meta.pop(name, None)  # which line of our sources it comes from: not for others
    return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch tells its own developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _compare(own: Embedder, other: Embedder) -> tuple[float, float]:
    """Largest difference and smallest cosine similarity of the features of random images."""
    generator = torch.Generator().manual_seed(0)
    deviation, cosine = 0.0, 1.0
    for batch in _BATCHES:
        shape = (batch, own.settings.height, own.settings.width, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        expected, found = own(images), other(images)
        deviation = max(deviation, float((found - expected).abs().max()))
        cosine = min(cosine, float(torch.cosine_similarity(found, expected).min()))
    return deviation, cosine
