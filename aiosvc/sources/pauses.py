"""
How long the garbage collector stops the program, by generation.

Rule: the callback runs wherever an object is made, in any thread and under any lock. It takes no
lock, touches no metric and raises nothing; it adds to plain numbers. Rule: one callback in a
process, however many services are observed, and none when the last one stops.

Theory of operation. The collector is never entered twice, so one time of a start is enough; a stop
without its start, because the callback was added or removed in between, is left out. What a
generation has come to is one list, replaced whole by the callback, so whoever reads it in another
thread sees either the state before a pause or the one after it. Numbers are the process's and never
fall; a registry is told what has been added since it began to ask.
"""

import gc
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Final

from aiosvc import catalogue
from aiosvc.catalogue import PAUSE_BUCKETS
from aiosvc.readings import Distribution, Readings

__all__ = ["PAUSES", "PauseReporter", "Pauses"]

#: Seconds from which a pause is remembered, and how many of those are.
LONG: Final = 0.01
REMEMBERED: Final = 16

#: Counts by bucket, and the sum of seconds at the end.
Cells = list[float]


class Pauses:
    """Adds up the pauses of this process while somebody watches; *clock* gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begun: float | None = None
        #: The last long ones, from when to when; replaced whole as well.
        self._long: tuple[tuple[float, float], ...] = ()
        self._watchers = 0
        self._watching = threading.Lock()  # not for the callback
        #: By generation; Python has three, though 3.14's incremental collector has other rules.
        self._cells: list[Cells] = [[0.0] * (len(PAUSE_BUCKETS) + 2) for _ in gc.get_stats()]

    def watch(self) -> None:
        """Add the callback, if nobody has yet."""
        with self._watching:
            self._watchers += 1
            if self._watchers == 1:
                gc.callbacks.append(self.note)

    def release(self) -> None:
        """Remove the callback, if nobody else watches."""
        with self._watching:
            self._watchers -= 1
            if self._watchers == 0:
                # Whoever clears the list takes ours along.
                if self.note in gc.callbacks:
                    gc.callbacks.remove(self.note)
                self._begun = None

    def note(self, phase: str, info: Mapping[str, int]) -> None:
        """Take note of a start or stop; the garbage collector's callback."""
        if phase == "start":
            self._begun = self._clock()
            return
        begun, self._begun = self._begun, None
        if begun is None:
            return
        now = self._clock()
        seconds = max(0.0, now - begun)
        if seconds >= LONG:
            self._long = (*self._long[1 - REMEMBERED :], (begun, now))
        generation = min(info["generation"], len(self._cells) - 1)
        cells = self._cells[generation].copy()
        cells[bisect_left(PAUSE_BUCKETS, seconds)] += 1
        cells[-1] += seconds
        self._cells[generation] = cells

    def within(self, since: float, until: float) -> float:
        """Return the seconds between two times of the clock that the last long pauses took."""
        return sum(max(0.0, min(end, until) - max(begun, since)) for begun, end in self._long)

    def cells(self) -> list[Cells]:
        """Return what each generation has come to; the lists are never changed."""
        return self._cells.copy()


#: Those of this process.
PAUSES = Pauses()


class PauseReporter:
    """Tells one registry of the pauses since `start`, for as many services as use it."""

    def __init__(self, pauses: Pauses = PAUSES) -> None:
        self._pauses = pauses
        self._users = 0
        self._before: list[Cells] = []

    def start(self) -> None:
        """Report from now on."""
        self._users += 1
        if self._users == 1:
            self._pauses.watch()
            self._before = [cells.copy() for cells in self._pauses.cells()]

    def stop(self) -> bool:
        """Say whether this was the last service; what was counted is reported until `forget`."""
        self._users -= 1
        if self._users == 0:
            self._pauses.release()
        return self._users == 0

    def forget(self) -> None:
        """Report nothing any more, since what was counted is kept elsewhere."""
        self._before = []

    def report(self, readings: Readings) -> None:
        """Add a histogram for each generation, those without a pause included."""
        now = self._pauses.cells()
        for generation, (before, after) in enumerate(zip(self._before, now, strict=False)):
            *counts, seconds = (b - a for a, b in zip(before, after, strict=True))
            readings.distribution(
                catalogue.PYTHON_GC_DURATION,
                Distribution(PAUSE_BUCKETS, tuple(int(count) for count in counts), seconds),
                (str(generation),),
            )
