from collections import Counter

import numpy as np
import pytest

from dsareid.data.sampler import PKSampler
from dsareid.errors import DSAError


def epoch(counts, identities, images, seed=0, number=0):
    ids = np.repeat(np.arange(len(counts)) * 3 + 5, counts)
    return ids, PKSampler(ids, identities, images, seed).epoch(number)


@pytest.mark.parametrize(
    "counts,p,k",
    [([4] * 8, 4, 4), ([2, 3, 5, 7, 11], 3, 4), ([2, 50, 2], 2, 4), ([9, 2], 2, 2), ([6] * 7, 4, 2)],
)
def test_every_image_is_drawn_and_batches_are_p_by_k(counts, p, k):
    ids, batches = epoch(counts, p, k)
    seen = Counter()
    for draw in batches:
        assert draw.index.shape == draw.repeat.shape == (p * k,)
        assert sorted(Counter(ids[draw.index].tolist()).values()) == [k] * p
        for index, repeat in zip(draw.index.tolist(), draw.repeat.tolist()):
            assert repeat == seen[index]
            seen[index] += 1
    assert set(seen) == set(range(len(ids)))


def test_epochs_depend_on_seed_and_number_alone():
    def flat(**options):
        return [draw.index.tolist() for draw in epoch([5] * 9, 3, 4, **options)[1]]

    assert flat(seed=1, number=2) == flat(seed=1, number=2)
    assert flat(seed=1, number=2) != flat(seed=1, number=3) != flat(seed=2, number=3)


def test_too_few_identities():
    with pytest.raises(DSAError, match="2 identities, but a batch needs 3"):
        epoch([4, 4], 3, 4)


def test_an_identity_with_one_image():
    with pytest.raises(DSAError, match="identity 8 .* has one image"):
        epoch([4, 1, 4], 2, 4)
