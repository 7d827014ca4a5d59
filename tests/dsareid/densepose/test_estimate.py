"""Maps of folders of pictures: whole, resumed, and it is told what made them."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dsareid.commands.main import main
from dsareid.data.iuv import read_iuv, read_pair, write_iuv
from dsareid.data.layouts import list_data
from dsareid.data.store.pack import pack
from dsareid.densepose import estimate as module
from dsareid.densepose import estimate_maps, estimate_missing, estimate_tasks, load_estimator
from dsareid.ground.errors import DSAError


@pytest.fixture
def folder(tmp_path):
    """Nine pictures of several sizes, one in a folder, and a file that is none."""
    draw = np.random.default_rng(0)
    root = tmp_path / "pictures"
    for k in range(9):
        path = root / ("deep" if k == 4 else "") / f"{k}.{'jpg' if k % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (30 + k, 20, 3), dtype=np.uint8)).save(path)
    (root / "notes.txt").touch()
    return root


def maps(out):
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.png") if path.stem.isdigit()
    }


def test_a_folder(folder, tiny_bodypix, tmp_path, capsys, caplog):
    out = tmp_path / "maps"
    assert main(["densepose", "estimate", str(folder), str(out), "--weights", str(tiny_bodypix)]) == 0
    said = capsys.readouterr()
    assert f"{out}: 9 maps written\n" in said.out and "look at" in said.out
    assert "notes.txt is skipped" in said.err
    assert sorted(maps(out)) == sorted(["deep/4.png", *(f"{k}.png" for k in range(9) if k != 4)])
    estimator = load_estimator(weights=tiny_bodypix, device="cpu")
    assert np.array_equal(read_iuv(out / "3.png"), estimator(folder / "3.jpg").iuv)
    record = json.loads((out / "estimator.json").read_text())
    assert record["estimator"] == "bodypix" and "Apache-2.0" in record["licence"] and record["origin"]
    assert (out / "contact_sheet.png").exists()
    with Image.open(out / "deep/4_INDS.png") as image:
        assert np.array_equal(np.array(image) > 0, read_iuv(out / "deep/4.png")[..., 0] > 0)


def test_a_data_set_and_one_picture(tiny_data, tiny_bodypix, tmp_path):
    root = shutil.copytree(tiny_data, tmp_path / "data", ignore=shutil.ignore_patterns("iuv", "store-*"))
    estimate_maps(root, weights=tiny_bodypix, device="cpu")
    assert all(entry.iuv for entry in list_data(root).entries)
    picture = sorted((root / "query").iterdir())[0]
    found = estimate_maps(picture, weights=tiny_bodypix, device="cpu", people="one")
    assert found.out == picture.with_name(f"{picture.stem}_IUV.png")
    assert np.array_equal(read_iuv(found.out), read_iuv(root / "iuv/query" / picture.name))
    estimate_maps(picture, tmp_path / "map.png", weights=tiny_bodypix, device="cpu", people="one")
    assert (tmp_path / "map.png").read_bytes() == found.out.read_bytes()


@pytest.fixture
def unmapped(tiny_data, tiny_bodypix, tmp_path, monkeypatch):
    """A data set without maps, and weights where --estimate finds them."""
    monkeypatch.setenv("DSAREID_BODYPIX", str(tiny_bodypix))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copytree(tiny_data, tmp_path / "data", ignore=shutil.ignore_patterns("iuv", "store-*"))


def test_a_data_set_that_is_not_writable(unmapped, tmp_path, monkeypatch, capsys):
    """Its maps lie in the user's cache, and whoever reads the data set finds them."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != unmapped and real(path, mode))
    assert main(["densepose", "estimate", str(unmapped), "--device", "cpu"]) == 0
    place = next((tmp_path / "cache/dsareid").glob("data-*")) / "iuv"
    assert f"{place}: " in capsys.readouterr().out and not (unmapped / "iuv").exists()
    listing = list_data(unmapped)
    assert all(entry.iuv.startswith(f"{place}/") for entry in listing.entries)
    store = pack(unmapped, tmp_path / "store")
    assert store.has_iuv.all() and store.iuv[0].any()
    entry = listing.entries[0]  # a map of the data set itself comes first
    own = unmapped / "iuv" / entry.name
    own.parent.mkdir(parents=True)
    shutil.copy(entry.iuv, own)
    found = list_data(unmapped)
    assert found.entries[0].iuv == f"iuv/{entry.name}" and found.entries[1] == listing.entries[1]
    assert found.fingerprint != listing.fingerprint


