"""One contract for the engines of job queues, each on its real broker."""

import asyncio
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from processes import DEADLINE, Process, poll, until
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from aiosvc import JobQueue, NotEnqueuedError, Observer, Settings
from aiosvc.jobs.job import Job
from aiosvc.jobs.message import Message

from .engines import BROKERS, Engine


def engine_of(kind: str, request: pytest.FixtureRequest) -> Engine:
    """Return an engine with a queue of its own on the session's broker."""
    if kind == "memory":
        return Engine(kind, "memory://")
    fixture = {"redis": "redis_server", "nats": "nats_server", "rabbitmq": "rabbit"}[kind]
    server: Any = request.getfixturevalue(fixture)
    return Engine(kind, server.url() if kind == "rabbitmq" else server.url)


@pytest.fixture(params=BROKERS)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Return each engine that has a broker."""
    return engine_of(request.param, request)


@pytest.fixture(params=["memory", *BROKERS])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    """Return each engine."""
    return engine_of(request.param, request)


@pytest.fixture
def redis_engine(request: pytest.FixtureRequest) -> Engine:
    """Return the engine on Redis."""
    return engine_of("redis", request)


@pytest.fixture
def nats_engine(request: pytest.FixtureRequest) -> Engine:
    """Return the engine on NATS."""
    return engine_of("nats", request)


class Shop:
    """One process's view of the queue: what it ran, and when it may go on."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self.queue = JobQueue(engine.url, name=engine.name, **{"backoff": 0.001, **options})
        self.ran: list[Any] = []
        self.go = asyncio.Event()
        self.go.set()
        self.send = self.queue.job(name="send")(self._send)
        self.fail = self.queue.job(name="fail")(self._fail)

    async def _send(self, order: Any, *, to: str = "ada") -> None:
        self.ran.append((order, to))
        await self.go.wait()

    async def _fail(self, order: Any) -> None:
        self.ran.append(order)
        raise OSError("busy")


@asynccontextmanager
async def observed(queue: JobQueue) -> AsyncIterator[Observer]:
    """Run an observer that watches a job queue."""
    observer = Observer(CollectorRegistry(), Settings())
    observer.watch_queue(queue, interval=0.1)
    await observer.start()
    try:
        yield observer
    finally:
        await observer.stop()


def said(observer: Observer, metric: str, queue: JobQueue, **labels: str) -> float | None:
    """Return the queue's value of *metric* in a scrape now."""
    return observer.registry.get_sample_value(metric, {"queue_name": queue.name, **labels})


async def test_jobs_are_run_with_their_arguments(any_engine: Engine) -> None:
    """Each job is run once, as it was enqueued, and then nothing is left at the broker."""
    shop = Shop(any_engine)
    async with shop.queue, observed(shop.queue) as observer:
        for order in range(20):
            await shop.send.enqueue({"id": order, "item": "Käse"}, to="bob")
        await until(lambda: len(shop.ran) == 20, "20 jobs")
        if any_engine.kind != "memory":
            await poll(any_engine.left, lambda left: left == 0, "an empty broker")
        assert said(observer, "queue_items_enqueued_total", shop.queue) == 20
        assert said(observer, "queue_wait_seconds_count", shop.queue) == 20
        done = {"job": "send", "outcome": "ok"}
        await until(
            lambda: said(observer, "queue_items_completed_total", shop.queue, **done) == 20,
            "20 counted",
        )
    assert sorted(order["id"] for order, _ in shop.ran) == list(range(20))
    assert {order["item"] for order, _ in shop.ran} == {"Käse"}
    assert {to for _, to in shop.ran} == {"bob"}


async def test_a_cancellation_is_never_lost(any_engine: Engine) -> None:
    """Whoever is cancelled while enqueueing ends, wherever in a broker's client that comes."""
    queue = JobQueue(any_engine.url, name=any_engine.name)

    @queue.job
    async def send(order: int) -> None:
        """Do nothing."""

    async def order() -> None:
        while True:
            await send.enqueue(1)
            await asyncio.sleep(0)

    await queue.start(workers=False)
    for steps in range(100):
        task = asyncio.create_task(order())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)
        assert task.cancelled(), f"after {steps} steps: {task}"
    await queue.stop()


