"""Arrays of other libraries as arguments: their memory is shared, by DLPack."""

import numpy as np
import pytest
import torch

from dsa_ext import iuv_to_dsap, merge_parts


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 20, 12, 3), dtype=np.uint8)
    iuv = rng.integers(0, 256, (2, 20, 12, 3), dtype=np.uint8)
    iuv[..., 0] %= 25
    return image, iuv


def as_tensors(arrays):
    return [torch.from_numpy(x).permute(0, 3, 1, 2) for x in arrays]


def test_numpy_arrays_with_any_strides(batch):
    image, iuv = (x.transpose(0, 3, 1, 2) for x in batch)
    assert torch.equal(iuv_to_dsap(image, iuv, size=8), iuv_to_dsap(*as_tensors(batch), size=8))


def test_out_is_written_in_place(batch):
    out = np.zeros((2, 24, 3, 8, 8), dtype=np.float32)
    result = iuv_to_dsap(*(x.transpose(0, 3, 1, 2) for x in batch), size=8, out=out)
    assert result.data_ptr() == out.ctypes.data
    expected = iuv_to_dsap(*as_tensors(batch), size=8, dtype=torch.float32)
    assert np.array_equal(out, expected.numpy()) and out.any()


def test_read_only_arrays_are_read_without_a_copy_or_a_warning(batch, recwarn):
    image, iuv = (x.transpose(0, 3, 1, 2) for x in batch)
    expected = iuv_to_dsap(image, iuv, size=8)
    for array in batch:
        array.flags.writeable = False
    image, iuv = (x.transpose(0, 3, 1, 2) for x in batch)
    assert torch.equal(iuv_to_dsap(image, iuv, size=8), expected)
    assert not recwarn.list


def test_read_only_out_is_refused(batch):
    out = np.zeros((2, 24, 3, 8, 8), dtype=np.uint8)
    out.flags.writeable = False
    with pytest.raises(TypeError, match="out must be writeable"):
        iuv_to_dsap(*(x.transpose(0, 3, 1, 2) for x in batch), size=8, out=out)
    assert not out.any()


def test_merge_parts_takes_arrays():
    features = np.random.default_rng(0).standard_normal((2, 24, 5)).astype(np.float32)
    out = np.zeros((2, 13, 5), dtype=np.float32)
    merged = merge_parts(features, "mirror", residual=features, relu=True, out=out)
    assert merged.data_ptr() == out.ctypes.data
    assert np.allclose(out[:, 2], np.maximum(2 * features[:, 2:4], 0).sum(1))


class Exporter:
    """An array of a library that speaks nothing but DLPack."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **arguments):
        return self.tensor.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def test_any_dlpack_array():
    features = torch.randn(2, 13, 4)
    assert torch.equal(merge_parts(Exporter(features), "front_back"), merge_parts(features, "front_back"))


@pytest.mark.parametrize("value", [None, [[1]], "image"], ids=str)
def test_anything_else_is_refused_by_name(value, batch):
    image, iuv = as_tensors(batch)
    with pytest.raises(TypeError, match="iuv must be a torch.Tensor or a DLPack array"):
        iuv_to_dsap(image, value)
    with pytest.raises(TypeError, match="image must be"):
        iuv_to_dsap(value, iuv)


def test_arrays_that_torch_cannot_share_are_refused_by_name(batch):
    image, iuv = (x.transpose(0, 3, 1, 2) for x in batch)
    with pytest.raises(TypeError, match="image cannot be shared with torch without a copy"):
        iuv_to_dsap(image[..., ::-1], iuv)


def test_overlap_is_seen_by_address():
    """Views of one array come with a storage each."""
    buffer = np.zeros(40000, dtype=np.uint8)
    image = buffer[: 2 * 3 * 20 * 12].reshape(2, 3, 20, 12)
    out = buffer[64 : 64 + 2 * 24 * 3 * 8 * 8].reshape(2, 24, 3, 8, 8)
    iuv = np.zeros((2, 3, 20, 12), dtype=np.uint8)
    with pytest.raises(ValueError, match="out must not share memory with image"):
        iuv_to_dsap(image, iuv, size=8, out=out)
    apart = buffer[image.size : image.size + out.size].reshape(out.shape)
    iuv_to_dsap(image, iuv, size=8, out=apart)


def test_out_must_not_overlap_itself():
    image, iuv = torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    rows = torch.zeros(4000).as_strided((1, 24, 1, 8, 8), (1536, 64, 64, 4, 1))
    with pytest.raises(ValueError, match="out must not overlap itself"):
        iuv_to_dsap(image, iuv, size=8, out=rows)
    apart = torch.zeros(4000).as_strided((1, 24, 1, 8, 8), (9999, 72, 64, 9, 1))
    assert iuv_to_dsap(image, iuv, size=8, out=apart) is apart


def test_meta_tensors_have_no_memory_to_share():
    features = torch.empty(2, 24, 4, device="meta")
    assert merge_parts(features, "mirror", out=torch.empty(2, 13, 4, device="meta")).shape == (2, 13, 4)


def test_half_an_exporter_is_refused_by_name():
    class NoDevice:
        def __dlpack__(self):
            raise AssertionError

    with pytest.raises(TypeError, match="features cannot be shared"):
        merge_parts(NoDevice(), "mirror")


def test_reversed_arrays_are_told_what_to_do():
    image = np.zeros((1, 3, 4, 4), np.uint8)
    with pytest.raises(
        TypeError, match=r"image cannot .* it has reversed strides \(48, 16, 4, -1\), .*; pass a"
    ):
        iuv_to_dsap(image[..., ::-1], image)
    with pytest.raises(TypeError, match="iuv cannot be shared .* reversed strides"):
        iuv_to_dsap(image, image[:, :, ::-1])
