"""CUHK03's MATLAB files, made in miniature, and the image files written from them."""

import re

import h5py
import numpy as np
import pytest
from cuhk03_files import CONFIG, KINDS, PEOPLE, config, shot_image, write_images
from PIL import Image
from scipy.io import savemat

from dsareid.data.layouts import cuhk03_matlab as cuhk03
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.data.layouts.cuhk03_matlab import write_image_files
from dsareid.ground.errors import DSAError


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "cuhk03"
    root.mkdir()
    write_images(root / "cuhk-03.mat")
    for kind in KINDS:
        savemat(root / CONFIG.format(kind), config())
    return root


EXPECTED = {
    f"{TRAIN}/0002_c1_4.png": (1, 2, 2),
    f"{TRAIN}/0002_c2_5.png": (1, 2, 7),
    f"{TRAIN}/0004_c1_9.png": (4, 1, 3),
    f"{TRAIN}/0004_c2_10.png": (4, 1, 9),
    f"{QUERY}/0001_c1_1.png": (1, 1, 1),
    f"{QUERY}/0001_c2_3.png": (1, 1, 6),
    f"{QUERY}/0003_c2_8.png": (1, 3, 10),
    f"{GALLERY}/0001_c1_2.png": (1, 1, 2),
    f"{GALLERY}/0003_c1_6.png": (1, 3, 1),
    f"{GALLERY}/0003_c2_7.png": (1, 3, 6),
}


@pytest.mark.parametrize("place", ["cuhk-03.mat", "cuhk03_release/cuhk-03.mat"])
def test_images_are_written_by_the_protocol(root, tmp_path, place):
    (root / "cuhk03_release").mkdir()
    (root / "cuhk-03.mat").rename(root / place)
    out = tmp_path / "deep/er/np"
    assert write_image_files(root, out) == [out / kind for kind in KINDS]
    assert [path.name for path in out.parent.iterdir()] == ["np"]
    for kind in KINDS:
        files = {str(p.relative_to(out / kind)): p for p in (out / kind).rglob("*") if p.is_file()}
        assert files.keys() == EXPECTED.keys()
        for name, cell in EXPECTED.items():
            assert np.array_equal(Image.open(files[name]), shot_image(kind, *cell))


def test_what_is_written_is_a_data_set(root, tmp_path, caplog):
    write_image_files(root, tmp_path / "np")
    assert not caplog.messages
    for kind in KINDS:
        listing = list_data(tmp_path / "np" / kind)
        assert listing.dataset.name == f"CUHK03 {kind}"
        found = {e.name: (e.identity, e.camera) for e in listing.entries}
        assert found.keys() == EXPECTED.keys() and found[f"{QUERY}/0003_c2_8.png"] == (3, 2)


def test_the_folder_has_the_permissions_of_any_other(root, tmp_path):
    write_image_files(root, tmp_path / "np")
    (tmp_path / "other").mkdir()
    assert (tmp_path / "np").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("missing", ["cuhk-03.mat", *(CONFIG.format(kind) for kind in KINDS)])
def test_a_missing_file_is_named(root, tmp_path, missing):
    (root / missing).unlink()
    with pytest.raises(DSAError, match=f"cuhk03/{missing}: no such file; CUHK03 is .*person-re-ranking"):
        write_image_files(root, tmp_path / "np")


@pytest.mark.parametrize("missing", ["train_idx", "gallery_idx", "filelist", "labels", "camId"])
def test_a_config_without_a_key(root, tmp_path, missing):
    content = config()
    del content[missing]
    savemat(root / CONFIG.format("detected"), content)
    with pytest.raises(DSAError, match=f"detected.mat: expected {missing} in it too, .* holds .*query_idx"):
        write_image_files(root, tmp_path / "np")


NAMES = [str(cell) for cell in config()["filelist"].ravel()]
LABELS = config()["labels"].ravel().tolist()
VIEWS = config()["camId"].ravel().tolist()


def renamed(first):
    """The change by which filelist begins with another name."""
    return {"filelist": np.array([first, *NAMES[1:]], object)}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"train_idx": []}, "train_idx is empty: no images for bounding_box_train"),
        ({"query_idx": [0, 1]}, "query_idx must be whole numbers 1..10, each once"),
        ({"query_idx": [11]}, "query_idx must be whole numbers 1..10"),
        ({"gallery_idx": [1.5]}, "gallery_idx must be whole numbers 1..10"),
        ({"gallery_idx": [2, 2]}, "gallery_idx must be whole numbers 1..10, each once"),
        ({"gallery_idx": ["two"]}, "gallery_idx must be whole numbers"),
        ({"train_idx": [1, 4]}, "training and test identities must not overlap, but 1 is in both"),
        ({"labels": LABELS[:9]}, "must be of one length, not 10, 9 and 10"),
        ({"labels": [9, *LABELS[1:]]}, "1_001_1_02.png: its label is 1, but before it was 9"),
        ({"labels": [1] * 10}, "labels: two persons of filelist have the same label"),
        ({"camId": [2, *VIEWS[1:]]}, "1_001_1_01.png: its shot and its view do not agree with camId 2"),
        (renamed("1_001_1_06.png"), "1_001_1_06.png: its shot and its view do not agree"),
        (renamed("a.png"), "filelist: expected names like 1_001_2_06.png, not 'a.png'"),
        (renamed("1_001_1_03.png"), "names pair 1, person 1, shot 3, but .*cuhk-03.mat has no such image"),
        (renamed("2_001_1_03.png") | {"labels": [9, *LABELS[1:]]}, "pair 2, person 1, shot 3, but"),
    ],
)
def test_a_config_that_is_wrong(root, tmp_path, change, words):
    savemat(root / CONFIG.format("labeled"), config(**change))
    with pytest.raises(DSAError, match=f"config_labeled.mat: .*{words}"):
        write_image_files(root, tmp_path / "np")
    assert [path.name for path in tmp_path.iterdir()] == ["cuhk03"]


