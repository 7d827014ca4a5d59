"""What several threads ask for at the same time, computed in one call."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Call(Generic[Item, Result]):
    kind: Hashable
    item: Item
    future: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Item, Result]):
    """A function of one item; calls that wait while another is computed go together.

    Args:
        work: from a list of items to the list of their results.
        most: items of a call.
    """

    def __init__(self, work: Callable[[list[Item]], list[Result]], most: int):
        self._work, self._most = work, most
        self._waiting: list[_Call[Item, Result]] = []
        self._lists, self._computing = threading.Lock(), threading.Lock()

    def __call__(self, kind: Hashable, item: Item) -> Result:
        """The result of an item, computed together with others of its kind. Raises what `work` raises."""
        call = _Call[Item, Result](kind, item)
        with self._lists:
            self._waiting.append(call)
        while not call.future.done():
            with self._computing:
                if not call.future.done():
                    self._compute()
        return call.future.result()

    def _compute(self) -> None:
        """Compute the calls that wait longest, as many as are of one kind."""
        with self._lists:
            kind = self._waiting[0].kind
            taken = [call for call in self._waiting if call.kind == kind][: self._most]
            self._waiting = [call for call in self._waiting if call not in taken]
        try:
            for call, result in zip(taken, self._work([call.item for call in taken]), strict=True):
                call.future.set_result(result)
        except BaseException as error:
            for call in taken:
                call.future.set_exception(error)
