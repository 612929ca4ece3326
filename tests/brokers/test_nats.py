"""Consumers of a real JetStream."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nats as library
import pytest
from nats.js import JetStreamContext

from aiosvc import ConfigError
from aiosvc.brokers import NatsConsumer, QueueState
from brokers.observing import observed, says
from brokers.servers import Nats


@pytest.fixture
async def js(nats_server: Nats) -> AsyncIterator[JetStreamContext]:
    """Return a JetStream context without streams."""
    client = await library.connect(nats_server.url)
    context = client.jetstream()
    for stream in await context.streams_info():
        await context.delete_stream(stream.config.name or "")
    yield context
    await client.close()


async def filled(js: JetStreamContext, messages: int, **consumer: Any) -> Any:
    """Make the stream S with messages on s.a, and return a subscription of its consumer w."""
    await js.add_stream(name="S", subjects=["s.*"])
    for number in range(messages):
        await js.publish("s.a", b"%d" % number)
    await js.add_consumer("S", durable_name="w", ack_policy="explicit", **consumer)
    return await js.pull_subscribe_bind("w", "S")


async def test_a_stream_that_nobody_has_made_yet_is_empty(js: JetStreamContext) -> None:
    """It is 0 and success, as with any broker."""
    assert await NatsConsumer(js, "S", "w").sample() == QueueState(
        ready=0, in_flight=0, retained=0, oldest_age=0
    )


async def test_a_consumer_is_what_it_has_not_been_given(js: JetStreamContext) -> None:
    """Delivered ones are in flight until acknowledged; the stream goes on holding them."""
    subscription = await filled(js, 5)
    queue = NatsConsumer(js, "S", "w")
    state = await queue.sample()
    assert (state.ready, state.in_flight, state.retained) == (5, 0, 5)
    first, _ = await subscription.fetch(2)
    await first.ack_sync()
    state = await queue.sample()
    assert (state.ready, state.in_flight, state.retained) == (3, 1, 5)
    for message in await subscription.fetch(3):
        await message.ack_sync()
    state = await queue.sample()
    assert (state.ready, state.oldest_age) == (0, 0)


async def stored(js: JetStreamContext, sequence: int) -> float:
    """Return the Unix time at which a message was stored."""
    answer = await js._nc.request("$JS.API.STREAM.MSG.GET.S", b'{"seq": %d}' % sequence)
    written: str = json.loads(answer.data)["message"]["time"]
    moment, fraction = written.rstrip("Z").split(".")
    return datetime.fromisoformat(f"{moment}+00:00").timestamp() + float(f"0.{fraction}")


async def test_the_age_is_that_of_the_next_message_of_the_consumer(js: JetStreamContext) -> None:
    """Messages of other subjects and deleted ones are passed over."""
    subscription = await filled(js, 3, filter_subject="s.a")
    await js.publish("s.b", b"")
    await js.publish("s.a", b"")
    queue = NatsConsumer(js, "S", "w", clock=lambda: 2e9)

    async def next_one() -> float:
        age = (await queue.sample()).oldest_age
        assert age is not None
        return 2e9 - age

    assert await next_one() == pytest.approx(await stored(js, 1), abs=1e-5)
    await subscription.fetch(1)
    await js.delete_msg("S", 2)
    assert await next_one() == pytest.approx(await stored(js, 3), abs=1e-5)
    await subscription.fetch(1)
    assert await next_one() == pytest.approx(await stored(js, 5), abs=1e-5)


async def test_the_age_can_be_left_out(js: JetStreamContext) -> None:
    """It costs the next message, which may be large; without it the age is unknown, or 0."""
    subscription = await filled(js, 1)
    queue = NatsConsumer(js, "S", "w", age=False)
    assert (await queue.sample()).oldest_age is None
    await subscription.fetch(1)
    assert (await queue.sample()).oldest_age == 0


async def test_a_consumer_that_is_not_there_has_been_given_nothing(
    js: JetStreamContext, caplog: pytest.LogCaptureFixture
) -> None:
    """All that the stream holds waits for it, and the log says so once."""
    await filled(js, 4)
    queue = NatsConsumer(js, "S", "typo")
    for _ in range(2):
        state = await queue.sample()
        assert (state.ready, state.in_flight) == (4, 0)
    told = [r.message for r in caplog.records if r.name == "aiosvc.brokers"]
    assert told == ["stream 'S': no consumer 'typo'; all of it is waiting"]


async def test_a_client_and_a_url_will_do_too(js: JetStreamContext, nats_server: Nats) -> None:
    """The context is one way to name the client; a connection of ours is closed and made again."""
    await filled(js, 2)
    assert (await NatsConsumer(js._nc, "S", "w").sample()).ready == 2
    queue = NatsConsumer(nats_server.url, "S", "w")
    for _ in range(2):
        assert (await queue.sample()).ready == 2
        await queue.close()


async def test_a_server_without_jetstream_is_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is missing."""
    server = Nats(tmp_path)
    server.command.remove("-js")
    async with server, observed(NatsConsumer(server.url, "S", "w")) as observer:
        await says(observer, 0, "aiosvc_source_up")
    assert "JetStream is not enabled at the NATS server" in caplog.text


async def test_a_wrong_password_is_an_error_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says that the server refuses us, and never what we offered."""
    server = Nats(tmp_path)
    server.command += ["--user", "u", "--pass", "right"]
    async with server:
        wrong = server.url.replace("//", "//u:guessed-wrong@")
        async with observed(NatsConsumer(wrong, "S", "w")) as observer:
            await says(observer, 0, "aiosvc_source_up")
        right = server.url.replace("//", "//u:right@")
        async with observed(NatsConsumer(right, "S", "w")) as observer:
            await says(observer, 0)
    assert "Authorization Violation" in caplog.text
    assert "guessed-wrong" not in caplog.text


@pytest.mark.parametrize("client", [None, 7, object(), library])
def test_what_is_no_client_is_refused(client: object) -> None:
    """The error says what would do."""
    with pytest.raises(ConfigError, match=r"expected nats-py's client, its JetStream context"):
        NatsConsumer(client, "S", "w")


@pytest.mark.parametrize("name", ["", "a.b", "a b", ">", "*", "a/b"])
def test_a_name_is_no_subject(name: str) -> None:
    """A stream's or consumer's name becomes part of a subject, and must not change it."""
    with pytest.raises(ConfigError, match="expected a name without"):
        NatsConsumer("nats://127.0.0.1:1", name, "w")
    with pytest.raises(ConfigError, match="expected a name without"):
        NatsConsumer("nats://127.0.0.1:1", "S", name)
