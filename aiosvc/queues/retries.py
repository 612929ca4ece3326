"""
Items that are to be tried again: the wait, the way back into the queue, and how often it was.

Rule: the queue holds nothing but the user's items. How often one was tried is kept beside it, by the
item's identity, and with the item, so that no other can have that identity meanwhile. Of the same
object put twice nobody can tell one from the other; together they are tried as often as two are.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from typing import Any, Protocol

from aiosvc.queues.intake import Intake
from aiosvc.queues.jobs import JobTracker
from aiosvc.queues.putget import instruments_of

__all__ = ["Retries"]

log = logging.getLogger("aiosvc.queues")


class OnEnd(Protocol):
    """Is told that a retry has ended: the item is *back* in the queue, or is left over."""

    def __call__(self, item: Any, *, back: bool) -> None:
        """Take note of it."""


class Retries:
    """The items of one pool that wait to be tried again, each in a task of its own."""

    def __init__(self, queue: Any, intake: Intake, tracker: JobTracker, on_end: OnEnd) -> None:
        self._queue = queue
        self._intake = intake
        self._name = tracker.name
        self._clock: Callable[[], float] = tracker.clock
        self._on_end = on_end
        self._waiting: dict[asyncio.Task[None], Any] = {}
        #: By identity: an item that was put back, and which attempts are next at it.
        self._tries: dict[int, tuple[Any, deque[int]]] = {}
        self._hurry = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def tasks(self) -> Collection[asyncio.Task[None]]:
        """The tasks of those that wait."""
        return self._waiting.keys()

    def start(self) -> None:
        """Let waits take their time, on the event loop that runs now."""
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Cut all waits short, those of retries to come too."""
        self._hurry.set()

    def forget(self) -> None:
        """Forget how often items were tried that are in the queue no more."""
        self._tries.clear()

    def schedule(self, item: Any, number: int, delay: float) -> None:
        """Put *item* back in *delay* seconds, for its *number*-th attempt."""
        retry = asyncio.get_running_loop().create_task(
            self._put_back(item, number, delay), name=f"{self._name}-retry"
        )
        self._waiting[retry] = item
        retry.add_done_callback(self._ended)

    def attempt_at(self, item: Any) -> int:
        """Return which attempt at *item*, just taken from the queue, comes now; from 1."""
        known = self._tries.get(id(item))
        if known is None:
            return 1
        number = known[1].popleft()
        if not known[1]:
            del self._tries[id(item)]
        if not self._waiting and not self._intake.size():
            self._tries.clear()  # what somebody else took will not come by
        return number

    async def _put_back(self, item: Any, number: int, delay: float) -> None:
        """Wait *delay* seconds, or until there is a hurry, and then for room in the queue."""
        assert self._intake.put is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._hurry.wait()
        due = self._clock()
        self._tries.setdefault(id(item), (item, deque()))[1].append(number)
        try:
            with ExitStack() as stack:
                for instrument in instruments_of(self._queue):
                    stack.enter_context(instrument.putting_back(item, due))
                await self._intake.put(item)
        except BaseException:
            self.attempt_at(item)
            raise

    def _ended(self, retry: asyncio.Task[None]) -> None:
        # Called however it ends, also where it was cancelled before it began.
        item = self._waiting.pop(retry)
        error = None if retry.cancelled() else retry.exception()
        if error is not None:
            log.warning("queue %s: a retry was refused: %r", self._name, error)
        self._on_end(item, back=error is None and not retry.cancelled())
