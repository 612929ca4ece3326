"""
Job queues on NATS JetStream, by taskiq's broker for it.

Rule: the only module that imports taskiq-nats.

Theory of operation. The stream is a work queue kept in files: what is acknowledged is deleted. All
workers share one durable consumer and pull as many messages as they have room for; a message in
hand is kept by telling the server so, and handed out again when nobody did for *visibility*
seconds. The client connects again by itself when the connection breaks, but not when the server has
refused something, such as a message that is too long: it is closed for good then, and replaced here.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NoStreamResponseError, NotFoundError
from taskiq_nats import PullBasedJetStreamBroker

from aiosvc.brokers import NatsConsumer, QueueState
from aiosvc.jobs.backend import Delivery
from aiosvc.jobs.kicking import kick
from aiosvc.jobs.message import Message

__all__ = ["NatsBackend", "make"]

CONSUMER = "aiosvc"
#: Seconds that the server waits for a new message before it says that there is none.
WAIT = 1.0
#: Seconds that it waits for messages which are there, unless others were given them.
SOON = 0.1
#: Seconds that connecting anew may take.
LONGEST_CONNECT = 5.0
#: Bytes of a message that are kept free for headers, those of a dead letter too.
HEADERS = 1024


class NatsBackend:
    """The stream *queue*, its durable consumer, and `<queue>-dead` for dead letters."""

    name = "nats"

    def __init__(self, url: str, queue: str, *, visibility: float) -> None:
        # A stream's name takes no dots, since subjects are made of them.
        self.stream = queue.replace(".", "-")
        self.keep_every: float | None = visibility / 3
        self.broker = PullBasedJetStreamBroker(
            url,
            subject=f"{self.stream}.jobs",
            stream_name=self.stream,
            durable=CONSUMER,
            stream_config=_kept_stream(self.stream, f"{self.stream}.jobs"),
            consumer_config=ConsumerConfig(
                durable_name=CONSUMER,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=visibility,
                max_deliver=-1,
                max_ack_pending=-1,
            ),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,
        )
        self._connecting = asyncio.Lock()

    @property
    def dead_letters(self) -> str:
        """The name of the stream with the dead letters."""
        return f"{self.stream}-dead"

    async def start(self, *, worker: bool) -> None:
        """Connect, and make streams and consumer where they are missing."""
        self.broker.is_worker_process = worker
        self._connecting = asyncio.Lock()  # of this event loop
        await self._connect()

    async def stop(self) -> None:
        """Disconnect."""
        with suppress(NatsError):
            await self.broker.shutdown()

    async def send(self, message: Message, data: bytes) -> None:
        """Put a message in; raises at once while there is no connection, which would keep it."""
        await self._be_connected()
        room = self.broker.client.max_payload - HEADERS
        if len(data) > room:
            raise ValueError(f"a message of {len(data)} bytes; this server takes {room}")
        try:
            await kick(self.broker, message, data)
        except NoStreamResponseError:
            await self._make_again()
            await kick(self.broker, message, data)

    async def take(self, room: int) -> Sequence[Delivery]:
        """Return new messages, and those that nobody kept."""
        await self._be_connected()
        pull = self.broker.consumer
        try:
            # One is waited for, since a pull of several waits for the last of them.
            found = await pull.fetch(batch=1, timeout=WAIT)
            more = min(room - 1, found[0].metadata.num_pending)
            if more > 0:
                with suppress(NatsTimeoutError):
                    found += await pull.fetch(batch=more, timeout=SOON)
        except (NatsTimeoutError, NotFoundError):
            # That is also what comes of a consumer which is not there.
            with suppress(NatsTimeoutError):
                await self._make_again_where_missing()
            return []
        return [_Message(self, message) for message in found]

    async def sample(self) -> QueueState:
        """Return how many messages there are, and how many dead letters."""
        await self._be_connected()
        state = await NatsConsumer(self.broker.client, self.stream, CONSUMER).sample()
        dead = await self.broker.js.stream_info(self.dead_letters)
        return replace(state, dead=dead.state.messages)

    async def _be_connected(self) -> None:
        """Connect anew where the connection was closed for good; raise while there is none."""
        # One that somebody else connects just now is waited for.
        if self.broker.client.is_closed or self._connecting.locked():
            async with self._connecting:
                if self.broker.client.is_closed:
                    async with asyncio.timeout(LONGEST_CONNECT):
                        await self._connect()
        if not self.broker.client.is_connected:
            raise ConnectionError("the connection to NATS is not open")

    async def _make_again_where_missing(self) -> None:
        try:
            await self.broker.js.consumer_info(self.stream, CONSUMER)
        except NotFoundError:
            await self._make_again()

    async def _make_again(self) -> None:
        """Make what somebody has deleted, or what a server without its files has forgotten."""
        await self.broker._add_or_reuse_stream()  # noqa: SLF001 - what startup does
        await self.broker._startup_consumer()  # noqa: SLF001 - what startup does
        await self._make_dead_letters()

    async def _make_dead_letters(self) -> None:
        config = _kept_stream(self.dead_letters, f"{self.dead_letters}.jobs")
        config.retention = RetentionPolicy.LIMITS
        await self.broker.js.add_stream(config)

    async def _connect(self) -> None:
        client = Client()  # the last one may still be closing
        self.broker.client = client  # type: ignore[misc]  # for one connection it is final
        try:
            await self.broker.startup()
            await self._make_dead_letters()
        except BaseException:
            with suppress(NatsError):
                await client.close()
            raise


class _Message:
    """One message of the stream."""

    def __init__(self, backend: NatsBackend, message: Any) -> None:
        self._backend = backend
        self._message = message
        self.data: bytes = message.data
        self.number: int = message.metadata.num_delivered

    async def done(self) -> None:
        """Acknowledge it, and wait until the server has heard."""
        await self._message.ack_sync(timeout=5)

    async def dead(self, reason: str) -> None:
        """Copy it to the dead letters, and then acknowledge it."""
        subject = f"{self._backend.dead_letters}.jobs"
        headers = {"reason": " ".join(reason.split())}
        await self._backend.broker.js.publish(subject, self.data, headers=headers)
        await self.done()

    async def keep(self) -> None:
        """Tell the server that it is worked on."""
        await self._message.in_progress()

    async def give_back(self) -> None:
        """Have the server hand it out again at once."""
        await self._message.nak()
        await asyncio.sleep(0)


def _kept_stream(name: str, subject: str) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[subject],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
    )


def make(url: str, queue: str, *, concurrency: int, visibility: float) -> NatsBackend:
    """Return the backend of *queue* at *url*."""
    del concurrency
    return NatsBackend(url, queue, visibility=visibility)
