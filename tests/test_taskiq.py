"""The middleware for taskiq, under taskiq's own receiver, in memory and on Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from brokers.servers import Redis
from processes import until
from prometheus_client import CollectorRegistry
from taskiq import AsyncBroker, InMemoryBroker, SimpleRetryMiddleware
from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

from aiosvc import Observer, Settings
from aiosvc.taskiq import TaskiqMetrics


@asynccontextmanager
async def observing() -> AsyncIterator[Observer]:
    """Run an observer of its own registry."""
    observer = Observer(CollectorRegistry(), Settings())
    await observer.start()
    try:
        yield observer
    finally:
        await observer.stop()


def said(observer: Observer, metric: str, **labels: str) -> float | None:
    """Return the value of *metric* of the queue in a scrape now."""
    return observer.registry.get_sample_value(metric, {"queue_name": "orders", **labels})


def outcomes(observer: Observer, job: str) -> dict[str, float]:
    """Return the attempts at *job*, by those outcomes that there were."""
    names = ("ok", "error", "retry", "timeout", "cancelled", "dead")
    completed = "queue_items_completed_total"
    found = {name: said(observer, completed, job=job, outcome=name) or 0 for name in names}
    return {name: count for name, count in found.items() if count}


def tasks_of(broker: AsyncBroker) -> dict[str, Any]:
    """Add tasks that end in every way."""

    @broker.task(task_name="send")
    async def send(order: int) -> int:
        return order

    @broker.task(task_name="fail", retry_on_error=True, max_retries=3)
    async def fail() -> None:
        raise OSError("busy")

    @broker.task(task_name="slow", timeout=0.01)
    async def slow() -> None:
        await asyncio.sleep(60)

    return {"send": send, "fail": fail, "slow": slow}


async def drive(observer: Observer, tasks: dict[str, Any]) -> None:
    """Send one task of each kind, and hold what is said of them."""
    for number in range(3):
        await tasks["send"].kiq(number)
    await tasks["fail"].kiq()
    await tasks["slow"].kiq()
    await until(lambda: outcomes(observer, "send") == {"ok": 3}, "three sent")
    await until(lambda: outcomes(observer, "fail") == {"retry": 2, "error": 1}, "one failed")
    await until(lambda: outcomes(observer, "slow") == {"timeout": 1}, "one too slow")
    assert said(observer, "queue_items_enqueued_total") == 7
    assert said(observer, "queue_wait_seconds_count") == 7
    assert said(observer, "workers_busy") == 0


@pytest.mark.parametrize("hides", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
async def test_in_memory(hides: bool, is_first: bool) -> None:
    """Attempts are told apart wherever the middleware stands, and whatever a retry hides."""
    async with observing() as observer:
        metrics = TaskiqMetrics(observer, name="orders")
        retry = SimpleRetryMiddleware(no_result_on_retry=hides)
        order = (metrics, retry) if is_first else (retry, metrics)
        broker = InMemoryBroker().with_middlewares(*order)
        tasks = tasks_of(broker)
        await broker.startup()
        await drive(observer, tasks)
        await broker.shutdown()
        assert not metrics._running


async def test_on_redis(redis_server: Redis) -> None:
    """Under a receiver that takes what another object has sent, as two processes would."""
    async with observing() as observer:
        metrics = TaskiqMetrics(observer, name="orders")
        sender, taker = (
            # With a time limit for writing, Redis's client may drop the one cancellation by which
            # the receiver ends, until Python 3.12.
            RedisStreamBroker(
                redis_server.url,
                queue_name="aiosvc-taskiq",
                consumer_id="0",
                xread_block=100,
                socket_timeout=None,
            ).with_middlewares(metrics, SimpleRetryMiddleware())
            for _ in range(2)
        )
        tasks = tasks_of(sender)
        tasks_of(taker)
        taker.is_worker_process = True
        await sender.startup()
        await taker.startup()
        finish = asyncio.Event()
        receiver = Receiver(taker, max_async_tasks=4, run_startup=False, wait_tasks_timeout=5)
        listening = asyncio.create_task(receiver.listen(finish))
        await drive(observer, tasks)
        finish.set()
        await listening
        await sender.shutdown()
        await taker.shutdown()


async def test_a_failure_of_ours_is_not_taskiqs(caplog: pytest.LogCaptureFixture) -> None:
    """Labels that make no sense cost a number and a line in the log, and no task."""
    async with observing() as observer:
        broker = InMemoryBroker().with_middlewares(TaskiqMetrics(observer, name="orders"))

        @broker.task(task_name="send", _retries="many")
        async def send() -> int:
            return 7

        await broker.startup()
        result = await (await send.kiq()).wait_result(timeout=5)
        assert result.return_value == 7
        await broker.shutdown()
    assert "an error in taskiq middleware" in caplog.text
