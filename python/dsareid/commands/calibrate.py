"""dsareid calibrate"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import FileOption


def command(
    features: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FEATURES")],
    pairs: FileOption = None,
) -> None:
    """Learn what a model's distances mean: how likely one person, and how many false matches.

    Writes FEATURES/calibration.json, which `dsareid search --false-match-rate` reads. Take images of people
    whom the model did not see in training: on others it errs less, so rates would be too low.

    Args:
        features: A folder that extract wrote, whose images.csv tells the people. Every pair of images is
            taken, but those of one person and one camera.
        pairs: Take the pairs of this table (.csv) instead. Columns a,b,same: two files as in images.csv, and
            1 if they show one person, else 0. Or columns file,track,frame, for a tracker's crops without
            names: one track is one person, and two tracks that share a frame are two. With several videos
            write the video into both words, as c1-7.
    """
    from dsareid.evaluation.calibration import FIRM, format_score
    from dsareid.inference.calibrate import RATES, calibrate

    found = calibrate(features, pairs)
    fitted = found.fitted
    print(f"{found.path}: fitted to {fitted.same:,} pairs of one person and {fitted.other:,} of two")
    print(f"{'false-match rate':>16}{'distance':>10}{'score':>8}{'same found':>12}{'on people left out':>20}")
    for rate in RATES:
        if rate * fitted.other < 1:
            print(f"{rate:>16g}   too few pairs of two people")
            continue
        limit, held_out = fitted.threshold(rate), found.held_out.get(rate)
        score = format_score(fitted.score(limit))
        cells = f"{limit:>10.4f}{score:>8}{100 * fitted.match_rate(rate):>11.1f}%"
        print(f"{rate:>16g}{cells}{'-' if held_out is None else f'{held_out:.2g}':>20}")
        if (count := fitted.false_matches(rate)) < FIRM:
            print(f"{'':>16}   rests on {count} pairs: it may be off by a third and more")
    print("\n".join(found.notes), end="\n" * bool(found.notes))
