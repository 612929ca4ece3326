"""Brokers that keep what they have when they are killed, for contracts that hold for each of them."""

from typing import Final

import pytest

from aiosvc import JobQueue
from brokers.servers import Broker, Nats, Rabbit, Redis

__all__ = ["KEPT", "settle"]

#: What makes one in a directory, and what tells its URL.
KEPT: Final = [
    pytest.param(lambda path: Redis(path, kept=True), lambda it: it.url, id="redis"),
    pytest.param(Nats, lambda it: it.url, id="nats"),
    pytest.param(Rabbit, lambda it: it.url(), id="rabbitmq"),
]


async def settle(broker: Broker, url: str) -> None:
    """Have RabbitMQ know the queue for good: which quorum queues there are, it writes at its end."""
    if isinstance(broker, Rabbit):
        queue = JobQueue(url, name="email")
        await queue.start(workers=False)
        await queue.stop()
        await broker.stop()
        await broker.again()
