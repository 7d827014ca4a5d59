"""Run the MF-Stream in each form that can be exported, against the run itself in torch.

    python benchmarks/export.py [--preset paper] [--batch 8] [--rounds 7]

The weights are random. Every form is first compared with the run on random images: features in float32 have a
cosine similarity of at least 0.999999, in bfloat16 of 0.999. In each round every form computes one batch that
is not timed, while the threads of the form before fall asleep, and then some that are.
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
from dsareid.ground.files import make_folder
from dsareid.inference.embedder import Embedder, embed
from dsareid.inference.export import export
from dsareid.models.options import MEAN, STD
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Position, RunFolder, load_run

BASELINE = "the run, eager float32"
TIMED = 3  # batches of a form in a round


def made_run(folder: Path, config: TrainConfig) -> Path:
    """A run that has not learned anything."""
    run = RunFolder(make_folder(folder))
    run.write_config(config)
    state = Learner(config, 751, torch.device("cpu")).state_dict()
    run.write_checkpoint(state, Position(1, 0, 1), 751, {})
    return folder


def eager(run: Path) -> Callable:
    """As load_run gives it: everything contiguous."""
    model = load_run(run, "cpu").model
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))

    @torch.inference_mode()
    def compute(images):
        return model((images.permute(0, 3, 1, 2).contiguous() / 255 - mean) / std)

    return compute


def compiled(embedder: Embedder) -> Callable:
    """A .pt2 file's graph behind torch.compile, weights folded in as constants."""
    from torch._inductor import config

    config.freezing = True
    function = torch.compile(embedder.compute)

    @torch.inference_mode()
    def compute(images):
        return function(images)

    return compute


def forms(run: Path, folder: Path) -> tuple[dict[str, Callable], dict[str, int]]:
    """Each form's function from a batch to features, and the bytes of the files."""
    work, size = {BASELINE: eager(run), "the run, embed": embed(run, "cpu")}, {}
    for name, precision in (
        ("m.safetensors", "float32"),
        ("m.onnx", "float32"),
        ("m.pt2", "float32"),
        ("b.pt2", "bfloat16"),
    ):
        export(run, folder / name, precision)
        title = f"{(folder / name).suffix} {precision}"
        work[title] = embed(folder / name, "cpu", trust=True)
        size[title] = (folder / name).stat().st_size
    for title in (".pt2 float32", ".pt2 bfloat16"):
        work[f"{title}, torch.compile"] = compiled(work[title])
    return work, size


def verify(result: Result, work: dict[str, Callable], images: torch.Tensor) -> None:
    """Compare the features of each form with the run's; what cannot run here leaves `work`."""
    expected = work[BASELINE](images)
    for title, function in list(work.items()):
        try:
            features = function(images)
        except Exception as error:  # torch.compile without a compiler, say
            result.note(f"{title} does not work here: {str(error).splitlines()[0]}")
            del work[title]
            continue
        cosine = float(torch.cosine_similarity(features, expected).min())
        least = 0.999 if "bfloat16" in title else 1 - 1e-6
        assert cosine >= least, f"{title}: cosine similarity {cosine}"


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
    arguments = options.parse_args()
    warnings.simplefilter("ignore")
    with Result(arguments) as result, tempfile.TemporaryDirectory() as name:
        folder, run = Path(name), Path(name) / "run"
        config = preset(arguments.preset, folder, run, weights="none")
        work, size = forms(made_run(run, config), folder)
        shape = (arguments.batch, config.height, config.width, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        verify(result, work, images)
        case = f"{arguments.preset} preset, batches of {arguments.batch}"
        found = speeds(work, images, arguments.rounds)
        result.add("Inference by f", case, found, unit="images/s", against=BASELINE)
        files = {title: [count / 1e6] for title, count in size.items()}
        result.add("Size of the file", f"{arguments.preset} preset", files, unit="MB")


if __name__ == "__main__":
    main()
