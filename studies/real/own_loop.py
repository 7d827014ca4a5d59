"""`dsareid.Guide` around timm's MobileNetV2 in a loop of one's own: what a user of the guide would write.

    python -m studies.real.own_loop DATA --weights FILE [--epochs 8] [--seed 0] [--alone]

DATA has maps, train, query and gallery (the tuning split, for example). With --alone the same network is
trained by the same losses without a guide. Prints mAP and rank-1 of the backbone's features, every test image
being a query, and the CPU time of training.
"""

import argparse
import math
import resource
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from dsareid.data.augment import AugmentConfig
from dsareid.data.batch import Batch, BatchConfig, InputConfig, assemble
from dsareid.data.guide_input import Samples
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.data.loader import TrainData
from dsareid.data.sampler import PKSampler
from dsareid.data.store.cache import ensure_store
from dsareid.data.store.reader import Split
from dsareid.evaluation import rank
from dsareid.models.guide import Features, Guide, LossConfig, losses
from dsareid.models.heads import Heads

SIZE, PART, PEOPLE, IMAGES, RATE = (128, 64), 16, 12, 4, 3e-3
GLOBAL = 1280  # timm's features of MobileNetV2
CPU = torch.device("cpu")


class Alone(Heads):
    """The classifiers of f, without a guide."""

    def __init__(self, identities: int):
        super().__init__(identities, None, "batchnorm")
        self.add_heads(GLOBAL, None)

    def forward(self, f: Tensor, _: None, __: Tensor | None):
        return self.output(Features(f), None)


def train(
    data: TrainData, split: Split, backbone: nn.Module, head: nn.Module, epochs: int, seed: int
) -> None:
    """The loop: P x K batches, Adam with a warm-up of an epoch and a cosine; the guide teaches after it."""
    sampler = PKSampler(split.ids, PEOPLE, IMAGES, seed)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], weight_decay=5e-4)
    for epoch, part, batch in _batches(data, sampler, epochs):
        done = epoch + part
        rate = RATE * min(1, done) * (1 + math.cos(math.pi * max(0, done - 1) / max(1, epochs - 1))) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            output = head(backbone(batch.image), None, batch.dsap)
        loss = sum(losses(output, batch.label, LossConfig(), teaching=epoch > 0).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batches(data: TrainData, sampler: PKSampler, epochs: int) -> Iterator[tuple[int, float, Batch]]:
    """Epoch, how much of it is done, and the batch."""
    for epoch in range(epochs):
        index, repeat = sampler.epoch(epoch)
        for number, batch in enumerate(data.batches(epoch, index, repeat)):
            yield epoch, number / len(index), batch


@torch.inference_mode()
def features(backbone: nn.Module, split: Split) -> Tensor:
    """Of every image, [N, D], each of norm 1."""
    found = []
    for rows in torch.from_numpy(split.rows).split(64):
        image, _ = assemble(Samples(split.store.images, None, rows, None), InputConfig(*SIZE, None, PART))
        found.append(nn.functional.normalize(backbone(image)))
    return torch.cat(found)


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=how)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, help="torchvision's MobileNetV2; default: random weights")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help="without the guide")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    store = ensure_store(options.data, *SIZE, mapped=[TRAIN])
    split = store.select(TRAIN, iuv=True)
    given = InputConfig(*SIZE, None if options.alone else "part-images", PART, torch.bfloat16)
    augment = AugmentConfig(pad=5, erase=0.25)
    data = TrainData(split, BatchConfig(given, PEOPLE * IMAGES, augment, options.seed), CPU)
    backbone = timm.create_model("mobilenetv2_100", num_classes=0)
    if options.weights:
        values = torch.load(options.weights, weights_only=True).values()  # the same tensors in the same order
        backbone.load_state_dict(dict(zip(backbone.state_dict(), values, strict=True)))
    head: nn.Module = Alone(data.identities)
    if not options.alone:
        head = Guide(
            data.identities, global_size=GLOBAL, guidance="distill", width=1 / 4, classifier_kind="batchnorm"
        )
    before = _cpu_seconds()
    train(data, split, backbone.train(), head.train(), options.epochs, options.seed)
    seconds = _cpu_seconds() - before
    test = [store.select(name, iuv=False) for name in (QUERY, GALLERY)]
    found = torch.cat([features(backbone.eval(), x) for x in test])
    ids, cameras = (torch.cat([torch.from_numpy(getattr(x, name)) for x in test]) for name in ("ids", "cams"))
    known = ids > 0
    result = rank(found[known], found, ids[known], ids, cameras[known], cameras)
    what = "alone" if options.alone else "guided"
    print(f"{what}: mAP {100 * result.mAP:.1f}, rank-1 {100 * result.cmc[0]:.1f}, {seconds:.0f} s of a core")


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
