"""dsareid gallery search"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.gallery_options import GalleryName, RowOptions, RowsOption, Words, parse_parameters
from dsareid.commands.options import Flag, OtherNetwork, OtherOption


def command(
    gallery: GalleryName,
    query: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="QUERY")],
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")],
    count: int = 10,
    same_camera_rule: Flag = False,
    parameter: Words = (),
    false_match_rate: float | None = None,
    calibration: Annotated[Path | None, tyro.conf.arg(metavar="FEATURES")] = None,
    out: Annotated[Path | None, tyro.conf.arg(metavar="PICTURE")] = None,
    device: str = "auto",
    trust: Flag = False,
    rows: RowsOption = RowOptions(),
    other: OtherOption = OtherNetwork(),
) -> None:
    """List the rows of a gallery that look most like the person in a query.

    What the gallery's index finds is scored again, exactly, from the stored vectors.

    Args:
        gallery: A folder whose name ends in .db, or a server's address, http://HOST:PORT/NAME.
        query: A picture, or a folder of pictures.
        model: The network that made the gallery's vectors.
        count: Rows to list.
        same_camera_rule: Leave out rows of the query's person and camera, as evaluations do.
        parameter: Of the index's search: ef=128 of HNSW, nprobe=32 of IVF; more finds more.
        false_match_rate: Answer "unknown" where nobody is near enough: so large a share of pairs of different
            people, such as 0.001, look as alike as what is accepted.
        calibration: A folder of features of the same model that calibrate has learned from.
        out: A picture to write (.png): each query at the left, the rows of its list to the right.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        trust: Also load a .pt2 file. It can run code, so you must know where it comes from.
    """
    from dsareid.gallery.search import as_search_result, format_answer, search_gallery
    from dsareid.inference.search import PICTURED, check_picture, write_picture

    if out:
        check_picture(out, query)
    answers = search_gallery(
        gallery,
        query,
        model=str(model),
        count=count,
        only=rows.filter(),
        same_camera_rule=same_camera_rule,
        parameters=parse_parameters(parameter, "parameter"),
        false_match_rate=false_match_rate,
        calibration=calibration,
        device=device,
        trust=trust,
        facts=other.facts(),
    )
    print("\n\n".join(map(format_answer, answers)))
    if out:
        write_picture([as_search_result(answer) for answer in answers], out)
        print(f"picture: {out}" + (f", the first {PICTURED} queries" if len(answers) > PICTURED else ""))