def test_maps_from_elsewhere_are_kept_and_told(unmapped, tiny_bodypix):
    listing = list_data(unmapped)
    name = listing.entries[0].name
    theirs = unmapped / "iuv" / f"{os.path.splitext(name)[0]}_IUV.png"
    theirs.parent.mkdir(parents=True)
    write_iuv(theirs, np.zeros((64, 32, 3), np.uint8))
    before = theirs.read_bytes()
    found = estimate_maps(unmapped, weights=tiny_bodypix, device="cpu")
    assert (found.foreign, found.written) == (1, len(listing.entries) - 1) and theirs.read_bytes() == before
    again = estimate_maps(unmapped, weights=tiny_bodypix, device="cpu")
    for each in (found, again):
        assert "kept, though not estimated: 1 (`overwrite=True` estimates them too)" in each.lines()
    assert all(entry.iuv for entry in list_data(unmapped).entries)  # and no image has two
    last = estimate_maps(unmapped, weights=tiny_bodypix, device="cpu", overwrite=True)
    assert (last.written, last.kept, last.foreign) == (1, len(listing.entries) - 1, 0)
    assert theirs.read_bytes() != before and list_data(unmapped).entries[0].iuv.endswith("_IUV.png")


def test_commands_say_what_is_missing_and_estimate(unmapped, tmp_path, capsys):
    """pack, train and eval; the model is so small that it learns nothing."""
    count = len(list_data(unmapped).entries)
    root, run = str(unmapped), str(tmp_path / "run")
    how = f"dsareid densepose estimate {root} makes them from the pictures alone, in about a minute at most"
    small = "--preset demo --epochs 1 --identities 2 --images 2 --device cpu".split()
    train = ["train", "--data", root, "--out", run, *small]
    assert main(["pack", root, str(tmp_path / "before")]) == 0
    assert f"note: {root}: {count} of {count} images have no IUV map" in (said := capsys.readouterr().err)
    assert how in said
    assert main(train) == 1
    assert how in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main([*train, "--identities", "9", "--estimate"]) == 1  # told before maps are made
    assert "a batch needs 9: give --identities 4 or fewer" in capsys.readouterr().err
    assert not (unmapped / "iuv").exists()
    assert main([*train, "--estimate"]) == 0
    assert f"{unmapped / 'iuv'}: {count} maps written" in capsys.readouterr().err
    shutil.rmtree(unmapped / "iuv/query")
    fused = ["eval", run, "--features", "fused"]
    assert main(fused) == 1
    assert how in (said := capsys.readouterr().err) and "fused features need the IUV" in said
    assert main([*fused, "--estimate"]) == 0
    assert "2 maps written" in capsys.readouterr().err
    assert main([*fused, "--estimate"]) == 0
    assert "written" not in capsys.readouterr().err
    shutil.rmtree(unmapped / "iuv")
    (tmp_path / "file").touch()
    assert main(["pack", root, str(tmp_path / "file"), "--estimate"]) == 1 and not (unmapped / "iuv").exists()
    capsys.readouterr()
    assert main(["pack", root, str(tmp_path / "after"), "--estimate"]) == 0
    assert "have no IUV map" not in (said := capsys.readouterr()).err
    assert f"with an IUV map{count:>13}" in said.out


