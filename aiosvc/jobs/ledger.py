"""
What is counted about one job queue: jobs sent, refused and taken, and how each attempt ended.

Rule: plain numbers, written on the queue's event loop, read from any thread.
"""

from bisect import bisect_left

from aiosvc import catalogue
from aiosvc.catalogue import WAIT_BUCKETS
from aiosvc.queues.attempts import Attempt
from aiosvc.queues.jobs import JobTracker
from aiosvc.queues.numbers import REJECTED, SHUTDOWN
from aiosvc.readings import Distribution, Readings

__all__ = ["Ledger"]


class Ledger:
    """
    The numbers of the job queue *name*.

    Of one that is *local*, what goes in, is refused by the queue, and how long it waits is counted by
    who watches the queue.
    """

    def __init__(self, name: str, *, local: bool) -> None:
        self.name = name
        self._local = local
        self.tracker = JobTracker(name)
        self.rejected = dict.fromkeys((SHUTDOWN,) if local else REJECTED, 0)
        self.enqueued = 0
        self._waits = [0] * (len(WAIT_BUCKETS) + 1)
        self._waited = 0.0

    def attempt(self, job: str) -> Attempt:
        """Return a new attempt at *job*."""
        return self.tracker.attempt(job)

    def refuse(self, reason: str) -> None:
        """Count a job that was not taken in, unless the queue itself counts it."""
        if reason in self.rejected:
            self.rejected[reason] += 1

    def waited(self, seconds: float) -> None:
        """Count a job that was taken so many seconds after it was sent."""
        self._waits[bisect_left(WAIT_BUCKETS, seconds)] += 1
        self._waited += seconds

    def report(self, readings: Readings) -> None:
        """Add all of it to *readings*."""
        name = (self.name,)
        if not self._local:
            readings.number(catalogue.QUEUE_ENQUEUED, self.enqueued, name)
            waits = Distribution(WAIT_BUCKETS, tuple(self._waits), self._waited)
            readings.distribution(catalogue.QUEUE_WAIT, waits, name)
        for reason, count in self.rejected.items():
            readings.number(catalogue.QUEUE_REJECTED, count, (self.name, reason))
        self.tracker.report(readings)

    def forget(self) -> None:
        """Start from zero, after what was counted went somewhere else."""
        self.enqueued = 0
        self.rejected = dict.fromkeys(self.rejected, 0)
        self._waits = [0] * len(self._waits)
        self._waited = 0.0
        self.tracker.forget()
