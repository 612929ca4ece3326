"""
How workers take from a queue and put back into it, whatever it calls these.

Rule: knows what can be awaited and what can't, and no library; janus by its async end, anyio by its
streams, anything else by the verbs of asyncio.Queue.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiosvc.errors import ConfigError
from aiosvc.queues.state import guarded

__all__ = ["Intake"]

#: What is raised by a queue from which nothing will come any more, in asyncio, janus and anyio.
ENDS: Final = {"QueueShutDown", "AsyncQueueShutDown", "EndOfStream", "ClosedResourceError"}


class Intake:
    """The verbs of one queue; *put* is None where nothing can be put back."""

    def __init__(self, queue: Any) -> None:
        end = getattr(queue, "async_q", queue)
        self.take: Callable[[], Awaitable[Any]]
        self.put: Callable[[Any], Awaitable[Any]] | None
        if _awaits(end, "get") and _awaits(end, "put"):
            self.take, self.put = end.get, end.put
            self.take_nowait: Callable[[], Any] | None = end.get_nowait
            self.put_nowait: Callable[[Any], Any] | None = end.put_nowait
        elif _awaits(end, "receive"):
            self.take = end.receive
            self.put = end.send if _awaits(end, "send") else None
            self.take_nowait = getattr(end, "receive_nowait", None)
            self.put_nowait = getattr(end, "send_nowait", None)
        else:
            raise ConfigError(
                f"worker_pool: {queue!r} given; expected a queue whose get() is awaited, like an "
                "asyncio.Queue, a janus.Queue or the receiving end of an anyio memory object stream"
            )
        self._end = end

    def size(self) -> int:
        """Return how many items wait, 0 where that can't be known."""
        end = self._end
        if hasattr(end, "qsize"):
            return int(guarded(end.qsize) or 0)
        return int(guarded(lambda: end.statistics().current_buffer_used) or 0)

    def done(self) -> None:
        """Tell a queue that counts them that an item is finished."""
        done = getattr(self._end, "task_done", None)
        if done is not None:
            done()

    @staticmethod
    def has_ended(error: Exception) -> bool:
        """Say whether what `take` raised means that nothing more will come."""
        return type(error).__name__ in ENDS


def _awaits(end: Any, name: str) -> bool:
    return inspect.iscoroutinefunction(getattr(end, name, None))
