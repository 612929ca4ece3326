"""
The sampler: one asyncio task that reads every source on its own schedule.

Rule: a source that raises or hangs costs only itself. It is marked down, what it last said is
dropped after a few intervals, and it is asked again at its next turn; it is never started twice.
Rule: all schedules are on the monotonic clock. A turn that was missed, because the loop was blocked
or the machine slept, is skipped and not made up for.
"""

import asyncio
import contextvars
import inspect
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from prometheus_client import Metric

from aiosvc import catalogue
from aiosvc.blocking import InThread
from aiosvc.errors import ConfigError
from aiosvc.readings import Readings

__all__ = ["Sampler", "Source", "next_turn"]

log = logging.getLogger("aiosvc.sampler")

#: Failed samples in a row after which what a source last said is dropped.
KEEP_FOR = 3

#: What a user's source may return: a number, numbers by label value(s), or metric families.
Sampled = float | Mapping[Any, float] | Iterable[Metric]

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def next_turn(due: float, interval: float, now: float) -> float:
    """
    Return the first turn after *now* of a schedule that has one at *due* and every *interval*.

    All three are seconds on one monotonic clock. The result keeps the phase of *due*, so a schedule
    does not drift; turns between *due* and *now* are skipped.
    """
    if now < due:
        return due
    following = due + interval * (math.floor((now - due) / interval) + 1)
    return following if following > now else following + interval


class Source:
    """One thing that is read regularly: its schedule, its last reading and how it is doing."""

    def __init__(
        self,
        name: str,
        read: Callable[[], Readings | Awaitable[Readings]],
        *,
        interval: float,
        timeout: float,
        on_loop: bool,
        thread: InThread | None,
    ) -> None:
        self.name = name
        self.read = read
        self.thread = thread
        self.interval = interval
        self.timeout = timeout
        self.on_loop = on_loop
        self.due = 0.0
        self.running: asyncio.Future[Any] | None = None
        self.readings: Readings | None = None
        self.up: bool | None = None
        self.seconds = 0.0
        self.last_success: float | None = None
        #: Set when the source has been read for the first time, well or not.
        self.known = asyncio.Event()
        self._failures = 0

    def succeed(self, readings: Readings, seconds: float) -> None:
        """Take a new reading that took *seconds*."""
        if self.up is False:
            log.info("source %s is back", self.name)
        self.readings = readings
        self.up = True
        self.seconds = seconds
        self.last_success = time.time()
        self._failures = 0
        self.known.set()

    def fail(self, error: BaseException | str, seconds: float) -> None:
        """Mark the source down; its last reading goes after `KEEP_FOR` failures in a row."""
        if self.up is not False:
            reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            log.warning("source %s is down: %s", self.name, reason)
        self.up = False
        self.seconds = seconds
        self._failures += 1
        self.known.set()
        if self._failures >= KEEP_FOR:
            self.readings = None

    def ended(self, running: asyncio.Future[Any]) -> None:
        """Take note that a sample ended, be it long after it was given up."""
        self.running = None
        if not running.cancelled():
            running.exception()  # looked at, so asyncio does not complain about a late one

    def report(self, readings: Readings) -> None:
        """Add the last reading, and how the source itself is doing."""
        if self.readings is not None:
            readings.absorb(self.readings)
        if self.up is not None:
            labels = (self.name,)
            readings.number(catalogue.SOURCE_UP, int(self.up), labels)
            readings.number(catalogue.SOURCE_DURATION, self.seconds, labels)
            if self.last_success is not None:
                readings.number(catalogue.SOURCE_LAST_SUCCESS, self.last_success, labels)


