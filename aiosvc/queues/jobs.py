"""
The jobs of one queue: how many attempts ended how, how long they took, and which still run.

Rule: no lock is taken when an attempt ends, since a coroutine may be closed by the garbage
collector, in any thread.

Theory of operation. Entering puts an attempt among those that run. Its end is one assignment, of
outcome and time, and it is queued to be settled, which a scrape does, or every so many ends. Until
it is settled it stays where it was and counts with its final time, so that the total of busy time,
of which running attempts are a part, never falls.
"""

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar, overload

from aiosvc import catalogue
from aiosvc.callables import gives_async_generator, gives_coroutine, gives_generator
from aiosvc.catalogue import PROCESSING_BUCKETS
from aiosvc.errors import ConfigError
from aiosvc.naming import clean
from aiosvc.queues.attempts import Attempt, JobSeries
from aiosvc.queues.numbers import DEAD_LETTERS, SHUTDOWN
from aiosvc.readings import Distribution, Readings
from aiosvc.series import OTHER
from aiosvc.validation import whole

__all__ = ["JobTracker", "Workers"]

#: Jobs that a tracker tells apart where it was not told which there are.
MAX_JOBS: Final = 50
#: Ended attempts that are kept before they are settled without a scrape.
MAX_UNSETTLED: Final = 1000

F = TypeVar("F", bound=Callable[..., Any])


class Workers(Protocol):
    """A pool of workers that run a tracker's jobs."""

    @property
    def slots(self) -> int:
        """How many jobs can run at once."""

    @property
    def consumers(self) -> int:
        """How many workers take from the queue."""

    @property
    def scheduled(self) -> int:
        """How many items wait to be tried again."""

    @property
    def dead(self) -> int | None:
        """How many dead letters are kept, None where they are not kept here."""


