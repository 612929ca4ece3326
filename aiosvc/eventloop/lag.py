"""
What lag is, and what one registry is told of it.

Rule: knows no probe's ways; seconds in, numbers out. Rule: everything only ever rises, so any
number of scrapers may read it, whenever they like.

Theory of operation. What becomes ready while the loop runs callbacks, be it a socket or a timer, is
not even looked at until all of them are through: *lag* is how long the loop did not look. A
histogram of all such periods would say little. A healthy loop has a thousand of 0.1 ms for each
that hurts, and an idle one has none, so its quantiles tell how many turns the loop makes rather than
how long anybody waits. So time is cut into slots of 50 ms, and each gives one observation:

- the longest period without a look that ended in it; 0 where the loop only waited;
- a period that reaches past the end of its slot ends the slot with it. So five blocked seconds are
  one observation of five seconds, not a hundred, and no look is owed for the slots it covered.

The p99 is then "in 99 of 100 slots, nothing had to wait longer than this", and the count rises by
about 20 a second whatever the loop does, except while it is blocked. A heartbeat, which is all that
can be had of a loop that can't be measured, gives one observation in 50 ms too: the wait of one
timer that was due at some moment of the slot. Both agree on long periods, less what of them went by
before the timer was due (0 to 50 ms); of the short ones it sees those that it falls into.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable
from typing import Protocol

from aiosvc import catalogue
from aiosvc.readings import Distribution, Readings

__all__ = ["SLOT", "Observe", "Probe", "Tally"]

#: Seconds for which there is one observation.
SLOT = 0.05

#: Is told of a slot: the seconds without a look, since when, and the slots of waiting before it.
Observe = Callable[[float, float, int], None]


class Probe(Protocol):
    """How one event loop is measured; times are seconds on a monotonic clock."""

    #: The clock of all of its times.
    clock: Callable[[], float]

    #: Whether somebody sleeps until the loop has something to do; then `on_wake` is called.
    parked: bool
    on_wake: Callable[[], None]

    def start(self) -> None:
        """Begin, on the running loop."""

    def stop(self) -> None:
        """Leave the loop as it was."""

    def owing_since(self) -> float | None:
        """Return since when the loop has not looked (or since when it will owe it); else None."""

    def times(self) -> tuple[float, float] | None:
        """Return the seconds busy and idle so far, what runs now included; None if unknown."""


class Tally:
    """
    A reporter: what happened on one event loop while one registry was told of it.

    Numbers are added on the loop's thread, and reported on any. A period is a stall from
    *threshold* seconds on.
    """

    def __init__(self, threshold: float) -> None:
        bounds = catalogue.EVENTLOOP_LAG.buckets
        self.threshold = threshold
        self._lag = Distribution(bounds, (0,) * (len(bounds) + 1), 0.0)
        self._stalls = 0
        self._probe: Probe | None = None
        self._base = (0.0, 0.0)
        # What was reported last; no counter may fall, be it by the rounding of a float.
        self._reported = (0.0, 0.0)
        self._reported_stalls = 0
        self._reporting = threading.Lock()

    def follow(self, probe: Probe) -> None:
        """Take busy and idle seconds from *probe*, from now on."""
        self._base = probe.times() or (0.0, 0.0)
        self._probe = probe

    def observe(self, seconds: float, idle_slots: int = 0) -> None:
        """Count a slot with a period of *seconds*, and slots in which the loop only waited."""
        counts = list(self._lag.counts)
        counts[bisect_left(self._lag.bounds, seconds)] += 1
        counts[0] += idle_slots
        # A new object each time, so that a reader in another thread has all of it or none.
        self._lag = Distribution(self._lag.bounds, tuple(counts), self._lag.sum + seconds)
        if seconds >= self.threshold:
            self._stalls += 1

    def report(self, readings: Readings) -> None:
        """Add what happened so far; busy seconds and stalls include what goes on now."""
        probe = self._probe
        with self._reporting:
            # Counted before it is asked whether one is under way: a stall that ends in between
            # may be missing for a moment, which is made up for here, but is never counted twice.
            stalls = self._stalls
            if probe is not None and self._is_stalled(probe):
                stalls += 1
            self._reported_stalls = max(self._reported_stalls, stalls)
            readings.number(catalogue.EVENTLOOP_STALLS, self._reported_stalls)
            readings.distribution(catalogue.EVENTLOOP_LAG, self._lag, ())
            times = None if probe is None else probe.times()
            if times is not None:
                busy = max(self._reported[0], times[0] - self._base[0])
                idle = max(self._reported[1], times[1] - self._base[1])
                self._reported = busy, idle
                readings.number(catalogue.EVENTLOOP_TIME, busy, ("busy",))
                readings.number(catalogue.EVENTLOOP_TIME, idle, ("idle",))

    def _is_stalled(self, probe: Probe) -> bool:
        since = probe.owing_since()
        return since is not None and probe.clock() - since >= self.threshold
