"""Lists, sorted sets and streams of a real Redis."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis as library
from processes import poll
from redis import asyncio as redis

from aiosvc import ConfigError
from aiosvc.brokers import QueueState, RedisList, RedisSortedSet, RedisStream
from aiosvc.brokers.redis import RedisQueue, streamed
from brokers.observing import observed, said, says
from brokers.servers import Redis

#: How a client may be set up, which changes the form of its replies. RESP3 came with redis-py 5.
CLIENTS: list[dict[str, Any]] = [{}, {"decode_responses": True}]
if int(library.__version__.split(".")[0]) >= 5:
    CLIENTS += [{"protocol": 2}, {"protocol": 3, "decode_responses": True}]


@pytest.fixture(params=CLIENTS, ids=str)
async def client(redis_server: Redis, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Return a client of an empty Redis, set up in each of the ways."""
    async with redis.Redis(port=redis_server.port, **request.param) as client:
        await client.flushall()
        yield client


async def filled(client: Any, entries: int, *, group: str = "workers") -> None:
    """Make the stream `s` with a group that has read none of its entries."""
    await client.xgroup_create("s", group, id="0", mkstream=True)
    for number in range(entries):
        await client.xadd("s", {"n": number})


async def read(client: Any, count: int) -> list[Any]:
    """Have the group read so many, and return their identities."""
    answer = await client.xreadgroup("workers", "one", {"s": ">"}, count=count)
    [(_, entries)] = answer.items() if isinstance(answer, dict) else answer
    # RESP3 puts the entries of a stream into one more list in some versions of redis-py.
    flat = entries[0] if entries and isinstance(entries[0], list) else entries
    return [identity for identity, _ in flat]


async def depth(queue: RedisQueue) -> float | None:
    """Return how many are ready."""
    return (await queue.sample()).ready


async def test_a_queue_that_nobody_has_used_yet_is_empty(client: Any) -> None:
    """A key that is not there is 0 and success, for every type."""
    assert await RedisList(client, "l").sample() == QueueState(ready=0, oldest_age=0)
    assert await RedisSortedSet(client, "z").sample() == QueueState(
        ready=0, scheduled=0, oldest_age=0
    )
    assert await RedisStream(client, "s", group="workers").sample() == QueueState(
        ready=0, in_flight=0, retained=0, oldest_age=0
    )


async def test_lists_are_added_up(client: Any) -> None:
    """Several lists are one queue; how old an item is, it does not say."""
    await client.lpush("high", "a")
    await client.lpush("low", "b", "c")
    assert await RedisList(client, "high", "low").sample() == QueueState(ready=3)


async def test_a_list_of_items_that_know_when(client: Any) -> None:
    """The function that reads an item's time is given the item that is next."""
    now = time.time()
    for ago in (30, 20, 10):
        await client.lpush("l", json.dumps({"at": now - ago}))

    def queued_at(item: bytes) -> float:
        moment: float = json.loads(item)["at"]
        return moment

    for oldest, age in (("tail", 30), ("head", 10)):
        state = await RedisList(client, "l", queued_at=queued_at, oldest=oldest).sample()
        assert state.ready == 3
        assert state.oldest_age == pytest.approx(age, abs=9)


@pytest.mark.parametrize("moment", [None, float("nan"), float("-inf")])
async def test_a_list_of_items_that_do_not_know_when(client: Any, moment: float | None) -> None:
    """An item whose time is none has an age that nobody knows, which is not 0."""
    await client.lpush("l", b"item")
    state = await RedisList(client, "l", queued_at=lambda _: moment).sample()
    assert (state.ready, state.oldest_age) == (1, None)


async def test_a_sorted_set_is_divided_by_the_servers_time(client: Any) -> None:
    """What is due is ready and has an age, what is not is scheduled."""
    now = time.time()
    await client.zadd("z", {"a": now - 30, "b": now - 5, "later": now + 600})
    await client.zadd("ms", {"a": (now - 30) * 1000, "later": (now + 600) * 1000})
    state = await RedisSortedSet(client, "z").sample()
    assert (state.ready, state.scheduled) == (2, 1)
    assert state.oldest_age == pytest.approx(30, abs=9)
    state = await RedisSortedSet(client, "ms", unit="ms").sample()
    assert (state.ready, state.scheduled) == (1, 1)
    assert state.oldest_age == pytest.approx(30, abs=9)


