"""
The time limit of a job, and whose cancellation it was that came out of one, or did not.

Rule: knows asyncio, and neither queue nor job.

Theory of operation. A cancellation may not come out of what was awaited: a library may make an error
of its own of it, or drop it, as `asyncio.wait_for` does until Python 3.12 where the answer comes at
the same time. The task itself still counts it.
"""

import asyncio
from collections.abc import Awaitable

__all__ = ["cancellations", "is_cancelled", "within"]


async def within(limit: asyncio.Timeout, work: Awaitable[object]) -> None:
    """Await *work*; raises TimeoutError past *limit*, also where it caught its cancellation."""
    async with limit:
        await work
    if limit.expired():
        raise TimeoutError


def cancellations() -> int:
    """Return how often this task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def is_cancelled(since: int = 0) -> bool:
    """
    Say whether it is this task that was cancelled, and not something that it awaited.

    *since* is how often it had been before.
    """
    return asyncio.current_task() is None or cancellations() > since