class JobTracker:
    """
    The jobs of one queue, whoever runs them.

    With `async with tracker.attempt("send_welcome"):` around the processing of an item, or
    `@tracker.tracked` on the function that does it. The names of jobs become label values: those
    given at first, or else the first fifty; any other becomes `_other`.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.slots: int | None = None
        self._jobs: dict[str, JobSeries] = {}
        self._open = True
        self._running: dict[int, Attempt] = {}
        self._unsettled: deque[Attempt] = deque()
        self._settling = threading.Lock()
        self._busy_seconds = 0.0
        self._last_ended: float | None = None
        self._pools: list[Workers] = []
        self._clock = clock
        # A finalizer may be refused too, so whoever holds this may be interrupted by itself.
        self._counting = threading.RLock()
        self._rejected: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._most_busy = 0.0

    def expect(self, jobs: Iterable[str] = (), slots: int | None = None) -> None:
        """
        Export these jobs from now on, and no others but those expected before.

        *slots* is how many jobs can run at once, where that is known. Raises ConfigError for a name
        that is no name.
        """
        if isinstance(jobs, str) or not isinstance(jobs, Iterable):
            raise ConfigError(f"jobs: {jobs!r} given; expected names, like ('send_welcome',)")
        if slots is not None:
            whole("slots", slots, at_least=1)
        names = tuple(jobs)
        for job in names:
            if not isinstance(job, str) or not job:
                raise ConfigError(f"jobs: {job!r} given; expected a name, like 'send_welcome'")
        for job in names:
            self._jobs.setdefault(clean(job), JobSeries())
        self._open = self._open and not names
        self.slots = self.slots if slots is None else slots

    def attempt(self, job: str) -> Attempt:
        """Return a new attempt at *job*, which begins when it is entered."""
        return Attempt(self, self._label(job))

    @overload
    def tracked(self, function: F) -> F: ...
    @overload
    def tracked(self, function: None = None, *, job: str | None = None) -> Callable[[F], F]: ...
    def tracked(
        self, function: Callable[..., Any] | None = None, *, job: str | None = None
    ) -> Callable[..., Any]:
        """
        Make each call of *function*, async or not, an attempt; its job is its name, or *job*.

        Raises ConfigError for a generator, which has no end that could be told.
        """
        if function is None:
            return functools.partial(self.tracked, job=job)
        if gives_generator(function) or gives_async_generator(function):
            raise ConfigError(
                f"tracked: {function!r} is a generator; put 'with jobs.attempt(...)' around each "
                "item instead"
            )
        label = clean(job or getattr(function, "__name__", "") or type(function).__name__)
        self._jobs.setdefault(label, JobSeries())
        if gives_coroutine(function):

            @functools.wraps(function)
            async def tracked_async(*args: Any, **named: Any) -> Any:
                with Attempt(self, label):
                    return await function(*args, **named)

            return tracked_async

        @functools.wraps(function)
        def tracked(*args: Any, **named: Any) -> Any:
            with Attempt(self, label):
                return function(*args, **named)

        return tracked

    def clock(self) -> float:
        """Return the monotonic time in seconds."""
        return self._clock()

    @property
    def busy(self) -> int:
        """How many attempts run now."""
        return sum(each.ended is None for each in list(self._running.values()))

    @property
    def has_pools(self) -> bool:
        """Whether pools of ours work on these jobs."""
        return bool(self._pools)

    def reject(self, reason: str) -> None:
        """Count an item that the workers did not take in."""
        with self._counting:
            self._rejected[reason] = self._rejected.get(reason, 0) + 1

    def drop(self, reason: str, items: int) -> None:
        """Count items that the workers gave up without having processed them to an end."""
        with self._counting:
            self._dropped[reason] = self._dropped.get(reason, 0) + items

    def employ(self, pool: Workers) -> None:
        """Export what *pool* says of its workers, until it is dismissed."""
        if pool not in self._pools:
            self._pools.append(pool)
        with self._counting:
            self._rejected.setdefault(SHUTDOWN, 0)
            for reason in (SHUTDOWN, DEAD_LETTERS):
                self._dropped.setdefault(reason, 0)

    def dismiss(self, pool: Workers) -> None:
        """Leave out *pool* from now on."""
        with suppress(ValueError):
            self._pools.remove(pool)

    def note_start(self, attempt: Attempt) -> None:
        """Take an attempt among those that run."""
        self._running[id(attempt)] = attempt

    def note_end(self, attempt: Attempt) -> None:
        """Take note that an attempt has ended."""
        self._unsettled.append(attempt)
        # Not waited for: if somebody settles already, this one is seen to by whoever comes next.
        if len(self._unsettled) > MAX_UNSETTLED and self._settling.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._settling.release()

    def report(self, readings: Readings) -> None:
        """Add all of it to *readings*."""
        with self._settling:
            self._settle()
            now = self.clock()
            # Those that end while this is read count here with the time that they took.
            present = list(self._running.values())
            busy_seconds = self._busy_seconds + sum(each.busy(now) for each in present)
            # In another order the same sum may be smaller by a last digit; no counter may fall.
            self._most_busy = max(self._most_busy, busy_seconds)
            running = [now - (each.began or now) for each in present if each.ended is None]
            names = (self.name,)
            readings.number(catalogue.WORKER_BUSY_SECONDS, self._most_busy, names)
            readings.number(catalogue.WORKERS_BUSY, len(running), names)
            readings.number(catalogue.QUEUE_OLDEST_RUNNING, max((0.0, *running)), names)
            if self._last_ended is not None:
                readings.number(catalogue.QUEUE_LAST_COMPLETED, self._last_ended, names)
            self._report_pools(readings, len(running))
            for reason, count in list(self._rejected.items()):
                readings.number(catalogue.QUEUE_REJECTED, count, (self.name, reason))
            for reason, count in list(self._dropped.items()):
                readings.number(catalogue.QUEUE_DROPPED, count, (self.name, reason))
            for job, series in list(self._jobs.items()):
                self._report_job(readings, job, series)

    def forget(self) -> None:
        """Start from zero, after what was counted went somewhere else."""
        with self._settling:
            # What has ended since is not settled here, or it would be counted nowhere.
            now = self.clock()
            self._busy_seconds = self._most_busy = 0.0
            for attempt in list(self._running.values()):
                attempt.busy_from = now
            for job in list(self._jobs):
                self._jobs[job] = JobSeries()
            for counts in (self._rejected, self._dropped):
                counts.update(dict.fromkeys(counts, 0))

    def _label(self, job: object) -> str:
        if isinstance(job, str) and job:
            if job in self._jobs:
                return job
            label = clean(job)  # whoever makes it up, a scrape must be able to hold it
            if label in self._jobs:
                return label
            if self._open and len(self._jobs) < MAX_JOBS:
                self._jobs.setdefault(label, JobSeries())
                return label
        self._jobs.setdefault(OTHER, JobSeries())
        return OTHER

    def _settle(self) -> None:
        while self._unsettled:
            attempt = self._unsettled.popleft()
            ended = attempt.ended
            self._running.pop(id(attempt), None)
            if ended is not None:
                self._jobs[attempt.job].add(ended)
                self._busy_seconds += attempt.busy(0.0)
                self._last_ended = max(self._last_ended or 0.0, ended.at)

    def _report_pools(self, readings: Readings, running: int) -> None:
        names = (self.name,)
        pools = list(self._pools)
        if pools:
            readings.number(catalogue.WORKER_SLOTS, sum(p.slots for p in pools), names)
            readings.number(catalogue.QUEUE_CONSUMERS, sum(p.consumers for p in pools), names)
            readings.number(catalogue.QUEUE_SCHEDULED, sum(p.scheduled for p in pools), names)
            readings.number(catalogue.QUEUE_IN_FLIGHT, running, names)
            dead = [p.dead for p in pools if p.dead is not None]
            if dead:
                readings.number(catalogue.QUEUE_DEAD, sum(dead), names)
        elif self.slots is not None:
            readings.number(catalogue.WORKER_SLOTS, self.slots, names)

    def _report_job(self, readings: Readings, job: str, series: JobSeries) -> None:
        for outcome, count in series.outcomes.items():
            readings.number(catalogue.QUEUE_COMPLETED, count, (self.name, job, outcome))
        taken = Distribution(PROCESSING_BUCKETS, tuple(series.buckets), series.seconds)
        readings.distribution(catalogue.QUEUE_PROCESSING, taken, (self.name, job))
        if job == OTHER:
            labels = catalogue.QUEUE_COMPLETED.name, "job"
            readings.number(catalogue.LABEL_OVERFLOW, sum(series.outcomes.values()), labels)