async def test_a_job_begins_soon(engine: Engine) -> None:
    """A worker with much room does not wait for a second job before it begins the first."""
    shop = Shop(engine, concurrency=10)
    loop = asyncio.get_running_loop()
    took = []
    async with shop.queue:
        for number in range(5):
            begun = loop.time()
            await shop.send.enqueue(number)
            while len(shop.ran) <= number:  # noqa: ASYNC110 - the time is what is measured
                await asyncio.sleep(0.001)
            took.append(loop.time() - begun)
    # A pull that waits for a batch takes a second each time.
    assert min(took) < 0.5


async def test_one_that_fails_is_put_aside(engine: Engine) -> None:
    """It is tried as often as said, and then readable in the broker and counted as dead."""
    shop = Shop(engine, attempts=3)
    async with shop.queue, observed(shop.queue) as observer:
        await shop.fail.enqueue(7)
        await until(lambda: said(observer, "queue_dead", shop.queue) == 1, "a dead letter")
        assert shop.ran == [7, 7, 7]
        [letter] = await engine.letters()
        assert letter.reason == "OSError: busy"
        assert Message.decode(letter.data).args == [7]
        assert await engine.left() == 0
        completed = "queue_items_completed_total"
        assert said(observer, completed, shop.queue, job="fail", outcome="retry") == 2
        assert said(observer, completed, shop.queue, job="fail", outcome="dead") == 1


