"""Which person an image's map shows, if DensePose found several."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dsareid.densepose.charts import Box
from dsareid.densepose.sources import Person
from dsareid.ground.errors import DSAError, logger

MIN_SCORE = 0.5


class Candidate(NamedTuple):
    """A person, and how much of the image the person's box covers."""

    person: Person
    share: float  # 0..1

    def reaches(self, min_score: float) -> bool:
        """Whether the score is at least `min_score`; a person without a score passes."""
        return self.person.score is None or self.person.score >= min_score


class Choice(NamedTuple):
    """The people found in an image, and the one whose map it gets."""

    candidates: list[Candidate]  # all
    chosen: Candidate | None  # None: no box overlaps the image
    several: bool  # whether more than one box overlaps it
    below: bool  # whether the best score was taken because none reaches the minimum
    refused: int  # people in the image below the minimum score who were not chosen


def choose_person(people: Sequence[Person], size: tuple[int, int], min_score: float) -> Choice:
    """Choose the person with the largest box among those with the minimum score, then the higher score.

    If nobody has that score, choose the one with the best score, then the larger box.

    Args:
        people: who was found in the image.
        size: width and height of the image that DensePose saw.
        min_score: the score, 0..1.
    """
    width, height = size
    candidates = [Candidate(each, covered(each.box, width, height) / (width * height)) for each in people]
    meeting = [each for each in candidates if each.share > 0]
    best = best_person([(each.share, each.person.score) for each in meeting], min_score)
    chosen = None if best is None else meeting[best]
    refused = sum(each is not chosen for each in meeting if not each.reaches(min_score))
    below = chosen is not None and not chosen.reaches(min_score)
    return Choice(candidates, chosen, len(meeting) > 1, below, refused)


def best_person(found: Sequence[tuple[float, float | None]], min_score: float) -> int | None:
    """Which one choose_person takes, by each one's share of the image and score; None: there is nobody."""
    reaching = [k for k, (_, score) in enumerate(found) if score is None or score >= min_score]
    if reaching:
        return max(reaching, key=lambda k: (found[k][0], found[k][1] or 0))
    return max(range(len(found)), key=lambda k: (found[k][1] or 0, found[k][0]), default=None)


def check_min_score(min_score: float) -> None:
    """Raise DSAError if `min_score` is not a number from 0 to 1."""
    number = isinstance(min_score, (int, float)) and not isinstance(min_score, bool)
    if not (number and 0 <= min_score <= 1):  # NaN is not
        raise DSAError(f"`min_score={min_score}`: expected a number from 0 to 1")


def warn_of_scores(source: Path, people: Sequence[Person], min_score: float) -> None:
    """Warn if scores exceed 1, because the minimum score is one of 0..1."""
    highest = max((person.score for person in people if person.score is not None), default=0)
    if highest > 1:
        logger.warning(
            f"{source}: scores reach {highest:g}, but `min_score={min_score:g}` is one of 0..1: are they "
            "percent?"
        )


def covered(box: Box | None, width: int, height: int) -> float:
    """Pixels of the image inside a box; None is a box around all of it."""
    if box is None:
        return width * height
    x0, y0, x1, y1 = box
    return max(min(x1, width) - max(x0, 0), 0) * max(min(y1, height) - max(y0, 0), 0)
