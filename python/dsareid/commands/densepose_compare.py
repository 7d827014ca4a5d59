"""dsareid densepose compare"""

from pathlib import Path
from typing import Annotated

import tyro


def command(
    a: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")],
    b: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")],
    csv: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
) -> None:
    """Compare the IUV maps of a folder with others of the same names, which are taken for right.

    IoU is of the masks; parts the share of equal parts where both see a person; |dU| and |dV| the medians of
    the differences where parts are equal, each with the 90th percentile. GPS is the geodesic point similarity
    of DensePose-COCO, by lengths along the chart and 0 on a wrong part, so a lower bound; GPSm the root of
    GPS x IoU. The first row is the mean over people; its |dU| and |dV| are of all pixels.

    Args:
        a: A folder of maps, NAME.png or NAME_IUV.png, or a data set that has maps.
        b: Another; or the annotations of DensePose-COCO (.json), with images of A's names.
        csv: Write the rows of the table and of each person to this file (.csv).
    """
    from dsareid.densepose.compare import compare_maps
    from dsareid.ground.files import check_writable

    if csv:
        check_writable(csv, [a, b])
    found = compare_maps(a, b)
    print("\n".join([found.table(), *found.notes]))
    if csv:
        found.write_csv(csv)
        print(f"{csv}: each of {len(found.people):,} people")
