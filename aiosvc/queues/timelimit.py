"""
The time limit of a job, and whose cancellation it was that came out of one.

Rule: knows asyncio, and neither queue nor job.
"""

import asyncio
from collections.abc import Awaitable

__all__ = ["is_cancelled", "within"]


async def within(limit: asyncio.Timeout, work: Awaitable[object]) -> None:
    """Await *work*; raises TimeoutError past *limit*, also where it caught its cancellation."""
    async with limit:
        await work
    if limit.expired():
        raise TimeoutError


def is_cancelled() -> bool:
    """Say whether it is this task that was cancelled, and not something that it awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