class Sampler:
    """Reads sources in the background; a reporter for the collector."""

    def __init__(
        self, *, interval: float, timeout: float, on_error: Callable[[str, BaseException], None]
    ) -> None:
        self.interval = interval
        self.timeout = timeout
        self._lateness = _Worst()
        self._on_error = on_error
        self._sources: dict[str, Source] = {}
        self._task: asyncio.Task[None] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._wake: asyncio.Future[None] | None = None
        self._samples: set[asyncio.Task[None]] = set()

    def add(
        self,
        name: str,
        read: Callable[[], Sampled | Awaitable[Sampled]],
        *,
        documentation: str = "",
        labelnames: tuple[str, ...] = (),
        interval: float | None = None,
        timeout: float | None = None,
        on_loop: bool = False,
    ) -> None:
        """
        Sample *read* regularly into the gauge *name*.

        *read* takes nothing and returns a number; or, with *labelnames*, a mapping of label value
        tuples to numbers, from which label sets may come and go; or metric families, which are
        exported as they are. An async function is awaited on the event loop. Any other is called in
        a thread of its own, since it may block, unless *on_loop* says that it reads something that
        belongs to the loop and returns at once. *interval* and *timeout* are in seconds, the
        sampler's own by default.

        Raises ConfigError where the name is taken or no metric name, or a number makes no sense.
        """
        if any(spec.name == name for spec in catalogue.CATALOGUE):
            raise ConfigError(f"source {name!r}: aiosvc exports a metric of that name itself")
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"source {name!r}: not a metric name; use letters, digits and '_', no digit first"
            )
        as_readings = _Converter(name, documentation or f"Sampled by {name}.", labelnames)
        if inspect.iscoroutinefunction(read):

            async def convert_awaited() -> Readings:
                return as_readings(await read())

            self.add_source(name, convert_awaited, interval=interval, timeout=timeout)
        else:

            def convert() -> Readings:
                return as_readings(read())

            self.add_source(name, convert, interval=interval, timeout=timeout, on_loop=on_loop)

    def add_source(
        self,
        name: str,
        read: Callable[[], Readings | Awaitable[Readings]],
        *,
        interval: float | None = None,
        timeout: float | None = None,
        on_loop: bool = False,
    ) -> Source:
        """Sample *read*, which gives `Readings` or is async and does; otherwise as `add`."""
        if name in self._sources:
            raise ConfigError(f"source {name!r} is there already; give this one another name")
        for option, value in (("interval", interval), ("timeout", timeout)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"source {name!r}: {option}: {value!r} given; expected seconds")
        thread = None
        if not inspect.iscoroutinefunction(read) and not on_loop:
            thread = InThread(name, read)
            read = thread.read
        source = Source(
            name,
            read,
            interval=interval or self.interval,
            timeout=timeout or self.timeout,
            on_loop=on_loop,
            thread=thread,
        )
        self._sources[name] = source
        self._notice()
        return source

    def start(self) -> None:
        """Start sampling on the running event loop; every source has its first turn at once."""
        if self._task is None:
            for source in self._sources.values():
                source.due = 0.0
            self._launch()

    async def stop(self) -> None:
        """Stop sampling; samples under way are cancelled."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        task, self._task = self._task, None
        running = [s.running for s in self._sources.values()]
        ending = [
            each for each in (*self._samples, *running, task) if isinstance(each, asyncio.Task)
        ]
        for each in ending:
            each.cancel()
        if ending:
            await asyncio.wait(ending, timeout=1.0)
        for source in self._sources.values():
            source.up = None
            source.readings = None
            source.known.clear()
            if source.thread is not None:
                source.thread.close()

    def refresh(self) -> None:
        """Read the sources that belong to the loop now, if the running loop is that one."""
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            for source in self._sources.values():
                if source.on_loop:
                    self._sample_now(source)

    def report(self, readings: Readings) -> None:
        """Add what every source last said."""
        for source in list(self._sources.values()):
            source.report(readings)
        if self._task is not None:
            now = self._task.get_loop().time()
            readings.number(catalogue.SAMPLER_LATENESS, self._lateness.value(now))

    def _launch(self) -> None:
        self._restart = None
        loop = asyncio.get_running_loop()
        # An empty context: a task that lives as long as the service must not keep anybody's
        # context variables, such as the span in which the service was started.
        self._task = loop.create_task(
            self._run(loop), name="aiosvc sampler", context=contextvars.Context()
        )
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is not self._task:
            return
        try:
            task.result()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it goes on anyhow
            self._on_error("sampler", error)
        loop = task.get_loop()
        if not loop.is_closed():
            self._restart = loop.call_later(self.interval, self._launch)

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            now = loop.time()
            turn = [source for source in self._sources.values() if source.due <= now]
            missed = [now - source.due for source in turn if source.due]
            if missed:
                self._lateness.add(max(missed), now)
            for source in turn:
                # A first turn is at once, the following ones on whole intervals of the clock, so
                # sources of the same interval share their wake-ups.
                source.due = next_turn(source.due, source.interval, now)
                self._take_turn(source)
            await self._until(loop, min((s.due for s in self._sources.values()), default=None))

    async def _until(self, loop: asyncio.AbstractEventLoop, due: float | None) -> None:
        wake = self._wake = loop.create_future()
        timer = None if due is None else loop.call_at(due, self._notice)
        try:
            await wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _notice(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _take_turn(self, source: Source) -> None:
        if source.running is not None:
            source.fail("the sample before has not ended yet", source.seconds)
        elif source.on_loop:
            self._sample_now(source)
        else:
            sample = asyncio.get_running_loop().create_task(self._sample(source))
            self._samples.add(sample)
            sample.add_done_callback(self._samples.discard)

    def _sample_now(self, source: Source) -> None:
        begun = time.perf_counter()
        try:
            readings = source.read()
        except Exception as error:  # noqa: BLE001 - a source's error is the source's
            source.fail(error, time.perf_counter() - begun)
        else:
            if isinstance(readings, Readings):
                source.succeed(readings, time.perf_counter() - begun)

    async def _sample(self, source: Source) -> None:
        begun = time.perf_counter()
        try:
            reading = source.read()
        except Exception as error:  # noqa: BLE001 - a source's error is the source's
            source.fail(error, time.perf_counter() - begun)
            return
        if isinstance(reading, Readings):
            source.succeed(reading, time.perf_counter() - begun)
            return
        source.running = running = asyncio.ensure_future(reading)
        running.add_done_callback(source.ended)
        try:
            await asyncio.wait([running], timeout=source.timeout)
        finally:
            # A coroutine can be cancelled; a thread goes on, and is seen to by its future.
            if isinstance(running, asyncio.Task) and not running.done():
                running.cancel()
        seconds = time.perf_counter() - begun
        if not running.done():
            source.fail(f"no answer within {source.timeout:g} s", seconds)
        elif running.cancelled():
            source.fail("cancelled", seconds)
        elif (raised := running.exception()) is not None:
            source.fail(raised, seconds)
        else:
            source.succeed(running.result(), seconds)


class _Worst:
    """
    The largest value of the last minute or two.

    It depends on the clock alone and not on when it is read, so two scrapers see the same.
    """

    WINDOW = 60.0

    def __init__(self) -> None:
        self._minute = 0
        self._this = self._last = 0.0

    def add(self, value: float, now: float) -> None:
        """Take note of a value; *now* is the monotonic time."""
        self._turn(now)
        self._this = max(self._this, value)

    def value(self, now: float) -> float:
        """Return the largest value of the current minute and the one before it."""
        self._turn(now)
        return max(self._this, self._last)

    def _turn(self, now: float) -> None:
        minute = int(now // self.WINDOW)
        if minute != self._minute:
            self._last = self._this if minute == self._minute + 1 else 0.0
            self._this = 0.0
            self._minute = minute


class _Converter:
    """Turns what a user's source returns into `Readings`."""

    def __init__(self, name: str, documentation: str, labelnames: tuple[str, ...]) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = labelnames

    def __call__(self, sampled: Any) -> Readings:
        readings = Readings()
        if isinstance(sampled, Mapping | int | float):
            family = Metric(self._name, self._documentation, "gauge")
            values = sampled if isinstance(sampled, Mapping) else {(): sampled}
            for labels, value in values.items():
                given = (labels,) if isinstance(labels, str) else tuple(labels)
                if len(given) != len(self._labelnames):
                    raise ValueError(
                        f"labels {given!r} do not fit the label names {self._labelnames!r}"
                    )
                named = dict(zip(self._labelnames, map(str, given), strict=True))
                family.add_sample(self._name, named, float(value))
            readings.family(family)
        else:
            for family in sampled:
                readings.family(family)
        return readings
