from collections import Counter

import numpy as np
import pytest

from dsareid.data.sampler import PKSampler
from dsareid.ground.errors import DSAError


def identities(counts):
    return np.repeat(np.arange(len(counts)) * 3 + 5, counts)


def epoch(counts, p, k, seed=0, number=0, **shard):
    ids = identities(counts)
    return ids, *PKSampler(ids, p, k, seed, **shard).epoch(number)


@pytest.mark.parametrize(
    "counts,p,k",
    [([4] * 8, 4, 4), ([2, 3, 5, 7, 11], 3, 4), ([2, 50, 2], 2, 4), ([9, 2], 2, 2), ([6] * 7, 4, 2)],
)
def test_every_image_is_drawn_and_batches_are_p_by_k(counts, p, k):
    ids, indices, repeats = epoch(counts, p, k)
    assert indices.dtype == repeats.dtype == np.int64
    assert indices.shape == repeats.shape == (len(indices), p * k)
    seen = Counter()
    for index, repeat in zip(indices, repeats):
        assert sorted(Counter(ids[index].tolist()).values()) == [k] * p
        for i, times in zip(index.tolist(), repeat.tolist()):
            assert times == seen[i]
            seen[i] += 1
    assert set(seen) == set(range(len(ids)))


def test_images_are_drawn_no_more_often_than_groups_and_batches_need():
    """24 images in groups of 3 need no topping up; 10 identities with a group each fill 2.5 batches."""
    _, index, repeat = epoch([6, 3, 15], 1, 3)
    assert len(index) == 8 and not repeat.any()
    _, index, repeat = epoch([3] * 10, 4, 3)
    assert len(index) == 3 and (repeat > 0).sum() == 2 * 3


@pytest.mark.parametrize("images", [4, 5, 9])
def test_a_group_is_topped_up_with_other_images_first(images):
    """The second group of 5 images holds none twice; of 2 images, none more than once more than the other."""
    for number in range(20):
        ids, index, _ = epoch([5, 2], 2, images, number=number)
        for group in index.reshape(-1, images):
            times = Counter(group.tolist())
            assert len(times) == min(images, 5 if ids[group[0]] == 5 else 2)
            assert max(times.values()) - min(times.values()) <= 1


def test_epochs_depend_on_seed_and_number_alone():
    def flat(**options):
        return epoch([5] * 9, 3, 4, **options)[1].tolist()

    assert flat(seed=1, number=2) == flat(seed=1, number=2)
    assert flat(seed=1, number=2) != flat(seed=1, number=3) != flat(seed=2, number=3)


def test_epochs_are_the_same_on_every_platform():
    _, index, repeat = epoch([2, 3, 4, 7, 5], 2, 4, seed=11, number=3)
    assert index.tolist() == [
        [15, 11, 10, 9, 16, 17, 20, 19],
        [13, 12, 14, 15, 6, 8, 5, 7],
        [2, 4, 3, 2, 1, 0, 1, 0],
        [18, 17, 19, 16, 1, 0, 0, 1],
    ]
    assert repeat.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 1, 1],
        [0, 1, 1, 1, 2, 2, 3, 3],
    ]


def test_images_and_identities_are_shuffled():
    """Over 300 epochs each of 6 images is the first one drawn about 50 times, and each in any place."""
    firsts, places = Counter(), Counter()
    for number in range(300):
        index = epoch([2, 2, 2], 1, 2, number=number)[1].ravel()
        firsts[int(index[0])] += 1
        places[int(np.flatnonzero(index == 4)[0])] += 1
    for counted in (firsts, places):
        assert set(counted) == set(range(6))
        assert all(25 <= times <= 80 for times in counted.values())


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_shards_side_by_side_are_the_whole_epoch(world):
    counts = [2, 3, 5, 7, 11, 4, 6, 6]
    _, *whole = epoch(counts, 6, 4, seed=3, number=1)
    shards = [epoch(counts, 6, 4, seed=3, number=1, rank=rank, world=world)[1:] for rank in range(world)]
    for expected, parts in zip(whole, zip(*shards)):
        assert all(part.shape == (len(expected), 24 // world) for part in parts)
        assert all(part[0].flags.c_contiguous for part in parts)
        np.testing.assert_array_equal(np.concatenate(parts, 1), expected)


def test_too_few_identities():
    with pytest.raises(DSAError, match="2 identities, but a batch needs 3"):
        epoch([4, 4], 3, 4)


def test_an_identity_with_one_image():
    with pytest.raises(DSAError, match="identity 8 .* has one image"):
        epoch([4, 1, 4], 2, 4)


def test_a_batch_that_cannot_be_split():
    with pytest.raises(DSAError, match="4 identities cannot be split evenly over 3 processes"):
        epoch([4] * 4, 4, 2, world=3)
