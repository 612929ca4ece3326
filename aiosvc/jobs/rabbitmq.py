"""
Job queues on RabbitMQ, by taskiq's broker for it.

Rule: the only module that imports taskiq-aio-pika.

Theory of operation. The queue is a durable quorum queue, messages are persistent, and the server
confirms each. It hands out as many as there is room for at once, keeps those in hand for as long as
the connection lives, and hands them out again when it ends. A connection that has ended is replaced
as a whole, with channels and consumer, by whoever needs it next: aio-pika's robust ones give up
where the server refuses them while it starts.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from aio_pika import DeliveryMode, connect
from aio_pika import Message as Letter
from aio_pika.abc import AbstractIncomingMessage
from taskiq import AsyncBroker
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from aiosvc.brokers import QueueState, RabbitMQ
from aiosvc.jobs.backend import Delivery
from aiosvc.jobs.kicking import kick
from aiosvc.jobs.message import Message

__all__ = ["RabbitBackend", "make"]

#: Seconds after which a message that was waited for is said to be none.
WAIT = 1.0
#: Seconds that connecting, and closing a connection, may take.
LONGEST_CONNECT, LONGEST_CLOSE = 10.0, 2.0


class Connected(AioPikaBroker):
    """taskiq's broker on plain connections, each of which ends once and for all."""

    def __init__(self, url: str, queue: str, dead_letters: str, *, concurrency: int) -> None:
        super().__init__(
            url,
            qos=concurrency,
            exchange=Exchange(name=queue),
            task_queues=[Queue(name=queue, routing_key=queue)],
            dead_letter_queue=Queue(name=dead_letters),
        )
        self._queue = queue
        self._concurrency = concurrency
        self._is_left = False
        self.arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

    @property
    def is_open(self) -> bool:
        """Whether all of it still is; a consumer whose queue was deleted is not."""
        if self._is_left:
            return False
        connections = [self.write_conn, self.read_conn][: 2 if self.is_worker_process else 1]
        channels = [self.write_channel, self.read_channel][: len(connections)]
        return all(
            connection is not None
            and connection.transport is not None
            and not connection.transport.connection.is_closed
            for connection in connections
        ) and all(channel is not None and not channel.is_closed for channel in channels)

    async def startup(self) -> None:
        """Connect, make exchange and queues where they are missing, and consume as a worker."""
        await AsyncBroker.startup(self)
        writing: Any = await connect(self.url)  # typed as a robust one there
        self.write_conn, self.write_channel = writing, await writing.channel()
        await self._declare_exchanges()
        await self._declare_queues(self.write_channel)
        if self.is_worker_process:
            reading: Any = await connect(self.url)
            self.read_conn, self.read_channel = reading, await reading.channel()
            await self.read_channel.set_qos(prefetch_count=self._concurrency)
            queue = await self.read_channel.get_queue(self._queue, ensure=False)
            await queue.consume(self._arrive)
            # Known to newer versions; where it is not, a worker has to be restarted.
            reader = await self.read_channel.get_underlay_channel()
            cancelled = getattr(reader, "on_consumer_cancel_callbacks", None)
            if cancelled is not None:
                cancelled.add(self._leave)

    async def shutdown(self) -> None:
        """Close what is open, whatever state it is in."""
        for connection in (self.read_conn, self.write_conn):
            if connection is not None:
                with suppress(Exception):
                    async with asyncio.timeout(LONGEST_CLOSE):
                        await connection.close()  # with its channels

    def _leave(self, _cancelled: object) -> None:
        self._is_left = True

    async def _arrive(self, message: AbstractIncomingMessage) -> None:
        self.arrived.put_nowait(message)


class RabbitBackend:
    """The queue *queue*, and `<queue>.dead` for dead letters."""

    name = "rabbitmq"
    #: The server keeps what is in hand by itself.
    keep_every: float | None = None

    def __init__(self, url: str, queue: str, *, concurrency: int) -> None:
        self.queue = queue
        self._make = partial(Connected, url, queue, self.dead_letters, concurrency=concurrency)
        self._worker = False
        self._broker: Connected | None = None
        self._watched: RabbitMQ | None = None
        self._connecting: asyncio.Task[Connected] | None = None

    @property
    def dead_letters(self) -> str:
        """The name of the queue with the dead letters."""
        return f"{self.queue}.dead"

    async def start(self, *, worker: bool) -> None:
        """Connect, and make exchange and queues where they are missing."""
        self._worker = worker
        await self.connected()

    async def stop(self) -> None:
        """Disconnect; the server hands out again what is in hand."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting], timeout=LONGEST_CLOSE)
        broker, self._broker, self._watched = self._broker, None, None
        if broker is not None:
            await broker.shutdown()

    async def send(self, message: Message, data: bytes) -> None:
        """Put a message in."""
        await kick(await self.connected(), message, data)

    async def take(self, room: int) -> Sequence[Delivery]:
        """Return what has come; the server has sent no more than there is room for."""
        del room
        arrived = (await self.connected()).arrived
        found: list[Delivery] = []
        with suppress(TimeoutError, asyncio.QueueEmpty):
            async with asyncio.timeout(WAIT):
                found.append(_Message(self, await arrived.get()))
            while True:
                found.append(_Message(self, arrived.get_nowait()))
        return found

    async def sample(self) -> QueueState:
        """Return how many messages and dead letters there are, and who consumes."""
        broker = await self.connected()
        if self._watched is None:
            self._watched = RabbitMQ(broker.write_conn, self.queue, dead=self.dead_letters)
        return await self._watched.sample()

    async def connected(self) -> Connected:
        """Return the broker, a new one where the last has lost its connection."""
        if self._broker is not None and self._broker.is_open:
            return self._broker
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="aiosvc rabbitmq")
            self._connecting.add_done_callback(self._connected)
        # Others wait for it too, and it may take longer than one of them has time.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Connected:
        lost, self._broker, self._watched = self._broker, None, None
        if lost is not None:
            await lost.shutdown()
        broker = self._make()
        # Only then is there something to read by.
        broker.is_worker_process = self._worker
        try:
            async with asyncio.timeout(LONGEST_CONNECT):
                await broker.startup()
        except BaseException:
            await broker.shutdown()
            raise
        self._broker = broker
        return broker

    def _connected(self, task: asyncio.Task[Connected]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # known to whoever waited for it


class _Message:
    """One message of the queue."""

    def __init__(self, backend: RabbitBackend, message: AbstractIncomingMessage) -> None:
        self._backend = backend
        self._message = message
        self.data = message.body
        # Quorum queues count; of others it is only known that it was not the first time.
        again = message.headers.get("x-delivery-count", message.redelivered)
        self.number = 1 + (again if isinstance(again, int) else 0)

    async def done(self) -> None:
        """Acknowledge it."""
        await self._message.ack()

    async def dead(self, reason: str) -> None:
        """Copy it to the dead letters, and then acknowledge it."""
        channel = (await self._backend.connected()).write_channel
        assert channel is not None, "it is connected"
        letter = Letter(
            self.data, headers={"reason": reason}, delivery_mode=DeliveryMode.PERSISTENT
        )
        await channel.default_exchange.publish(letter, self._backend.dead_letters)
        await self.done()

    async def keep(self) -> None:
        """Do nothing: the server keeps it while the connection lives."""

    async def give_back(self) -> None:
        """Do nothing: the server hands it out again when the connection ends."""


def make(url: str, queue: str, *, concurrency: int, visibility: float) -> RabbitBackend:
    """Return the backend of *queue* at *url*."""
    del visibility
    return RabbitBackend(url, queue, concurrency=concurrency)
