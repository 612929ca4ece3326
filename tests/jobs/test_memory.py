"""A job queue in memory, as a scrape shows it."""

import asyncio
from typing import Any

import pytest
from processes import until
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


async def test_dead_letters() -> None:
    """What is given up on is kept, as many as said, counted, and there after another start."""
    registry = CollectorRegistry()
    observer = aiosvc.Observer(registry, aiosvc.Settings())
    queue = aiosvc.JobQueue(name="email", attempts=2, backoff=0.0, dead_letters=2)

    @queue.job
    async def send(order: int) -> None:
        raise OSError("busy")

    def said(metric: str, **labels: str) -> float | None:
        return registry.get_sample_value(metric, {"queue_name": "email", **labels})

    assert not queue.dead_letters
    observer.watch_queue(queue)
    await observer.start()
    try:
        async with queue:
            assert said("queue_dead") == 0
            for order in range(3):
                await send.enqueue(order)
            completed = {"job": "send", "outcome": "dead"}
            await until(lambda: said("queue_items_completed_total", **completed) == 3, "3 counted")
            assert said("queue_dead") == 2
            assert said("queue_items_dropped_total", reason="dead_letters") == 1
        async with queue:
            assert said("queue_dead") == 2
            letter = queue.dead_letters.popleft()
            assert (letter.name, letter.args, letter.kwargs) == ("send", [1], {})
            assert said("queue_dead") == 1
    finally:
        await observer.stop()


def test_dead_letters_elsewhere() -> None:
    """A broker keeps them itself, and says so."""
    with pytest.raises(aiosvc.ConfigError, match="dead_letters: only for a queue in memory"):
        aiosvc.JobQueue("redis://localhost", name="email", dead_letters=10)


async def test_arguments_are_those_that_a_broker_would_give() -> None:
    """A job gets what JSON makes of its arguments, as they were when it was enqueued."""
    queue = aiosvc.JobQueue(name="email")
    got: list[Any] = []

    @queue.job
    async def send(order: dict[Any, Any], to: tuple[str, ...]) -> None:
        got.append((order, to))

    order = {1: "book"}
    async with queue:
        await send.enqueue(order, to=("ada", "bob"))
        order.clear()
        await until(lambda: bool(got), "its begin")
    assert got == [({"1": "book"}, ["ada", "bob"])]
