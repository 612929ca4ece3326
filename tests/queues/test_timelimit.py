"""The time limit of a job, and whose cancellation it was."""

import asyncio

import pytest

from aiosvc.queues.timelimit import is_cancelled, within


async def test_work_in_time() -> None:
    """What ends in time ends as it does by itself, with its exception if it has one."""

    async def fail() -> None:
        raise OSError("gone")

    await within(asyncio.timeout(10), asyncio.sleep(0))
    await within(asyncio.timeout(None), asyncio.sleep(0))
    with pytest.raises(OSError, match="gone"):
        await within(asyncio.timeout(10), fail())


async def test_work_past_its_time() -> None:
    """It is a TimeoutError, whether the work lets its cancellation through or catches it."""

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    for work in (asyncio.Event().wait(), stubborn()):
        with pytest.raises(TimeoutError):
            await within(asyncio.timeout(0), work)


async def test_whose_cancellation() -> None:
    """One that the work made itself is told from one that was meant for the task."""
    seen: list[bool] = []

    async def work() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        try:
            await future
        except asyncio.CancelledError:
            seen.append(is_cancelled())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(is_cancelled())
            raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [False, True]
