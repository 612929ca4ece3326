"""
The sampler: one asyncio task that reads every source on its own schedule.

Rule: a source that raises or hangs costs only itself. It is marked down, what it last said is
dropped after a few intervals, and it is asked again at its next turn; it is never started twice.
Rule: all of it is on the monotonic clock.
"""

import asyncio
import contextvars
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, Unpack, overload

from aiosvc import catalogue, validation
from aiosvc.blocking import InThread, end
from aiosvc.config import make
from aiosvc.errors import ConfigError
from aiosvc.readings import Readings
from aiosvc.sampling.conversion import Collector, Conversion, reader
from aiosvc.sampling.lateness import Worst
from aiosvc.sampling.options import SourceKeywords, SourceOptions
from aiosvc.sampling.schedule import Schedule
from aiosvc.sampling.source import Source

__all__ = ["Sampler"]

log = logging.getLogger("aiosvc.sampler")

#: Seconds of the event loop that a turn takes at a time, and sources that are begun in it: the
#: first sample of one may start a thread, which takes the loop a tenth of a millisecond or two.
SLICE = 0.001
STEP = 8

#: Seconds of the event loop from which a source that is read on it is told of in the log.
LONG = 0.01

#: Stands for the function that a decorator is to get.
DECORATING = object()

S = TypeVar("S", bound="Callable[[], Any] | Collector")


