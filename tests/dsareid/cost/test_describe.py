"""What describe counts, against counts by hand; what it measures, against what there must be at least."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dsareid.commands.main import main
from dsareid.cost import memory, tables, timing
from dsareid.cost.anatomy import CLASSIFIERS, DSAG, FUSION, MF, anatomy
from dsareid.cost.memory import training_peak
from dsareid.cost.tables import cost_tables, format_anatomy, format_inference, format_peaks, without_guide
from dsareid.cost.timing import Inference, Seconds, ways
from dsareid.engine.presets import PRESETS
from dsareid.engine.presets import preset as preset_of
from dsareid.ground.errors import DSAError
from dsareid.models.branch import BranchConv2d, BranchLinear
from dsareid.models.options import INPUTS_OF_GUIDANCE, NetworkConfig
from dsareid.runs.network import build_model, input_config

CPU = torch.device("cpu")
SMALL = NetworkConfig(width=1 / 16, head_width=1 / 16, depths=(1, 1, 1, 1))
KINDS = {
    "dsa": {},
    "dsa-global": {"model": "dsa-global"},
    "dsa-local": {"model": "dsa-local"},
    "two-branch": {"model": "two-branch"},
    "baseline": {"model": "baseline"},
    "dsap": {"model": "dsap"},
    "concat": {"guidance": "concat"},
    "distill": {"guidance": "distill"},
    "gate": {"guidance": "gate"},
    "pool": {"guidance": "pool"},
    "texture": {"guidance": "texture"},
    "crops": {"guide_input": "part-crops"},
    "patches": {"guide_input": "image-patches"},
}


def preset(name="paper", **changes):
    return preset_of(name, Path(), Path(), **changes)


def small(**changes):
    """64x32 images, S = 8: trunk 4, 16, 32, 64 channels; f_G 128; guide 2, 4, 8 channels a part."""
    return preset(height=64, width=32, dsap_size=8, network=SMALL, **changes)


def in_all(layers):
    return sum(layer.parameters for layer in layers), sum(layer.multiply_adds for layer in layers)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(timing, "ROUNDS", 3)
    monkeypatch.setattr(timing, "SECONDS", 0.0)


def test_a_convolution_by_hand():
    """A weight is multiplied once for each pixel of the output, in grouped convolutions too."""
    parts = anatomy(small(), 5)
    layers = {layer.name: layer for layers in (parts[MF], parts[DSAG]) for layer in layers}
    conv1 = layers["trunk conv1"]  # 7x7, 3 -> 4, stride 2, and BatchNorm
    assert conv1.output == (4, 32, 16)
    assert conv1.parameters == 4 * 3 * 49 + 2 * 4
    assert conv1.multiply_adds == 4 * 3 * 49 * 32 * 16
    conv2 = layers["conv2"]  # 24 branches, 3x3, 2 -> 4
    assert conv2.output == (24, 4, 8, 8)
    assert conv2.parameters == 24 * (4 * 2 * 9 + 2 * 4)
    assert conv2.multiply_adds == 24 * 4 * 2 * 9 * 8 * 8
    conv4 = layers["conv4"]  # 13 branches: 3x3 4 -> 8 with stride 2, three of 8 -> 8, 1x1 4 -> 8
    assert conv4.output == (13, 8, 2, 2)
    weights = 13 * (8 * 4 * 9 + 3 * 8 * 8 * 9 + 8 * 4)
    assert conv4.parameters == weights + 13 * 5 * 2 * 8
    assert conv4.multiply_adds == weights * 2 * 2
    head = layers["head_l"]  # 8 branches of 4 -> 16 channels, each on all 64
    assert head.output == (8, 16, 4, 2)
    weights = 8 * (4 * 64 + 4 * 4 * 9 + 16 * 4 + 16 * 64)
    assert head.parameters == weights + 8 * 2 * (4 + 4 + 16 + 16)
    assert head.multiply_adds == weights * 4 * 2


def test_merges_add_only():
    merges = [layer for layer in anatomy(small(), 5)[DSAG] if layer.name.startswith("merge")]
    assert [(m.name, m.output, m.parameters, m.multiply_adds) for m in merges] == [
        ("merge 24 to 13", (13, 4, 4, 4), 0, 0),
        ("merge 13 to 8", (8, 8, 2, 2), 0, 0),
    ]


def test_fusion_and_classifiers_by_hand():
    parts = anatomy(small(guidance="concat"), 5)
    z_global, z_local = parts[FUSION]
    assert (z_global.output, z_global.multiply_adds) == ((128,), 256 * 128)
    assert z_global.parameters == 256 * 128 + 128
    assert (z_local.output, z_local.multiply_adds) == ((8, 16), 8 * 32 * 16)
    f_global, f_local = parts[CLASSIFIERS][:2]  # d -> 512, BatchNorm, -> 5
    assert (f_global.output, f_global.multiply_adds) == ((5,), 128 * 512 + 512 * 5)
    assert f_global.parameters == 128 * 512 + 512 + 2 * 512 + 512 * 5 + 5
    assert (f_local.output, f_local.multiply_adds) == ((8, 5), 8 * (16 * 512 + 512 * 5))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_out(kind):
    """All parameters, and multiply-adds counted another way: from weights and the pixels of the outputs."""
    config = small(**KINDS[kind])
    parts = anatomy(config, 5)
    model = build_model(config, 5)
    counts = [in_all(layers) for layers in parts.values()]
    assert sum(parameters for parameters, _ in counts) == sum(p.numel() for p in model.parameters())
    work = []
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, BranchConv2d, nn.Linear)):
            layer.register_forward_hook(
                lambda layer, _, y: work.append(layer.weight.numel() * y[0].numel() // len(layer.weight))
            )
        if isinstance(layer, BranchLinear):
            work.append(layer.weight.numel())
    model.train()(torch.randn(2, 3, 64, 32), torch.zeros(input_config(config, CPU).guide_shape(2)))
    assert sum(multiply_adds for _, multiply_adds in counts) == sum(work)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset(name):
    parts = anatomy(preset(name), 751)
    assert list(parts) == [MF, DSAG, CLASSIFIERS]
    assert [layer.name for layer in parts[DSAG]] == [
        "conv1",
        "conv2",
        "conv3",
        "merge 24 to 13",
        "conv4",
        "merge 13 to 8",
        "conv5_g",
        "conv5_l",
    ]


def test_the_paper_preset():
    """Multiply-adds of the guide by hand: its weights (tests/dsareid/models) times pixels."""
    parts = anatomy(preset(), 751)
    found = {layer.name: (layer.output, layer.multiply_adds) for layer in parts[DSAG]}
    assert found == {
        "conv1": ((24, 32, 32, 32), 57_600 * 1024),
        "conv2": ((24, 64, 32, 32), 442_368 * 1024),
        "conv3": ((24, 64, 16, 16), 3_637_248 * 256),
        "merge 24 to 13": ((13, 64, 16, 16), 0),
        "conv4": ((13, 128, 8, 8), 6_815_744 * 64),
        "merge 13 to 8": ((8, 128, 8, 8), 0),
        "conv5_g": ((2048, 8, 8), 134_217_728 * 64),
        "conv5_l": ((8, 256, 8, 8), 16_777_216 * 64),
    }
    assert in_all(parts[MF]) == (27_692_096, 4_585_947_136)
    assert in_all(parts[DSAG]) == (162_025_472, 11_542_986_752)


@pytest.mark.parametrize(
    "kind,titles,absent",
    [
        ("two-branch", [MF, CLASSIFIERS], "conv5"),
        ("baseline", [MF, CLASSIFIERS], "head_l"),
        ("dsap", [DSAG, CLASSIFIERS], "head_g"),
        ("dsa-global", [MF, DSAG, CLASSIFIERS], "conv5_l"),
        ("dsa-local", [MF, DSAG, CLASSIFIERS], "conv5_g"),
        ("concat", [MF, DSAG, FUSION, CLASSIFIERS], "distill"),
    ],
)
def test_a_network_prints_what_it_has(kind, titles, absent):
    config = small(**KINDS[kind])
    text = format_anatomy(config, anatomy(config, 5))
    heads = [line for line in text.splitlines()[1:] if line and not line.startswith(" ")]
    assert [head[: len(title)] for head, title in zip(heads, titles, strict=True)] == titles
    assert absent not in text and ("part images" in text) == (config.guide is not None)


def test_the_table():
    config = small(model="two-branch")
    parts = {MF: anatomy(config, 5)[MF]}
    lines = format_anatomy(config, parts, {MF: [0.001] * 5 + [0.25]}).splitlines()
    assert lines[0] == "two-branch: images of 64x32"
    assert lines[2].split() == ["MF-Stream", *"output an image parameters multiply-adds share ms".split()]
    assert lines[3].split()[:-2] == "trunk conv1 4 x 32 x 16 596 301,056".split()
    assert all(line.endswith(" 1.00") for line in lines[3:8])
    shares = [float(line.split()[-2].rstrip("%")) for line in lines[3:9]]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    parameters, multiply_adds = in_all(parts[MF])
    assert lines[8].split()[:4] == ["head_l,", "mean:", "f_L", "8"] and lines[8].endswith(" 250.00")
    assert lines[9].split() == ["in", "all", f"{parameters:,}", f"{multiply_adds:,}", "255.00"]


def test_the_inference_table():
    config = small(guidance="concat")
    parts = anatomy(config, 5)
    seconds = {"f": Seconds(0.001, 0.004), "z": Seconds(0.003, 0.017)}
    lines = format_inference(config, parts, seconds, "here").splitlines()
    alone, fused, ratio = (line.split() for line in lines[1:4])
    (mf, mf_work), *rest = (in_all(parts[title]) for title in (MF, DSAG, FUSION))
    whole, whole_work = (n + sum(counts) for n, counts in zip((mf, mf_work), zip(*rest)))
    assert alone[-5:] == [f"{mf:,}", f"{mf_work:,}", "1.00", "4.00", "5.00"]
    assert fused[-5:] == [f"{whole:,}", f"{whole_work:,}", "3.00", "17.00", "20.00"]
    assert ratio[-5:] == [f"{whole / mf:.2f}", f"{whole_work / mf_work:.2f}", "3.00", "4.25", "4.00"]
    assert "here" in lines[4] and "not included: DensePose" in lines[-1]


@pytest.mark.parametrize(
    "kind,expected",
    [("dsa", ["f", "z"]), ("two-branch", ["f"]), ("dsap", ["d"]), ("distill", ["f"]), ("concat", ["f", "z"])],
)
def test_ways_to_match(kind, expected):
    assert ways(small(**KINDS[kind])) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_times(kind, quick):
    """Everything is timed; the text says of DensePose what is true of this network."""
    config = small(**KINDS[kind])
    parts = anatomy(config, 5)
    inference = Inference(config, 5, 2, CPU)
    layers, by_way = inference.by_layer(parts), inference.by_way()
    assert {title: len(times) for title, times in layers.items()} == {
        title: len(parts[title]) for title in (MF, DSAG) if title in parts
    }
    assert all(0 < seconds < 10 for times in layers.values() for seconds in times)
    assert list(by_way) == ways(config)
    assert all(0 < seconds < 10 for each in by_way.values() for seconds in each)
    text = format_inference(config, parts, by_way, "here")
    assert ("DensePose" in text) == (config.needs_iuv and ways(config) != ["f"])
    assert ("nothing is fused" in text) == (kind == "distill")
    assert ("times as much" in text) == ("z" in by_way)


def test_f_is_timed_without_part_images(quick, monkeypatch):
    config = small()
    inference, guides = Inference(config, 5, 2, CPU), []
    monkeypatch.setattr(inference, "input", lambda batches: guides.append(batches.guide))
    inference.by_way()
    assert guides == [None, config.guide] * 4  # three rounds after one that does not count


def test_a_slow_layer_is_found(quick, monkeypatch):
    """Time goes to the layer that takes it; a merge's is that between the layers around it."""
    config = small()
    parts = anatomy(config, 5)
    inference = Inference(config, 5, 2, CPU)
    clock = [0.0]
    monkeypatch.setattr(inference, "_now", lambda: clock[0])

    def takes(seconds):
        return lambda *_: clock.__setitem__(0, clock[0] + seconds)

    inference.model.mf.trunk.layer2[0].conv2.register_forward_hook(takes(4.0))
    inference.model.dsag.conv3[1].bn2.register_forward_hook(takes(2.0))  # the layer's last module
    inference.model.dsag.conv4[0].register_forward_pre_hook(takes(1.0))  # after the merge, before the layer
    inference.model.dsag.conv5_l.register_forward_hook(takes(3.0))
    times = inference.by_layer(parts)  # of one of two images
    assert times[MF] == [0, 0, 2, 0, 0, 0]
    assert times[DSAG] == [0, 0, 1, 0.5, 0, 0, 0, 1.5]


