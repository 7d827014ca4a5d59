"""Files of weights: the zoo's pickles, torch.save, safetensors, and what is none of them."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dsareid.densepose.estimators.rcnn_file import read_weights
from dsareid.ground.errors import DSAError

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.bias": np.array([1.5, -2], dtype=np.float64),
    "c": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
    "d": np.arange(3, dtype=">f4"),
    "scalar": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float32),
}


def check(found, names=tuple(ARRAYS)):
    assert sorted(found) == sorted(names)
    for name in names:
        assert torch.equal(
            found[name], torch.from_numpy(np.array(ARRAYS[name].astype(ARRAYS[name].dtype.newbyteorder("="))))
        )


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "wrap", [dict, OrderedDict, lambda x: {"model": x, "__author__": "me", "iteration": np.int64(3)}]
)
def test_pickles_of_arrays(tmp_path, protocol, wrap):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(wrap(ARRAYS), protocol=protocol))
    check(read_weights(tmp_path / "m.pkl"))


def test_a_pickle_of_python_2(tmp_path):
    """Bytes are text there, and NumPy's modules have other names."""
    content = (
        b"\x80\x02}q\x00U\x05modelq\x01}q\x02U\x01aq\x03cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\n"
        b"q\x05K\x00\x85q\x06U\x01bq\x07\x87q\x08Rq\t(K\x01K\x02\x85q\ncnumpy\ndtype\nq\x0bU\x02f4q\x0cK\x00K\x01\x87q\r"
        b"Rq\x0e(K\x03U\x01<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89U\x08"
        + np.array([1, -2], dtype="<f4").tobytes()
        + b"q\x11tq\x12bss."
    )
    (tmp_path / "m.pkl").write_bytes(content)
    assert read_weights(tmp_path / "m.pkl")["a"].tolist() == [1, -2]


def test_files_of_torch_and_safetensors(tmp_path):
    tensors = {name: torch.tensor(ARRAYS[name]) for name in ("a.weight", "b.bias")}
    torch.save({"model": tensors, "optimizer": {"state": {}}, "iteration": 5}, tmp_path / "m.pth")
    save_file(tensors, tmp_path / "m.safetensors")
    for name in ("m.pth", "m.safetensors"):
        check(read_weights(tmp_path / name), tuple(tensors))


class Bad:
    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path):
    bad = Bad()
    bad.path = tmp_path / "ran"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "m.pkl").write_bytes(pickle.dumps({"model": {"a": bad}}, protocol=protocol))
        with pytest.raises(
            DSAError, match=r"m.pkl: it names (posix|nt)\.system, which is no array; nothing in it was"
        ):
            read_weights(tmp_path / "m.pkl")
    assert not (tmp_path / "ran").exists()


def arrays_with(state):
    """A pickle of one array whose state is another one than NumPy writes."""

    class Odd:
        def __reduce__(self):
            return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state

    return pickle.dumps({"model": {"a": Odd()}})


@pytest.mark.parametrize(
    "content, words",
    [
        (pickle.dumps(ARRAYS)[:-9], "its end is missing; was it downloaded to the end"),
        (b"", "its end is missing"),
        (b"not a pickle at all", "not readable as a pickle of arrays"),
        (pickle.dumps([1, 2]), "it holds a list, not a dictionary of weights"),
        (pickle.dumps({}), "it holds no weights by their names"),
        (pickle.dumps({"model": {"a": "text"}}), "a is a str, not an array"),
        (pickle.dumps({"a": np.array(["x"], dtype=object)}), "an array of 'O8', not of numbers"),
        (
            arrays_with((1, (10**9, 10**9), np.dtype("f4"), False, b"abcd")),
            r"an array of \[1000000000, 10000",
        ),
        (
            arrays_with((1, (-2, -2), np.dtype("f4"), False, b"a" * 16)),
            "m.pkl: not readable as a pickle of arrays",
        ),
        (arrays_with((1, 2)), "m.pkl: not readable as a pickle of arrays"),
    ],
)
def test_damaged_and_other_pickles(tmp_path, content, words):
    (tmp_path / "m.pkl").write_bytes(content)
    with pytest.raises(DSAError, match=words):
        read_weights(tmp_path / "m.pkl")


def test_other_files(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "m.pth")
    (tmp_path / "m.pth").write_bytes((tmp_path / "m.pth").read_bytes()[:-40])
    (tmp_path / "m.safetensors").write_bytes(b"\x00" * 20)
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "object.pth")
    for name in ("m.pth", "m.safetensors", "object.pth"):
        with pytest.raises(DSAError, match=f"{name}: not readable as a "):
            read_weights(tmp_path / name)