class MuteError(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


async def test_whatever_an_error_says(engine: Engine) -> None:
    """A job is settled however long its error is, and whether or not that is a text at all."""
    shop = Shop(engine)
    errors = [ValueError("\udcff\0\r\n"), ValueError("x" * 5_000_000), MuteError()]

    @shop.queue.job
    async def say(number: int) -> None:
        shop.ran.append(number)
        raise errors[number]

    async with shop.queue:
        for number in range(len(errors)):
            await say.enqueue(number)
        letters = await poll(engine.letters, lambda found: len(found) == 3, "three dead letters")
        await poll(engine.left, lambda left: left == 0, "an empty broker")
    assert sorted(shop.ran) == [0, 1, 2]
    reasons = sorted(letter.reason.strip() for letter in letters)
    assert (reasons[0], reasons[1]) == ("MuteError", "ValueError:")
    assert reasons[2].startswith("ValueError: xxx")


async def test_one_that_takes_too_long_is_put_aside(engine: Engine) -> None:
    """The limit of an attempt holds on a broker too."""
    shop = Shop(engine, attempts=2, timeout=0.05)
    shop.go.clear()
    async with shop.queue:
        await shop.send.enqueue(1)
        [letter] = await poll(engine.letters, bool, "a dead letter")
    assert letter.reason.startswith("TimeoutError")
    assert len(shop.ran) == 2


async def test_what_nobody_can_run_is_put_aside(engine: Engine) -> None:
    """Garbage, and a job that this worker does not know, go to the dead letters as they came."""
    newer, older = Shop(engine), Shop(engine)
    later = newer.queue.job(name="later")(newer._send)
    await newer.queue.start(workers=False)
    await later.enqueue(1)
    await engine.put(b"\xffgarbage")
    async with older.queue:
        letters = await poll(engine.letters, lambda found: len(found) == 2, "two dead letters")
        await older.send.enqueue("still works")
        await until(lambda: bool(older.ran), "a job after them")
    await newer.queue.stop()
    assert sorted(letter.reason.split(":")[0] for letter in letters) == [
        "no job is named 'later'",
        "not a job's message",
    ]
    assert b"\xffgarbage" in {letter.data for letter in letters}


async def test_a_stop_gives_back_what_does_not_end(engine: Engine) -> None:
    """A job that outlives the drain is soon run by another worker."""
    stopped, other = (Shop(engine, drain=0.05, visibility=600.0) for _ in range(2))
    stopped.go.clear()
    await stopped.queue.start()
    await stopped.send.enqueue("kept")
    await until(lambda: bool(stopped.ran), "the job's begin")
    async with other.queue:
        assert await stopped.queue.stop() == 1
        await until(lambda: bool(other.ran), "the job's run by another")
        await poll(engine.left, lambda left: left == 0, "an empty broker")
    assert other.ran == [("kept", "ada")]


async def test_a_long_job_is_kept(engine: Engine) -> None:
    """A job that takes several times the visibility is run once, though another worker waits."""
    shop, other = (Shop(engine, visibility=1.5) for _ in range(2))
    shop.go.clear()
    other.go.clear()
    async with shop.queue, other.queue:
        await shop.send.enqueue("long")
        await asyncio.sleep(4.0)
        assert len(shop.ran) + len(other.ran) == 1
        shop.go.set()
        other.go.set()
        await poll(engine.left, lambda left: left == 0, "an empty broker")
    assert len(shop.ran) + len(other.ran) == 1


async def test_what_a_dead_worker_held_is_run(engine: Engine) -> None:
    """A worker that is gone without a word is replaced after the visibility."""
    dead, other = (Shop(engine, visibility=0.5) for _ in range(2))
    dead.go.clear()
    await dead.queue.start()
    for number in range(3):
        await dead.send.enqueue(number)
    await until(lambda: len(dead.ran) == 3, "three jobs in hand")
    # As a kill would: nobody keeps, settles or says anything any more.
    running: Any = dead.queue._engine
    for task in running._tasks:
        task.cancel()
    if engine.kind == "rabbitmq":
        await running.backend._broker.read_conn.close()
    async with other.queue:
        await until(lambda: len(other.ran) == 3, "the jobs' run by another")
        await poll(engine.left, lambda left: left == 0, "an empty broker")
    for task in running._running:
        task.cancel()
    await dead.queue.stop()


KILLER = """
import os, signal
import aiosvc

queue = aiosvc.JobQueue({url!r}, name={name!r}, visibility=0.5)

@queue.job
async def send(order, *, to):
    if os.environ["DEATH"] == "exit":
        os._exit(3)
    if os.environ["DEATH"] == "raise":
        raise SystemExit(3)
    os.kill(os.getpid(), signal.SIGSEGV)
"""


async def test_one_that_kills_its_workers_is_put_aside(engine: Engine, tmp_path: Path) -> None:
    """A job that no process survives is not handed out for ever, and is not lost either."""
    (tmp_path / "killer.py").write_text(KILLER.format(url=engine.url, name=engine.name))
    shop = Shop(engine, deliveries=3, visibility=0.5)
    await shop.queue.start(workers=False)
    await shop.send.enqueue(1, to="ada")
    await shop.queue.stop()
    command = [sys.executable, "-m", "aiosvc", "worker", "killer:queue"]
    for death in ("exit", "raise", "fault"):
        async with Process(command, tmp_path, {"DEATH": death}) as worker:
            assert await worker.ended() == (-signal.SIGSEGV if death == "fault" else 3)
    async with shop.queue, observed(shop.queue) as observer:
        await until(lambda: said(observer, "queue_dead", shop.queue) == 1, "a dead letter")
        completed = "queue_items_completed_total"
        assert said(observer, completed, shop.queue, job="send", outcome="dead") == 1
        assert await engine.left() == 0
    [letter] = await engine.letters()
    assert Message.decode(letter.data).args == [1]
    [times] = re.findall(r"^send was handed out (\d+) times and never ended", letter.reason)
    assert int(times) >= 3  # a worker that dies slowly may be handed it twice
    assert not shop.ran


async def test_the_scrape_says_what_is_where(engine: Engine) -> None:
    """Waiting, in hand and dead are exact at every stage, and said to be shared."""
    shop, elsewhere = Shop(engine, concurrency=2, attempts=1), Shop(engine)
    shop.go.clear()
    await elsewhere.queue.start(workers=False)
    counts_hands = engine.kind != "rabbitmq"  # AMQP does not say it

    async with observed(elsewhere.queue) as observer:

        async def says(depth: int, in_flight: int, dead: int) -> None:
            def state() -> tuple[float | None, ...]:
                names = ("queue_depth", "queue_in_flight", "queue_dead")
                return tuple(said(observer, name, elsewhere.queue) for name in names)

            wanted = (depth, in_flight if counts_hands else None, dead)
            await until(lambda: state() == wanted, f"{wanted}")

        await says(0, 0, 0)
        for number in range(5):
            await elsewhere.send.enqueue(number)
        await says(5, 0, 0)
        async with shop.queue:
            await says(3, 2, 0)
            shop.go.set()
            await says(0, 0, 0)
            await elsewhere.fail.enqueue(1)
            await says(0, 0, 1)
        info = {"backend": engine.kind, "scope": "shared"}
        assert said(observer, "queue_info", elsewhere.queue, **info) == 1
    await elsewhere.queue.stop()


async def test_jobs_of_many_workers_are_run_once(engine: Engine) -> None:
    """Three workers share the jobs among them, and none is run by two."""
    shops = [Shop(engine, concurrency=3) for _ in range(3)]
    for shop in shops:
        await shop.queue.start()
    for number in range(90):
        await shops[number % 3].send.enqueue(number)
    await until(lambda: sum(len(shop.ran) for shop in shops) >= 90, "90 jobs")
    await poll(engine.left, lambda left: left == 0, "an empty broker")
    for shop in shops:
        await shop.queue.stop()
    runs = Counter(order for shop in shops for order, _ in shop.ran)
    assert runs == dict.fromkeys(range(90), 1)


async def test_watching_leaves_nothing_behind(request: pytest.FixtureRequest) -> None:
    """However often RabbitMQ is sampled, the connection has the same channels."""
    shop = Shop(engine_of("rabbitmq", request))
    async with shop.queue:
        await shop.queue.sample()
        backend: Any = shop.queue._engine
        channels = backend.backend._broker.write_conn.transport.connection.channels
        before = len(channels)
        for _ in range(5):
            await shop.queue.sample()
        assert len(channels) == before


async def test_a_worker_that_stops_leaves_the_group(redis_engine: Engine) -> None:
    """A stopped worker's consumer is gone, and a dead one's goes when others have its jobs."""
    stopped = Shop(redis_engine)
    async with stopped.queue:
        await stopped.send.enqueue(1)
        await until(lambda: bool(stopped.ran), "its run")
    async with Redis.from_url(redis_engine.url) as client:
        assert await client.xinfo_consumers(redis_engine.name, "aiosvc") == []
        await client.xadd(redis_engine.name, {"data": Message.of("send", (2,), {}).encode()})
        await client.xreadgroup("aiosvc", "dead", {redis_engine.name: ">"})
        other = Shop(redis_engine, visibility=0.3)
        async with other.queue:

            async def names() -> set[bytes]:
                found = await client.xinfo_consumers(redis_engine.name, "aiosvc")
                return {each["name"] for each in found}

            await poll(names, lambda found: b"dead" not in found, "the dead consumer's end")
            assert len(await names()) == 1
        assert other.ran == [(2, "ada")]


async def test_orphans_behind_long_jobs_are_found(redis_engine: Engine) -> None:
    """What a dead worker held is found behind however many jobs that others are working on."""
    busy = Shop(redis_engine, concurrency=40, visibility=2.0)
    busy.go.clear()
    async with busy.queue:
        for number in range(40):
            await busy.send.enqueue(number)
        await until(lambda: len(busy.ran) == 40, "40 jobs in hand")
        async with Redis.from_url(redis_engine.url) as client:
            orphan = Message.of("send", ("orphan",), {}).encode()
            await client.xadd(redis_engine.name, {"data": orphan})
            await client.xreadgroup("aiosvc", "dead", {redis_engine.name: ">"})
        other = Shop(redis_engine, concurrency=1, visibility=2.0)
        async with other.queue:
            await until(lambda: other.ran == [("orphan", "ada")], "the orphan's run")
        busy.go.set()
        await poll(redis_engine.left, lambda left: left == 0, "an empty broker")
    assert len(busy.ran) == 40


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1:1/0", "nats://127.0.0.1:1", "amqp://127.0.0.1:1/"],
)
async def test_a_broker_that_is_not_there(url: str) -> None:
    """A start without the broker fails in time, and says which queue and why."""
    queue = JobQueue(url, name="email", send_timeout=0.5)
    async with asyncio.timeout(20):
        with pytest.raises(NotEnqueuedError, match=r"queue email: .* can't be reached"):
            await queue.start()
    assert await queue.stop() == 0


