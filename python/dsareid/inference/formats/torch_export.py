"""MODEL.pt2: a graph for torch.export.load, with the settings in its extra_files.

Such a file can hold pickles, compiled libraries and expressions, which torch.export.load runs: embed() loads
one only with trust=True.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from dsareid.ground.distributed import choose_device
from dsareid.ground.errors import DSAError
from dsareid.inference.formats.base import LoadedModel, ModelFormat
from dsareid.inference.network import PixelNetwork, prepare
from dsareid.inference.settings import METADATA, ModelSettings, parse_settings


def write(network: PixelNetwork, settings: ModelSettings, path: Path) -> None:
    program = trace(network, settings)
    program._example_inputs = None  # else they are stored, as a pickle
    content = io.BytesIO()  # written to a file, the archive would hold the file's temporary name
    with quiet():
        torch.export.save(program, content, extra_files={METADATA: settings.model_dump_json()})
    path.write_bytes(content.getbuffer())


def trace(network: PixelNetwork, settings: ModelSettings) -> torch.export.ExportedProgram:
    """The network as a graph, for any number of images."""
    network = network.to(memory_format=torch.channels_last)
    image = prepare(
        torch.zeros(2, settings.height, settings.width, 3, dtype=torch.uint8), settings.convention
    )
    batch = torch.export.Dim("batch", min=1)
    with quiet():
        program = torch.export.export(network, (image,), dynamic_shapes=({0: batch},))
    for module in program.graph_module.modules():
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
                node.meta.pop(name, None)  # drop the source line that it comes from
    return program


def load(path: Path, device: str) -> LoadedModel:
    extra: dict[str, str | None] = {METADATA: None}
    try:
        with quiet():
            program = torch.export.load(path, extra_files=extra)
    except OSError:
        raise
    except Exception as error:  # what torch raises depends on what is in the file
        raise DSAError(f"{path}: not readable as a .pt2 file: {str(error)[:200]}") from error
    settings = parse_settings(path, extra[METADATA])
    target = choose_device(device)
    if target.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, target)
    network = program.module()
    shape = (1, settings.height, settings.width, 3)
    try:
        with torch.inference_mode():
            found = network(torch.zeros(shape, dtype=torch.uint8, device=target))
        fits = found.shape == (1, settings.dimension) and found.dtype == torch.float32
    except Exception as error:  # a damaged graph can make torch raise anything
        why = str(error)[:200]
        raise DSAError(f"{path}: its graph does not take uint8 {list(shape)}: {why}") from error
    if not fits:
        expected = f"float32 (B, {settings.dimension})"
        raise DSAError(f"{path}: its features must be {expected}, not {found.dtype} {list(found.shape)}")
    return LoadedModel(settings, target, network)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide torch's messages to its own developers: warnings, and logged errors that it raises as well."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


TORCH_EXPORT = ModelFormat(".pt2", write, load, ("float32", "bfloat16"), runs_code=True)