@pytest.mark.slow
@pytest.mark.skipif(not memory._STATUS.exists(), reason="measured by /proc")
def test_the_peak_of_a_training_step():
    """At least what parameters, gradients and Adam's two moments are, and more for more images."""
    config = preset("demo", network=NetworkConfig(width=1 / 4, head_width=1 / 2, depths=(1, 1, 1, 1)))
    parameters = sum(in_all(layers)[0] for layers in anatomy(config, 5).values())
    assert parameters > 30e6
    few, many = (training_peak(config, 5, batch, CPU) for batch in (2, 32))
    assert 4 * 4 * parameters < few < 8 * 4 * parameters
    assert few + 30 * 4 * 24 * 32 * 16 * 16 < many  # conv2's output alone, of 30 images


def test_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    peak = training_peak(small(), 5, 2, CPU)
    assert peak is None and "not measured" in format_peaks({"dsa": peak}, "here", CPU)


def test_the_network_without_its_guide():
    for guidance, inputs in INPUTS_OF_GUIDANCE.items():
        for guide_input in inputs:
            found = without_guide(small(guidance=guidance, guide_input=guide_input))
            assert found == small(model="two-branch")
    assert without_guide(small(model="dsa-global")).model == "baseline"
    assert without_guide(small(model="dsa-local")) is None and without_guide(small(model="baseline")) is None