async def test_a_stream_is_what_its_group_has_not_been_given(client: Any) -> None:
    """Read ones are in flight until they are acknowledged, and retained for ever."""
    await filled(client, 7)
    queue = RedisStream(client, "s", group="workers")
    assert await depth(queue) == 7
    first, second = await read(client, 2)
    await client.xack("s", "workers", first)
    state = await queue.sample()
    assert (state.ready, state.in_flight, state.retained) == (5, 1, 7)
    await client.xack("s", "workers", second, *await read(client, 5))
    assert await queue.sample() == QueueState(ready=0, in_flight=0, retained=7, oldest_age=0)


async def test_the_age_of_a_stream_is_that_of_the_next_entry(client: Any) -> None:
    """The time is in the identity, by the server's clock."""
    now_ms = int(time.time() * 1000)
    await client.xgroup_create("s", "workers", id="0", mkstream=True)
    for ago in (60, 30):
        await client.xadd("s", {"n": ago}, id=f"{now_ms - ago * 1000}-0")
    queue = RedisStream(client, "s", group="workers")
    assert (await queue.sample()).oldest_age == pytest.approx(60, abs=9)
    await read(client, 1)
    assert (await queue.sample()).oldest_age == pytest.approx(30, abs=9)


async def test_identities_of_a_producers_own_are_no_times(client: Any) -> None:
    """A stream with entries like 1-1 has no age, not one of fifty years."""
    await client.xgroup_create("s", "workers", id="0", mkstream=True)
    await client.xadd("s", {"n": 1}, id="1-1")
    state = await RedisStream(client, "s", group="workers").sample()
    assert (state.ready, state.oldest_age) == (1, None)


async def test_what_is_in_a_queue_need_be_no_text(client: Any) -> None:
    """A client that decodes replies is not made to decode what it can't."""
    await client.lpush("l", b"\x80\xff")
    await client.xgroup_create("s", "workers", id="0", mkstream=True)
    for _ in range(3):
        await client.xadd("s", {"data": b"\x80\xff"})
    assert await depth(RedisList(client, "l", queued_at=lambda _: None)) == 1
    assert await depth(RedisStream(client, "s", group="workers")) == 3


async def test_deleted_entries_make_the_server_unsure_and_us_count(client: Any) -> None:
    """After an unread entry was deleted the server's lag is nil, which is not 0."""
    await filled(client, 9)
    await read(client, 2)
    await client.xdel("s", (await client.xrange("s"))[5][0])
    [group] = await client.xinfo_groups("s")
    assert group["lag"] is None
    assert await depth(RedisStream(client, "s", group="workers")) == 6
    assert await depth(RedisStream(client, "s", group="workers", cap=4)) == 4  # that many, or more


async def test_counting_goes_on_over_pages(client: Any) -> None:
    """A count of more than one page is exact up to the cap."""
    await filled(client, 250)
    await read(client, 3)
    await client.xdel("s", (await client.xrange("s"))[50][0])
    assert await depth(RedisStream(client, "s", group="workers")) == 246
    assert await depth(RedisStream(client, "s", group="workers", cap=200)) == 200


