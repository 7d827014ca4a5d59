"""dsareid extract"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import Flag, ModelPath, OtherNetwork, OtherOption, OutPath


def command(
    model: ModelPath,
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")],
    out: OutPath,
    batch_size: int = 64,
    device: str = "auto",
    skip_broken: Flag = False,
    trust: Flag = False,
    other: OtherOption = OtherNetwork(),
) -> None:
    """Write the features of a folder of images: OUT/features.npy, a row for each line of OUT/images.csv.

    An interrupted call resumes on the next one. Several processes share the work:
    torchrun --nproc-per-node N -m dsareid extract ...

    Args:
        model: The folder that train wrote, or a file that export wrote; or another network: any .onnx file,
            timm:NAME or torchvision:NAME.
        images: The folder of images, with all folders below, such as query or bounding_box_test of a data
            set. Identities and cameras come from the data set, or else from names like
            0002_c1s1_000451_03.jpg.
        out: The folder to create.
        batch_size: Images at a time.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        skip_broken: Skip images that cannot be read, and list them in OUT/skipped.txt.
        trust: Also load a .pt2 file. It can run code, so you must know where it comes from.
    """
    from dsareid.ground.distributed import rank_and_world
    from dsareid.inference.extract import extract
    from dsareid.inference.feature_folder import SKIPPED

    extracted = extract(
        model,
        images,
        out,
        batch_size=batch_size,
        device=device,
        skip_broken=skip_broken,
        trust=trust,
        facts=other.facts(),
    )
    if rank_and_world()[0]:
        return
    done = "already done: " if extracted.already else ""
    print(f"{out}: {done}{extracted.images:,} x {extracted.dimension} features of model {extracted.model}")
    if extracted.skipped:
        count = len(extracted.skipped)
        print(f"{count:,} image{'s' * (count > 1)} skipped, listed in {out / SKIPPED}:")
        print("\n".join(extracted.skipped[:10] + ["..."] * (len(extracted.skipped) > 10)))
