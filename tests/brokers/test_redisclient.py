"""Redis in batches: round trips, the server's time, and what a client may be."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis as blocking
from redis import asyncio as redis

from aiosvc import ConfigError
from aiosvc.brokers.redisclient import Command, Plan, RedisClient, together
from brokers.servers import Redis


class Server:
    """A client whose server counts batches, has a clock, and answers each command by itself."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.batches: list[list[Command]] = []

    async def execute_command(self) -> None:
        """Be there, as a client's is."""

    def pipeline(self, *, transaction: bool) -> "Server":
        """Begin a batch."""
        assert not transaction
        self.batches.append([])
        self.execute_command = self._note  # type: ignore[method-assign, assignment]
        return self

    def _note(self, *command: Any, **options: Any) -> None:
        assert options == {"NEVER_DECODE": True}
        self.batches[-1].append(command)

    async def execute(self, *, raise_on_error: bool) -> Sequence[Any]:
        """Return each command, and the time."""
        assert not raise_on_error
        *asked, last = self.batches[-1]
        assert last == ("TIME",)
        return [*asked, (int(self.now), round(self.now % 1 * 1e6))]


def asking(now: float) -> Plan[tuple[float, Any]]:
    """Ask one thing and return when it was."""
    replies = yield [("LLEN", "a")]
    return now, replies


async def test_the_time_is_the_servers() -> None:
    """A plan is made with the server's time, which from the second sample on costs no round trip."""
    clock = [100.0]
    server = Server(now=1_795_000_000.25)
    client = RedisClient(server, clock=lambda: clock[0])
    assert await client.run(asking) == (1_795_000_000.25, [("LLEN", "a")])
    assert len(server.batches) == 2
    clock[0] += 10
    server.now += 10
    assert await client.run(asking) == (1_795_000_010.25, [("LLEN", "a")])
    assert len(server.batches) == 3


async def test_a_clock_that_was_set_is_noticed() -> None:
    """Where the server's time is another one than expected, the plan is run with the new one."""
    server = Server(now=1_795_000_000.0)
    client = RedisClient(server, clock=lambda: 0.0)
    await client.run(asking)
    server.now -= 3600
    assert (await client.run(asking))[0] == 1_794_996_400.0
    assert len(server.batches) == 4


def test_plans_share_their_round_trips() -> None:
    """Several plans take as many batches as the longest one."""

    def plan(name: str, steps: int) -> Plan[list[Any]]:
        said = []
        for step in range(steps):
            said += yield [("GET", f"{name}{step}")] * (step + 1)
        return said

    both = together(plan("a", 2), plan("b", 0), plan("c", 1))
    assert list(next(both)) == [("GET", "a0"), ("GET", "c0")]
    assert list(both.send([1, 2])) == [("GET", "a1"), ("GET", "a1")]
    with pytest.raises(StopIteration) as end:
        both.send([3, 4])
    assert end.value.value == [[1, 3, 4], [], [2]]


@pytest.mark.parametrize(
    "client", [None, 7, object(), redis, blocking.Redis(), redis.Redis().connection_pool]
)
def test_what_is_no_client_is_refused(client: object) -> None:
    """A synchronous client too: it would block the event loop."""
    with pytest.raises(ConfigError, match=r"given; expected a client of redis.asyncio"):
        RedisClient(client)


@pytest.mark.parametrize("url", ["redis://:se/cret@h:1/0", "redis://h/?db=secret", "amqp://secret"])
def test_a_url_that_will_not_do_is_refused_and_not_repeated(url: str) -> None:
    """At once, and without what may be a password."""
    with pytest.raises(ConfigError) as caught:
        RedisClient(url)
    assert "cret" not in str(caught.value)


async def test_a_command_that_is_refused_says_which(redis_server: Redis) -> None:
    """The error has the command, the key and the server's words."""

    def plan(_now: float) -> Plan[None]:
        yield [("LLEN", "fine"), ("XINFO", "GROUPS", "text")]

    async with redis.Redis(port=redis_server.port) as client:
        await client.flushall()
        await client.set("text", "x")
        with pytest.raises(RuntimeError, match=r"^XINFO GROUPS 'text': WRONGTYPE"):
            await RedisClient(client).run(plan)


async def test_a_url_makes_a_connection_that_ends(redis_server: Redis) -> None:
    """A connection of ours is closed when it is told to, and made again when it is needed."""
    ours = RedisClient(redis_server.url)
    async with redis.Redis(port=redis_server.port) as client:
        await client.flushall()
        before = len(await client.client_list())
        for _ in range(2):
            assert (await ours.run(asking))[1] == [0]
            assert len(await client.client_list()) == before + 1
            await ours.close()
        assert len(await client.client_list()) == before


async def test_a_client_handed_over_stays_open(redis_server: Redis) -> None:
    """What is not ours is not closed."""
    async with redis.Redis(port=redis_server.port) as client:
        ours = RedisClient(client)
        await ours.run(asking)
        await ours.close()
        assert await client.ping()


async def test_one_client_is_asked_by_one_queue_at_a_time(redis_server: Redis) -> None:
    """Many queues of one client leave its other connections to the service."""
    async with redis.Redis(port=redis_server.port, max_connections=2) as client:
        await client.flushall()
        before = len(await client.client_list())
        await asyncio.gather(*(RedisClient(client).run(asking) for _ in range(20)))
        assert len(await client.client_list()) == before
