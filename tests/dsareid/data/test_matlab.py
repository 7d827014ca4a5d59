"""MATLAB 5 files: read by SciPy in another process, and an error whatever becomes of that."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from dsareid.data import matlab
from dsareid.data.matlab import read_matlab
from dsareid.ground.errors import DSAError

TYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
HEAD = b"MATLAB 5.0".ljust(124)


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
    found, expected = read_matlab(path, list(content)), loadmat(path)
    assert found.keys() == content.keys()
    for name, value in found.items():
        assert value.dtype == expected[name].dtype and np.array_equal(value, expected[name])
        assert value.flags.writeable
    assert read_matlab(path, ["a", "missing"]).keys() == {"a"}


def test_cells(tmp_path):
    path = write(tmp_path / "a.mat", words=cells("one", "three"), arrays=cells(np.eye(2), np.zeros((0, 0))))
    found, expected = read_matlab(path, ["words", "arrays"]), loadmat(path)
    for name in ("words", "arrays"):
        assert found[name].shape == (1, 2)
        for one, other in zip(found[name].flat, expected[name].flat):
            assert np.array_equal(one, other)


def test_big_endian(tmp_path):
    name = b"abcde\0\0\0"
    body = struct.pack(">IIII", 6, 8, 11, 0) + struct.pack(">IIii", 5, 8, 1, 2)
    body += struct.pack(">II", 1, 5) + name + struct.pack(">HHHH", 4, 4, 258, 3)  # a small element
    (tmp_path / "a.mat").write_bytes(HEAD + b"\1\0MI" + struct.pack(">II", 14, len(body)) + body)
    assert read_matlab(tmp_path / "a.mat", ["abcde"])["abcde"].tolist() == [[258, 3]]


def test_what_is_not_wanted_may_be_anything(tmp_path):
    path = write(tmp_path / "a.mat", a=np.eye(2), s={"field": 1.0}, c=np.eye(2) * 1j)
    assert read_matlab(path, ["a"]).keys() == {"a"}
    for name in "sc":
        with pytest.raises(DSAError, match=f"a.mat: not readable as a MATLAB 5 file: {name}: neither"):
            read_matlab(path, [name])


def test_every_byte_changed(tmp_path):
    """SciPy ends its process for some of these."""
    path = write(tmp_path / "a.mat", False, a=np.eye(2), w=cells("one", np.arange(3)))
    whole = path.read_bytes()
    for place in range(len(whole)):
        for value in (0, 0xFF, whole[place] ^ 1):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                read_matlab(path, ["a", "w"])
            except DSAError as error:
                assert str(path) in str(error)
        path.write_bytes(whole[:place])
        with contextlib.suppress(DSAError):  # a file may end between two variables
            read_matlab(path, ["a", "w"])


@pytest.mark.parametrize("claimed", [(2**31 - 1, 2**31 - 1), (-1, 4), (3, 10**6)])
def test_shapes_that_are_not_there(tmp_path, claimed):
    path = write(tmp_path / "a.mat", False, a=cells("one", "two"))
    data = path.read_bytes()
    place = data.index(struct.pack("<ii", 1, 2))
    path.write_bytes(data[:place] + struct.pack("<ii", *claimed) + data[place + 8 :])
    with pytest.raises(DSAError, match="a.mat: not readable as a MATLAB 5 file: "):
        read_matlab(path, ["a"])


@pytest.mark.parametrize(
    "claimed, held, words",
    [((1 << 28) + 8, (1 << 28) + 8, "unpacks to more than"), ((1 << 31) - 8, 1 << 20, "too much memory")],
)
def test_a_small_file_that_unpacks_to_a_large_one(tmp_path, claimed, held, words):
    pack = zlib.compressobj(1)
    body = struct.pack("<IIII", 6, 8, 9, 0) + struct.pack("<IIii", 5, 8, 1, claimed)
    body += struct.pack("<HHI", 1, 1, ord("a")) + struct.pack("<II", 2, claimed)
    blocks = [pack.compress(struct.pack("<II", 14, len(body) + claimed) + body)]
    blocks += [pack.compress(bytes(1 << 20)) for _ in range(held >> 20)] + [pack.compress(bytes(8))]
    packed = b"".join([*blocks, pack.flush()])
    (tmp_path / "a.mat").write_bytes(HEAD + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(DSAError, match=f"a.mat: not readable as a MATLAB 5 file: .*{words}"):
        read_matlab(tmp_path / "a.mat", ["a"])


# ---- the other process ----


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "a.mat", a=np.eye(2))


def worker():
    return matlab._running_worker()


def test_one_process_reads_many_files(path):
    read_matlab(path, ["a"])
    first = worker().pid
    read_matlab(path, ["a"])
    assert worker().pid == first


def test_a_crash_names_the_file_and_the_next_read_works(path):
    process = worker()
    os.kill(process.pid, signal.SIGSTOP)
    threading.Timer(0.3, process.send_signal, [signal.SIGSEGV]).start()
    threading.Timer(0.4, process.send_signal, [signal.SIGCONT]).start()
    with pytest.raises(
        DSAError, match="a.mat: not readable as a MATLAB 5 file: .* ended with exit status -11"
    ):
        read_matlab(path, ["a"])
    assert np.array_equal(read_matlab(path, ["a"])["a"], np.eye(2))


def test_a_process_that_has_ended_is_started_again(path):
    read_matlab(path, ["a"])
    process = worker()
    process.kill()
    process.wait()
    assert read_matlab(path, ["a"]).keys() == {"a"}


def test_a_hang_is_ended(path, monkeypatch):
    monkeypatch.setattr(matlab, "PATIENCE", 0.5)
    os.kill(worker().pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(DSAError, match="a.mat: not readable as a MATLAB 5 file: it takes more than 0.5 s"):
        read_matlab(path, ["a"])
    assert time.monotonic() - began < 10
    monkeypatch.undo()
    assert read_matlab(path, ["a"]).keys() == {"a"}


def test_the_process_ends_with_the_one_that_asks(path):
    code = (
        "import sys; from dsareid.data import matlab\n"
        "matlab.read_matlab(sys.argv[1], ['a']); print(matlab._running_worker().pid)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{int(done.stdout)}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return
    raise AssertionError("it is still there")


def test_a_fork_has_its_own(path):
    first = worker().pid
    if (child := os.fork()) == 0:
        read_matlab(path, ["a"])
        same = worker().pid == first
        worker().kill()
        os._exit(same)
    assert os.waitpid(child, 0)[1] == 0
    assert worker().pid == first and read_matlab(path, ["a"]).keys() == {"a"}


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_matlab(tmp_path / "a.mat", ["a"])
    for content in (b"", b"no MATLAB file", b"\x89HDF\r\n\x1a\n" + bytes(600), bytes(300)):
        (tmp_path / "a.mat").write_bytes(content)
        with pytest.raises(DSAError, match="a.mat: not readable as a MATLAB 5 file: "):
            read_matlab(tmp_path / "a.mat", ["a"])
    with pytest.raises(DSAError, match=f"{tmp_path}: cannot be read: Is a directory"):
        read_matlab(tmp_path, ["a"])
