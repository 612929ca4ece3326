"""Queues of a real RabbitMQ, by AMQP."""

from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest

from aiosvc import ConfigError
from aiosvc.brokers import QueueState, RabbitMQ
from brokers.observing import observed, says
from brokers.servers import Rabbit

NAMES = ("orders", "orders.DQ", "orders.XQ")


@pytest.fixture(params=[aio_pika.connect, aio_pika.connect_robust], ids=["plain", "robust"])
async def connection(rabbit: Rabbit, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Return a connection to a broker without queues."""
    connection = await request.param(rabbit.url())
    async with connection:
        channel = await connection.channel()
        for name in NAMES:
            await channel.queue_delete(name)
        yield connection


async def filled(connection: Any, messages: int, name: str = "orders") -> Any:
    """Make a queue with messages, and return it."""
    channel = await connection.channel()
    queue = await channel.declare_queue(name)
    for number in range(messages):
        message = aio_pika.Message(b"%d" % number)
        await channel.default_exchange.publish(message, name)  # confirmed by the broker
    return queue


async def ignore(_: object) -> None:
    """Take a message and do nothing."""


async def test_a_queue_that_nobody_has_declared_is_empty(connection: Any) -> None:
    """The broker's 404 closes the channel, which is ours; the next sample has another."""
    queue = RabbitMQ(connection, "orders")
    for _ in range(3):
        assert await queue.sample() == QueueState(ready=0, consumers=0, oldest_age=0)
    await filled(connection, 2)
    assert (await queue.sample()).ready == 2
    await queue.close()


async def test_the_depth_is_the_brokers_of_now(connection: Any) -> None:
    """What is ready and who consumes is asked anew each time, on one channel."""
    made = await filled(connection, 5)
    queue = RabbitMQ(connection, "orders")
    assert await queue.sample() == QueueState(ready=5, consumers=0)
    channel = queue._channel
    for left in (4, 3):
        await made.get()
        assert (await queue.sample()).ready == left
    tag = await made.consume(ignore)
    await queue.sample()
    assert (await queue.sample()).consumers == 1
    await made.cancel(tag)
    assert queue._channel is channel
    await queue.close()


async def test_queues_that_belong_to_it(connection: Any) -> None:
    """Delayed and dead letters are queues of their own, which need not exist yet."""
    queue = RabbitMQ(connection, "orders", scheduled="orders.DQ", dead="orders.XQ")
    await filled(connection, 1)
    await filled(connection, 3, "orders.XQ")
    state = await queue.sample()
    assert (state.ready, state.scheduled, state.dead) == (1, 0, 3)
    await filled(connection, 2, "orders.DQ")
    assert (await queue.sample()).scheduled == 2
    await queue.close()


async def test_the_services_own_channels_are_left_alone(connection: Any) -> None:
    """Whatever the observer meets, a channel of the service's goes on."""
    channel = await connection.channel()
    queue = RabbitMQ(connection, "nowhere")
    await queue.sample()
    await queue.close()
    assert not channel.is_closed
    await channel.declare_queue("orders")


async def test_a_queue_of_another_connection_alone_is_down(
    connection: Any, rabbit: Rabbit, caplog: pytest.LogCaptureFixture
) -> None:
    """An exclusive queue can't be looked at from outside, and the log says so."""
    channel = await connection.channel()
    await channel.declare_queue("orders", exclusive=True)
    async with observed(RabbitMQ(rabbit.url(), "orders")) as observer:
        await says(observer, 0, "aiosvc_source_up")
    assert "RESOURCE_LOCKED" in caplog.text


async def test_a_url_makes_a_connection_that_ends(connection: Any, rabbit: Rabbit) -> None:
    """A connection of ours is closed when it is told to, and made again when it is needed."""
    await filled(connection, 2)
    queue = RabbitMQ(rabbit.url(), "orders")
    for _ in range(2):
        assert (await queue.sample()).ready == 2
        ours = queue._connection
        await queue.close()
        assert ours.is_closed


async def test_a_closed_connection_is_down(connection: Any) -> None:
    """A connection that the service closed is not opened for the observer's sake."""
    queue = RabbitMQ(connection, "orders")
    await queue.sample()
    await connection.close()
    with pytest.raises(ConnectionError, match="the connection to RabbitMQ is not open"):
        await queue.sample()
    await queue.close()


async def test_refusals_are_said_without_the_password(
    rabbit: Rabbit, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password and a wrong virtual host are told apart."""
    async with observed(RabbitMQ(rabbit.url(password="guessed-wrong"), "orders")) as observer:
        await says(observer, 0, "aiosvc_source_up")
    assert "ACCESS_REFUSED" in caplog.text
    async with observed(RabbitMQ(rabbit.url(vhost="nowhere"), "orders")) as observer:
        await says(observer, 0, "aiosvc_source_up")
    assert "is the virtual host of the URL there" in caplog.text
    assert "guessed-wrong" not in caplog.text


@pytest.mark.parametrize("connection", [None, 7, object(), aio_pika, "http://localhost"])
def test_what_is_no_connection_is_refused(connection: object) -> None:
    """The error says what would do."""
    with pytest.raises(ConfigError, match=r"amqp://guest:guest@localhost:5672/"):
        RabbitMQ(connection, "orders")
