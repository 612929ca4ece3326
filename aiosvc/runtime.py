"""
What aiosvc reads by itself of the process, the interpreter and the event loop.

Rule: knows which sources there are, and when they begin and end; what they read is theirs. Rule: what
belongs to the process or to a loop is told once in a registry, however many services share it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakKeyDictionary

from aiosvc import catalogue
from aiosvc.collector import ServiceCollector
from aiosvc.config import Settings
from aiosvc.eventloop import LoopWatch, Stall
from aiosvc.readings import Readings
from aiosvc.sampling import Sampler
from aiosvc.sources.executor import ExecutorSource
from aiosvc.sources.pauses import PAUSES, PauseReporter
from aiosvc.sources.process import ProcessSource
from aiosvc.sources.tasks import TaskSource

__all__ = ["Runtime"]

#: Seconds that a start may wait for the first sample of the process.
PATIENCE = 0.5

#: Who reads an event loop: the first that began to, until it stops.
Speakers = WeakKeyDictionary[asyncio.AbstractEventLoop, object]


class Runtime:
    """
    The sources of one service that it has not to be told of.

    With *of_loop* False the loop that it is started on is not the service's, and nothing is told of.
    """

    def __init__(
        self,
        collector: ServiceCollector,
        sampler: Sampler,
        settings: Settings,
        *,
        of_loop: bool = True,
    ) -> None:
        self._collector = collector
        self._running = False
        self._process = ProcessSource(collector.ownership.exports)
        self._tasks = TaskSource(settings.task_groups)
        self._pauses = collector.share("pauses", PauseReporter)
        self._speakers = collector.share("event loops", Speakers)
        probe = settings.loop_probe if of_loop else "off"
        self._loop = LoopWatch(
            collector,
            kind=probe,
            stall_threshold=settings.stall_threshold,
            collecting=PAUSES.within,
        )
        if probe != "off":
            collector.claim("loop_probe", probe)
            collector.claim("stall_threshold", settings.stall_threshold)
        # In a thread: it reads files, if quick ones, and an event loop is not to do that.
        self._sampled = sampler.add_source("process", self._read_process)
        if not of_loop:
            return
        collector.claim("task groups", settings.task_groups)
        if settings.task_groups:
            collector.extend(catalogue.ASYNCIO_TASKS, ("group",))
        for name, read in (
            ("asyncio_tasks", self._tasks.read),
            ("asyncio_executor", ExecutorSource().read),
        ):
            sampler.add_source(name, self._once_per_loop(read), on_loop=True)

    def start(self) -> None:
        """Begin what is not sampled, before the sampler starts, unless it has begun."""
        if self._running:
            return
        self._running = True
        self._pauses.start()
        self._collector.attach(self._pauses)
        self._loop.start()

    def stalls(self) -> list[Stall]:
        """Return the last times that the event loop was held up, oldest first."""
        return self._loop.stalls()

    async def known(self) -> None:
        """Wait for the first sample of the process; one that can't be read holds nobody up."""
        with suppress(TimeoutError):
            # Not `wait_for`: until Python 3.12 that drops a cancellation that comes with the sample.
            async with asyncio.timeout(PATIENCE):
                await self._sampled.known.wait()

    def stop(self) -> None:
        """Let go of everything, after the sampler has stopped; the pauses counted are kept."""
        if not self._running:
            return
        self._running = False
        self._loop.stop()
        self._process.close()
        self._tasks.close()
        for loop, speaker in list(self._speakers.items()):
            if speaker is self:
                del self._speakers[loop]
        if self._pauses.stop():
            self._collector.retire(self._pauses)
            self._pauses.forget()

    def _read_process(self) -> Readings:
        self._collector.ownership.look()
        return self._process.read()

    def _once_per_loop(self, read: Callable[[], Readings]) -> Callable[[], Readings]:
        def read_if_first() -> Readings:
            first = self._speakers.setdefault(asyncio.get_running_loop(), self)
            return read() if first is self else Readings()

        return read_if_first
