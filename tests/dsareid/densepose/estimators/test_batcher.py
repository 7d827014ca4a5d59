"""Calls of several threads, computed together."""

import threading

import pytest

from dsareid.densepose.estimators.batcher import Batcher
from dsareid.ground.machine import on_threads


def test_calls_that_wait_go_together_and_each_gets_its_own_result():
    sizes, begun = [], threading.Barrier(9, timeout=60)
    first = threading.Event()

    def work(items):
        if not sizes:  # hold the first call until all others wait
            first.wait(60)
        sizes.append(len(items))
        assert len({item % 2 for item in items}) == 1  # of one kind
        return [10 * item for item in items]

    batcher = Batcher(work, 3)

    def call(item):
        begun.wait()
        if item == 8:
            while len(batcher._waiting) < 7:  # one is being computed
                pass
            first.set()
            return -1
        return batcher(item % 2, item)

    assert list(on_threads(call, range(9), 9)) == [0, 10, 20, 30, 40, 50, 60, 70, -1]
    assert sum(sizes) == 8 and sizes[0] == 1 and max(sizes) == 3


def test_errors_reach_those_who_were_computed_together():
    def work(items):
        raise ValueError("no memory")

    batcher = Batcher(work, 2)
    with pytest.raises(ValueError, match="no memory"):
        batcher("kind", 1)
    assert not batcher._waiting


def test_one_thread_needs_no_other():
    assert [Batcher(lambda items: [-x for x in items], 4)("a", k) for k in range(3)] == [0, -1, -2]
