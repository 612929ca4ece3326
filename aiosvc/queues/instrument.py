"""
What an instrumented queue carries with it: its numbers, and since when its items have been ready.

Rule: holds no queue, so that it keeps none alive; `overrides` write it, `putget` reads it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiosvc.queues.numbers import DISCARDED, SHUTDOWN, QueueNumbers
from aiosvc.queues.stamps import IdentityStamps, OrderedStamps

__all__ = ["Instrument"]


class Instrument:
    """The numbers and stamps of one queue, and what its overrides have noticed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.numbers = QueueNumbers()
        self.stamps: OrderedStamps | IdentityStamps | None = None
        #: Items that are put back, by identity, and since when they have been ready.
        self.returning: dict[int, float] = {}
        #: The last error of our own, until somebody has reported it.
        self.failure: Exception | None = None
        #: Whether the item taken last was not one that was put, so that no age is known.
        self.lost = False
        self.counts_unfinished = False
        #: The thread that is emptying the queue without processing what it takes out.
        self.dropper: int | None = None
        self._drops_count = True

    @contextmanager
    def putting_back(self, item: object, due: float) -> Iterator[None]:
        """Have *item*, put within the block, count as ready since *due* and not as a new one."""
        self.returning[id(item)] = due
        try:
            yield
        finally:
            self.returning.pop(id(item), None)

    @contextmanager
    def dropping(self, *, counted: bool = True) -> Iterator[None]:
        """
        Have what this thread takes within the block be no item that was waited for.

        It is dropped at a shutdown, and *counted* as that unless somebody else does.
        """
        self.dropper = threading.get_ident()
        self._drops_count = counted
        try:
            yield
        finally:
            self.dropper = None

    def drops(self) -> bool:
        """Say whether this thread is dropping what it takes, and count that it did."""
        if self.dropper != threading.get_ident():
            return False
        if self._drops_count:
            self.numbers.drop(SHUTDOWN)
        return True

    def compare(self, size: Callable[[], int]) -> None:
        """Count what a put item had to go for, itself or another, in a queue that may do that."""
        try:
            gone = 0 if self.stamps is None else len(self.stamps) - size()
        except Exception as error:  # noqa: BLE001 - the item is in, and its producer is to know
            self.failure = error
            return
        if gone:
            self.numbers.drop(DISCARDED, max(0, gone))
            self.restart(size)

    def restart(self, size: Callable[[], int]) -> None:
        """Begin anew with the stamps, of a queue that was changed behind our back."""
        try:
            if self.stamps is not None:
                self.stamps.restart(size(), self.clock())
        except Exception as error:  # noqa: BLE001 - called while an item is on its way
            self.failure = error

    def oldest_age(self, depth: float | None) -> float | None:
        """Return the age in seconds of the oldest of *depth* items, None where it is not known."""
        if self.stamps is None or self.lost or depth is None:
            return None
        if not depth:
            return 0.0
        oldest = self.stamps.oldest()
        # One item may just be on its way between the queue and its stamp; more are not.
        if abs(len(self.stamps) - depth) > 1:
            return None
        return 0.0 if oldest is None else max(0.0, self.clock() - oldest)
