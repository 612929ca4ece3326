"""An observed service that watches one queue, and what its scrape says of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from processes import until
from prometheus_client import CollectorRegistry, generate_latest

from aiosvc import Observer, Settings
from aiosvc.brokers import BrokerQueue

__all__ = ["observed", "said", "says", "scraped"]

NAME = "orders"


@asynccontextmanager
async def observed(
    queue: BrokerQueue, *, interval: float = 0.1, limit: float = 2.0
) -> AsyncIterator[Observer]:
    """Run a service that watches *queue* as `orders`; *limit* is the seconds of a sample."""
    observer = Observer(CollectorRegistry(), Settings())
    observer.watch_queue(queue, name=NAME, interval=interval, timeout=limit)
    await observer.start()
    try:
        yield observer
    finally:
        await observer.stop()


def said(observer: Observer, metric: str = "queue_depth") -> float | None:
    """Return the queue's value of *metric*, or the source's, in a scrape now; None where absent."""
    label = "source" if metric.startswith("aiosvc_source") else "queue_name"
    return observer.registry.get_sample_value(metric, {label: NAME})


async def says(observer: Observer, value: float | None, metric: str = "queue_depth") -> None:
    """Wait until the scrape has this value."""
    await until(lambda: said(observer, metric) == value, f"{metric} {value}")


def scraped(observer: Observer) -> str:
    """Return a whole scrape."""
    return generate_latest(observer.registry).decode()
