"""Run the MF-Stream in each form that can be exported, against the run itself in torch.

    python benchmarks/export.py [--preset paper] [--batch 8] [--rounds 7] [--device cpu]

The weights are random; images come from host memory, and features return there. Every form is first compared
with the run on random images: features in float32 have a cosine similarity of at least 0.999999, in 16 bits
and, as TensorFloat-32 is float32's way on a GPU, there too of 0.999. In each round every form computes one
batch that is not timed, while the threads of the form before fall asleep, and then some that are. A form that
does not work here is named with the reason.
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from result import Result, parser

from dsareid.engine.learner import Learner
from dsareid.engine.presets import PRESETS, preset
from dsareid.ground.errors import first_line
from dsareid.ground.files import make_folder
from dsareid.inference.embedder import embed
from dsareid.inference.export import export
from dsareid.models.options import MEAN, STD
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Position, RunFolder, load_run

BASELINE = "the run, eager float32"
FILES = ("m.safetensors", "m.onnx", "m.pt2", "b.pt2")  # b: bfloat16
TIMED = 3  # batches of a form in a round


def made_run(folder: Path, config: TrainConfig) -> Path:
    """A run that has not learned anything."""
    run = RunFolder(make_folder(folder))
    run.write_config(config)
    state = Learner(config, 751, torch.device("cpu")).state_dict()
    run.write_checkpoint(state, Position(1, 0, 1), 751, {})
    return folder


def eager(run: Path, device: str) -> Callable:
    """As load_run gives it: everything contiguous."""
    model = load_run(run, device).model
    mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (MEAN, STD))

    @torch.inference_mode()
    def compute(images):
        pixels = images.to(device).permute(0, 3, 1, 2).contiguous()
        return model((pixels / 255 - mean) / std).cpu()

    return compute


def compiled(file: Path, device: str) -> Callable:
    """A .pt2 file's graph behind torch.compile, weights folded in as constants."""
    from torch._inductor import config

    config.freezing = True
    function = torch.compile(embed(file, device, trust=True).compute)

    @torch.inference_mode()
    def compute(images):
        return function(images.to(device)).cpu()

    return compute


def tensorrt(file: Path) -> Callable:
    """An .onnx file in TensorRT, float16 where it finds that faster, by onnxruntime."""
    import onnxruntime

    provider = "TensorrtExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ImportError("this onnxruntime has no TensorRT")
    session = onnxruntime.InferenceSession(file, providers=[(provider, {"trt_fp16_enable": True})])
    if provider not in session.get_providers():
        raise ImportError("onnxruntime cannot start TensorRT")
    return lambda images: torch.from_numpy(session.run(["features"], {"image": images.numpy()})[0])


def forms(run: Path, folder: Path, device: str) -> dict[str, Callable[[], Callable]]:
    """What makes each form's function from images to features. It may raise."""

    def exported(name: str) -> Path:
        file = folder / name
        if not file.exists():
            export(run, file, "bfloat16" if file.stem == "b" else "float32")
        return file

    made: dict[str, Callable[[], Callable]] = {
        BASELINE: lambda: eager(run, device),
        "the run, embed": lambda: embed(run, device),
    }
    for name in FILES:
        made[title(name)] = lambda name=name: embed(exported(name), device, trust=True)
    for name in ("m.pt2", "b.pt2"):
        made[f"{title(name)}, torch.compile"] = lambda name=name: compiled(exported(name), device)
    if device != "cpu":
        made[".onnx float16, TensorRT"] = lambda: tensorrt(exported("m.onnx"))
    return made


def title(name: str) -> str:
    return f"{Path(name).suffix} {'bfloat16' if Path(name).stem == 'b' else 'float32'}"


def verified(
    result: Result, makers: dict[str, Callable[[], Callable]], images: torch.Tensor, device: str
) -> dict[str, Callable]:
    """The forms that work here; the features of each are those of the first."""
    work: dict[str, Callable] = {}
    expected = None
    for name, make in makers.items():
        try:
            function = make()
            features = function(images)
        except Exception as error:  # torch.compile without a compiler, onnxruntime without CUDA
            result.note(f"{name} does not work here: {first_line(error)}")
            continue
        expected = features if expected is None else expected
        cosine = float(torch.cosine_similarity(features, expected).min())
        least = 0.999 if "float16" in name or device != "cpu" else 1 - 1e-6
        assert cosine >= least, f"{name}: cosine similarity {cosine}"
        work[name] = function
    return work


def speeds(work: dict[str, Callable], images: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Images a second of each form, by rounds."""
    found: dict[str, list[float]] = {title: [] for title in work}
    for _ in range(rounds):
        for title, function in work.items():
            function(images)
            begin = time.perf_counter()
            for _ in range(TIMED):
                function(images)
            found[title].append(TIMED * len(images) / (time.perf_counter() - begin))
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--preset", choices=sorted(PRESETS), default="paper")
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = options.parse_args()
    warnings.simplefilter("ignore")
    with Result(arguments) as result, tempfile.TemporaryDirectory() as name:
        folder, run = Path(name), Path(name) / "run"
        config = preset(arguments.preset, folder, run, weights="none")
        run = made_run(run, config)
        shape = (arguments.batch, config.height, config.width, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        work = verified(result, forms(run, folder, arguments.device), images, arguments.device)
        case = f"{arguments.preset} preset, batches of {arguments.batch}"
        found = speeds(work, images, arguments.rounds)
        result.add("Inference by f", case, found, unit="images/s", against=BASELINE)
        files = [folder / name for name in FILES if (folder / name).exists()]
        sizes = {title(file.name): [file.stat().st_size / 1e6] for file in files}
        result.add("Size of the file", f"{arguments.preset} preset", sizes, unit="MB")


if __name__ == "__main__":
    main()