async def test_a_job_that_nats_would_not_take(nats_engine: Engine) -> None:
    """A message too long for the server is refused before it ends the connection of all others."""
    shop = Shop(nats_engine)
    async with shop.queue:
        for size in (1 << 21, (1 << 20) - 200):
            with pytest.raises(NotEnqueuedError, match="bytes; this server takes 1047552"):
                await shop.send.enqueue("x" * size)
        await shop.send.enqueue("short")
        await until(lambda: bool(shop.ran), "the job after them")


async def test_a_connection_that_nats_has_closed_for_good(nats_engine: Engine) -> None:
    """A server that ends a connection with an error is connected to anew, to send and to work."""
    shop = Shop(nats_engine, visibility=1.0)
    async with shop.queue, observed(shop.queue) as observer:
        await shop.send.enqueue("before")
        await until(lambda: len(shop.ran) == 1, "a job before")
        client = shop.queue._source.broker.client  # type: ignore[union-attr]
        await client._send_command(b"NONSENSE\r\n")
        await client._flush_pending()
        await until(lambda: bool(client.is_closed), "the end of the connection")
        await shop.send.enqueue("after")
        await until(lambda: len(shop.ran) == 2, "a job after")
        await until(lambda: said(observer, "queue_depth", shop.queue) == 0, "a sample after")


