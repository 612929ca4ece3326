"""A job queue in memory, as a scrape shows it."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

import aiosvc


async def test_what_is_refused_is_counted_once() -> None:
    """A job that finds no room, or no running queue, is one refusal; jobs are the queue's own only."""
    registry = CollectorRegistry()
    observer = aiosvc.Observer(registry, aiosvc.Settings())
    queue = aiosvc.JobQueue(name="email", maxsize=1)

    @queue.job
    async def send() -> None:
        """Do nothing."""

    def refused(reason: str) -> float | None:
        labels = {"queue_name": "email", "reason": reason}
        return registry.get_sample_value("queue_items_rejected_total", labels)

    observer.watch_queue(queue)
    await observer.start()
    try:
        with pytest.raises(aiosvc.NotEnqueuedError):
            await send.enqueue()
        await queue.start(workers=False)
        await send.enqueue()
        with pytest.raises(aiosvc.NotEnqueuedError):
            await send.enqueue()
        assert (refused("shutdown"), refused("full")) == (1, 1)
        jobs = {
            sample.labels["job"]
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "queue_items_completed_total"
        }
        assert jobs == {"send"}
        assert await queue.stop() == 1
    finally:
        await observer.stop()


async def test_one_that_never_ran_stops() -> None:
    """A stop without a start has nothing to do."""
    assert await aiosvc.JobQueue(name="email").stop() == 0


def test_on_one_event_loop_after_the_other(caplog: pytest.LogCaptureFixture) -> None:
    """A queue that was made with its module runs in each test of a suite, each on its own loop."""
    queue = aiosvc.JobQueue(name="email", concurrency=1)
    ran: list[int] = []

    @queue.job
    async def send(order: int) -> None:
        ran.append(order)

    async def use(order: int) -> None:
        async with queue:
            await asyncio.sleep(0)  # its worker waits for a job by now
            await send.enqueue(order)
            async with asyncio.timeout(30):
                while order not in ran:  # noqa: ASYNC110 - nobody sets an event
                    await asyncio.sleep(0.001)

    for order in range(3):
        asyncio.run(use(order))
    assert "no item can be taken" not in caplog.text


async def test_a_second_start() -> None:
    """It makes no more workers than were asked for, and one that asks for something else is refused."""
    queue = aiosvc.JobQueue(name="email", concurrency=1)
    go = asyncio.Event()
    ran: list[int] = []

    @queue.job
    async def send(order: int) -> None:
        ran.append(order)
        await go.wait()

    async with queue:
        await queue.start()
        for order in range(3):
            await send.enqueue(order)
        await asyncio.sleep(0.01)
        assert ran == [0]
        with pytest.raises(aiosvc.ConfigError, match="it runs already, with workers; stop it"):
            await queue.start(workers=False)
        go.set()
    assert ran == [0, 1, 2]
    await queue.start(workers=False)
    assert await queue.stop() == 0
