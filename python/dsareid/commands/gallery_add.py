"""dsareid gallery add"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from dsareid.commands.gallery_options import GalleryName, ModelOption, Words, parse_parameters
from dsareid.commands.options import Flag, OtherNetwork, OtherOption


def command(
    gallery: GalleryName,
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    model: ModelOption = None,
    camera: str | None = None,
    tag: Words = (),
    index: Literal["FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8"] = "FLAT",
    parameter: Words = (),
    half: Flag = False,
    device: str = "auto",
    skip_broken: Flag = False,
    trust: Flag = False,
    other: OtherOption = OtherNetwork(),
) -> None:
    """Add pictures or features to a gallery, which is made if it does not exist.

    What is there already is not added again; pictures that have changed are replaced. An interrupted call is
    completed by a repeat.

    Args:
        gallery: A folder whose name ends in .db, or a server's address, http://HOST:PORT/NAME. Its token is
            read from the environment variable DSAREID_MILVUS_TOKEN.
        source: A folder of pictures; a folder that extract wrote; or a table (.csv) with the column file, and
            perhaps identity, camera, time, track and tags (A;B).
        model: Of pictures: the folder that train wrote, or a file that export wrote; or another network: any
            .onnx file, timm:NAME or torchvision:NAME.
        camera: The camera of pictures of which none is known.
        tag: Tags of all these rows.
        index: Of a new gallery, how near vectors are found. FLAT compares with all: exact.
        parameter: Of that index, such as M=16 efConstruction=200 of HNSW, nlist=1024 of IVF.
        half: Of a new gallery on a server: vectors of half precision.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        skip_broken: Skip pictures that cannot be read, and list them.
        trust: Also load a .pt2 file. It can run code, so you must know where it comes from.
    """
    from dsareid.gallery.add import add_rows

    done = add_rows(
        gallery,
        source,
        model=None if model is None else str(model),
        camera=camera,
        tags=tag,
        index=index,
        parameters=parse_parameters(parameter, "parameter"),
        precision="float16" if half else "float32",
        device=device,
        skip_broken=skip_broken,
        trust=trust,
        facts=other.facts(),
    )
    parts = [f"{done.added:,} added"]
    parts += [f"{done.replaced:,} replaced"] if done.replaced else []
    parts += [f"{done.already:,} were there"] if done.already else []
    print(f"{gallery}: {', '.join(parts)}; {done.rows:,} rows")
    if done.skipped:
        print(f"{len(done.skipped):,} skipped:")
        print("\n".join(done.skipped[:10] + ["..."] * (len(done.skipped) > 10)))
