"""A job queue in memory, as a scrape shows it."""

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
