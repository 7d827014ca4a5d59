"""Each command from the outside: what it prints, its exit status, and that nothing is left behind."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from runs import ARGUMENTS, make_run

from dsareid.commands.main import COMMANDS, main, with_flags
from dsareid.data.iuv import write_iuv


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_usage(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0 and all(name in out for name in COMMANDS)
    assert run(capsys)[0] == 2
    status, _, err = run(capsys, "fly")
    assert status == 2 and "no command 'fly'" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(capsys, command):
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), "--help"])
    assert exit_.value.code == 0
    assert f"usage: dsareid {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    text = re.sub(r"[│╭╰─╮╯]|-{9,}", " ", capsys.readouterr().out)
    for option in re.split(r"\n +(?=-[-h])", text)[1:]:
        words = re.sub(r"\(default: [^)]*\)|\(required\)|\{[^}]*\}|\s+", " ", option).split()
        # The name, what it takes, and at least two words of text.
        assert len(words) >= 3 + (words[1].isupper() or "|" in words[1]), option


# Prints, for each command, what its --help has loaded; each in a fork of a process that has loaded tyro.
HELP = """
import contextlib, io, json, os, sys
import tyro
from dsareid.commands.main import COMMANDS, main, with_flags

for name in COMMANDS:
    if os.fork():
        os.wait()
        continue
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    heavy = {"torch", "torchvision", "tensorboard"} & set(sys.modules)
    print(json.dumps([name, sorted(heavy)]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def loaded_by_help():
    code = [sys.executable, "-c", HELP]
    lines = subprocess.run(code, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(map(json.loads, lines))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_waits_for_no_torch(loaded_by_help, command):
    assert loaded_by_help[command] == []


def test_help_shows_the_settings_of_the_preset(capsys):
    for preset, rate in (("paper", "0.0008"), ("demo", "0.012")):
        with pytest.raises(SystemExit):
            main(["train", "--preset", preset, "--help"])
        out = capsys.readouterr().out
        assert rate in out and "--augment.erase" in out and "--loss.margin" in out


def photograph(folder):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(folder / "a.png")
    iuv = rng.integers(0, 25, (30, 20, 3), dtype=np.uint8)
    write_iuv(folder / "a_IUV.png", iuv)
    return folder / "a.png", folder / "a_IUV.png"


def test_warp(capsys, tmp_path):
    image, iuv = photograph(tmp_path)
    status, out, _ = run(capsys, "warp", image, iuv, tmp_path / "out.png", "--box", "2,3,18,28")
    assert status == 0 and "of 24 parts visible" in out
    assert Image.open(tmp_path / "out.png").size[0] > 900


@pytest.mark.parametrize(
    "extra,words",
    [
        (["--box", "1,2,3"], "--box must be x0,y0,x1,y1"),
        (["--box", "0,0,99,5"], "inside the 20x30 image"),
        (["--size", "0"], "--size must be 1..256"),
        (["--scale", "-1"], "--scale"),
    ],
)
def test_warp_with_bad_options(capsys, tmp_path, extra, words):
    image, iuv = photograph(tmp_path)
    status, _, err = run(capsys, "warp", image, iuv, tmp_path / "out.png", *extra)
    assert status == 1 and words in err and err.startswith("dsareid warp: error: ")
    assert len(list(tmp_path.iterdir())) == 2


def test_warp_with_bad_files(capsys, tmp_path):
    image, iuv = photograph(tmp_path)
    for arguments, words in (
        ([image, tmp_path / "no.png", tmp_path / "out.png"], "no.png: no such file"),
        ([image, iuv, tmp_path / "no/out.png"], "cannot write"),
        ([image, iuv, tmp_path / "out.xyz"], "must end in .png"),
    ):
        status, _, err = run(capsys, "warp", *arguments)
        assert status == 1 and words in err
    assert len(list(tmp_path.iterdir())) == 2


WORK = {
    "warp": "dsareid.densepose.textures.part_images",
    "export": "dsareid.inference.export.load_run",
    "report": "dsareid.report.page._content",
    "train": "dsareid.engine.loop.ensure_store",
    "reproduce": "dsareid.reproduce.run.ensure_store",
    "eval": "dsareid.evaluation.evaluate_run.ensure_store",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ["warp", "a.png", "a_IUV.png", "none/x.png"],
        ["warp", "a.png", "a_IUV.png", "folder.png"],
        ["export", "run", "none/m.safetensors"],
        ["export", "run", "folder.safetensors"],
        ["report", "run"],
        ["train", "--data", "data", "--out", "file/run", *ARGUMENTS],
        ["train", "--data", "data", "--out", "file", *ARGUMENTS],
        ["reproduce", "table2", "--data", "data", "--out", "file/out", "--preset", "demo"],
        ["eval", "run"],
    ],
    ids=lambda arguments: " ".join(arguments[:5]),
)
def test_places_that_cannot_be_written_to_are_told_before_the_work(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    photograph(tmp_path)
    (make_run(tmp_path / "run") / "report.html").mkdir()
    (tmp_path / "file").touch()
    for name in ("folder.png", "folder.safetensors"):
        (tmp_path / name).mkdir()

    def begin(*arguments, **options):
        raise AssertionError("the work began")

    monkeypatch.setattr(WORK[arguments[0]], begin)
    if arguments[0] == "eval":  # of a run that may only be read; root may write everywhere
        monkeypatch.setattr("dsareid.ground.files.os.access", lambda *arguments: False)
    status, _, err = run(capsys, *arguments)
    assert status == 1 and "cannot write" in err


def test_train_eval_report(capsys, tiny_data, tmp_path):
    """The whole way on a folder in Market-1501's layout."""
    settings = [*ARGUMENTS, "--epochs", "1", "--data", tiny_data, "--out", tmp_path / "run"]
    status, out, err = run(capsys, "train", *settings)
    assert status == 0, err
    assert "epoch 1/1" in err and not out
    status, out, err = run(capsys, "eval", tmp_path / "run", "--device", "cpu")
    assert status == 0 and "rank-1" in out and "chance" in out, err
    assert 0 <= json.loads((tmp_path / "run/evaluation.json").read_text())["rows"][0]["mAP"] <= 1
    status, out, err = run(capsys, "eval", tmp_path / "run", "--features", "fused", "--device", "cpu")
    assert status == 0, err
    status, out, err = run(capsys, "report", tmp_path / "run")
    assert status == 0 and (tmp_path / "run/report.html").exists(), err
    status, _, err = run(capsys, "train", *settings)
    assert status == 1 and "resume it with --resume" in err
    status, out, err = run(capsys, "train", "--resume", "--out", tmp_path / "run")
    assert status == 0, err


def test_a_preset_that_does_not_exist(capsys):
    for arguments in (["--preset"], ["--preset", "fast"]):
        with pytest.raises(SystemExit) as exit_:
            main(["train", *arguments])
        assert exit_.value.code == 2
        assert "preset" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_settings(capsys, tmp_path):
    status, _, err = run(capsys, "train", "--resume", "--out", tmp_path / "nothing")
    assert status == 1 and "not a run's folder" in err


def test_synth(capsys, tmp_path):
    status, _, err = run(
        capsys,
        "synth",
        tmp_path / "data",
        "--identities",
        "2",
        "--images",
        "2",
        "--height",
        "48",
        "--width",
        "24",
        "--processes",
        "1",
    )
    assert status == 0, err
    assert (tmp_path / "data/synth.json").exists()
    status, _, err = run(capsys, "synth", tmp_path / "other", "--identities", "1")
    assert status == 1 and "identities" in err and not (tmp_path / "other").exists()


def test_pack_and_check(capsys, own_data, tmp_path):
    store = tmp_path / "store"
    status, out, err = run(capsys, "pack", own_data, store)
    assert status == 0 and "27 images of 64 rows x 32 columns" in out, err
    status, again, err = run(capsys, "pack", own_data, store)
    assert status == 0 and again == out and "already holds these files" in err
    status, checked, err = run(capsys, "check", store)
    assert status == 0 and checked == f"{out}ok\n", err
    images = (store / "images.npy").read_bytes()
    (store / "images.npy").write_bytes(images[:-1] + b"x")
    status, out, err = run(capsys, "check", store)
    assert status == 1 and "images.npy: altered" in err and "ok" not in out
    status, _, err = run(capsys, "pack", own_data, own_data)
    assert status == 1 and "exists already and is not a store" in err
    status, _, err = run(capsys, "check", own_data)
    assert status == 1 and "not a store" in err


def test_pack_with_a_broken_file(capsys, own_data, tmp_path):
    path = sorted((own_data / "query").iterdir())[0]
    path.write_bytes(b"")
    status, _, err = run(capsys, "pack", own_data, tmp_path / "store")
    assert status == 1 and path.name in err and "--skip-broken" in err
    status, out, err = run(capsys, "pack", own_data, tmp_path / "store", "--skip-broken")
    assert status == 0 and "skipped as broken" in out and f"query/{path.name}: not readable" in out, err


def test_pack_to_a_size(capsys, tiny_data, tmp_path):
    status, out, _ = run(capsys, "pack", tiny_data, tmp_path / "store", "--height", "32", "--width", "16")
    assert status == 0 and "32 rows x 16 columns" in out
    status, _, err = run(capsys, "pack", tiny_data, tmp_path / "other", "--height", "32")
    assert status == 1 and "--height and --width must both be given" in err


def test_pack_by_a_protocol(capsys, own_data, tmp_path):
    (own_data / "query").rename(own_data / "gt_bbox")
    status, _, err = run(capsys, "pack", own_data, tmp_path / "store", "--protocol", "multi-query")
    assert status == 1 and "gt_bbox: no such folder, or no image of a query's person" in err
    (own_data / "query").mkdir()
    path = sorted((own_data / "gt_bbox").iterdir())[0]
    (own_data / "query" / path.name).write_bytes(path.read_bytes())
    status, out, err = run(capsys, "pack", own_data, tmp_path / "store", "--protocol", "multi-query")
    assert status == 0 and "Market-1501, protocol multi-query" in out and "gt_bbox" in out, err
    assert "note: " in err and "expected 12,936 images of 751 identities, found 16" in err
    status, _, err = run(capsys, "pack", own_data, tmp_path / "other", "--protocol", "485-s0")
    assert status == 1 and "--protocol 485-s0: Market-1501 has no such protocol" in err


def test_data_describe(capsys, own_data, tmp_path):
    status, out, err = run(capsys, "data", "describe", own_data)
    assert status == 0 and "Market-1501" in out and "12,936" in out and not err
    status, _, err = run(capsys, "data", "describe", own_data, "--protocol", "distractors")
    assert status == 1 and "images: no such folder" in err
    status, _, err = run(capsys, "data", "describe", tmp_path / "nowhere")
    assert status == 1 and err.startswith("dsareid data describe: error: ") and "no such folder" in err


def test_data_extract(capsys, tmp_path):
    """What there is of CUHK03 is told; tests/dsareid/data/layouts/test_cuhk03_matlab.py writes images."""
    (tmp_path / "cuhk-03.mat").touch()
    status, _, err = run(capsys, "data", "extract", tmp_path, tmp_path / "out")
    assert status == 1 and "cuhk03_new_protocol_config_labeled.mat: no such file" in err
    status, _, err = run(capsys, "data", "describe", tmp_path)
    assert status == 1 and f"dsareid data extract {tmp_path} OUT" in err


@pytest.mark.parametrize(
    "message, expected",
    [
        ("give `weights=my file.pth`", "give --weights 'my file.pth'"),
        ("give `weights=`", "give --weights ''"),
        ('`weights="none"` or `skip_broken=True`', "--weights none or --skip-broken"),
        ("`out=it's`", "--out 'it'\"'\"'s'"),
    ],
)
def test_advice_can_be_pasted(message, expected):
    assert with_flags(message) == expected


def test_advice_with_paths_can_be_pasted(capsys, own_data, tmp_path):
    """What a message says to type is one argument a path, whatever is in its name."""
    root = own_data.rename(tmp_path / "my data")
    sorted((root / "query").iterdir())[0].write_text("no image")
    assert main(["pack", str(root), str(tmp_path / "the store")]) == 1
    err = capsys.readouterr().err
    command = err[err.index("(dsareid pack") + 1 : err.index(" with --skip-broken")]
    assert shlex.split(command) == ["dsareid", "pack", str(root), str(tmp_path / "the store")]


def test_train_says_what_its_maps_show(capsys, own_data, tmp_path):
    for path in (own_data / "iuv/bounding_box_train").iterdir():
        write_iuv(path, np.zeros((64, 32, 3), np.uint8))
    arguments = ["--data", str(own_data), "--out", str(tmp_path / "run"), "--epochs", "1", *ARGUMENTS]
    assert main(["train", *arguments]) == 0
    assert "note: " in (err := capsys.readouterr().err)
    assert "0 of 16 IUV maps of bounding_box_train show a person; all background: 16" in err
    assert main(["eval", str(tmp_path / "run"), "--features", "fused", "--device", "cpu"]) == 0
    assert "2 of 2 IUV maps of query show a person" in capsys.readouterr().err


def test_queries_without_a_match_stand_beside_the_table(capsys, own_data, tmp_path):
    for path in (own_data / "bounding_box_test").iterdir():
        if path.name.startswith("0006"):
            path.unlink()
    run = make_run(tmp_path / "run", data=own_data)
    assert main(["eval", str(run), "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "1 of 2 queries have a match: for 1 the person is not in the gallery"
    assert main(["report", str(run)]) == 0
    assert "1 of 2 queries have a match" in (run / "report.html").read_text()
    for path in (own_data / "bounding_box_test").iterdir():
        path.rename(path.with_name(path.name.replace("_c1", "_c3").replace("_c2", "_c3")))
    assert main(["eval", str(run), "--device", "cpu"]) == 1
    err = capsys.readouterr().err
    assert "no query has a match" in err and "same-camera rule" in err and "without the column camera" in err


def test_what_packing_has_skipped_is_told_by_every_command(capsys, own_data, tmp_path):
    """Also where the store is found again by itself."""
    sorted((own_data / "query").iterdir())[0].write_text("no image")
    run = make_run(tmp_path / "run", data=own_data)
    assert main(["pack", str(own_data), str(own_data / "store-64x32"), "--skip-broken"]) == 0
    capsys.readouterr()
    assert main(["eval", str(run), "--device", "cpu"]) == 0
    said = capsys.readouterr()
    words = "images left out as broken when it was packed: 1, the first query/0005"
    assert words in said.out.splitlines()[-1] and words in said.err
    assert main(["report", str(run)]) == 0
    assert words in capsys.readouterr().out and words in (run / "report.html").read_text()
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(sorted((own_data / "query").iterdir())[name == "b.png"], tmp_path / "photos" / name)
    assert main(["extract", str(run), str(tmp_path / "photos"), str(tmp_path / "f"), "--skip-broken"]) == 0
    table = tmp_path / "f/images.csv"
    table.write_text("file,identity,camera\nb.png,1,1\n")
    shutil.copytree(tmp_path / "f", tmp_path / "g")
    (tmp_path / "g/images.csv").write_text("file,identity,camera\nb.png,1,2\n")
    capsys.readouterr()
    assert main(["rank", str(tmp_path / "f"), str(tmp_path / "g")]) == 0
    assert "f: images left out as broken by extract: 1" in capsys.readouterr().out


def test_no_input_is_written_over(capsys, tmp_path, tiny_data):
    image, iuv = photograph(tmp_path)
    before = image.read_bytes(), iuv.read_bytes()
    for out in (image, iuv):
        assert main(["warp", str(image), str(iuv), str(out)]) == 1
        assert "this file is an input, and would be overwritten" in capsys.readouterr().err
    query = shutil.copy(sorted((tiny_data / "query").iterdir())[0], tmp_path / "query.png")
    arguments = [str(make_run(tmp_path / "run")), str(query), str(tiny_data / "query"), "--out", str(query)]
    assert main(["search", *arguments]) == 1
    assert "would be overwritten" in capsys.readouterr().err
    assert (image.read_bytes(), iuv.read_bytes()) == before


def test_help_breaks_lines_where_the_terminal_does(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        main(["densepose", "estimate", "--help"])
    said = capsys.readouterr().out
    assert "For a video the folder in which maps/000000.png and so on go; default: NAME_IUV." in said
    assert "best looks at each picture in five sizes instead of two, which takes three to four times" in said