def test_images_of_no_split_are_mentioned(root, tmp_path, caplog):
    write_images(root / "cuhk-03.mat", PEOPLE | {(1, 1): [1, 2, 4, 6]})
    write_image_files(root, tmp_path / "np")
    said = "\n".join(caplog.messages)
    assert "cuhk-03.mat: 1 of its labeled images are in no split" in said and "1 of its detected" in said


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n" + b"x" * 600])
def test_files_that_are_no_matlab_files(root, tmp_path, content):
    (root / "cuhk-03.mat").write_bytes(content)
    with pytest.raises(DSAError, match="cuhk-03.mat: not readable as a MATLAB 7.3 file"):
        write_image_files(root, tmp_path / "np")
    (root / CONFIG.format("labeled")).write_bytes(content)
    with pytest.raises(DSAError, match="config_labeled.mat: not readable as a MATLAB 5 file"):
        write_image_files(root, tmp_path / "np")
    assert [path.name for path in tmp_path.iterdir()] == ["cuhk03"]


def test_a_damaged_config(root, tmp_path):
    path = root / CONFIG.format("labeled")
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DSAError, match="config_labeled.mat: "):
        write_image_files(root, tmp_path / "np")


def test_hdf5_that_is_not_cuhk03(root, tmp_path):
    path = root / "cuhk-03.mat"
    with h5py.File(path, "w") as file:
        file["testsets"] = [1]
    with pytest.raises(DSAError, match="expected labeled and detected in it, but it holds testsets"):
        write_image_files(root, tmp_path / "np")
    with h5py.File(path, "w") as file:
        file["labeled"] = [[1, 2]]
    with pytest.raises(DSAError, match="cuhk-03.mat: labeled: expected 5 cells, each a table of persons x"):
        write_image_files(root, tmp_path / "np")


def test_an_image_of_another_kind(root, tmp_path):
    with h5py.File(root / "cuhk-03.mat", "a") as file:
        cell = file[file["labeled"][0, 0]][1, 1]  # pair 1, person 2, shot 2
        name = file[cell].name
        del file[name]
        file[name] = np.zeros((3, 3, 5), np.float32)
        table = file[file["labeled"][0, 0]]
        rows = table[()]
        rows[1, 1] = file[name].ref
        table[...] = rows
    with pytest.raises(DSAError, match=r"an image must be uint8 \[H, W, 3\], not float32 \[5, 3, 3\]"):
        write_image_files(root, tmp_path / "np")


def test_something_in_the_place(root, tmp_path):
    out = tmp_path / "np"
    out.mkdir()
    write_image_files(root, out)  # an empty folder is in nobody's way
    for place in (out, root / "cuhk-03.mat"):
        with pytest.raises(DSAError, match=f"{place.name}: expected a new or empty folder"):
            write_image_files(root, place)


@pytest.mark.parametrize(
    "error, seen", [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), DSAError)]
)
def test_nothing_is_left_behind(root, tmp_path, monkeypatch, error, seen):
    written = []

    def write(pixels, path):
        written.append(path)
        if len(written) == 5:
            raise error
        Image.fromarray(pixels).save(path)

    monkeypatch.setattr(cuhk03, "_write", write)
    with pytest.raises(seen, match="cannot write .*np: No space left" if seen is DSAError else None):
        write_image_files(root, tmp_path / "np")
    assert len(written) == 5 and [path.name for path in tmp_path.iterdir()] == ["cuhk03"]


def test_damage_inside_of_the_images(root, tmp_path):
    """Images, where the damage is in what is not read, or an error of ours."""
    path, refused = root / "cuhk-03.mat", 0
    whole = path.read_bytes()
    for sign in re.finditer(b"SNOD|HEAP|TREE|FRHP", whole):
        path.write_bytes(whole[: sign.start()] + b"XXXX" + whole[sign.end() :])
        try:
            write_image_files(root, tmp_path / f"np-{sign.start()}")
        except DSAError as error:
            assert f"{path}: " in str(error)
            refused += 1
    assert refused > 2


def test_an_image_that_claims_to_be_huge(root, tmp_path):
    with h5py.File(root / "cuhk-03.mat", "a") as file:
        table = file[file["labeled"][0, 0]]
        table[0, 0] = file.create_dataset("huge", (3, 10**6, 10**6), np.uint8, chunks=(3, 100, 100)).ref
    with pytest.raises(DSAError, match="cuhk-03.mat: .*/huge claims to have 3,000,000,000,000 bytes"):
        write_image_files(root, tmp_path / "np")
