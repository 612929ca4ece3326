"""
Queues as the engines make them in Redis, key by key.

Each test writes what the engine of the version named was seen to write (by its own client and
worker, beside which these numbers were compared with what it says itself); engines are not
installed here, since they pin versions of redis-py that exclude one another.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import asyncio as redis

from aiosvc import ConfigError
from aiosvc.brokers import (
    RQ,
    SAQ,
    Arq,
    BullMQ,
    Celery,
    Docket,
    Dramatiq,
    QueueState,
    Streaq,
    TaskiqList,
    TaskiqStream,
)
from aiosvc.brokers.redis import RedisQueue
from brokers.servers import Redis

#: Far enough from the edges for a machine that is slow.
ABOUT = 9

CLASSES: list[Any] = [Arq, RQ, Celery, Dramatiq, SAQ, Streaq, Docket, TaskiqStream, TaskiqList]


@pytest.fixture(params=[False, True], ids=["bytes", "decoded"])
async def client(redis_server: Redis, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Return a client of an empty Redis."""
    async with redis.Redis(port=redis_server.port, decode_responses=request.param) as client:
        await client.flushall()
        yield client


async def counts(queue: RedisQueue) -> tuple[float | None, float | None, float | None]:
    """Return how many are ready, in flight and scheduled."""
    state = await queue.sample()
    return state.ready, state.in_flight, state.scheduled


@pytest.mark.parametrize("queue", [*CLASSES, lambda client: BullMQ(client, "q")])
async def test_an_engine_that_was_never_used_has_empty_queues(client: Any, queue: Any) -> None:
    """No key is there yet, and that is 0 and no error."""
    state = await queue(client).sample()
    assert (state.ready, state.oldest_age) == (0, 0)


async def test_arq(client: Any) -> None:
    """Arq 0.28: running jobs stay in the sorted set and have a key of their own."""
    now_ms = int(time.time() * 1000)
    for number in range(250):  # more than are looked at in one round trip
        await client.zadd("arq:queue", {f"job{number:03}": now_ms - 60_000 + number})
    await client.zadd("arq:queue", {"later": now_ms + 600_000})
    for job in ("job000", "job001", "job120"):
        await client.psetex(f"arq:in-progress:{job}", 60_000, b"1")
    state = await Arq(client).sample()
    assert (state.ready, state.in_flight, state.scheduled) == (247, 3, 1)
    assert state.oldest_age == pytest.approx(60, abs=ABOUT)


async def test_arq_with_every_job_running(client: Any) -> None:
    """What only runs waits for nobody, however long ago it was due."""
    await client.zadd("arq:queue", {"job": int(time.time() * 1000) - 60_000})
    await client.psetex("arq:in-progress:job", 60_000, b"1")
    state = await Arq(client).sample()
    assert (state.ready, state.in_flight, state.oldest_age) == (0, 1, 0)


async def test_rq(client: Any) -> None:
    """RQ 3.0: a list, registries by state, a set of workers; jobs are hashes with their time."""
    now = time.time()
    await client.rpush("rq:queue:mails", "one", "two")  # taken from the left
    queued_at = time.strftime("%Y-%m-%dT%H:%M:%S.123456Z", time.gmtime(now - 60))
    await client.hset("rq:job:one", mapping={"enqueued_at": queued_at, "status": "queued"})
    await client.zadd("rq:wip:mails", {"three:execution": now + 60})
    await client.zadd("rq:failed:mails", {"four": now + 600, "five": now + 600})
    await client.zadd("rq:scheduled:mails", {"later": now + 600})
    await client.sadd("rq:workers:mails", "rq:worker:a")
    state = await RQ(client, "mails").sample()
    assert (state.ready, state.in_flight, state.scheduled) == (2, 1, 1)
    assert (state.dead, state.consumers) == (2, 1)
    assert state.oldest_age == pytest.approx(60, abs=ABOUT)
    # One that is due is ready, whether or not a scheduler lives to move it.
    await client.zadd("rq:scheduled:mails", {"due": now - 120})
    state = await RQ(client, "mails").sample()
    assert (state.ready, state.scheduled) == (3, 1)
    assert state.oldest_age == pytest.approx(120, abs=ABOUT)


async def test_celery(client: Any) -> None:
    """Kombu 5.7: a list for each priority step, and one hash of what is taken."""
    for key, tasks in (("celery", 3), ("celery\x06\x163", 2), ("celery\x06\x169", 1)):
        await client.lpush(key, *["{}"] * tasks)
    await client.hset("unacked", mapping={"tag1": "[]", "tag2": "[]"})
    assert await Celery(client).sample() == QueueState(ready=6)
    assert await Celery(client, unacked="unacked").sample() == QueueState(ready=6, in_flight=2)


