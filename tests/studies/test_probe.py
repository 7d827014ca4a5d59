"""The probe on features that hold the colours, and on features that do not."""

import pytest
import torch

from studies.real.probe import explained


def made(count, generator):
    colours = torch.rand(count, 2, 3, generator=generator, dtype=torch.float64)
    seen = torch.rand(count, 2, generator=generator) < 0.7
    return colours, seen


def test_what_features_explain():
    generator = torch.manual_seed(0)
    (colours, seen), (test, seen_test) = made(400, generator), made(100, generator)
    mixed = torch.randn(6, 10, generator=generator, dtype=torch.float64)
    holds = (x.flatten(1) @ mixed for x in (colours, test))
    assert explained(next(holds), colours, seen, next(holds), test, seen_test) > 0.95
    noise = [torch.randn(n, 10, generator=generator, dtype=torch.float64) for n in (400, 100)]
    assert explained(noise[0], colours, seen, noise[1], test, seen_test) == pytest.approx(0, abs=0.1)


def test_images_that_do_not_show_a_part_do_not_count():
    generator = torch.manual_seed(0)
    (colours, seen), (test, seen_test) = made(200, generator), made(50, generator)
    f = [torch.cat([x.flatten(1), x.flatten(1).square()], 1) for x in (colours, test)]
    before = explained(f[0], colours, seen, f[1], test, seen_test)
    for values, mask in ((colours, seen), (test, seen_test)):
        values[~mask] = 99.0
    assert explained(f[0], colours, seen, f[1], test, seen_test) == before


def test_images_that_show_a_part_may_differ_from_the_rest():
    """Colours that are a linear function of f are explained wherever a part is seen."""
    generator = torch.manual_seed(0)
    f = torch.randn(600, 4, generator=generator, dtype=torch.float64)
    colours = (f @ torch.randn(4, 6, generator=generator, dtype=torch.float64)).unflatten(1, (2, 3))
    seen = torch.stack([f[:, 0] > 1, f[:, 0] > -9], 1)
    assert explained(f[:500], colours[:500], seen[:500], f[500:], colours[500:], seen[500:]) > 0.97
