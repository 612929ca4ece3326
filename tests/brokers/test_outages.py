"""
One contract for every broker: what the scrape says while it stands still, is killed, and is back.

The client object is the same from the beginning to the end, and nothing is restarted but the broker.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aio_pika
import asyncpg
import nats
import pytest
from postgres import Postgres, cluster
from redis import asyncio as redis

from aiosvc.brokers import (
    BrokerQueue,
    NatsConsumer,
    RabbitMQ,
    RabbitMQManagement,
    RedisStream,
    SqlQueue,
)
from brokers.observing import observed, said, says, scraped
from brokers.servers import Broker, Nats, Rabbit, Redis


class Case(NamedTuple):
    """A broker that runs, a queue in it, a way to add an item, and the depth after a crash."""

    broker: Broker
    queue: BrokerQueue
    add: Callable[[], Awaitable[Any]]
    after_crash: int


@asynccontextmanager
async def of_redis(directory: Path) -> AsyncIterator[Case]:
    """Run a Redis, which keeps nothing over its end."""
    async with Redis(directory) as broker, redis.Redis(port=broker.port) as client:
        await client.xgroup_create("s", "g", id="0", mkstream=True)
        queue = RedisStream(client, "s", group="g")
        yield Case(broker, queue, lambda: client.xadd("s", {"n": 1}), 0)


@asynccontextmanager
async def of_nats(directory: Path) -> AsyncIterator[Case]:
    """Run a JetStream, which keeps its messages in files."""
    async with Nats(directory) as broker:

        async def quiet(_: Exception) -> None:
            """Let the broker's end be no error of the test's."""

        client = await nats.connect(
            broker.url, error_cb=quiet, reconnect_time_wait=0.1, max_reconnect_attempts=-1
        )
        try:
            js = client.jetstream()
            await js.add_stream(name="S", subjects=["s"])
            await js.add_consumer("S", durable_name="w", ack_policy="explicit")
            yield Case(broker, NatsConsumer(js, "S", "w"), lambda: js.publish("s", b""), 1)
        finally:
            await client.close()


@pytest.mark.parametrize("case", [of_redis, of_nats])
async def test_a_broker_may_stand_still_or_die(case: Any, tmp_path: Path) -> None:
    """Its series go after the kept intervals and come back by themselves, with true numbers."""
    async with (
        case(tmp_path) as (broker, queue, add, after_crash),
        observed(queue, interval=0.1, limit=0.3) as observer,
    ):
        await says(observer, 0)
        await add()
        await says(observer, 1)

        broker.pause()
        await says(observer, 0, "aiosvc_source_up")
        await says(observer, None)
        assert 'aiosvc_source_up{source="orders"} 0.0' in scraped(observer)
        broker.resume()
        await says(observer, 1)
        assert said(observer, "aiosvc_source_up") == 1

        await broker.kill()
        await says(observer, 0, "aiosvc_source_up")
        await says(observer, None)
        await broker.again()
        await says(observer, after_crash)
        assert said(observer, "aiosvc_source_up") == 1


async def test_rabbitmq_may_stand_still_or_die(rabbit: Rabbit) -> None:
    """The same by AMQP, robust and by a URL, and by the management API, of one broker."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(
            await aio_pika.connect_robust(rabbit.url(), reconnect_interval=0.2)
        )
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True)
        message = aio_pika.Message(b"", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "kept")
        queues: list[BrokerQueue] = [
            RabbitMQ(connection, "kept"),
            RabbitMQ(rabbit.url(), "kept"),
            RabbitMQManagement(rabbit.management_url(), "kept"),
        ]
        observers = [
            await stack.enter_async_context(observed(queue, limit=1.0)) for queue in queues
        ]

        async def all_say(value: float | None, metric: str = "queue_depth") -> None:
            for observer in observers:
                await says(observer, value, metric)

        await all_say(1)
        rabbit.pause()
        await all_say(0, "aiosvc_source_up")
        await all_say(None)
        rabbit.resume()
        await all_say(1)

        await rabbit.kill()
        await all_say(0, "aiosvc_source_up")
        await all_say(None)
        await rabbit.again()
        await all_say(1)
        await all_say(1, "aiosvc_source_up")
        again = await connection.channel()
        await again.queue_delete("kept")


async def test_a_database_may_die(tmp_path: Path) -> None:
    """A pool of the service's own reconnects, and so the queue is back."""
    with cluster() as directory:
        async with (
            Postgres(directory, tmp_path) as postgres,
            asyncpg.create_pool(postgres.url(), min_size=1, max_size=2) as pool,
        ):
            await pool.execute("create table jobs (id int); insert into jobs values (1)")
            queue = SqlQueue(pool, "select count(*) as ready from jobs")
            async with observed(queue) as observer:
                await says(observer, 1)
                await postgres.kill()
                await says(observer, 0, "aiosvc_source_up")
                await says(observer, None)
                await postgres.again()
                await says(observer, 1)
                assert said(observer, "aiosvc_source_up") == 1