async def test_celery_with_keys_of_ones_own(client: Any) -> None:
    """Prefix, steps and separator are options, as they are in Celery's."""
    await client.lpush("shop:mails", "{}")
    await client.lpush("shop:mails:5", "{}")
    queue = Celery(client, "mails", priorities=(0, 5), separator=":", prefix="shop:")
    assert (await queue.sample()).ready == 2
    with pytest.raises(ConfigError, match="priorities"):
        Celery(client, priorities=())


async def test_dramatiq(client: Any) -> None:
    """Dramatiq 2.2: lists of ids, their messages in hashes, and a set for each worker."""
    now_ms = int(time.time() * 1000)
    message = {"queue_name": "default", "options": {}, "message_timestamp": now_ms - 60_000}
    await client.rpush("dramatiq:default", "one", "two", "three")
    await client.hset("dramatiq:default.msgs", "one", json.dumps(message))
    await client.rpush("dramatiq:default.DQ", "four")
    await client.zadd("dramatiq:default.XQ", {"five": now_ms})
    await client.zadd("dramatiq:__heartbeats__", {"w1": now_ms, "w2": now_ms})
    await client.sadd("dramatiq:__acks__.w1.default", "six", "seven")
    await client.sadd("dramatiq:__acks__.w2.default", "eight")
    await client.sadd("dramatiq:__acks__.w2.default.DQ", "nine", "ten")  # in its memory
    await client.sadd("dramatiq:__acks__.w2.other", "eleven")
    state = await Dramatiq(client).sample()
    assert (state.ready, state.in_flight, state.scheduled, state.dead) == (3, 3, 3, 1)
    assert state.oldest_age == pytest.approx(60, abs=ABOUT)


async def test_dramatiqs_delayed_message_waits_since_it_was_due(client: Any) -> None:
    """The age begins with the message's ETA, not with its making."""
    now_ms = int(time.time() * 1000)
    message = {"options": {"eta": now_ms - 20_000}, "message_timestamp": now_ms - 600_000}
    await client.rpush("dramatiq:default", "one")
    await client.hset("dramatiq:default.msgs", "one", json.dumps(message))
    assert (await Dramatiq(client).sample()).oldest_age == pytest.approx(20, abs=ABOUT)
    await client.hset("dramatiq:default.msgs", "one", b"\x80\x05pickled")
    assert (await Dramatiq(client).sample()).oldest_age is None


async def test_dramatiq_with_very_many_workers(client: Any) -> None:
    """Past the cap what they hold is unknown; nothing is asked a thousand times."""
    await client.zadd("dramatiq:__heartbeats__", {f"w{n}": n for n in range(301)})
    assert await counts(Dramatiq(client)) == (0, None, None)
    await client.zrem("dramatiq:__heartbeats__", "w0")
    assert await counts(Dramatiq(client)) == (0, 0, 0)


async def test_bullmq(client: Any) -> None:
    """BullMQ 3.4 for Python (5 for Node.js): lists and sorted sets by state, jobs as hashes."""
    now_ms = int(time.time() * 1000)
    await client.lpush("bull:q:wait", "1", "2", "3")  # taken from the right
    job = {"timestamp": now_ms - 60_000, "opts": '{"attempts":1,"delay":0}'}
    await client.hset("bull:q:1", mapping=job)
    await client.lpush("bull:q:active", "4", "5")
    # The score is the time in ms, 12 bits to the left, and a part of a counter.
    await client.zadd("bull:q:delayed", {"6": (now_ms + 600_000) * 4096 + 3})
    await client.zadd("bull:q:failed", {"7": now_ms})
    await client.zadd("bull:q:completed", {"8": now_ms, "9": now_ms})
    state = await BullMQ(client, "q").sample()
    assert (state.ready, state.in_flight, state.scheduled) == (3, 2, 1)
    assert (state.dead, state.retained) == (1, 9)
    assert state.oldest_age == pytest.approx(60, abs=ABOUT)


async def test_bullmqs_other_ways_to_wait(client: Any) -> None:
    """Prioritized jobs, those of a paused queue and overdue ones are ready; their age is unknown."""
    now_ms = int(time.time() * 1000)
    await client.lpush("bull:q:paused", "1")
    await client.zadd("bull:q:prioritized", {"2": 5 * 2**32})
    await client.zadd("bull:q:delayed", {"3": (now_ms - 5_000) * 4096})
    state = await BullMQ(client, "q").sample()
    assert (state.ready, state.scheduled, state.oldest_age) == (3, 0, None)


