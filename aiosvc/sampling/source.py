"""
One source: its last reading, whether that may still be shown, and how the source is doing.

Rule: knows no event loop; the sampler runs it and tells it how that went.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from aiosvc import catalogue
from aiosvc.blocking import InThread
from aiosvc.naming import what_happened
from aiosvc.readings import Readings
from aiosvc.sampling.conversion import Conversion
from aiosvc.sampling.schedule import Schedule

__all__ = ["Source"]

log = logging.getLogger("aiosvc.sampler")


class Source:
    """
    One thing that is read regularly.

    *read* returns `Readings` if it runs *on_loop*, and else something to wait for that gives them.
    *timeout* is seconds that a sample may take. What was read is shown while the source is up, and
    once it fails until *keep* intervals have gone by since it was read. One whose turn has been due
    for that and the timeout is down.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Any],
        *,
        schedule: Schedule,
        timeout: float,
        keep: int,
        on_loop: bool,
        thread: InThread | None = None,
        conversion: Conversion | None = None,
        close: Callable[[], Any] | None = None,
    ) -> None:
        self.name = name
        self.read = read
        self.schedule = schedule
        self.timeout = timeout
        self.on_loop = on_loop
        self.thread = thread
        self.close = close
        self.running: asyncio.Future[Any] | None = None
        #: Monotonic seconds at which the sample under way began.
        self.begun = 0.0
        #: Whether nobody waits for it any more.
        self.given_up = False
        self.up: bool | None = None
        #: Set when the source has been read for the first time, well or not.
        self.known = asyncio.Event()
        self.failures = 0
        #: Whether it was told of that it holds the event loop for long.
        self.slow = False
        self._keep = keep * schedule.interval
        self._conversion = conversion
        self._readings: Readings | None = None
        self._read_at = 0.0
        self._seconds = 0.0
        self._last_success: float | None = None

    def succeed(self, readings: Readings, seconds: float, now: float) -> None:
        """Take a new reading that took *seconds*."""
        if self.up is False:
            log.info("source %s is back", self.name)
        self.up = True
        self.failures = 0
        self._readings = readings
        self._read_at = now
        self._seconds = seconds
        self._last_success = time.time()
        self.known.set()

    def fail(self, error: BaseException | str, seconds: float) -> None:
        """Mark the source down, for a sample that took *seconds*."""
        if self.up is not False:
            reason = error if isinstance(error, str) else what_happened(error)
            log.warning("source %s is down: %s", self.name, reason)
        self.up = False
        self.failures += 1
        self._seconds = seconds
        self.known.set()

    def forget(self) -> None:
        """Be as one that was never read, when the sampler stops."""
        self.up = None
        self.failures = 0
        self._readings = None
        self.known = asyncio.Event()  # the next start may be on another event loop

    def forget_counts(self) -> None:
        """Begin counting anew, once what was counted is kept elsewhere."""
        if self._conversion is not None:
            self._conversion.overflown = 0

    def ended(self, running: asyncio.Future[Any]) -> None:
        """Take note that a sample ended, be it long after it was given up."""
        if self.running is running:
            self.running = None
        if not running.cancelled():
            running.exception()  # looked at, so asyncio does not complain about a late one

    def report(self, readings: Readings, now: float) -> None:
        """Add the last reading while it may be shown, and how the source is doing."""
        overflow = self._conversion
        if overflow is not None and overflow.overflown:
            where = overflow.overflow_labels
            readings.number(catalogue.LABEL_OVERFLOW, overflow.overflown, where)
        if self.up is None:
            return
        # A sampler whose loop stands still asks nobody; that must not look like good health.
        is_left = self.schedule.due + self._keep + self.timeout < now
        up = self.up and not is_left
        last = self._readings
        if last is not None and (up or now - self._read_at <= self._keep):
            readings.absorb(last)
        name = (self.name,)
        readings.number(catalogue.SOURCE_UP, int(up), name)
        readings.number(catalogue.SOURCE_DURATION, self._seconds, name)
        if self._last_success is not None:
            readings.number(catalogue.SOURCE_LAST_SUCCESS, self._last_success, name)
