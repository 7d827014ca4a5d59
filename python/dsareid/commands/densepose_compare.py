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
    """Compare the IUV maps of A with those of the same names in B, which are taken as the truth.

    IoU: overlap of the person masks. parts: share of pixels with the same part, where both see a person.
    |dU|, |dV|: median and 90th percentile of the differences, where the parts are the same. GPS: the geodesic
    point similarity of DensePose-COCO, with distances estimated from typical lengths of the charts, and 0 on
    a wrong part; this is nearly a lower bound. GPSm: the root of GPS x IoU. The first row is the mean over
    people; its |dU| and |dV| are over all pixels.

    Args:
        a: A folder of maps, NAME.png or NAME_IUV.png, or a data set that has maps.
        b: Another one, or annotations of DensePose-COCO (.json) whose images have A's names.
        csv: Write the rows of the table, and one for each person, to this .csv file.
    """
    from dsareid.densepose.compare import compare_maps
    from dsareid.ground.files import check_writable

    if csv:
        if csv.suffix.lower() != ".csv":
            raise DSAError(f"--csv {csv}: the name must end in .csv")
        check_writable(csv)
    comparison = compare_maps(a, b)
    print(comparison.table())
    if csv:
        comparison.write_csv(csv)
        print(f"{csv}: the table, and a row for each person")
