"""MODEL.onnx: a graph for onnxruntime and its like, with the settings in its metadata_props.

Its operators can only compute, so a file of any origin may be loaded.
"""

from pathlib import Path

import torch
from torch import Tensor

from dsareid.ground.distributed import choose_device
from dsareid.ground.errors import DSAError, first_line
from dsareid.inference.formats.base import LoadedModel, ModelFormat
from dsareid.inference.formats.torch_export import quiet, trace
from dsareid.inference.network import PixelNetwork
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


def load(path: Path, device: str) -> LoadedModel:
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
        text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    except Exception as error:  # its exceptions have no common class of their own
        raise DSAError(f"{path}: not readable as ONNX: {first_line(error)[:200]}") from error
    if target.type == "cuda" and provider[0] not in session.get_providers():
        # It computes on the CPU instead, and says so in a warning at most.
        raise DSAError(
            f"{path}: onnxruntime cannot start CUDA on {target}: its libraries of CUDA or cuDNN are "
            'missing or of another version; `device="cpu"` computes without'
        )
    settings = parse_settings(path, text)
    found = [(x.name, x.type, x.shape[1:]) for x in (*session.get_inputs(), *session.get_outputs())]
    expected = [
        ("image", "tensor(uint8)", [settings.height, settings.width, 3]),
        ("features", "tensor(float)", [settings.dimension]),
    ]
    if found != expected:
        raise DSAError(f"{path}: its input and output must be {expected}, as its settings say, not {found}")

    def compute(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["features"], {"image": images.cpu().numpy()})[0])

    return LoadedModel(settings, torch.device("cpu"), compute)  # onnxruntime moves images itself


ONNX = ModelFormat(".onnx", write, load)
