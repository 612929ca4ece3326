"""
The engines of job queues, each with a real broker, and what tests look up in it themselves.

Rule: what is looked up here is asked by another client than that of the queue.
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aio_pika
import nats
from nats.js.errors import NotFoundError
from redis.asyncio import Redis

__all__ = ["BROKERS", "Engine", "Letter"]

BROKERS = ("redis", "nats", "rabbitmq")

_numbers = itertools.count(1)


class Letter(NamedTuple):
    """One dead letter."""

    data: bytes
    reason: str


class Engine:
    """A kind of broker at *url*, and a queue there that nobody else uses."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url
        self.name = f"email-{next(_numbers)}"

    async def put(self, data: bytes) -> None:
        """Put bytes into the queue, past everything of ours."""
        if self.kind == "redis":
            async with Redis.from_url(self.url) as client:
                await client.xadd(self.name, {"data": data})
        elif self.kind == "nats":
            async with _nats(self.url) as client:
                await client.jetstream().publish(f"{self.name}.jobs", data)
        else:
            async with await aio_pika.connect(self.url) as connection:
                channel = await connection.channel()
                await channel.default_exchange.publish(aio_pika.Message(data), self.name)

    async def letters(self) -> list[Letter]:
        """Return the dead letters."""
        if self.kind == "redis":
            async with Redis.from_url(self.url) as client:
                found: Any = await client.xrange(f"{self.name}:dead")
                return [Letter(each[b"data"], each[b"reason"].decode()) for _, each in found]
        if self.kind == "nats":
            return await self._nats_letters()
        letters = []
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(f"{self.name}.dead")
            while (message := await queue.get(fail=False)) is not None:
                letters.append(Letter(message.body, str(message.headers["reason"])))
        return letters  # what is not acknowledged stays there

    async def delete(self) -> None:
        """Delete the queue and its dead letters, as a broker does that starts without its files."""
        if self.kind == "redis":
            async with Redis.from_url(self.url) as client:
                await client.delete(self.name, f"{self.name}:dead")
        elif self.kind == "nats":
            async with _nats(self.url) as client:
                for stream in (self.name, f"{self.name}-dead"):
                    await client.jetstream().delete_stream(stream)
        else:
            async with await aio_pika.connect(self.url) as connection:
                channel = await connection.channel()
                for queue in (self.name, f"{self.name}.dead"):
                    await channel.queue_delete(queue)
                await channel.exchange_delete(self.name)

    async def left(self) -> int:
        """Return how many messages the broker holds for the queue, in hand or not."""
        if self.kind == "redis":
            async with Redis.from_url(self.url) as client:
                return int(await client.xlen(self.name))
        if self.kind == "nats":
            async with _nats(self.url) as client:
                return int((await client.jetstream().stream_info(self.name)).state.messages)
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            declared = await channel.declare_queue(self.name, passive=True)
            return int(declared.declaration_result.message_count or 0)

    async def _nats_letters(self) -> list[Letter]:
        letters = []
        async with _nats(self.url) as client:
            js = client.jetstream()
            stream = f"{self.name}-dead"
            try:
                state = (await js.stream_info(stream)).state
            except NotFoundError:
                return []
            if not state.messages:
                return []
            for number in range(state.first_seq, state.last_seq + 1):
                message = await js.get_msg(stream, number)
                letters.append(Letter(message.data or b"", (message.headers or {})["reason"]))
        return letters


@asynccontextmanager
async def _nats(url: str) -> AsyncIterator[Any]:
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()
