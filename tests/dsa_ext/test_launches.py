"""The self-test launches every path of every kernel: counted from the arguments of its launches, which
cuda_on_cpu.py records while the kernels run under tests/simt. They also give the twins' bits there."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import harness
import pytest

from dsa_ext.selftest.operations import OPERATIONS

pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(harness.why_not() is not None, reason=str(harness.why_not())),
]

HERE = Path(__file__).parent
FLOATS = ("Half", "BFloat", "float")
WARPS = ["unsigned char, unsigned char"] + [f"{a}, {b}" for a in ("unsigned char", *FLOATS) for b in FLOATS]
GRADIENTS = [f"{a}, {b}" for a in FLOATS for b in FLOATS]
WRITES, TILES = ("planes", "channels_last", "strided"), ("one", "several")
PACKS = [f"{name}, {width}" for name, wide in zip(FLOATS, (8, 8, 4)) for width in (wide, 1)]

# By kernel, choices that are made together, and all their outcomes. A kernel is written in phases: what one
# phase chooses does not change what another does.
PATHS: dict[str, list[tuple[tuple[str, ...], Iterable[tuple[str, ...]]]]] = {
    "warp_kernel": [
        (("types", "write"), itertools.product(WARPS, WRITES)),
        (("scan", "tiles"), itertools.product(("planes", "interleaved", "strided", "float"), TILES)),
        (("scan", "rest"), itertools.product(("planes", "interleaved"), "01")),
        (("write", "image"), itertools.product(WRITES, ("dense", "strided"))),
        (("source", "tiles"), itertools.product(("none", "aligned"), TILES)),
        (("source",), [("odd",)]),
        (("shared", "tiles"), [("usual", "one"), ("usual", "several"), ("asked", "one")]),
    ],
    "gradient_kernel": [
        (("types", "store"), itertools.product(GRADIENTS, ("vectors", "single"))),
        (("tiles",), [("one",), ("several",)]),
        (("source",), [("aligned",), ("odd",)]),
    ],
    "batch_kernel": [
        (("types", "write"), itertools.product(FLOATS, (*WRITES, "none"))),
        (("types", "image", "wide"), itertools.product(FLOATS, WRITES, "1")),
        (("types", "image", "wide"), itertools.product(FLOATS, ("strided",), "0")),
        (("scan", "tiles"), itertools.product(("interleaved", "strided"), TILES)),
        (("scan", "drawn", "augmented"), itertools.product(("interleaved", "strided"), "01", "01")),
    ],
    "merge_kernel": [
        (("types", "relu"), itertools.product([f"{p}, {r}" for p in PACKS for r in ("true", "false")], "01"))
    ],
    "expand_kernel": [
        (("types", "residual"), itertools.product([f"{p}, true" for p in PACKS], "01")),
        (("types", "residual"), itertools.product([f"{p}, false" for p in PACKS], "0")),
    ],
    "rank_kernel": [(("types", "rows"), itertools.product(("float", "double"), ("aligned", "odd")))],
}
PATHS = {kernel: [(names, list(outcomes)) for names, outcomes in groups] for kernel, groups in PATHS.items()}


def choices(line: str) -> dict[str, str]:
    """Of a line of tests/simt/launches.h."""
    instance, _, words = line.partition("\t")
    kernel, _, types = instance.removeprefix("dsa::").removesuffix(">").partition("<")
    return {"kernel": kernel, "types": types} | dict(word.split("=") for word in words.split())


def missing(launches: list[dict[str, str]]) -> list[str]:
    found = []
    for kernel, groups in PATHS.items():
        for names, outcomes in groups:
            seen = {tuple(x[name] for name in names) for x in launches if x["kernel"] == kernel}
            found += [f"{kernel}: {names} = {outcome}" for outcome in outcomes if outcome not in seen]
    return found


@pytest.fixture(scope="module", params=["whole", "quick"])
def result(request):
    path = os.pathsep.join(str(HERE.parent / name) for name in ("helpers", "simt"))
    command = [sys.executable, HERE / "cuda_on_cpu.py", *(["--quick"] if request.param == "quick" else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_table_launches_every_path(result):
    launches = [choices(line) for line in result["launches"]]
    assert {x["kernel"] for x in launches} == set(PATHS)
    assert missing(launches) == []


def test_the_kernels_give_the_bits_of_the_twins(result):
    assert result["failures"] == [] and result["checks"] > 300


def test_a_path_that_is_not_launched_is_missed(result):
    """Without the launches of one outcome, that outcome is named."""
    launches = [choices(line) for line in result["launches"]]
    few = [
        x for x in launches if (x["kernel"], x.get("scan"), x.get("tiles")) != ("warp_kernel", "float", "one")
    ]
    assert missing(few) == ["warp_kernel: ('scan', 'tiles') = ('float', 'one')"]


def test_every_kernel_has_its_paths_listed():
    kernels = {name.partition("<")[0].removeprefix("dsa::") for x in OPERATIONS for name in x.kernels}
    assert kernels == set(PATHS)
