"""Processes that work for another one."""

import os
import platform
import resource
import signal
import subprocess
import sys
import time
import uuid

import pytest
from processes import MARK, left_behind
from processes import running as running_with
from runs import ARGUMENTS

from dsareid.ground import machine
from dsareid.ground.machine import cores_taken, leave_cores_to_others, on_threads

POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from dsareid.ground.machine import end_with_parent
pool = ProcessPoolExecutor(2, mp_context=get_context(sys.argv[1]), initializer=end_with_parent)
pids = {process.result() for process in [pool.submit(os.getpid) for _ in range(20)]}
pool.submit(time.sleep, 600 if sys.argv[2] == "busy" else 0)
time.sleep(0.2)
print(*pids, flush=True)
time.sleep(600)
"""


def test_on_threads_is_in_order_and_drops_what_has_not_begun():
    items = list(range(500))
    assert list(on_threads(lambda item: item**2, items)) == [item**2 for item in items]
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.001)
        if item == 3:
            raise ZeroDivisionError
        return item

    with pytest.raises(ZeroDivisionError):
        list(on_threads(work, items, 2))
    assert len(begun) < len(items)
    taken = []
    results = on_threads(lambda item: item, (taken.append(item) or item for item in items), 2)
    assert next(results) == 0 and len(taken) <= 8  # not all of what may be a video
    results.close()
    begun.clear()
    results = on_threads(work, items, 1)
    assert next(results) == 0
    results.close()
    count = len(begun)
    time.sleep(0.02)
    assert 0 < len(begun) == count < len(items)


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="there is no /proc")


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@needs_proc
@pytest.mark.parametrize("work", ["busy", "idle"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_end_when_their_parent_is_killed(method, work):
    program = [sys.executable, "-c", POOL, method, work]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        pids = list(map(int, process.stdout.readline().split()))
        assert pids and all(map(running, pids))
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 60
        while any(map(running, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not any(map(running, pids))


def begin(*arguments):
    """A program of Python's with a mark, and the mark."""
    mark = uuid.uuid4().hex
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, MARK: mark}
    return subprocess.Popen(command, stdout=-3, stderr=-3, env=environment, start_new_session=True), mark


def wait_until(condition, process):
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)


@needs_proc
def test_who_is_left_behind_is_found(monkeypatch):
    monkeypatch.setattr("processes.PATIENCE", 0.5)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    process, mark = begin("-c", code)
    wait_until(lambda: len(running_with(mark)) == 2, process)
    process.kill()
    process.wait()
    assert [line.split()[-1] for line in left_behind(mark).values()] == ["time.sleep(600)"]
    assert not left_behind(mark)


SYNTH = ["-m", "dsareid", "synth", "OUT", "--identities", "2000", "--processes", "3"]
TRAIN = ["-m", "dsareid", "train", "--data", "DATA", "--out", "OUT", "--epochs", "5000", *ARGUMENTS]
# dsareid describe times its network for seconds before it comes to this.
DESCRIBE = """
import torch
from pathlib import Path
from dsareid.cost.memory import training_peak
from dsareid.engine.presets import preset
training_peak(preset("demo", Path(), Path()), 4, 2, torch.device("cpu"))
"""


@needs_proc
@pytest.mark.parametrize(
    "arguments, how",
    [
        (SYNTH, signal.SIGKILL),
        (SYNTH, signal.SIGTERM),
        (["-c", DESCRIBE], signal.SIGKILL),
        (TRAIN, signal.SIGTERM),
    ],
    ids=["synth killed", "synth", "describe killed", "train"],
)
def test_commands_leave_no_process_behind(own_data, tmp_path, arguments, how):
    places = {"OUT": tmp_path / "out", "DATA": own_data}
    process, mark = begin(*(places.get(word, word) for word in arguments))
    if arguments is TRAIN:  # alone: it packs in threads
        wait_until(lambda: list(own_data.glob(".store-*")), process)
    else:
        wait_until(lambda: len(running_with(mark)) > 2, process)  # a pool of spawned ones has one to track
        time.sleep(0.5)
    process.send_signal(how)
    assert process.wait() == -how and not left_behind(mark)


@needs_proc
@pytest.mark.processes
@pytest.mark.parametrize("early", [True, False], ids=["while they start", "at work"])
def test_processes_of_torchrun_end_with_it(own_data, tmp_path, early):
    out = tmp_path / "out"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "dsareid"]
    process, mark = begin(*launcher, "train", "--data", own_data, "--out", out, "--epochs", 5000, *ARGUMENTS)
    wait_until(lambda: len(running_with(mark)) == 3 if early else (out / "log.jsonl").exists(), process)
    process.kill()
    process.wait()
    assert not left_behind(mark)


def test_threads_leave_the_cores_that_others_take_unless_the_user_says_how_many(monkeypatch, caplog):
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # restored afterwards
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(machine, "cores", lambda: 4)

    def threads(taken: float) -> str | None:
        monkeypatch.setattr(machine, "cores_taken", lambda seconds: taken)
        leave_cores_to_others()
        found = os.environ.get("OMP_NUM_THREADS")
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        return found

    with caplog.at_level("INFO", "dsareid"):
        assert threads(0.4) is None and not caplog.messages
        assert threads(0.9) == "3" and "take 0.9 of 4 cores: computing on 3" in caplog.text
        assert threads(4.0) == "1"
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        assert threads(2.0) == "7" and len(caplog.messages) == 2


def test_threads_stay_where_torch_has_them_already(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "cores_taken", pytest.fail)
    leave_cores_to_others()


FAULTS = """
import ctypes, resource
from dsareid.ground.machine import keep_freed_memory
keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype, c.memset.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
c.free.argtypes = (ctypes.c_void_p,)
for _ in range(20):
    block = c.malloc(64 << 20)
    c.free(c.memset(block, 1, 64 << 20) and block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back in this way")
@pytest.mark.parametrize("asked, times", [({}, 1), ({"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}, 20)])
def test_freed_memory_is_kept_unless_the_user_says_otherwise(asked, times):
    """The pages of one block are mapped once, or each time that the block is allocated."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=plain | asked, capture_output=True, text=True, check=True
    )
    pages = (64 << 20) // resource.getpagesize()
    if int(done.stdout) < pages:
        pytest.skip("the system maps huge pages")
    assert times <= int(done.stdout) / pages < times + 1


def test_cores_that_others_take(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    looks = iter([(100, 1000), (160, 1080)])
    monkeypatch.setattr(machine, "_ticks", lambda: next(looks))
    assert cores_taken(0) == 3
    monkeypatch.setattr(machine, "_ticks", lambda: None)  # no /proc
    assert cores_taken(0) == 0
    monkeypatch.setattr(os, "cpu_count", lambda: 8)  # the rest is not this process's to use
    monkeypatch.setattr(machine, "_ticks", pytest.fail)
    assert cores_taken(0) == 0


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="no /proc/stat")
def test_ticks_of_this_system():
    busy, every = machine._ticks()
    assert 0 < busy < every
