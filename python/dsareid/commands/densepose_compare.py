"""dsareid densepose compare"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import FileOption
from dsareid.ground.errors import DSAError


def command(
    a: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")],
    b: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")],
    csv: FileOption = None,
) -> None:
    """Compare IUV maps with those of the same names in B, which are taken to be right.

    IoU is of the masks; parts the share of equal parts where both see a person; |dU| and |dV| the medians of
    the differences where parts are equal, each with the 90th percentile. GPS is the geodesic point similarity
    of DensePose-COCO, by typical lengths along the chart and 0 on a wrong part: nearly a lower bound. GPSm is
    the root of GPS x IoU. The first row is the mean over people; its |dU| and |dV| are of all pixels.

    Args:
        a: A folder of maps, NAME.png or NAME_IUV.png, or a data set that has maps.
        b: Another; or the annotations of DensePose-COCO (.json), with images of A's names.
        csv: Write the rows of the table, and one for each person, to this .csv file.
    """
    from dsareid.densepose.compare import compare_maps
    from dsareid.ground.files import check_writable

    if csv:
        if csv.suffix.lower() != ".csv":
            raise DSAError(f"--csv {csv}: the name must end in .csv")
        check_writable(csv)
    found = compare_maps(a, b)
    print(found.table())
    if csv:
        found.write_csv(csv)
        print(f"{csv}: the table, and a row for each person")