@pytest.mark.parametrize(
    ("job", "age"),
    [({"opts": '{"delay":40000}'}, 20), ({"opts": "{}", "atm": "1"}, None), ({}, 60)],
)
async def test_bullmqs_age_is_since_a_job_became_due(
    client: Any, job: dict[str, str], age: float | None
) -> None:
    """A delay counts from its end; since when a retry waits nobody knows."""
    await client.lpush("bull:q:wait", "1")
    added = int(time.time() * 1000) - 60_000
    await client.hset("bull:q:1", mapping={"timestamp": added, **job})
    found = (await BullMQ(client, "q").sample()).oldest_age
    assert found == (None if age is None else pytest.approx(age, abs=ABOUT))


async def test_saq(client: Any) -> None:
    """SAQ 0.26: lists, one sorted set of all that is unfinished, workers by the end of their time."""
    now = time.time()
    jobs = {f"saq:job:mails:{n}": 0 for n in range(4)}
    await client.zadd("saq:mails:incomplete", {**jobs, "saq:job:mails:later": now + 600})
    await client.rpush("saq:mails:queued", *list(jobs)[:3])
    await client.rpush("saq:mails:active", list(jobs)[3])
    job = {"queue": "mails", "queued": int(now * 1000) - 60_000, "scheduled": 0}
    await client.set("saq:job:mails:0", json.dumps(job))
    workers = {"saq:mails:worker_info:a": now * 1000 + 60_000, "gone": now * 1000 - 60_000}
    await client.zadd("saq:mails:stats", workers)
    state = await SAQ(client, "mails").sample()
    assert (state.ready, state.in_flight, state.scheduled, state.consumers) == (3, 1, 1, 1)
    assert state.oldest_age == pytest.approx(60, abs=ABOUT)
    # One that is due counts although no worker lives to move it.
    await client.zadd("saq:mails:incomplete", {"saq:job:mails:due": now - 5})
    assert await counts(SAQ(client, "mails")) == (4, 1, 1)


async def test_streaq(client: Any) -> None:
    """Streaq 7.2: a stream and a sorted set for each priority; done entries are deleted."""
    now_ms = int(time.time() * 1000)
    for priority, tasks in (("high", 2), ("low", 4)):
        stream = f"streaq:default:queues:{priority}"
        await client.xgroup_create(stream, "workers", id="0", mkstream=True)
        for number in range(tasks):
            await client.xadd(stream, {"task_id": number, "enqueue_time": now_ms})
    read = await client.xreadgroup("workers", "w", {"streaq:default:queues:low": ">"}, count=2)
    done = (read[0] if isinstance(read, list) else next(iter(read.items())))[1]
    first = (done[0] if isinstance(done[0], list) else done)[0][0]
    await client.xack("streaq:default:queues:low", "workers", first)
    await client.xdel("streaq:default:queues:low", first)
    await client.zadd("streaq:default:queues:delayed:low", {"later": now_ms + 600_000})
    assert await counts(Streaq(client, priorities=("high", "low"))) == (4, 1, 1)
    with pytest.raises(ConfigError, match=r"priorities: 'high' given; expected a tuple"):
        Streaq(client, priorities="high")  # type: ignore[arg-type]


async def test_docket(client: Any) -> None:
    """Pydocket 0.27: a stream of what is due and a sorted set, in seconds, of what is not."""
    await client.xgroup_create("shop:stream", "docket-workers", id="0-0", mkstream=True)
    for number in range(3):
        await client.xadd("shop:stream", {"key": number})
    await client.xreadgroup("docket-workers", "w", {"shop:stream": ">"}, count=1)
    now = time.time()
    await client.zadd("shop:queue", {"due": now - 30, "later": now + 600})
    state = await Docket(client, "shop").sample()
    assert (state.ready, state.in_flight, state.scheduled) == (3, 1, 1)
    assert state.oldest_age == pytest.approx(30, abs=ABOUT)


async def test_taskiq(client: Any) -> None:
    """taskiq-redis 1.2: one stream with the group `taskiq`, or a list pushed from the left."""
    await client.xgroup_create("taskiq", "taskiq", id="$", mkstream=True)
    for number in range(3):
        await client.xadd("taskiq", {"data": number})
    await client.xreadgroup("taskiq", "uuid", {"taskiq": ">"}, count=1)
    assert await counts(TaskiqStream(client)) == (2, 1, None)
    await client.lpush("tasks", "{}", "{}")
    assert await TaskiqList(client, "tasks").sample() == QueueState(ready=2)


def test_each_engine_says_its_name() -> None:
    """`queue_info` tells what a queue is by the engine, not only by the store."""
    backends = [each.backend for each in (*CLASSES, BullMQ)]
    assert backends == [
        *("arq", "rq", "celery", "dramatiq", "saq", "streaq", "docket", "taskiq", "taskiq"),
        "bullmq",
    ]
