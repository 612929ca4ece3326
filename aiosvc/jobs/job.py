"""One kind of job: an async function with a name, and a queue that it can be put into."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, Protocol

from aiosvc.errors import ConfigError

__all__ = ["Enqueuing", "Job"]

P = ParamSpec("P")


class Enqueuing(Protocol):
    """What a job is put into."""

    async def enqueue(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Put in a job of that name."""


class Job(Generic[P]):
    """
    An async function that can be enqueued; called, it is the function.

    Made by `JobQueue.job`.
    """

    def __init__(
        self,
        function: Callable[P, Awaitable[object]],
        name: str,
        queue: Enqueuing,
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"job {name!r}: {function!r} given; expected an async function; put what blocks "
                "into asyncio.to_thread"
            )
        functools.update_wrapper(self, function)
        self.name = name
        self._function = function
        self._signature = inspect.signature(function)
        self._queue = queue

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[object]:
        """Run the function here and now."""
        return self._function(*args, **kwargs)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """
        Put it into the queue with these arguments, to be run by whoever has room.

        When this returns, the queue has it. Raises NotEnqueuedError where it has not, TypeError for
        arguments that the function does not take or that JSON can't say.
        """
        self._signature.bind(*args, **kwargs)
        await self._queue.enqueue(self.name, *args, **kwargs)
