"""Images a second of the MF-Stream in each form that can be exported, against the run itself in torch.

    python benchmarks/export.py [--preset paper] [--batch 8] [--rounds 7]

The weights are random. Every form is first compared with the run on random images. In each round every
form computes one batch that is not timed, while the threads of the form before fall asleep, and then some
that are.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from common import describe_machine

from dsareid.engine.learner import Learner
from dsareid.engine.presets import PRESETS, preset
from dsareid.ground.files import make_folder, readable_size
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
    """What is compared, and the bytes of the files."""
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


def verified(work: dict[str, Callable], images: torch.Tensor) -> dict[str, tuple[float, float]]:
    """Largest deviation and smallest cosine similarity of each form; what cannot run here leaves `work`."""
    expected, found = work[BASELINE](images), {}
    for title, function in list(work.items()):
        try:
            features = function(images)
        except Exception as error:  # torch.compile without a compiler, say
            print(f"{title} does not work here: {str(error).splitlines()[0]}")
            del work[title]
            continue
        deviation = float((features - expected).abs().max())
        cosine = float(torch.cosine_similarity(features, expected).min())
        least = 0.999 if "bfloat16" in title else 1 - 1e-6
        assert cosine >= least, f"{title}: cosine similarity {cosine}"
        found[title] = deviation, cosine
    return found


def measured(work: dict[str, Callable], images: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds a batch of each form, by rounds."""
    seconds = {title: [] for title in work}
    for _ in range(rounds):
        for title, function in work.items():
            function(images)
            begin = time.perf_counter()
            for _ in range(TIMED):
                function(images)
            seconds[title].append((time.perf_counter() - begin) / TIMED)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="paper")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder, run = Path(name), Path(name) / "run"
        config = preset(arguments.preset, folder, run, weights="none")
        work, size = forms(made_run(run, config), folder)
        shape = (arguments.batch, config.height, config.width, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        differs = verified(work, images)
        seconds = measured(work, images, arguments.rounds)
    print(f"{describe_machine()}; {arguments.preset} preset, batches of {arguments.batch} images")
    print(f"{'':30}{'images/s':>9}{'ratio':>7}{'file':>10}{'deviation':>11}{'cosine':>10}")
    for title, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[BASELINE], times))
        file = readable_size(size[title]) if title in size else ""
        deviation, cosine = differs[title]
        print(
            f"{title:30}{arguments.batch / statistics.median(times):9.1f}{ratio:7.2f}{file:>10}"
            f"{deviation:11.1e}{cosine:10.6f}"
        )


if __name__ == "__main__":
    main()
