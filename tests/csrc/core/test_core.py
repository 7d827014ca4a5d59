"""csrc/core without Python: test_core.cpp, plain and under the sanitizers, and bugs that it must notice."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import shared_cache

pytestmark = pytest.mark.compiles

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CSRC = ROOT / "csrc"
PREFETCH = CSRC / "core/prefetch.cpp"
SOURCES = [
    CSRC / "core/sampler.cpp",
    PREFETCH,
    *(CSRC / f"{name}.cpp" for name in ("augment", "batch", "resize")),
    HERE / "test_core.cpp",
]
FLAGS = ["-std=c++20", "-g1", "-pthread", "-w", "-ffp-contract=off", f"-I{CSRC}"]
MODES = {
    "plain": ["-O2"],
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    # Which of a function's clones to take is found out before ThreadSanitizer is there: no clones.
    "thread": ["-O1", "-fsanitize=thread", "-Dtarget_clones(...)=unused"],
}
CASES = (
    "changed_file",
    "closing_drops_what_has_not_begun",
    "destruction_during_work",
    "epochs",
    "foreign_index",
    "forked_children",
    "misuse_is_an_error",
    "oldest_slot_first",
    "results_equal_direct_calls",
    "slots_in_any_order",
    "soak",
    "two_at_once",
    "waiting_has_a_limit",
)
FAILS, SANITIZER = 1, 66

LOCK = "    lock.lock();\n"
COUNT = """\
    if (failed && (slot.failed < 0 || sample < slot.failed)) {
      slot.failed = sample, slot.problem = std::move(problem);
    }
    if (--slot.left == 0) slot_done.notify_all();
"""
# Each breaks prefetch.cpp: what to replace by what, and the mode, the case and the exit status that tell.
# None: it hangs.
BUGS = {
    "a sample is counted as done without the lock": (
        LOCK + COUNT,
        COUNT + LOCK,
        "thread",
        "slots_in_any_order",
        SANITIZER,
    ),
    "a batch is submitted without the lock": (
        "    const std::scoped_lock lock(state.mutex);\n    Slot&",
        "    Slot&",
        "thread",
        "two_at_once",
        SANITIZER,
    ),
    "closing does not wait for the threads": (
        "thread.join()",
        "thread.detach()",
        "address",
        "destruction_during_work",
        SANITIZER,
    ),
    "one sample too many": (
        "slot.next == slot.call.batch",
        "slot.next > slot.call.batch",
        "address",
        "soak",
        SANITIZER,
    ),
    "the newest slot first": (
        "state.queue.push_back(number);",
        "state.queue.insert(state.queue.begin(), number);",
        "plain",
        "oldest_slot_first",
        FAILS,
    ),
    "the last error instead of the first": (
        "sample < slot.failed",
        "sample > slot.failed",
        "plain",
        "foreign_index",
        FAILS,
    ),
    "a child waits for its parent's threads": (
        "return getpid() != process_;",
        "return false;",
        "plain",
        "forked_children",
        FAILS,
    ),
    "an allocation a sample": (
        "assemble(slot, sample);",
        "assemble(slot, sample); problem.resize(99);",
        "plain",
        "soak",
        FAILS,
    ),
    "nobody is told of a batch": ("state.work_to_do.notify_one();", "", "plain", "soak", None),
}


def program(mode: str, old: str = "", new: str = "") -> Path:
    """test_core.cpp with csrc/core, in which `old` of prefetch.cpp, found there once, reads `new`."""
    texts = {path: path.read_text() for path in SOURCES}
    if old:
        assert texts[PREFETCH].count(old) == 1, f"{PREFETCH}: not once: {old}"
        texts[PREFETCH] = texts[PREFETCH].replace(old, new)
    headers = [*CSRC.glob("*.h"), *CSRC.glob("core/*.h")]
    sanitizer = [flag for flag in MODES[mode] if flag.startswith("-fsanitize=")]
    jobs = [(path, [*FLAGS, *MODES[mode]], headers, text) for path, text in texts.items()]
    return shared_cache.program("test_core", jobs, sanitizer)


def run(mode: str, path: Path, *words: str, timeout: float = 300) -> subprocess.CompletedProcess:
    # Sanitizers need their addresses where they look.
    command = [*(["setarch", "-R"] if mode != "plain" else []), path, *words]
    options = f"halt_on_error=1:exitcode={SANITIZER}"
    environment = os.environ | {"TSAN_OPTIONS": options, "ASAN_OPTIONS": options}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)


@pytest.fixture(scope="module")
def built():
    """`program` of a mode; skips with the reason where it cannot be built or does not start here."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")

    def build(mode: str, *change: str) -> Path:
        if mode == "plain":
            return program(mode, *change)
        if shutil.which("setarch") is None:
            pytest.skip("setarch is not installed")
        trial = subprocess.run(
            ["g++", *MODES[mode], "-x", "c++", "-", "-o", os.devnull],
            input="int main() {}",
            capture_output=True,
            text=True,
        )
        if trial.returncode:
            pytest.skip(f"g++ cannot build with this sanitizer: {trial.stderr.splitlines()[-1]}")
        path = program(mode, *change)
        listed = run(mode, path)
        if listed.returncode and "Sanitizer" in listed.stderr and "SUMMARY" not in listed.stderr:
            pytest.skip(f"the sanitizer does not start here: {listed.stderr.splitlines()[0]}")
        return path

    return build


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_core(built, mode, case):
    done = run(mode, built(mode), case)
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"


def test_every_case_is_run(built):
    assert run("plain", built("plain")).stdout.split() == list(CASES)


@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_noticed(built, bug):
    old, new, mode, case, status = BUGS[bug]
    path = built(mode, old, new)
    if status is None:
        with pytest.raises(subprocess.TimeoutExpired):
            run(mode, path, case, timeout=3)
        return
    done = run(mode, path, case)
    assert done.returncode == status, f"{done.returncode}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    if mode == "thread":
        assert "data race" in done.stderr
