"""MATLAB 5 files: read as SciPy reads them, and refused where it crashes."""

import contextlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from dsareid.data import mat5
from dsareid.data.mat5 import read_mat5
from dsareid.ground.errors import DSAError

TYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


def cells(*values):
    array = np.empty((1, len(values)), object)
    array[0, :] = values
    return array


def write(path, compressed=True, **content):
    savemat(path, content, do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_as_scipy(tmp_path, compressed):
    rng = np.random.default_rng(0)
    content = {f"x_{kind}": (100 * rng.random((3, 4))).astype(kind) for kind in TYPES}
    content |= {"a": np.arange(24.0).reshape(2, 3, 4), "empty": np.zeros((0, 3)), "word": "a word", "b": "x"}
    path = write(tmp_path / "a.mat", compressed, **content)
    found, expected = read_mat5(path), loadmat(path)
    assert found.keys() == content.keys()
    for name, value in found.items():
        assert value.dtype == expected[name].dtype and np.array_equal(value, expected[name])
    assert read_mat5(path, ["a", "missing"]).keys() == {"a"}


def test_cells(tmp_path):
    path = write(tmp_path / "a.mat", words=cells("one", "three"), arrays=cells(np.eye(2), np.zeros((0, 0))))
    found, expected = read_mat5(path), loadmat(path)
    for name in ("words", "arrays"):
        assert found[name].shape == (1, 2)
        for one, other in zip(found[name].flat, expected[name].flat):
            assert np.array_equal(one, other)


def test_big_endian(tmp_path):
    name = b"abcde\0\0\0"
    body = struct.pack(">IIII", 6, 8, 11, 0) + struct.pack(">IIii", 5, 8, 1, 2)
    body += struct.pack(">II", 1, 5) + name + struct.pack(">HHHH", 4, 4, 258, 3)  # a small element
    data = b"MATLAB 5.0".ljust(124) + b"\1\0MI" + struct.pack(">II", 14, len(body)) + body
    (tmp_path / "a.mat").write_bytes(data)
    assert read_mat5(tmp_path / "a.mat")["abcde"].tolist() == [[258, 3]]


def test_what_is_not_wanted_may_be_anything(tmp_path):
    path = write(tmp_path / "a.mat", a=np.eye(2), s={"field": 1.0}, c=np.eye(2) * 1j)
    assert read_mat5(path).keys() == read_mat5(path, ["a"]).keys() == {"a"}
    for name in "sc":
        with pytest.raises(DSAError, match=f"a.mat: not readable as a MATLAB 5 file: {name}: neither"):
            read_mat5(path, [name])


def test_every_byte_changed(tmp_path):
    """SciPy's reader ends the process for some of these."""
    path = write(tmp_path / "a.mat", False, a=np.eye(2), w=cells("one", np.arange(3)))
    whole = path.read_bytes()
    for place in range(len(whole)):
        for value in (0, 0xFF, whole[place] ^ 1):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                read_mat5(path)
            except DSAError as error:
                assert str(path) in str(error)
        path.write_bytes(whole[:place])
        with contextlib.suppress(DSAError):  # a file may end between two variables
            read_mat5(path)


@pytest.mark.parametrize("claimed", [(2**31 - 1, 2**31 - 1), (-1, 4), (3, 10**6)])
def test_shapes_that_are_not_there(tmp_path, claimed):
    path = write(tmp_path / "a.mat", False, a=cells("one", "two"))
    data = path.read_bytes()
    place = data.index(struct.pack("<ii", 1, 2))
    path.write_bytes(data[:place] + struct.pack("<ii", *claimed) + data[place + 8 :])
    with pytest.raises(DSAError, match="more than it holds|of the shape"):
        read_mat5(path)


def test_a_small_file_that_unpacks_to_a_large_one(tmp_path, monkeypatch):
    monkeypatch.setattr(mat5, "MOST_BYTES", 1 << 20)
    packed = zlib.compress(bytes(1 << 26))
    head = b"MATLAB 5.0".ljust(124) + b"\0\1IM"
    (tmp_path / "a.mat").write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    with pytest.raises(DSAError, match="it unpacks to more than 1,048,576 bytes"):
        read_mat5(tmp_path / "a.mat")
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()