async def test_unread_entries_that_were_trimmed_are_not_there(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The server goes on counting them as lag; we don't, and say once that they are lost."""
    await filled(client, 10)
    await read(client, 2)
    await client.xtrim("s", maxlen=4, approximate=False)
    queue = RedisStream(client, "s", group="workers")
    assert await depth(queue) == 4
    await read(client, 1)
    [group] = await client.xinfo_groups("s")
    assert group["lag"] == 7
    assert await depth(queue) == 3
    said = [r.message for r in caplog.records if "trimmed" in r.message]
    assert said == [
        "stream 's': 4 or more entries were trimmed or deleted unread by group 'workers'"
    ]


async def test_workers_that_delete_what_they_did_need_no_counting(client: Any) -> None:
    """Where acknowledged entries are deleted, what is there and not in flight is ready."""
    await filled(client, 9)
    done, _ = await read(client, 2)
    await client.xack("s", "workers", done)
    await client.xdel("s", done)
    await client.xdel("s", (await client.xrange("s"))[5][0])
    state = await RedisStream(client, "s", group="workers", deletes=True, cap=1).sample()
    assert (state.ready, state.in_flight, state.retained) == (6, 1, 7)


async def test_a_group_that_is_not_there_has_read_nothing(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """All that waits for it is ready, and the log says which groups there are."""
    await filled(client, 5)
    await read(client, 5)
    queue = RedisStream(client, "s", group="worker")
    state = await queue.sample()
    assert (state.ready, state.in_flight) == (5, 0)
    await queue.sample()
    [record] = [r for r in caplog.records if "no group" in r.message]
    assert "no group 'worker' (there is workers)" in record.message
    assert record.message.endswith("did you mean 'workers'?")


async def test_a_group_made_at_the_end_of_a_stream(client: Any) -> None:
    """What was there before the group was made is not its work, though the lag is unknown."""
    for number in range(5):
        await client.xadd("s", {"n": number})
    await client.xgroup_create("s", "workers", id="$")
    queue = RedisStream(client, "s", group="workers")
    assert await depth(queue) == 0
    await client.xadd("s", {"n": 6})
    assert await depth(queue) == 1


@pytest.mark.parametrize("known", [{}, {"lag": None, "entries-read": None}])
def test_a_server_without_lag_is_asked_to_count(known: dict[str, Any]) -> None:
    """Redis 5 and 6 say neither lag nor what was added; the entries after the last one count."""
    plan = streamed("s", "workers", 1_795_000_100.0)
    assert list(next(plan)) == [("XINFO", "GROUPS", "s"), ("XLEN", "s")]
    group = {"name": "workers", "pending": 2, "last-delivered-id": "1795000000000-4", **known}
    asked = plan.send([[group], 7])
    assert asked[0] == ("XRANGE", "s", "1795000000000-5", "+", "COUNT", 1)
    described = {"length": 7, "first-entry": ["1795000000000-0", []]}
    [asked] = [plan.send([[("1795000040000-0", {})], described])]
    assert list(asked) == [("XRANGE", "s", "1795000000000-5", "+", "COUNT", 7)]
    entries = [(f"1795000040000-{n}", ()) for n in range(3)]
    assert list(plan.send([entries])) == [("XRANGE", "s", "1795000040000-3", "+", "COUNT", 4)]
    with pytest.raises(StopIteration) as end:
        plan.send([[]])
    assert end.value.value == QueueState(ready=3, in_flight=2, retained=7, oldest_age=60.0)


async def test_a_key_of_another_type_is_an_error(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The source is down, and the log says which command the server refused, and why."""
    await client.set("orders", "text")
    for queue, command in (
        (RedisList(client, "orders"), "LLEN"),
        (RedisSortedSet(client, "orders"), "ZCOUNT"),
        (RedisStream(client, "orders", group="g"), "XINFO GROUPS"),
    ):
        async with observed(queue) as observer:
            await says(observer, 0, "aiosvc_source_up")
            assert said(observer) is None
        assert f"source orders is down: RuntimeError: {command} 'orders': WRONGTYPE" in caplog.text


async def test_a_wrong_password_is_an_error_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says that the server refuses us, and never what we offered."""
    async with Redis(tmp_path, password="right") as server:
        for offered in ("", ":guessed-wrong@"):
            url = f"redis://{offered}127.0.0.1:{server.port}/0"
            async with observed(RedisList(url, "orders")) as observer:
                await says(observer, 0, "aiosvc_source_up")
        async with observed(RedisList(f"redis://:right@127.0.0.1:{server.port}", "orders")) as good:
            await says(good, 0)
    assert "AuthenticationError" in caplog.text
    assert "guessed-wrong" not in caplog.text


async def test_a_cluster_is_asked_node_by_node(tmp_path: Path) -> None:
    """Keys of one queue may be in different slots; the time is that of a node."""
    now = time.time()
    async with Redis(tmp_path, cluster=True) as server:
        node: Any
        async with redis.Redis(port=server.port) as node:
            await node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await poll(
                lambda: node.execute_command("CLUSTER INFO"),
                lambda info: info["cluster_state"] == "ok",
                "a cluster",
            )
        async with redis.RedisCluster(host="127.0.0.1", port=server.port) as client:
            queues = [
                RedisList(client, "a", "b", "c"),
                RedisSortedSet(client, "z"),
                RedisStream(client, "s", group="workers"),
            ]
            assert [await depth(queue) for queue in queues] == [0, 0, 0]
            async with redis.Redis(port=server.port) as node:
                for key in ("a", "b", "c"):
                    await node.lpush(key, "x")
                await node.zadd("z", {"x": now - 30})
                await filled(node, 1)
            assert [await depth(queue) for queue in queues] == [3, 1, 1]


def test_options_are_checked_at_once() -> None:
    """What makes no sense is said when the queue is made."""
    url = "redis://127.0.0.1:1/0"
    with pytest.raises(ConfigError, match="RedisList: no key given"):
        RedisList(url)
    with pytest.raises(ConfigError, match="oldest: 'left' given; expected head or tail"):
        RedisList(url, "l", oldest="left")
    with pytest.raises(ConfigError, match="unit: 'us' given; expected s or ms"):
        RedisSortedSet(url, "z", unit="us")
    with pytest.raises(ConfigError, match="cap: 0 given"):
        RedisStream(url, "s", group="g", cap=0)
    with pytest.raises(ConfigError, match=r"RedisStream: .* expected a client of redis.asyncio"):
        RedisStream(None, "s", group="g")
