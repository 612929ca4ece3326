"""
Job queues on Redis Streams, by taskiq's broker for them.

Rule: the only module that imports taskiq-redis.

Theory of operation. Stream, group, connections and the form of a message are those of taskiq's
broker. Sending is done here, because its `kick` makes a client for each message, which takes longer
than the sending; taking too, because its `listen` recovers what a dead worker held only after new
messages have come, holds a lock that a dead worker never gives back, fetches more than it has room
for, and never deletes. Here a worker first claims what nobody has kept for *visibility* seconds,
then reads as many new messages as it has room for; while it works on one it claims it anew, without
counting a delivery; and what is done is acknowledged and deleted in one transaction, so the
stream's length is what is left to do.
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
from aiosvc.jobs.message import Message

__all__ = ["RedisBackend", "make"]

GROUP = "aiosvc"
#: Milliseconds that the server waits for a new message before it says that there is none.
BLOCK = 1000
#: Seconds between two looks for what dead workers left behind, and for their consumers.
CLAIM_EVERY, FORGET_EVERY = 1.0, 60.0
#: Seconds after which the server is taken to be gone; longer than it is asked to wait.
TIMEOUT = 5.0
#: What Redis says of a stream or a group that is gone, to each of the commands that are used here.
EMPTIED = ("NOGROUP", "no such key", "UNBLOCKED")
#: Removes the consumers that hold nothing and were not heard of for ARGV[2] milliseconds, or the one
#: that is named in ARGV[3]. In one step, for what a consumer is given meanwhile would go with it.
FORGET = """
local gone = 0
for _, pairs in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local each = {}
    for i = 1, #pairs, 2 do each[pairs[i]] = pairs[i + 1] end
    local asked = ARGV[3] == '' or ARGV[3] == each.name
    if asked and each.pending == 0 and each.idle >= tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], each.name)
        gone = gone + 1
    end
end
return gone
"""


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
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
        )
        self._visibility = visibility
        self._claim_at = self._forget_at = 0.0
        self._client: Redis | None = None
        #: Kept from sample to sample, since it keeps the server's time and what it has warned of.
        self._watched: RedisStream | None = None

    @property
    def dead_letters(self) -> str:
        """The key of the stream with the dead letters."""
        return f"{self.queue}:dead"

    @property
    def client(self) -> Redis:
        """The connection; raises ConnectionError but between start and stop."""
        if self._client is None:
            raise ConnectionError("the queue is not running")
        return self._client

    async def start(self, *, worker: bool) -> None:
        """Connect, and make stream and group where they are missing."""
        self.broker.is_worker_process = worker
        self._client = Redis(connection_pool=self.broker.connection_pool)
        await self._make_group()
        await self.broker.startup()

    async def stop(self) -> None:
        """Disconnect; a consumer that holds nothing leaves the group."""
        if self._client is not None:
            with suppress(RedisError, OSError):
                async with asyncio.timeout(1.0):
                    await self._forget(0.0, self.consumer)
            self._client = self._watched = None
        await self.broker.shutdown()

    async def send(self, message: Message, data: bytes) -> None:
        """Put a message in."""
        del message
        await self.client.xadd(self.queue, {b"data": data})

    async def take(self, room: int) -> Sequence[Delivery]:
        """Return messages that a dead worker left behind, or else new ones."""
        try:
            return await self._take(room)
        except ResponseError as error:
            if not any(words in str(error) for words in EMPTIED):
                raise
            await self._make_group()  # somebody emptied the database, or it was kept in memory
            return []

    async def _take(self, room: int) -> Sequence[Delivery]:
        now = time.monotonic()
        if now >= self._claim_at:
            claimed = await self._claim(room)
            if claimed:
                return claimed
            # Nothing is left behind; look again when something may be.
            self._claim_at = now + min(CLAIM_EVERY, self._visibility / 2)
        if now >= self._forget_at:
            # A live worker is heard of each time that it takes or keeps something.
            await self._forget(2 * self._visibility + BLOCK / 1000)
            self._forget_at = now + min(FORGET_EVERY, self._visibility)
        found: Any = await self.client.xreadgroup(
            GROUP, self.consumer, {self.queue: ">"}, count=room, block=BLOCK
        )
        return [
            _Message(self, number, fields, 1)
            for _, messages in (found or [])
            for number, fields in messages
            if fields
        ]

    async def sample(self) -> QueueState:
        """Return how many messages there are, and how many dead letters."""
        if self._watched is None:
            self._watched = RedisStream(self.client, self.queue, group=GROUP, deletes=True)
        state = await self._watched.sample()
        return replace(state, dead=await self.client.xlen(self.dead_letters))

    async def keep(self, number: bytes) -> None:
        """Have a message count as delivered just now."""
        await self.client.xclaim(self.queue, GROUP, self.consumer, 0, [number], justid=True)

    async def give_back(self, number: bytes) -> None:
        """Have a message count as one that nobody has kept for long enough."""
        idle = int(self._visibility * 1000)
        await self.client.xclaim(
            self.queue, GROUP, self.consumer, 0, [number], idle=idle, justid=True
        )

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
        idle, place = int(self._visibility * 1000), b"0-0"
        while True:
            # The server looks at a few only; those that come first may be with live workers.
            place, found, *_ = await self.client.xautoclaim(
                self.queue, GROUP, self.consumer, idle, place, count=room
            )
            # Before Redis 7 a message that was deleted meanwhile is claimed all the same.
            claimed = {number: fields for number, fields in found if fields}
            if claimed or place == b"0-0":
                return await self._counted(claimed)

    async def _counted(self, claimed: Mapping[bytes, Mapping[bytes, bytes]]) -> list[Delivery]:
        """Return the deliveries of messages that were claimed, with how often they were handed out."""
        if not claimed:
            return []
        async with self.client.pipeline(transaction=False) as pipe:
            for number in claimed:
                pipe.xpending_range(self.queue, GROUP, number, number, 1)
            pending = await pipe.execute()
        return [
            _Message(self, number, fields, known[0]["times_delivered"] if known else 1)
            for (number, fields), known in zip(claimed.items(), pending, strict=True)
        ]

    async def _forget(self, seconds: float, consumer: str = "") -> None:
        idle = int(seconds * 1000)
        client: Any = self.client  # which has no type for it
        await client.execute_command("EVAL", FORGET, 1, self.queue, GROUP, idle, consumer)


class _Message:
    """One message of the stream."""

    def __init__(
        self, backend: RedisBackend, entry: bytes, fields: Mapping[bytes, bytes], number: int
    ) -> None:
        self._backend = backend
        self._entry = entry
        self._fields = fields
        self.number = number
        self.data = fields.get(b"data", b"")

    async def done(self) -> None:
        """Acknowledge and delete it."""
        await self._backend.settle(self._entry)

    async def dead(self, reason: str) -> None:
        """Move it to the dead letters."""
        letter = {**self._fields, b"reason": reason.encode()}
        await self._backend.settle(self._entry, letter)

    async def keep(self) -> None:
        """Claim it anew."""
        await self._backend.keep(self._entry)

    async def give_back(self) -> None:
        """Have another worker claim it when that looks for the next time."""
        await self._backend.give_back(self._entry)


def make(url: str, queue: str, *, concurrency: int, visibility: float) -> RedisBackend:
    """Return the backend of *queue* at *url*."""
    del concurrency
    return RedisBackend(url, queue, visibility=visibility)
