"""
Redis, asked in batches: one round trip for each batch, by raw commands.

Rule: only commands that every version of Redis and of redis-py has in the same form, so that the
client may be any of redis-py's asynchronous ones, decoding or not, of RESP2 or RESP3, of one server,
of Sentinel or of a cluster. Rule: replies are never decoded by the client, for what a queue holds may
be no text, and a client that decodes it fails. Rule: time is the server's, not ours. Rule: nothing
here scans keys.

Theory of operation. What a queue wants to know is a `Plan`: a generator that yields batches of
commands, gets their replies and returns the state. `together` runs several at once, batch by batch,
in the same round trips. A plan is made with the server's time, which must be known before its first
batch: it is our monotonic clock and the difference that the last sample saw, and each first batch
asks for TIME too. Where the two turn out to differ, because the server was replaced or its clock
was set, the plan is run once more.
"""

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from aiosvc.brokers.clients import has_coroutines, library, scheme_of, turns
from aiosvc.errors import ConfigError

__all__ = ["Command", "Plan", "RedisClient", "together"]

T = TypeVar("T")

Command = tuple[str | bytes | int | float, ...]

Plan = Generator[Sequence[Command], list[Any], T]

#: Seconds that the server's clock may be from where it is taken to be.
TOLERANCE: Final = 1.0

#: What a reply's error begins with where a stream or a group does not exist (yet).
MISSING: Final = ("no such key", "ERR no such key", "NOGROUP")


class RedisClient:
    """
    A client object of `redis.asyncio`, or one of our own for a URL.

    Raises ConfigError where *client* is neither.
    """

    def __init__(self, client: object, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client: Any = None
        self._connect: Callable[[], Any] | None = None
        if isinstance(client, str):
            scheme_of(client, ("redis", "rediss", "unix"), "redis://localhost:6379/0")
            redis = library("redis.asyncio", "redis", "a Redis queue")
            self._connect = partial(_connected, redis, client)
            self._client = self._connect()
        elif has_coroutines(client, "execute_command") and hasattr(client, "pipeline"):
            self._client = client
        else:
            raise ConfigError(
                f"{type(client).__module__}.{type(client).__qualname__} given; expected a client "
                "of redis.asyncio, which is Redis or RedisCluster, or a URL like "
                "'redis://localhost:6379/0'"
            )
        self._turns = asyncio.Lock() if isinstance(client, str) else turns(client)
        self._clock = clock
        #: Seconds that the server's time is ahead of our monotonic clock.
        self._ahead: float | None = None

    @property
    def is_cluster(self) -> bool:
        """Whether keys may be on different servers."""
        return hasattr(self._client, "get_node_from_key")

    async def run(self, plan: Callable[[float], Plan[T]]) -> T:
        """
        Return what *plan*, made with the server's Unix time, comes to.

        Raises RuntimeError for a command that the server refuses, and the client's own errors.
        """
        client = await self._open()
        async with self._turns:
            return await self._run(client, plan)

    async def close(self) -> None:
        """Close the connection if it is our own; a later `run` makes another."""
        self._ahead = None
        if self._connect is not None and self._client is not None:
            client, self._client = self._client, None
            # `close` until redis-py 5, deprecated since; of redis-py 4 it leaves the pool open.
            await (client.aclose if hasattr(client, "aclose") else client.close)()
            await client.connection_pool.disconnect()

    async def _run(self, client: Any, plan: Callable[[float], Plan[T]]) -> T:
        if self._ahead is None:
            await self._ask(client, [])
        assert self._ahead is not None, "every answer says it"
        known = self._ahead
        steps = plan(known + self._clock())
        replies = await self._ask(client, next(steps))
        if abs(self._ahead - known) > TOLERANCE:
            steps = plan(self._ahead + self._clock())
            replies = await self._ask(client, next(steps))
        while True:
            try:
                commands = steps.send(replies)
            except StopIteration as end:
                result: T = end.value
                return result
            replies = await self._ask(client, commands)

    async def _open(self) -> Any:
        if self._client is None and self._connect is not None:
            self._client = self._connect()
        if self.is_cluster:
            await self._client.initialize()  # does nothing the second time
        return self._client

    async def _ask(self, client: Any, commands: Sequence[Command]) -> list[Any]:
        """Return the replies, None for what does not exist, and note the server's time."""
        pipeline = client.pipeline(transaction=False)
        options: dict[str, Any] = {"NEVER_DECODE": True}
        for command in commands:
            if self.is_cluster:
                options["target_nodes"] = client.get_node_from_key(key_of(command))
            pipeline.execute_command(*command, **options)
        if self.is_cluster and not commands:
            options["target_nodes"] = client.get_default_node()
        pipeline.execute_command("TIME", **options)
        *replies, now = await pipeline.execute(raise_on_error=False)
        if isinstance(now, Exception):
            raise now
        seconds, microseconds = now
        self._ahead = int(seconds) + int(microseconds) / 1e6 - self._clock()
        return [_checked(*each) for each in zip(commands, replies, strict=True)]


def together(*plans: Plan[Any]) -> Plan[list[Any]]:
    """Run plans side by side, in as few round trips as the longest one needs."""
    results: list[Any] = [None] * len(plans)
    replies: dict[int, list[Any] | None] = dict.fromkeys(range(len(plans)))
    while replies:
        batches = {}
        for place, reply in replies.items():
            try:
                # The first send of a generator must be None, which is what there is then.
                batches[place] = plans[place].send(reply)  # type: ignore[arg-type]
            except StopIteration as end:
                results[place] = end.value
        if not batches:
            break
        answers = iter((yield [command for batch in batches.values() for command in batch]))
        replies = {place: [next(answers) for _ in batch] for place, batch in batches.items()}
    return results


def _connected(redis: Any, url: str) -> Any:
    try:
        return redis.from_url(url)
    except ValueError:  # its text repeats part of the URL
        raise ConfigError("redis can't make sense of the URL given") from None


def key_of(command: Command) -> Any:
    """Return the key that a command is about."""
    return command[2] if command[0] == "XINFO" else command[1]


def _checked(command: Command, reply: Any) -> Any:
    if not isinstance(reply, Exception):
        return reply
    if str(reply).startswith(MISSING):
        return None
    if isinstance(reply, OSError):
        raise reply
    words = " ".join(map(str, command[: command.index(key_of(command))]))
    raise RuntimeError(f"{words} {key_of(command)!r}: {reply}") from reply
