"""
Collectors that are neither prometheus_client's nor ours, asked in threads of their own.

Rule: what such a collector does is its own, and may be a call over the network; so it is not asked on
the event loop, not twice at a time, and not waited for beyond the scrape's deadline.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary, ref

from prometheus_client import Metric

from aiosvc.blocking import InThread, end

__all__ = ["ForeignCollectors", "Given"]

#: What collectors gave, or how they failed, by the collector's id.
Given = Mapping[int, list[Metric] | Exception]


class ForeignCollectors:
    """Asks collectors, each in a thread that is kept as long as the collector."""

    def __init__(self) -> None:
        self._threads: WeakKeyDictionary[Any, InThread] = WeakKeyDictionary()
        self._running: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, collectors: Iterable[Any], seconds: float) -> Given:
        """
        Return what each of *collectors* gives within *seconds*, or a TimeoutError for it.

        The lists are the caller's own, the families in them are not.
        """
        asked = {id(collector): self._answer(collector) for collector in collectors}
        if asked:
            await asyncio.wait(asked.values(), timeout=seconds)
        given: dict[int, list[Metric] | Exception] = {}
        for key, answer in asked.items():
            if not answer.done():
                given[key] = TimeoutError(f"no answer within {seconds:g} s")
            elif (error := answer.exception()) is not None:
                given[key] = error if isinstance(error, Exception) else RuntimeError(repr(error))
            else:
                given[key] = answer.result().copy()
        return given

    def close(self) -> None:
        """End the threads; one that hangs is left to itself."""
        end(list(self._threads.values()))
        self._threads.clear()
        self._running.clear()

    def _answer(self, collector: Any) -> asyncio.Future[Any]:
        key = id(collector)
        running = self._running.get(key)
        if running is not None:
            return running
        thread = self._threads.get(collector)
        if thread is None:
            # The thread must not keep the collector: it goes when the registry lets it go.
            asked = _Asked(collector)
            thread = self._threads[collector] = InThread(type(collector).__name__, asked)
        running = self._running[key] = thread.read()
        running.add_done_callback(lambda ended: self._ended(key, ended))
        return running

    def _ended(self, key: int, ended: asyncio.Future[Any]) -> None:
        self._running.pop(key, None)
        if not ended.cancelled():
            ended.exception()  # looked at, so asyncio does not complain about a late one


class _Asked:
    """Calls a collector that it does not keep alive."""

    def __init__(self, collector: Any) -> None:
        self._collector = ref(collector)

    def __call__(self) -> list[Metric]:
        collector = self._collector()
        return [] if collector is None else list(collector.collect())
