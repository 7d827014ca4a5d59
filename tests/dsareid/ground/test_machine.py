"""Processes that work for another one."""

import os
import signal
import subprocess
import sys
import time

import pytest

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


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="there is no /proc to see processes in")
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