def test_all_of_it(quick, monkeypatch, caplog):
    caplog.set_level("INFO", "dsareid")
    peaks = {"two-branch": 1_500_000, "dsa": 9_500_000}
    monkeypatch.setattr(tables, "training_peak", lambda config, *_: peaks[config.model])
    texts = list(cost_tables(small(), 5, 2, CPU))
    assert [text.split(maxsplit=1)[0] for text in texts] == ["dsa:", "inference,", "peak"]
    lines = texts[2].splitlines()
    assert lines[1].split() == ["two-branch", "2", "MB"] and lines[2].split() == ["dsa", "10", "MB"]
    assert "float32, batches of 2 on the CPU" in texts[2] and "1 thread)" in texts[2]
    assert caplog.text.count("measuring") == 2


@pytest.mark.parametrize(
    "error",
    [
        tables.BrokenProcessPool("killed"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_is_said(quick, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(tables, "training_peak", fail)
    with pytest.raises(DSAError, match="`batch_size=2` needs more memory than cpu has"):
        list(cost_tables(small(), 5, 2, CPU))


def test_other_errors_are_not_called_memory(quick, monkeypatch):
    def fail(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(tables, "training_peak", fail)
    with pytest.raises(RuntimeError, match="something else"):
        list(cost_tables(small(), 5, 2, CPU))


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--batch-size", "1"], "--batch-size must be at least 2, not 1"),
        (["--num-classes", "0"], "--num-classes must be at least 1, not 0"),
        (["--device", "tpu"], "--device must be auto, cpu, cuda or cuda:N, not 'tpu'"),
        (["--model", "baseline", "--guidance", "concat"], "needs two streams"),
        (["--network.width", "0.3"], "--network.width must be a multiple of 1/64"),
        (["--height", "8"], "--height must be 32..4096, not 8"),
    ],
)
def test_bad_options(capsys, arguments, words):
    assert main(["describe", "--preset", "demo", *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("dsareid describe: error: ") and words in err


def test_the_command(capsys, quick, monkeypatch):
    """The preset gives the defaults, options change them."""
    seen = []
    monkeypatch.setattr("dsareid.cost.tables.cost_tables", lambda *given: seen.append(given) or ["text"])
    for arguments in (["--preset", "demo"], ["--model", "two-branch", "--num-classes", "9", "--width", "64"]):
        assert main(["describe", *arguments, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "text\n\n" * 2
    assert seen[0] == (preset("demo", device="cpu"), 751, 8, CPU)
    assert seen[1] == (preset("paper", device="cpu", model="two-branch", width=64), 9, 8, CPU)
