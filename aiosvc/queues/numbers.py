"""
What is counted about one queue: items in, items refused, items dropped, and how long they waited.

Rule: plain numbers that only grow, written where the queue's own state changes (its event loop, or
under its mutex), read from any thread. Whoever exports them subtracts what was there before, so
that several observers can look at one queue and a name can go on when its queue has gone.
"""

import asyncio
import threading
from typing import Final, NamedTuple

from aiosvc import catalogue
from aiosvc.catalogue import WAIT_BUCKETS
from aiosvc.readings import Distribution, Readings

__all__ = [
    "CANCELLED",
    "DEAD_LETTERS",
    "DISCARDED",
    "DROPPED",
    "ERROR",
    "FULL",
    "REJECTED",
    "SHUTDOWN",
    "Counted",
    "QueueNumbers",
]

FULL: Final = "full"
SHUTDOWN: Final = "shutdown"
CANCELLED: Final = "cancelled"
ERROR: Final = "error"
#: The queue's own class did not keep the item, or an older one in its place.
DISCARDED: Final = "discarded"
#: A dead letter that had to go for a newer one.
DEAD_LETTERS: Final = "dead_letters"

REJECTED: Final = (FULL, SHUTDOWN, CANCELLED, ERROR)
DROPPED: Final = (SHUTDOWN, DISCARDED, DEAD_LETTERS)

#: What a queue's refusal is called, in asyncio, queue and janus, before and after Python 3.13.
REFUSALS: Final = {
    "QueueFull": FULL,
    "Full": FULL,
    "QueueShutDown": SHUTDOWN,
    "ShutDown": SHUTDOWN,
}


class Counted(NamedTuple):
    """One state of the numbers; *waits* is None where waits are not measured."""

    enqueued: int = 0
    rejected: tuple[int, ...] = (0,) * len(REJECTED)
    dropped: tuple[int, ...] = (0,) * len(DROPPED)
    waits: tuple[int, ...] = (0,) * (len(WAIT_BUCKETS) + 1)
    seconds: float = 0.0

    def plus(self, other: "Counted", sign: int = 1) -> "Counted":
        """Return both together, or for a *sign* of -1 what this one has more."""
        return Counted(
            self.enqueued + sign * other.enqueued,
            tuple(a + sign * b for a, b in zip(self.rejected, other.rejected, strict=True)),
            tuple(a + sign * b for a, b in zip(self.dropped, other.dropped, strict=True)),
            tuple(a + sign * b for a, b in zip(self.waits, other.waits, strict=True)),
            self.seconds + sign * other.seconds,
        )

    def report(self, readings: Readings, name: str, *, waits: bool) -> None:
        """Add all of it to *readings*."""
        readings.number(catalogue.QUEUE_ENQUEUED, self.enqueued, (name,))
        for reason, count in zip(REJECTED, self.rejected, strict=True):
            readings.number(catalogue.QUEUE_REJECTED, count, (name, reason))
        for reason, count in zip(DROPPED, self.dropped, strict=True):
            readings.number(catalogue.QUEUE_DROPPED, count, (name, reason))
        if waits:
            waited = Distribution(WAIT_BUCKETS, self.waits, self.seconds)
            readings.distribution(catalogue.QUEUE_WAIT, waited, (name,))


class QueueNumbers:
    """The numbers of one queue, as `putget` counts them."""

    __slots__ = ("_lock", "dropped", "enqueued", "rejected", "seconds", "waits")

    def __init__(self) -> None:
        self.enqueued = 0
        self.rejected = dict.fromkeys(REJECTED, 0)
        self.dropped = dict.fromkeys(DROPPED, 0)
        self.waits = [0] * (len(WAIT_BUCKETS) + 1)
        self.seconds = 0.0
        # A refusal by a queue for threads happens outside of its mutex. A finalizer may put too, so
        # whoever holds this may be interrupted by itself.
        self._lock = threading.RLock()

    def reject(self, error: BaseException) -> None:
        """Count an item whose put raised *error*; a closed generator and an exit count nothing."""
        if isinstance(error, asyncio.CancelledError):
            reason = CANCELLED
        elif isinstance(error, Exception):
            reason = REFUSALS.get(type(error).__name__.removeprefix("Async"), ERROR)
        else:
            return
        self.count_rejected(reason)

    def count_rejected(self, reason: str) -> None:
        """Count an item that was not taken in."""
        with self._lock:
            self.rejected[reason] += 1

    def drop(self, reason: str, items: int = 1) -> None:
        """Count items that left without having been processed."""
        with self._lock:
            self.dropped[reason] += items

    def snapshot(self) -> Counted:
        """Return the present state; a wait may be in its bucket just before it is in the sum."""
        return Counted(
            self.enqueued,
            tuple(self.rejected.values()),
            tuple(self.dropped.values()),
            tuple(self.waits),
            self.seconds,
        )