def interrupt_fourth_map(patch):
    """Make writing the fourth map end as Ctrl-C does."""
    write, written = estimate_tasks.write_iuv, []

    def interrupted(path, iuv, note):
        written.append(path)
        if len(written) == 4:
            raise KeyboardInterrupt
        write(path, iuv, note)

    patch.setattr(estimate_tasks, "write_iuv", interrupted)


def test_an_interrupted_call_resumes_to_the_same_bytes(folder, tiny_bodypix, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    before = torch.get_num_threads()
    estimate_maps(folder, whole, weights=tiny_bodypix, device="cpu")
    assert torch.get_num_threads() == before
    with monkeypatch.context() as patch:
        interrupt_fourth_map(patch)
        with pytest.raises(KeyboardInterrupt, match="maps are there; the same command resumes"):
            estimate_maps(folder, out, weights=tiny_bodypix, device="cpu")
    some = maps(out)
    assert 0 < len(some) < 9
    monkeypatch.setattr(module, "cores", lambda: 1)
    found = estimate_maps(folder, out, weights=tiny_bodypix, device="cpu")
    assert (found.written, found.kept) == (9 - len(some), len(some)) and maps(out) == maps(whole)


def test_maps_of_other_settings_are_not_mixed(folder, tiny_bodypix, tmp_path):
    out = tmp_path / "maps"
    estimate_maps(folder, out, weights=tiny_bodypix, device="cpu")
    before = maps(out)
    with pytest.raises(DSAError, match="maps: 9 of the maps were made by other settings, the first .*0.png"):
        estimate_maps(folder, out, weights=tiny_bodypix, device="cpu", quality="best")
    assert maps(out) == before
    found = estimate_maps(folder, out, weights=tiny_bodypix, device="cpu", quality="best", overwrite=True)
    assert found.written == 9 and maps(out) != before


def test_overwriting_resumes_and_never_mixes(folder, tiny_bodypix, tmp_path, monkeypatch):
    out, options = tmp_path / "maps", {"weights": tiny_bodypix, "device": "cpu"}
    estimate_maps(folder, out, **options)
    estimate_maps(folder, tmp_path / "best", **options, quality="best")
    with monkeypatch.context() as patch:
        interrupt_fourth_map(patch)
        with pytest.raises(KeyboardInterrupt):
            estimate_maps(folder, out, **options, quality="best", overwrite=True)
    for quality in ("best", "default"):  # some maps are of the one, some of the other
        with pytest.raises(DSAError, match="were made by other settings"):
            estimate_maps(folder, out, **options, quality=quality)
    found = estimate_maps(folder, out, **options, quality="best", overwrite=True)
    assert found.kept >= 3 and found.kept + found.written == 9 and maps(out) == maps(tmp_path / "best")


def test_pictures_that_have_changed(folder, unmapped, tiny_bodypix, tmp_path):
    """Their maps are made anew; who reads both before that is told."""
    out, options = tmp_path / "maps", {"weights": tiny_bodypix, "device": "cpu"}
    estimate_maps(folder, out, **options)
    shutil.copy(folder / "1.jpg", folder / "3.jpg")
    with pytest.raises(DSAError, match=r"3.png: estimated before .*3.jpg was changed; run dsareid densepo"):
        read_pair(folder / "3.jpg", out / "3.png")
    with pytest.raises(DSAError, match=r"gone.jpg: no such file \(an image was expected\)"):
        read_pair(folder / "gone.jpg", out / "3.png")
    found = estimate_maps(folder, out, **options)
    assert (found.written, found.changed, found.kept) == (1, 1, 8)
    assert np.array_equal(*(read_pair(folder / f"{k}.jpg", out / f"{k}.png")[1] for k in (1, 3)))
    estimate_maps(unmapped, **options)
    first, second = sorted((unmapped / "query").iterdir())[:2]
    shutil.copy(first, second)
    with pytest.raises(DSAError, match="was changed"):
        pack(unmapped, tmp_path / "store")


def test_settings_of_maps_that_are_there_are_kept_by_commands(unmapped, tiny_bodypix):
    options = {"weights": tiny_bodypix, "device": "cpu"}
    estimate_maps(unmapped, **options, quality="best", people="all")
    some = sorted((unmapped / "iuv/query").iterdir())
    before = some[0].read_bytes()
    some[0].unlink()
    estimate_missing(unmapped, device="cpu")
    assert some[0].read_bytes() == before
    (unmapped / "iuv/estimator.json").write_text("[]")
    some[0].unlink()
    with pytest.raises(DSAError, match="were made by other settings"):
        estimate_missing(unmapped, device="cpu")


def test_pictures_without_a_person_are_listed(folder, tiny_bodypix, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dsareid.densepose.estimators.bodypix.NOBODY", 1.1)
    arguments = [str(folder), str(tmp_path / "maps"), "--weights", str(tiny_bodypix)]
    assert main(["densepose", "estimate", *arguments]) == 0
    assert "nobody seen, all background: 9 (" in capsys.readouterr().out
    assert len((tmp_path / "maps/no_detection.txt").read_text().splitlines()) == 9
    assert not (tmp_path / "maps/contact_sheet.png").exists()


def test_others_are_left_out_of_crops_and_told(folder, unmapped, tiny_bodypix, tmp_path, capsys, monkeypatch):
    """Also by a call that resumes, which did not see them; a data set's pictures are of one person each."""

    def half(body, toward):
        whose = body.long()
        whose[:, : whose.shape[1] // 2] *= 2
        return whose

    monkeypatch.setattr("dsareid.densepose.estimators.bodypix.tell_apart", half)
    options = ["--weights", str(tiny_bodypix), "--device", "cpu"]
    assert main(["densepose", "estimate", str(folder), str(tmp_path / "maps"), *options]) == 0
    assert "left out" not in capsys.readouterr().out
    assert (
        main(["densepose", "estimate", str(folder), str(tmp_path / "one"), *options, "--people", "one"]) == 0
    )
    said = "several people seen, all but one left out: 9 (0.png, 1.jpg, 2.png, ...)"
    assert said in capsys.readouterr().out
    names = (tmp_path / "one/others_left_out.txt").read_text().splitlines()
    assert len(names) == 9 and not read_iuv(tmp_path / "one/0.png")[:, :10].any()
    (tmp_path / "one/others_left_out.txt").unlink()
    (tmp_path / "one/3.png").unlink()
    assert (
        main(["densepose", "estimate", str(folder), str(tmp_path / "one"), *options, "--people", "one"]) == 0
    )
    assert said in capsys.readouterr().out
    assert (tmp_path / "one/others_left_out.txt").read_text().splitlines() == names
    assert main(["densepose", "estimate", str(unmapped), *options]) == 0
    assert "all but one left out" in capsys.readouterr().out
    assert json.loads((unmapped / "iuv/estimator.json").read_text())["people"] == "one"


def test_what_cannot_be_estimated(folder, tiny_bodypix, tmp_path):
    shutil.copy(folder / "0.png", folder / "0.tif")
    with pytest.raises(DSAError, match="0.png and 0.tif would have one map"):
        estimate_maps(folder, tmp_path / "maps", weights=tiny_bodypix, device="cpu")
    (folder / "0.tif").unlink()
    for inside in (folder, folder / "deep", folder / "iuv/more"):
        with pytest.raises(DSAError, match="where maps would be taken for pictures; choose .*iuv, which"):
            estimate_maps(folder, inside, weights=tiny_bodypix, device="cpu")
    with pytest.raises(DSAError, match="map.jpg: the name of a map must end in .png"):
        estimate_maps(folder / "1.jpg", tmp_path / "map.jpg", weights=tiny_bodypix, device="cpu")
    with pytest.raises(DSAError, match="Is a directory"):
        (tmp_path / "folder.png").mkdir()
        estimate_maps(folder / "1.jpg", tmp_path / "folder.png", weights=tiny_bodypix, device="cpu")
    estimate_maps(folder, folder / "iuv", weights=tiny_bodypix, device="cpu")
    with pytest.raises(DSAError, match="iuv: this is a folder of estimated maps; give the pictures"):
        estimate_maps(folder / "iuv", weights=tiny_bodypix, device="cpu")
    (tmp_path / "file").touch()
    with pytest.raises(DSAError, match="cannot create the folder"):
        estimate_maps(folder, tmp_path / "file/maps", weights=tiny_bodypix, device="cpu")
    with pytest.raises(DSAError, match="nowhere.jpg: no such file"):
        estimate_maps(tmp_path / "nowhere.jpg", weights=tiny_bodypix, device="cpu")


def test_pictures_that_cannot_be_read(folder, unmapped, tiny_bodypix, tmp_path, capsys):
    """All others are estimated; the command fails in the end, --estimate leaves them to who reads them."""
    (folder / "2.png").write_text("no picture")
    (folder / "a\nb.jpg").write_bytes(b"")
    arguments = ["densepose", "estimate", str(folder), str(tmp_path / "maps"), "--weights", str(tiny_bodypix)]
    for _ in range(2):
        assert main(arguments) == 1
        said = capsys.readouterr()
        assert "not readable: 2 (2.png, a\\nb.jpg)" in said.out
        assert "2 pictures cannot be read and have no map: " in said.err
        assert len(maps(tmp_path / "maps")) == 8
        assert len((tmp_path / "maps/not_readable.txt").read_text().splitlines()) == 2
    (folder / "2.png").unlink()
    (folder / "a\nb.jpg").unlink()
    assert main(arguments) == 0 and not (tmp_path / "maps/not_readable.txt").exists()
    with pytest.raises(DSAError, match="1.png: not readable as an image"):
        (tmp_path / "1.png").touch()
        estimate_maps(tmp_path / "1.png", weights=tiny_bodypix, device="cpu")
    sorted((unmapped / "query").iterdir())[0].write_text("no picture")
    capsys.readouterr()
    assert main(["pack", str(unmapped), str(tmp_path / "store"), "--estimate", "--skip-broken"]) == 0
    assert "not readable: 1" in capsys.readouterr().err


def test_maps_among_the_pictures_are_passed_over(folder, tiny_bodypix, tmp_path, caplog):
    estimate_maps(folder / "1.jpg", weights=tiny_bodypix, device="cpu")
    shutil.copy(folder / "1_IUV.png", folder / "1_INDS.png")
    shutil.copy(folder / "0.png", folder / "contact_sheet.png")
    found = estimate_maps(folder, tmp_path / "maps", weights=tiny_bodypix, device="cpu")
    assert found.written == 9
    assert f"{folder}: skipped because they are named like maps: 3 files" in caplog.text


@pytest.mark.processes
@pytest.mark.skipif(not os.environ.get("REAL_BODYPIX"), reason="DSAREID_BODYPIX does not name the weights")
def test_processes_say_what_went_wrong(folder, tmp_path):
    """The reason is printed, not only that another process is lost."""
    (tmp_path / "file").touch()
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dsareid"]
    call = ["densepose", "estimate", folder, tmp_path / "file/maps", "--weights", os.environ["REAL_BODYPIX"]]
    ended = subprocess.run([*launch, *call], capture_output=True, text=True)
    assert ended.returncode and "cannot create the folder" in ended.stderr


@pytest.mark.processes
@pytest.mark.skipif(not os.environ.get("REAL_BODYPIX"), reason="DSAREID_BODYPIX does not name the weights")
def test_processes_share_the_work(folder, tmp_path):
    weights = os.environ["REAL_BODYPIX"]
    options = ["-m", "dsareid", "densepose", "estimate", folder]
    subprocess.run([sys.executable, *options, tmp_path / "one", "--weights", weights], check=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    subprocess.run([*launch, *options, tmp_path / "two", "--weights", weights], check=True)
    assert maps(tmp_path / "one") == maps(tmp_path / "two") and len(maps(tmp_path / "one")) == 9
