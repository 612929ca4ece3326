"""
Depth and capacity of asyncio queues, read in place.

Rule: a queue is held weakly; one that nobody uses any more leaves the scrape.
"""

import asyncio
import re
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from aiosvc import catalogue
from aiosvc.errors import ConfigError
from aiosvc.readings import Readings

__all__ = ["QueueSource"]

Q = TypeVar("Q", bound="asyncio.Queue[Any]")

NAME = re.compile(r"[A-Za-z0-9_.-]+")


class QueueSource:
    """Reads every queue that it was given and that is still alive."""

    def __init__(self) -> None:
        self._queues: WeakValueDictionary[str, asyncio.Queue[Any]] = WeakValueDictionary()

    def watch(self, queue: Q, name: str) -> Q:
        """
        Read *queue* as *name* from now on and return it.

        Raises ConfigError where it is no asyncio.Queue, or the name is no name or taken.
        """
        if not isinstance(queue, asyncio.Queue):
            raise ConfigError(
                f"watch_queue: {queue!r} given; expected an asyncio.Queue or a subclass of it"
            )
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(
                f"queue name {name!r}: may hold only letters, digits, '_', '-' and '.'"
            )
        known = self._queues.get(name)
        if known is not None and known is not queue:
            raise ConfigError(f"queue name {name!r}: another queue has it; give this one its own")
        self._queues[name] = queue
        return queue

    def read(self) -> Readings:
        """Return depth, and capacity where the queue is bounded."""
        readings = Readings()
        for name, queue in sorted(self._queues.items()):
            readings.number(catalogue.QUEUE_DEPTH, queue.qsize(), (name,))
            if queue.maxsize > 0:
                readings.number(catalogue.QUEUE_CAPACITY, queue.maxsize, (name,))
        return readings
