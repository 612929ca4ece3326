"""Queues of a real RabbitMQ, by its management API."""

import time
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from processes import poll

from aiosvc import ConfigError
from aiosvc.brokers import QueueState, RabbitMQManagement
from brokers.observing import observed, said, says, scraped
from brokers.servers import Rabbit


@pytest.fixture
async def channel(rabbit: Rabbit) -> AsyncIterator[Any]:
    """Return a channel of a broker without queues."""
    async with await aio_pika.connect(rabbit.url()) as connection:
        channel = await connection.channel()
        for name in ("api", "api.XQ"):
            await channel.queue_delete(name)
        yield channel


async def test_the_api_knows_what_is_in_flight(channel: Any, rabbit: Rabbit) -> None:
    """Ready, unacknowledged, the first message's time, and how many the queue may hold."""
    made = await channel.declare_queue("api", arguments={"x-max-length": 100})
    await channel.declare_queue("api.XQ")
    for _ in range(5):
        message = aio_pika.Message(b"", timestamp=time.time() - 60)
        await channel.default_exchange.publish(message, "api")
    await channel.default_exchange.publish(aio_pika.Message(b""), "api.XQ")
    await made.get()
    queue = RabbitMQManagement(rabbit.management_url(), "api", dead="api.XQ")

    def told(state: QueueState) -> bool:
        """Return whether the API, which is some time behind, has every number."""
        known = state.consumers is not None and state.oldest_age is not None
        return known and bool(state.in_flight and state.dead)

    state = await poll(queue.sample, told, "the broker's statistics")
    assert (state.ready, state.in_flight, state.retained) == (4, 1, 5)
    assert (state.dead, state.capacity, state.consumers) == (1, 100, 0)
    assert state.oldest_age == pytest.approx(60, abs=20)
    await queue.close()


async def test_a_queue_that_nobody_has_declared_is_empty(channel: Any, rabbit: Rabbit) -> None:
    """The API's 404 is 0 and success."""
    queue = RabbitMQManagement(rabbit.management_url(), "api", scheduled="api.DQ")
    assert await queue.sample() == QueueState(
        ready=0, in_flight=0, retained=0, consumers=0, oldest_age=0, scheduled=0
    )
    await queue.close()


async def test_refusals_are_told_apart_and_hold_no_password(
    rabbit: Rabbit, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password, a wrong virtual host, a wrong port and no server at all each say so."""
    good = rabbit.management_url()
    cases = [
        (rabbit.management_url(password="guessed-wrong"), "/", "refuses the user"),
        (good, "nowhere", "RabbitMQ has no virtual host 'nowhere'"),
        (good.replace(str(rabbit.management_port), str(rabbit.port)), "/", "ConnectionError"),
        ("http://u:guessed-wrong@127.0.0.1:1", "/", "Cannot connect"),
    ]
    for url, vhost, text in cases:
        caplog.clear()
        async with observed(RabbitMQManagement(url, "api", vhost=vhost)) as observer:
            await says(observer, 0, "aiosvc_source_up")
        assert text in caplog.text
        assert "guest:guest" not in caplog.text
        assert "guessed-wrong" not in caplog.text


def answering(**fields: Any) -> web.Application:
    """Return a management API that always says the same."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(fields)

    app = web.Application()
    app.router.add_get("/api/queues/{vhost}/{queue}", answer)
    return app


async def test_numbers_that_are_not_there_yet_are_absent() -> None:
    """In the first seconds of a queue's life everything is null; only what it is, is known."""
    app = answering(messages_ready=None, messages_unacknowledged=None, head_message_timestamp=None)
    async with (
        TestServer(app) as server,
        observed(RabbitMQManagement(str(server.make_url("/")), "api")) as observer,
    ):
        await says(observer, 1, "aiosvc_source_up")
        assert said(observer) is None
        assert "queue_info{" in scraped(observer)


async def test_the_smallest_limit_counts() -> None:
    """An argument and a policy may both limit the length."""
    app = answering(
        messages_ready=1,
        arguments={"x-max-length": 50},
        effective_policy_definition={"max-length": 20},
    )
    async with TestServer(app) as server, ClientSession() as session:
        queue = RabbitMQManagement(str(server.make_url("/")), "api", session=session)
        assert await queue.sample() == QueueState(ready=1, capacity=20)
        await queue.close()
        assert not session.closed  # it is not ours


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (200, "<html>", "expected RabbitMQ's management API there"),
        (200, "[]", "answers 200"),
        (302, "", "answers 302"),
        (404, "not here", "answers 404"),
        (500, "{}", "answers 500"),
        (200, '{"error":"nope"}', "expected RabbitMQ's management API there"),
        (200, " " * 1_100_000, "more than 1000000 bytes"),
    ],
)
async def test_what_is_no_management_api_is_down(status: int, body: str, text: str) -> None:
    """Something else at the port is an error, never a queue without messages."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        queue = RabbitMQManagement(str(server.make_url("/")), "api")
        with pytest.raises(ConnectionError, match=text):
            await queue.sample()
        await queue.close()


@pytest.mark.parametrize("url", ["", "localhost:15672", "amqp://localhost", "http://h:secret"])
def test_a_url_that_will_not_do_is_refused(url: str) -> None:
    """At once, with an example of one that would."""
    with pytest.raises(
        ConfigError, match=r"something like 'http://monitor:secret@localhost:15672'"
    ):
        RabbitMQManagement(url, "api")