class Sampler:
    """
    Reads sources in the background; a reporter for the collector.

    *interval* and *timeout* are seconds, *keep* a number of intervals, each for the sources that
    have none of their own. *clock* gives monotonic seconds.
    """

    def __init__(
        self,
        *,
        interval: float,
        timeout: float,
        on_error: Callable[[str, BaseException], None],
        keep: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval = interval
        self.timeout = timeout
        self.keep = keep
        self._clock = clock
        self._lateness = Worst()
        self._on_error = on_error
        # Replaced whole, never changed: any thread may add to it, and read it. Held to add.
        self._sources: dict[str, Source] = {}
        self._adding = threading.Lock()
        self._task: asyncio.Task[None] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._wake: asyncio.Future[None] | None = None
        self._samples: set[asyncio.Task[None]] = set()

    @overload
    def add(self, name: str, read: S, **options: Unpack[SourceKeywords]) -> S: ...

    @overload
    def add(self, name: str, **options: Unpack[SourceKeywords]) -> Callable[[S], S]: ...

    def add(self, name: str, read: Any = DECORATING, **options: Unpack[SourceKeywords]) -> Any:
        """
        Sample *read* regularly, as the gauge *name* or as the metric families that it returns.

        *read* is a function without arguments, or a collector: an object whose `collect` is one. It
        returns a number; or, with *labelnames*, a mapping of label values (a string, or a tuple of
        them) to numbers, from which label sets may come and go; or metric families, which are
        exported as they are. An async function or generator runs on the event loop. Any other one
        is called in a thread of its own, since it may block, unless *on_loop* says that it reads
        something that belongs to the loop and returns at once. Where *read* has a method `close`,
        that is called when the sampling stops. Without *read*, returns a decorator; either way
        what was given comes back.

        *kind* is counter for a number that only grows, whose name ends in `_total`. Of a mapping,
        label sets past *max_series* are added up under `_other`.

        *interval* is the seconds between two samples, and *timeout* those that one may take; where
        they are None, the sampler's own. Each sample is put off by a random part of *jitter*
        seconds. While a source fails, `aiosvc_source_up` is 0; what it last said is dropped after
        *keep* intervals; after a few failures it is asked less often, up to *backoff* seconds
        apart, and as before once it answers. It may be called at any time, in any thread.

        Raises ConfigError where the name is taken or no metric name, or an option makes no sense.
        """
        if read is DECORATING:
            return lambda read: self.add(name, read, **options)
        try:
            chosen = make(SourceOptions, options)
            conversion = Conversion(name, chosen)
            self._add(
                name,
                reader(read, conversion),
                chosen,
                conversion=conversion,
                close=getattr(read, "close", None),
            )
        except ConfigError as error:
            raise ConfigError(f"source {name!r}: {error}") from None
        return read

    def add_source(
        self,
        name: str,
        read: Callable[[], Readings | Awaitable[Readings]],
        *,
        interval: float | None = None,
        timeout: float | None = None,
        jitter: float = 0.0,
        on_loop: bool = False,
        close: Callable[[], Any] | None = None,
    ) -> Source:
        """
        Sample *read*, which gives `Readings` or is async and does; otherwise as `add`.

        *close* is called when the sampling stops. A source that fails is asked at every turn.
        """
        options = SourceOptions(
            interval=interval, timeout=timeout, jitter=jitter, backoff=0.0, on_loop=on_loop
        )
        return self._add(name, read, options, close=close)

    def _add(
        self,
        name: str,
        read: Callable[[], Readings | Awaitable[Readings]],
        options: SourceOptions,
        *,
        conversion: Conversion | None = None,
        close: Callable[[], Any] | None = None,
    ) -> Source:
        interval = options.interval or self.interval
        if options.jitter:
            validation.seconds("jitter", options.jitter, at_least=0.0, below=interval)
        is_async = inspect.iscoroutinefunction(read)
        thread = None if is_async or options.on_loop else InThread(name, read)
        source = Source(
            name,
            read if thread is None else thread.read,
            schedule=Schedule(interval, jitter=options.jitter, backoff=options.backoff),
            timeout=options.timeout or self.timeout,
            keep=self.keep if options.keep is None else options.keep,
            # An async one runs there anyway, and is waited for.
            on_loop=options.on_loop and not is_async,
            thread=thread,
            conversion=conversion,
            close=close,
        )
        with self._adding:
            if name in self._sources:
                raise ConfigError("is there already; give this one another name")
            self._sources = {**self._sources, name: source}
        task = self._task
        if task is not None:
            with suppress(RuntimeError):  # its loop is closed
                task.get_loop().call_soon_threadsafe(self._notice)
        return source

    def start(self) -> None:
        """Start sampling on the running event loop; every source has its first turn at once."""
        if self._task is None:
            loop = asyncio.get_running_loop()
            for source in self._sources.values():
                source.schedule.begin()
                # Of a loop that was left, nothing ends any more.
                if source.running is not None and source.running.get_loop() is not loop:
                    source.running = None
            self._launch()

    async def stop(self) -> None:
        """Stop sampling; samples under way are cancelled, and sources closed."""
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
        end([source.thread for source in self._sources.values() if source.thread is not None])
        for source in self._sources.values():
            source.forget()
            if source.close is not None:
                await self._close(source.name, source.close)

    def abandon(self) -> None:
        """Forget an event loop that ended without `stop`, so that `start` works on another."""
        self._task = self._restart = self._wake = None
        self._samples.clear()
        for source in self._sources.values():
            source.running = None
            source.forget()
            if source.thread is not None:
                source.thread.abandon()

    def forget(self) -> None:
        """Begin counting anew, once what was counted is kept elsewhere."""
        for source in self._sources.values():
            source.forget_counts()

    def refresh(self) -> None:
        """Read the sources that belong to the loop now, if the running loop is that one."""
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            for source in self._sources.values():
                # One that fails keeps to its turns: a scrape is not to ask it more often.
                if source.on_loop and source.up is not False:
                    self._sample_now(source)

    def report(self, readings: Readings) -> None:
        """Add what every source last said."""
        now = self._clock()
        sources = list(self._sources.values())
        for source in sources:
            source.report(readings, now)
        if self._task is not None:
            overdue = max((now - s.schedule.due for s in sources if s.schedule.due), default=0.0)
            readings.number(catalogue.SAMPLER_LATENESS, max(self._lateness.value(now), overdue))

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
        error: BaseException | None = None
        try:
            task.result()
        except BaseException as raised:  # noqa: BLE001 - it goes on anyhow
            error = raised
        loop = task.get_loop()
        if not loop.is_closed():
            self._restart = loop.call_later(self.interval, self._again, error)

    def _again(self, error: BaseException | None) -> None:
        # Told only now: a loop that ends cancels everything, and has no later.
        if error is not None:
            self._on_error("sampler", error)
        self._launch()

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            now = self._clock()
            turn = [source for source in self._sources.values() if source.schedule.due <= now]
            missed = [now - source.schedule.due for source in turn if source.schedule.due]
            if missed:
                self._lateness.add(max(missed), now)
            until = time.perf_counter() + SLICE
            for place, source in enumerate(turn, start=1):
                source.schedule.advance(now, source.failures)
                self._take_turn(source)
                if not place % STEP or time.perf_counter() >= until:
                    await asyncio.sleep(0)
                    until = time.perf_counter() + SLICE
            await self._until(
                loop, min((s.schedule.due for s in self._sources.values()), default=None)
            )

    async def _until(self, loop: asyncio.AbstractEventLoop, due: float | None) -> None:
        wake = self._wake = loop.create_future()
        timer = None
        if due is not None:
            timer = loop.call_later(max(0.0, due - self._clock()), self._notice)
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
            # One that may still answer in time is left to it. Whoever waits for it says whether it
            # did: where the loop is late, the answer may be there already.
            if source.given_up:
                since = self._clock() - source.begun
                source.fail(f"no answer for {since:.1f} s", since)
        elif source.on_loop:
            self._sample_now(source)
        else:
            sample = asyncio.get_running_loop().create_task(self._sample(source))
            self._samples.add(sample)
            sample.add_done_callback(self._samples.discard)

    def _sample_now(self, source: Source) -> None:
        begun = self._clock()
        try:
            readings = source.read()
        except (KeyboardInterrupt, SystemExit):
            raise  # the process is to end; a signal may be the cause, and not the source
        except BaseException as error:  # noqa: BLE001 - a source's error is the source's
            # Also a cancellation: nothing was awaited, so it is none of the sampler's task.
            source.fail(error, self._clock() - begun)
        else:
            now = self._clock()
            self._succeed(source, readings, now - begun)
            if now - begun > LONG and not source.slow:
                source.slow = True
                log.warning(
                    "source %s: held the event loop for %.0f ms; without on_loop=True it is "
                    "called in a thread",
                    source.name,
                    (now - begun) * 1000,
                )

    async def _sample(self, source: Source) -> None:
        begun = source.begun = self._clock()
        try:
            source.running = running = asyncio.ensure_future(source.read())
        except RuntimeError as error:  # no more threads
            source.fail(error, 0.0)
            return
        running.add_done_callback(source.ended)
        source.given_up = False
        try:
            await asyncio.wait([running], timeout=source.timeout)
        finally:
            source.given_up = not running.done()
            # A coroutine can be cancelled; a thread goes on, and is seen to by its future.
            if isinstance(running, asyncio.Task) and not running.done():
                running.cancel()
        seconds = self._clock() - begun
        if not running.done():
            source.fail(f"no answer within {source.timeout:g} s", seconds)
        elif running.cancelled():
            source.fail("cancelled", seconds)
        elif (raised := running.exception()) is not None:
            source.fail(raised, seconds)
        else:
            self._succeed(source, running.result(), seconds)

    def _succeed(self, source: Source, readings: Readings, seconds: float) -> None:
        now = self._clock()
        if source.failures:
            source.schedule.advance(now)
            self._notice()
        source.succeed(readings, seconds, now)

    async def _close(self, name: str, close: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(1.0):
                closing = close()
                if inspect.isawaitable(closing):
                    await closing
        except Exception as error:  # noqa: BLE001 - the others are still to be closed
            self._on_error(f"close of source {name}", error)
