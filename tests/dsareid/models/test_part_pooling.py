"""Aligned pooling against its definition, one part of one image at a time."""

import pytest
import torch

from dsa_ext.parts import GROUPS
from dsareid.models.losses import losses
from dsareid.models.options import LossConfig
from dsareid.models.part_pooling import SEEN, PartPooling
from dsareid.models.reid import DSAReID

SMALL = {"width": 1 / 8, "head_width": 1 / 8, "depths": (1, 1, 1, 1)}


def part_maps(count=6, height=32, width=16):
    torch.manual_seed(1)
    found = torch.randint(0, 25, (count, height, width), dtype=torch.uint8)
    found[0] = 0  # nobody
    found[1, 4:] = 0
    return found


def test_each_part_is_the_mean_over_its_pixels():
    pooling, given = PartPooling(5, 3).eval(), part_maps()
    pooling.norm.weight.data.fill_(1)
    x = torch.randn(6, 5, 8, 4)
    found = pooling(x, given)
    large = x.repeat_interleave(4, 2).repeat_interleave(4, 3)  # a cell is 4 x 4 pixels
    groups = torch.tensor(GROUPS[8])
    for image in range(6):
        for group in range(8):
            parts = (groups == group).nonzero().flatten() + 1
            member = torch.isin(given[image], parts)
            assert found.seen[image, group] == (member.sum() / 16 >= SEEN)
            if found.seen[image, group]:
                mean = large[image][:, member].mean(1) / (1 + pooling.norm.eps) ** 0.5
                scores = mean @ pooling.classify.weight[group].T
                torch.testing.assert_close(found.logits[image, group], scores)
    assert not found.seen[0].any() and found.seen[1:].any()


def test_what_is_not_seen_does_not_count():
    """The loss is that of the seen parts alone, and an image without a map adds nothing."""
    torch.manual_seed(0)
    model = DSAReID(3, **SMALL, guidance="pool")
    assert model.dsag is None
    image, label, given = torch.randn(6, 3, 32, 16), torch.tensor([0, 0, 1, 1, 2, 2]), part_maps()
    output = model(image, given)
    assert output.d is None and output.z is output.f and output.logits.d_global is None
    term = losses(output, label, LossConfig(pool=2.0, smoothing=0.0))["id_parts"]
    logs = output.parts.logits.log_softmax(2)
    right = torch.stack([logs[image, :, one] for image, one in enumerate(label)])
    torch.testing.assert_close(term, -2 * right[output.parts.seen].mean())
    term.backward()
    assert model.mf.trunk.conv1.weight.grad.any() and model.mf.head_g[0].conv1.weight.grad is None
    given[:] = 0
    assert losses(model(image, given), label, LossConfig())["id_parts"] == 0


def test_f_is_that_of_the_network_without_it():
    """The same seed draws the same trunk and heads, and inference needs no map."""
    made = []
    for options in ({"streams": "mf"}, {"guidance": "pool"}):
        torch.manual_seed(0)
        made.append(DSAReID(3, **SMALL, **options).eval())
    image = torch.randn(2, 3, 32, 16)
    assert torch.equal(made[0](image), made[1](image))
    with pytest.raises(ValueError, match="the part of each pixel"):
        made[1].train()(image)


def test_images_are_matched_by_parts_too():
    """Each seen part has norm 1 before all together have; a part that is not seen is 0."""
    torch.manual_seed(0)
    model, image, given = DSAReID(3, **SMALL, guidance="pool").eval(), torch.randn(6, 3, 32, 16), part_maps()
    given[2] = 0
    given[2, :16] = 2  # the torso alone
    found = model.parts(image, given).unflatten(1, (8, -1))
    seen = model.pooling(model.mf.trunk(image), given).seen
    assert seen[2].tolist() == [True] + [False] * 7
    expected = seen / seen.sum(1, keepdim=True).clamp(min=1).sqrt()
    torch.testing.assert_close(found.norm(dim=2), expected)
    assert torch.equal(model.fused(image, given), torch.cat([model(image), found.flatten(1)], 1))
    with pytest.raises(ValueError, match='guidance "pool" alone'):
        DSAReID(3, **SMALL).parts(image, given)
