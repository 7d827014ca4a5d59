"""The CUDA kernels of csrc/, run on this machine's processor: see README.md beside this file."""

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
import pytest
import report
from cuda_resources import BUDGETS

pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(harness.why_not() is not None, reason=str(harness.why_not())),
]

EQUAL, DIFFERS, HANGS, RACE = 0, 1, 3, 66


def run(program: Path, *words: object, sanitizer: bool = False) -> subprocess.CompletedProcess:
    command = [str(program), *map(str, words)]
    if sanitizer:
        command = ["setarch", "-R", *command]  # ThreadSanitizer needs its addresses where it looks
    options = f"halt_on_error=1:exitcode={RACE}:report_thread_leaks=0"
    environment = os.environ | {"TSAN_OPTIONS": options, "ASAN_OPTIONS": "exitcode=66:detect_leaks=0"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def run_all(jobs: list[tuple]) -> list[subprocess.CompletedProcess]:
    """The same on all cores; a job is the arguments of `run` under ThreadSanitizer."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: run(*job, sanitizer=True), jobs))


def expect(done: subprocess.CompletedProcess, code: int = EQUAL) -> None:
    assert done.returncode == code, f"{done.args}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


@pytest.fixture(scope="session")
def sanitized():
    """harness.program for a sanitizer; skips with the reason where it cannot run here."""

    def program(name: str, mode: str) -> Path:
        if shutil.which("setarch") is None:
            pytest.skip("setarch is not installed")
        try:
            planted = harness.program("planted", mode)
        except RuntimeError as error:
            pytest.skip(f"g++ cannot build with this sanitizer: {str(error).splitlines()[-1]}")
        done = run(planted, 0, sanitizer=True)
        if done.returncode != EQUAL and "Sanitizer" in done.stderr and "SUMMARY" not in done.stderr:
            pytest.skip(f"the sanitizer does not start here: {done.stderr.splitlines()[0]}")
        return harness.program(name, mode)

    return program


@pytest.mark.parametrize(
    "words",
    [
        ("--order", "forward", "--poison", 0xCD),
        ("--order", "reverse", "--poison", 0x7B),
        ("--order", "shuffled", "--seed", 1, "--poison", 0),
        ("--order", "shuffled", "--seed", 2, "--workers", 2),
    ],
    ids=["forward", "reverse", "shuffled", "shuffled on two workers"],
)
def test_kernels_equal_the_cpu_backend(words):
    done = run(harness.program("kernels", "plain"), *words)
    expect(done)
    assert " 0 differ" in done.stdout


def test_address_sanitizer_sees_no_bad_access(sanitized):
    expect(run(sanitized("kernels", "address"), "--order", "shuffled", "--cases", 4, sanitizer=True))


def test_thread_sanitizer_sees_no_race(sanitized):
    """Also the control of test_every_barrier_and_atomic_is_needed: the same cases, nothing planted."""
    program = sanitized("kernels", "thread")
    operations = run(program, "--list").stdout.split()
    assert set(harness.operations()) <= set(operations)
    # Blocks b and b + 3 run on one host thread and are ordered by it; all others are not.
    for done in run_all([(program, name, "--workers", 3, "--cases", 2) for name in operations]):
        expect(done)


def test_every_barrier_and_atomic_is_needed(sanitized):
    program, sites = sanitized("kernels", "thread"), harness.sites()
    assert {site.kind for site in sites} == {"barrier", "atomic"}
    unnoticed = sites
    for name in run(program, "--list").stdout.split()[::-1]:  # each stops at its first race
        jobs = [
            (program, name, "--workers", 3, "--cases", 2, "--planted", s.number)
            for s in unnoticed
            if s.where.startswith(name.split("-")[0])
        ]
        races = {
            job[-1]
            for job, done in zip(jobs, run_all(jobs))
            if done.returncode == RACE and "data race" in done.stderr
        }
        unnoticed = [site for site in unnoticed if site.number not in races]
    assert not unnoticed, f"removed or weakened without being noticed: {unnoticed}"


# Bugs of planted.h. In which mode each is seen, and how; without a bug every mode is content.
BUGS = {
    "none": (0, {"plain": EQUAL, "address": EQUAL, "thread": EQUAL}),
    "a wrong result": (1, {"plain": DIFFERS}),
    "a read behind the end of an array": (2, {"address": RACE}),
    "a write behind the end of shared memory": (3, {"address": RACE}),
    "shared memory that is not set first": (4, {"plain": DIFFERS}),
    "a return before a barrier": (5, {"plain": HANGS}),
    "a barrier inside a branch": (6, {"plain": HANGS}),
    "two blocks that write one element": (7, {"thread": RACE}),
    "a missing barrier of a warp": (8, {"thread": RACE}),
    "more shared memory than was asked for": (9, {"plain": HANGS}),
}


@pytest.mark.parametrize("bug", BUGS)
def test_harness_notices(bug, sanitized):
    number, seen = BUGS[bug]
    for mode, code in seen.items():
        program = harness.program("planted", mode) if mode == "plain" else sanitized("planted", mode)
        expect(run(program, number, "--workers", 2, sanitizer=mode != "plain"), code)


def planted_sites():
    """Of planted.cu: the barrier of bug 6, the one between scatter and gather, the atomic, the last."""
    sites = harness.converted([harness.HERE / "planted.cu"])[1]
    return [site.number for site in sites if site.where.startswith("planted.cu")][1:4]


def test_harness_notices_a_missing_barrier_by_the_order_of_threads_alone():
    program, (barrier, _, _) = harness.program("planted", "plain"), planted_sites()
    orders = ("forward", "reverse")
    assert DIFFERS in [run(program, 0, "--planted", barrier, "--order", x).returncode for x in orders]


def test_harness_notices_broken_synchronisation_by_its_race(sanitized):
    program = sanitized("planted", "thread")
    for number in planted_sites():
        expect(run(program, 0, "--planted", number, "--workers", 2, sanitizer=True), RACE)


def test_counters_know_what_is_known_by_hand():
    expect(run(harness.program("planted", "count"), "counts"))


@pytest.fixture(scope="module")
def counted():
    return report.counts()


def test_kernels_touch_no_more_memory_than_they_must(counted):
    """At most 1.05 times the fewest sectors, and at least 90 % of what is stored in full sectors."""
    assert len(counted) >= 10
    for row in counted:
        for buffer in row["buffers"]:
            assert buffer["distinct"] <= 1.05 * buffer["least"], (row["what"], buffer)
        stores = [buffer for buffer in row["buffers"] if buffer["kind"] == "store"]
        sectors, full = (sum(buffer[key] for buffer in stores) for key in ("sectors", "full_sectors"))
        assert full >= 0.9 * sectors > 0, row["what"]


def test_shared_memory_is_within_its_budget(counted):
    for row in counted:
        assert row["shared_bytes"] <= BUDGETS[row["kernel"]].shared * 1024, row["what"]


def test_report_prints_every_kernel(counted, capsys):
    report.print_counts(counted)
    text = capsys.readouterr().out
    assert all(row["what"] in text for row in counted)
    assert set(BUDGETS) == {row["kernel"] for row in counted}
    json.dumps(counted)


needs_nvcc = pytest.mark.skipif(harness.why_no_nvcc() is not None, reason=str(harness.why_no_nvcc()))


@needs_nvcc
def test_nvccs_code_equals_the_cpu_backend():
    """Every kernel as nvcc compiles it, not as g++ does."""
    done = run(harness.program("kernels", "ptx"), "--cases", 2)
    expect(done)
    assert " 0 differ" in done.stdout


@needs_nvcc
def test_instructions_are_no_more_than_at_first():
    """And those that a redesign saved stay saved."""
    rows = report.counts(mode="ptx")
    first = json.loads(report.BASELINE.read_text())
    assert {row["what"] for row in rows} == set(first)
    for row in rows:
        most = MOST_INSTRUCTIONS.get(row["what"], 1.02)
        assert 0 < row["instructions"] <= most * first[row["what"]], row


MOST_INSTRUCTIONS = {
    "batch, float32": 0.53,
    "batch, float16 channels last": 0.63,
    "rank, float32": 0.41,
    "warp, uint8 to float32": 0.91,
    "warp, uint8 to float16": 0.92,
    "warp, uint8 to uint8": 0.87,
    "warp, [H,W,3] to float32 [S,S,3]": 0.93,
    "warp, uint8 to float32, winners": 0.91,
}
"""Shares of the baseline."""


def test_conversion():
    text = "  __syncthreads();\n  atomicMax(&a[f(x, y)], v + 1);\n  k<A, B><<<g(1, 2), 3, s, t>>>(a, b);\n"
    out, sites = harness.convert(text, "k.cu", 5)
    assert [(s.number, s.kind, s.where) for s in sites] == [(5, "barrier", "k.cu:1"), (6, "atomic", "k.cu:2")]
    assert "::simt::barrier(5);" in out
    assert "SIMT_ATOMIC_MAX(6, (&a[f(x, y)]), (v + 1));" in out
    assert '::simt::launch("k", (const void*)&k<A, B>, g(1, 2), 3, s, [&] { k<A, B>(a, b); });' in out


@pytest.mark.parametrize(
    "text", ["if (x) __syncthreads();", "y = atomicMax(&x, 1);", "__shared__ int winner[3];"]
)
def test_conversion_refuses_what_it_cannot_break_on_purpose(text):
    with pytest.raises(SyntaxError, match="k.cu:1"):
        harness.convert(text, "k.cu", 1)


def test_programs_of_two_modes_are_two():
    assert harness.program("planted", "plain") != harness.program("planted", "count")
