from pathlib import Path

import pytest

from dsareid.engine.presets import preset
from dsareid.engine.schedule import learning_rate


@pytest.mark.parametrize(
    "epoch,rate",
    [
        (0, 8e-6),
        (10, (8e-6 + 8e-4) / 2),
        (20, 8e-4),
        (59.9, 8e-4),
        (60, 4e-4),
        (99.9, 4e-4),
        (100, 2e-4),
        (140, 1e-4),
        (300, 8e-4 / 2**7),
        (319.9, 8e-4 / 2**7),
    ],
)
def test_the_papers_schedule(epoch, rate):
    paper = preset("paper", Path(), Path())
    assert learning_rate(paper.optim, epoch, paper.epochs) == pytest.approx(rate)


def test_cosine_ends_at_zero():
    demo = preset("demo", Path(), Path())
    optim, epochs = demo.optim, demo.epochs
    assert learning_rate(optim, optim.warm_up_epochs, epochs) == pytest.approx(optim.rate)
    assert learning_rate(optim, epochs, epochs) == pytest.approx(0, abs=1e-12)
    rates = [learning_rate(optim, optim.warm_up_epochs + x, epochs) for x in range(10)]
    assert rates == sorted(rates, reverse=True)
