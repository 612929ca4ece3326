"""
Job queues on Redis Streams, by taskiq's broker for them.

Rule: the only module that imports taskiq-redis.

Theory of operation. taskiq's broker sends; taking is done here, because its `listen` recovers what
a dead worker held only after new messages have come, holds a lock that a dead worker never gives
back, fetches more than it has room for, and never deletes. Here a worker first claims what nobody
has kept for *visibility* seconds, then reads as many new messages as it has room for; while it
works on one it claims it anew, without counting a delivery; and what is done is acknowledged and
deleted in one transaction, so the stream's length is what is left to do.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from taskiq_redis import RedisStreamBroker

from aiosvc.brokers import QueueState, RedisStream
from aiosvc.jobs.backend import Delivery
from aiosvc.jobs.kicking import kick
from aiosvc.jobs.message import Message

__all__ = ["RedisBackend", "make"]

GROUP = "aiosvc"
#: Milliseconds that the server waits for a new message before it says that there is none.
BLOCK = 1000
#: Seconds after which a consumer that holds nothing is one that died.
STALE = 3600.0


class RedisBackend:
    """The stream *queue*, its consumer group, and `<queue>:dead` for dead letters."""

    name = "redis"

    def __init__(self, url: str, queue: str, *, visibility: float) -> None:
        self.queue = queue
        self.keep_every: float | None = visibility / 3
        self.consumer = str(uuid4())
        self.broker = RedisStreamBroker(
            url,
            queue_name=queue,
            consumer_group_name=GROUP,
            consumer_name=self.consumer,
            # A queue may be older than its first worker: what is in it is work.
            consumer_id="0",
        )
        self._visibility = visibility
        self._claim_at = 0.0
        self._client: Redis | None = None

    @property
    def dead_letters(self) -> str:
        """The key of the stream with the dead letters."""
        return f"{self.queue}:dead"

    @property
    def client(self) -> Redis:
        """The connection; there is one between start and stop."""
        assert self._client is not None, "not started"
        return self._client

    async def start(self, *, worker: bool) -> None:
        """Connect, and make stream and group where they are missing."""
        self.broker.is_worker_process = worker
        self._client = Redis(connection_pool=self.broker.connection_pool)
        await self._make_group()
        await self.broker.startup()
        if worker:
            with suppress(RedisError):
                await self._forget_the_dead()

    async def stop(self) -> None:
        """Disconnect; a consumer that holds nothing leaves the group."""
        if self._client is not None:
            with suppress(RedisError, OSError):
                await self._leave()
            self._client = None
        await self.broker.shutdown()

    async def send(self, message: Message) -> None:
        """Put a message in."""
        await kick(self.broker, message)

    async def take(self, room: int) -> Sequence[Delivery]:
        """Return messages that a dead worker left behind, or else new ones."""
        now = time.monotonic()
        if now >= self._claim_at:
            claimed = await self._claim(room)
            if claimed:
                return claimed
            # Nothing is left behind; look again when something may be.
            self._claim_at = now + self._visibility / 2
        try:
            found: Any = await self.client.xreadgroup(
                GROUP, self.consumer, {self.queue: ">"}, count=room, block=BLOCK
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self._make_group()  # somebody emptied the database
            return []
        return [
            _Message(self, number, fields)
            for _, messages in (found or [])
            for number, fields in messages
            if fields
        ]

    async def sample(self) -> QueueState:
        """Return how many messages there are, and how many dead letters."""
        stream = RedisStream(self.client, self.queue, group=GROUP, deletes=True)
        state = await stream.sample()
        return replace(state, dead=await self.client.xlen(self.dead_letters))

    async def keep(self, number: bytes) -> None:
        """Have a message count as delivered just now."""
        await self.client.xclaim(self.queue, GROUP, self.consumer, 0, [number], justid=True)

    async def settle(self, number: bytes, letter: Mapping[Any, Any] | None = None) -> None:
        """Acknowledge and delete a message, and keep a dead *letter* of it, all or nothing."""
        async with self.client.pipeline(transaction=True) as pipe:
            if letter is not None:
                pipe.xadd(self.dead_letters, dict(letter))
            pipe.xack(self.queue, GROUP, number)
            pipe.xdel(self.queue, number)
            await pipe.execute()

    async def _make_group(self) -> None:
        try:
            await self.client.xgroup_create(self.queue, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _claim(self, room: int) -> list[Delivery]:
        idle = int(self._visibility * 1000)
        answer = await self.client.xautoclaim(
            self.queue, GROUP, self.consumer, idle, "0-0", count=room
        )
        # Before Redis 7 a message that was deleted meanwhile is claimed all the same.
        return [_Message(self, number, fields) for number, fields in answer[1] if fields]

    async def _forget_the_dead(self) -> None:
        for each in await self.client.xinfo_consumers(self.queue, GROUP):
            if not each["pending"] and each["idle"] > STALE * 1000:
                await self.client.xgroup_delconsumer(self.queue, GROUP, each["name"])

    async def _leave(self) -> None:
        async with asyncio.timeout(1.0):
            held = await self.client.xpending_range(
                self.queue, GROUP, "-", "+", 1, consumername=self.consumer
            )
            if not held:
                await self.client.xgroup_delconsumer(self.queue, GROUP, self.consumer)


class _Message:
    """One message of the stream."""

    def __init__(self, backend: RedisBackend, number: bytes, fields: Mapping[bytes, bytes]) -> None:
        self._backend = backend
        self._number = number
        self._fields = fields
        self.data = fields.get(b"data", b"")

    async def done(self) -> None:
        """Acknowledge and delete it."""
        await self._backend.settle(self._number)

    async def dead(self, reason: str) -> None:
        """Move it to the dead letters."""
        letter = {**self._fields, b"reason": reason.encode()}
        await self._backend.settle(self._number, letter)

    async def keep(self) -> None:
        """Claim it anew."""
        await self._backend.keep(self._number)

    async def give_back(self) -> None:
        """Do nothing: another worker claims it when it was not kept for long enough."""


def make(url: str, queue: str, *, concurrency: int, visibility: float) -> RedisBackend:
    """Return the backend of *queue* at *url*."""
    del concurrency
    return RedisBackend(url, queue, visibility=visibility)
