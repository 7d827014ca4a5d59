"""MODEL.onnx: a graph for onnxruntime and its like, with the settings in its metadata_props.

Its operators can only compute, so a file of any origin may be loaded.
"""

from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from dsareid.ground.distributed import choose_device
from dsareid.ground.errors import DSAError, first_line
from dsareid.inference.formats.base import Convention, LoadedModel, ModelFormat
from dsareid.inference.formats.torch_export import quiet, trace
from dsareid.inference.network import PixelNetwork, prepare
from dsareid.inference.settings import METADATA, ModelSettings, parse_settings


def write(network: PixelNetwork, settings: ModelSettings, path: Path) -> None:
    try:
        import onnxruntime  # noqa: F401  needed to compare the file with its run
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DSAError(f".onnx: {error.name} is missing: pip install onnx onnxruntime onnxscript") from error
    with quiet():
        program = torch.onnx.export(
            trace(network, settings),
            input_names=["image"],
            output_names=["features"],
            dynamic_shapes=({0: "batch"},),  # the network is traced: this only names its free dimension
            dynamo=True,
            verbose=False,
            external_data=False,
        )
    assert program is not None  # dynamo=True always returns one
    model = program.model
    model.metadata_props[METADATA] = settings.model_dump_json()
    model.doc_string = model.graph.doc_string = (
        f"The MF-Stream of DSA-reID. image: {settings.image}. features: {settings.features}."
    )
    for node in model.graph.all_nodes():  # drop the source lines that nodes come from
        node.metadata_props.clear()
    program.save(path)


def open_session(path: Path, device: str) -> Any:
    """Open a file in onnxruntime, on a device: auto, cpu, cuda or cuda:N.

    Raises:
        DSAError: onnxruntime is missing, the file is no ONNX, or the device cannot be used.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DSAError(f"{path}: onnxruntime is missing: pip install onnxruntime") from error
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    target = torch.device("cpu") if device == "auto" and not has_cuda else choose_device(device)
    if target.type == "cuda" and not has_cuda:
        raise DSAError(f'`device="{device}"`: this onnxruntime has no CUDA; install onnxruntime-gpu')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    # Between batches the cores are free to decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    provider = ("CUDAExecutionProvider", {"device_id": target.index or 0})
    providers = [provider] if target.type == "cuda" else ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(path, options, providers)
    except Exception as error:  # its exceptions have no common class of their own
        raise DSAError(f"{path}: not readable as ONNX: {first_line(error)[:200]}") from error
    if target.type == "cuda" and provider[0] not in session.get_providers():
        # It computes on the CPU instead, and says so in a warning at most.
        raise DSAError(
            f"{path}: onnxruntime cannot start CUDA on {target}: its libraries of CUDA or cuDNN are "
            'missing or of another version; `device="cpu"` computes without'
        )
    return session


def settings_text(path: Path, session: Any) -> str | None:
    """The settings of dsareid in a file's metadata, as JSON; None if it has none. DSAError if they are no
    text."""
    try:
        text: str | None = session.get_modelmeta().custom_metadata_map.get(METADATA)
    except UnicodeDecodeError as error:
        raise DSAError(f"{path}: not readable as ONNX: {first_line(error)[:200]}") from error
    return text


def load(path: Path, device: str) -> LoadedModel:
    return load_session(path, open_session(path, device))


def load_session(path: Path, session: Any) -> LoadedModel:
    """A file that open_session has opened; DSAError if dsareid export did not write it."""
    settings = parse_settings(path, settings_text(path, session))
    found = [(x.name, x.type, x.shape[1:]) for x in (*session.get_inputs(), *session.get_outputs())]
    height, width = settings.height, settings.width
    image = {
        "dsareid": ("tensor(uint8)", [height, width, 3]),
        "torchreid": ("tensor(float)", [3, height, width]),
        "ultralytics": ("tensor(float)", [3, height, height]),
    }[settings.convention]
    expected = [
        ("image", *image),
        ("features", "tensor(float)", [settings.dimension]),
    ]
    if found != expected:
        raise DSAError(f"{path}: its input and output must be {expected}, as its settings say, not {found}")

    def compute(images: Tensor) -> Tensor:
        given = prepare(images.cpu(), settings.convention).numpy()
        return torch.from_numpy(session.run(["features"], {"image": given})[0])

    return LoadedModel(settings, torch.device("cpu"), compute)  # onnxruntime moves images itself


ONNX = ModelFormat(".onnx", write, load, conventions=get_args(Convention))