def test_on_one_event_loop_after_the_other(any_engine: Engine) -> None:
    """A queue that was stopped runs on another event loop, with retries and no room, as on its first."""
    shop = Shop(any_engine, concurrency=1, attempts=2)

    async def use(number: int) -> None:
        async with shop.queue:
            for _ in range(3):
                await shop.fail.enqueue(number)
            await until(lambda: shop.ran.count(number) == 6, "6 attempts")

    for number in range(3):
        asyncio.run(use(number))


async def test_a_second_start(any_engine: Engine) -> None:
    """It adds workers where there are none, and never more of them than were asked for."""
    shop = Shop(any_engine, concurrency=1)
    shop.go.clear()
    await shop.queue.start(workers=False)
    for order in range(3):
        await shop.send.enqueue(order)
    for workers in (True, True, False):
        await shop.queue.start(workers=workers)
    await until(lambda: bool(shop.ran), "the first job")
    await asyncio.sleep(0.05)
    assert len(shop.ran) == 1
    shop.go.set()
    await until(lambda: len(shop.ran) == 3, "all jobs")
    assert await shop.queue.stop() == 0
    assert sorted(order for order, _ in shop.ran) == [0, 1, 2]


@pytest.mark.parametrize("workers", [True, False])
async def test_a_broker_that_has_forgotten_the_queue(engine: Engine, *, workers: bool) -> None:
    """A queue that is gone is made again, by who works on it and by who only sends; nobody restarts."""
    shop = Shop(engine, visibility=0.5)

    async def enqueued(job: Job[[str]]) -> bool:
        try:
            await job.enqueue("after")
        except NotEnqueuedError:
            return False
        return True

    await shop.queue.start(workers=workers)
    try:
        await shop.send.enqueue("before")
        await until(lambda: len(shop.ran) == workers, "the job before")
        await engine.delete()
        await asyncio.sleep(1.5 if workers else 0)  # it looks for what was left by others meanwhile
        await poll(lambda: enqueued(shop.send), bool, "a job taken in")
        await poll(lambda: enqueued(shop.fail), bool, "a second one")
        await shop.queue.start(workers=True)
        await until(lambda: len(shop.ran) >= 2 + workers, "the jobs after")
        await poll(engine.letters, bool, "a dead letter")
    finally:
        await shop.queue.stop()


async def test_workers_whose_queue_was_deleted(engine: Engine) -> None:
    """Those that only work make the queue again, or find the one that a sender has made."""
    worker, sender = Shop(engine, visibility=0.5), Shop(engine)
    await sender.queue.start(workers=False)
    try:
        async with worker.queue:
            await sender.send.enqueue("before")
            await until(lambda: len(worker.ran) == 1, "the job before")
            await engine.delete()

            async def taken_in() -> bool:
                try:
                    await sender.send.enqueue("after")
                except NotEnqueuedError:
                    return False
                return True

            await poll(taken_in, bool, "a job taken in")
            await until(lambda: len(worker.ran) == 2, "the job after")
    finally:
        await sender.queue.stop()
