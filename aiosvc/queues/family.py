"""
The queues and jobs of one service, by name; a reporter for the collector.

Rule: a queue is held weakly. One that nobody uses any more leaves the scrape with its gauges; what
was counted stays under its name, and a new queue of that name goes on from there. Rule: one queue
that can't be read costs its own series and nothing else. Rule: everything is read at the scrape, in
whatever thread that is: lengths and plain numbers, so that a scrape from another thread is as fresh.
"""

import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar, Unpack

from aiosvc import naming
from aiosvc.config import make
from aiosvc.errors import ConfigError
from aiosvc.queues.jobs import JobTracker
from aiosvc.queues.numbers import Counted
from aiosvc.queues.options import PoolKeywords, PoolOptions
from aiosvc.queues.probes import probe_of, subject_of
from aiosvc.queues.putget import PutGet, instrument, whole_of
from aiosvc.queues.state import Probe, QueueState, report_state
from aiosvc.queues.workerpool import WorkerPool
from aiosvc.readings import Readings, Reporter

__all__ = ["Queues", "check_name"]

Q = TypeVar("Q")

#: Names without a queue whose counts are kept; beyond it the one that was gone first is forgotten.
MAX_GONE: Final = 100

NOTHING: Final = Counted(), False


@dataclass(slots=True)
class Watched:
    """A queue under a name."""

    ref: Callable[[], Any]
    probe: Probe
    waits: bool
    #: What queues of that name had counted before, less what this one had before it was watched.
    offset: Counted | None = None

    def counted(self) -> Counted | None:
        """Return what all queues of this name have counted, None where this one counts nothing."""
        if not isinstance(self.probe, PutGet):
            return None
        now = self.probe.numbers.snapshot()
        return now if self.offset is None else now.plus(self.offset)

    def count_from(self, before: Counted) -> None:
        """Count on from *before*."""
        if isinstance(self.probe, PutGet):
            offset = before.plus(self.probe.numbers.snapshot(), -1)
            self.offset = None if offset == Counted() else offset


class Counting(Reporter, Protocol):
    """Whoever counts something about a queue."""

    def forget(self) -> None:
        """Start from zero, after what was counted went somewhere else."""


class Queues:
    """What `Observer.watch_queue`, `track_jobs` and `worker_pool` were given."""

    def __init__(
        self,
        on_error: Callable[[str, BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_error = on_error
        self._clock = clock
        self._watched: dict[str, Watched] = {}
        #: What was counted under names that have no queue now, and whether waits were.
        self._gone: dict[str, tuple[Counted, bool]] = {}
        self._trackers: dict[str, JobTracker] = {}
        self._others: list[Counting] = []
        self._changing = threading.Lock()

    def watch(self, queue: Q, name: str, *, waits: bool = True) -> Q:
        """
        Report *queue* as *name* from now on, and return it.

        Raises ConfigError where it is nothing that has a queue, or the name is no name or taken.
        """
        check_name(name)
        if not isinstance(waits, bool):
            raise ConfigError(f"waits: {waits!r} given; expected True or False")
        subject = subject_of(whole_of(queue))
        with self._changing:
            self._sweep()
            known = self._watched.get(name)
            if known is not None:
                if known.ref() is subject:
                    return queue
                raise ConfigError(
                    f"queue name {name!r}: another queue has it; give this one its own"
                )
            probe = instrument(subject, self._clock, waits=waits) or probe_of(subject)
            if probe is None:
                raise ConfigError(
                    f"watch_queue: {queue!r} given; expected a queue of asyncio, queue or janus, an "
                    "anyio memory object stream or CapacityLimiter, an aiojobs.Scheduler, an "
                    "executor, an asyncio.Semaphore, or a queue of aiosvc.brokers"
                )
            watched = Watched(weakref.ref(subject), probe, waits)
            watched.count_from(self._gone.pop(name, NOTHING)[0])
            self._watched[name] = watched
        return queue

    def include(self, other: Counting) -> None:
        """Report what *other* counts too."""
        with self._changing:
            if other not in self._others:
                self._others.append(other)

    def has(self, name: str) -> bool:
        """Say whether a queue that is alive is watched as *name*."""
        with self._changing:
            self._sweep()
            return name in self._watched

    def track(self, name: str, jobs: Iterable[str] = (), slots: int | None = None) -> JobTracker:
        """Return the tracker of the jobs of *name*, the same one for each call."""
        check_name(name)
        with self._changing:
            tracker = self._trackers.get(name) or JobTracker(name, self._clock)
            tracker.expect(jobs, slots)
            self._trackers[name] = tracker
        return tracker

    def pool(
        self,
        queue: Any,
        handler: Callable[[Any], Awaitable[object]],
        name: str,
        **options: Unpack[PoolKeywords],
    ) -> WorkerPool:
        """Watch *queue* and return a pool that works on it; raises ConfigError as its parts do."""
        made = make(PoolOptions, options)
        check_name(name)
        self.watch(queue, name)
        return WorkerPool(queue, handler, self.track(name), made)

    def report(self, readings: Readings) -> None:
        """Add every queue and every job to *readings*."""
        with self._changing:
            self._sweep()
            watched = list(self._watched.items())
            gone = list(self._gone.items())
            trackers = [*self._trackers.values(), *self._others]
        for name, (last, waits) in gone:
            last.report(readings, name, waits=waits)
        for name, each in sorted(watched):
            try:
                state, counted = each.probe.read(), each.counted()
            except Exception as error:  # noqa: BLE001 - the others are to be seen
                self._on_error(f"queue {name}", error)
                continue
            state = self._without_what_workers_say(name, state)
            report_state(readings, name, each.probe.backend, state)
            if counted is not None:
                counted.report(readings, name, waits=each.waits)
            if isinstance(each.probe, PutGet) and each.probe.failure is not None:
                failure, each.probe.failure = each.probe.failure, None
                self._on_error(f"queue {name}", failure)
        for tracker in trackers:
            tracker.report(readings)

    def forget(self) -> None:
        """Start from zero, after what was counted went somewhere else."""
        with self._changing:
            self._sweep()
            self._gone.clear()
            for each in self._watched.values():
                each.count_from(Counted())
        for tracker in (*self._trackers.values(), *self._others):
            tracker.forget()

    def _without_what_workers_say(self, name: str, state: QueueState) -> QueueState:
        # Those who process the items know better which of them are in hand; no fact counts twice.
        tracker = self._trackers.get(name)
        if tracker is None:
            return state
        if tracker.has_pools:
            return replace(state, in_flight=None, consumers=None, slots=None, busy=None)
        return replace(state, busy=None, slots=None if tracker.slots else state.slots)

    def _sweep(self) -> None:
        for name, each in list(self._watched.items()):
            if each.ref() is None:
                del self._watched[name]
                counted = each.counted()
                if counted is not None:
                    self._gone[name] = counted, each.waits
        while len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]


def check_name(name: object) -> str:
    """Return *name*; raises ConfigError where it can't be a queue's."""
    return naming.check_name(name, "queue name")
