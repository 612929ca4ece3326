"""
Job queues on RabbitMQ, by taskiq's broker for it.

Rule: the only module that imports taskiq-aio-pika.

Theory of operation. The queue is a durable quorum queue, messages are persistent, and the server
confirms each. It hands out as many as there is room for at once, keeps those in hand for as long as
the connection lives, and hands them out again when it ends.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from aio_pika import DeliveryMode
from aio_pika import Message as Letter
from taskiq import AckableMessage
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from aiosvc.brokers import QueueState, RabbitMQ
from aiosvc.jobs.backend import Delivery
from aiosvc.jobs.kicking import kick
from aiosvc.jobs.message import Message

__all__ = ["RabbitBackend", "make"]

#: Seconds after which a message that was waited for is said to be none.
WAIT = 1.0


class RabbitBackend:
    """The queue *queue*, and `<queue>.dead` for dead letters."""

    name = "rabbitmq"
    #: The server keeps what is in hand by itself.
    keep_every: float | None = None

    def __init__(self, url: str, queue: str, *, concurrency: int) -> None:
        self.queue = queue
        self.broker = AioPikaBroker(
            url,
            qos=concurrency,
            exchange=Exchange(name=queue),
            task_queues=[Queue(name=queue, routing_key=queue)],
            dead_letter_queue=Queue(name=self.dead_letters),
        )
        self._listening: AsyncGenerator[AckableMessage, None] | None = None
        self._next: asyncio.Task[AckableMessage] | None = None

    @property
    def dead_letters(self) -> str:
        """The name of the queue with the dead letters."""
        return f"{self.queue}.dead"

    async def start(self, *, worker: bool) -> None:
        """Connect, and make exchange and queues where they are missing."""
        # Only then does the broker open what it reads by.
        self.broker.is_worker_process = worker
        await self.broker.startup()

    async def stop(self) -> None:
        """Disconnect; the server hands out again what is in hand."""
        if self._next is not None:
            self._next.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await self._next
            self._next = None
        if self._listening is not None:
            with suppress(Exception):
                await self._listening.aclose()
            self._listening = None
        await self.broker.shutdown()

    async def send(self, message: Message) -> None:
        """Put a message in."""
        await kick(self.broker, message)

    async def take(self, room: int) -> Sequence[Delivery]:
        """Return the next message; the server has sent no more than there is room for."""
        del room
        if self._next is None:
            if self._listening is None:
                self._listening = self.broker.listen()
            self._next = asyncio.ensure_future(anext(self._listening))
        # Not cancelled when it takes long: a message would be lost between server and worker.
        await asyncio.wait([self._next], timeout=WAIT)
        if not self._next.done():
            return []
        arrived, self._next = self._next, None
        try:
            return [_Message(self, arrived.result())]
        except StopAsyncIteration:
            self._listening = None  # the channel was closed: listen on another
            await asyncio.sleep(WAIT)
            return []
        except BaseException:
            self._listening = None
            raise

    async def sample(self) -> QueueState:
        """Return how many messages and dead letters there are, and who consumes."""
        return await RabbitMQ(self.broker.write_conn, self.queue, dead=self.dead_letters).sample()


class _Message:
    """One message of the queue."""

    def __init__(self, backend: RabbitBackend, message: AckableMessage) -> None:
        self._backend = backend
        self._message = message
        self.data = message.data

    async def done(self) -> None:
        """Acknowledge it."""
        acknowledged = self._message.ack()
        if acknowledged is not None:
            await acknowledged

    async def dead(self, reason: str) -> None:
        """Copy it to the dead letters, and then acknowledge it."""
        channel = self._backend.broker.write_channel
        assert channel is not None, "not started"
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
