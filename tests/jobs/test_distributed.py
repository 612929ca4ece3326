"""Running a broker's jobs, with a broker that forgets nothing and fails when told to."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiosvc import catalogue
from aiosvc.brokers import QueueState
from aiosvc.jobs.distributed import Distributed
from aiosvc.jobs.job import Job
from aiosvc.jobs.ledger import Ledger
from aiosvc.jobs.message import Message
from aiosvc.queues.options import PoolOptions
from aiosvc.readings import Readings


class Held:
    """One message in hand."""

    def __init__(self, broker: "Broker", data: bytes) -> None:
        broker.handed_out[data] += 1
        self.data = data
        self.number = broker.handed_out[data]
        self.broker = broker

    async def done(self) -> None:
        """Forget it."""
        self.broker.fail_if_told()
        self.broker.held.remove(self)
        self.broker.done.append(self.data)

    async def dead(self, reason: str) -> None:
        """Put it aside."""
        self.broker.fail_if_told()
        self.broker.held.remove(self)
        self.broker.dead.append((self.data, reason))

    async def keep(self) -> None:
        """Note it."""
        await self.broker.keeper(self)

    async def give_back(self) -> None:
        """Put it where it came from."""
        self.broker.held.remove(self)
        self.broker.waiting.append(self.data)


class Broker:
    """A queue of bytes that is in one of four places: waiting, held, done or dead."""

    name = "fake"

    def __init__(self) -> None:
        self.keep_every: float | None = None
        self.waiting: list[bytes] = []
        self.handed_out: Counter[bytes] = Counter()
        self.held: list[Held] = []
        self.done: list[bytes] = []
        self.dead: list[tuple[bytes, str]] = []
        self.kept: list[bytes] = []
        self.keeper: Callable[[Held], Awaitable[None]] = self.note
        self.failing = 0
        self.most_held = 0
        self.running = False

    async def note(self, held: Held) -> None:
        """Have a message count as kept."""
        self.kept.append(held.data)

    def fail_if_told(self) -> None:
        """Fail as often as was said."""
        if self.failing:
            self.failing -= 1
            raise ConnectionError("the broker is down")

    async def start(self, *, worker: bool) -> None:
        """Be there."""
        self.running = worker

    async def stop(self) -> None:
        """Have everything that was held handed out again."""
        self.running = False

    async def send(self, message: Message, data: bytes) -> None:
        """Take it in."""
        self.fail_if_told()
        assert data == message.encode()
        self.waiting.append(data)

    async def take(self, room: int) -> Sequence[Held]:
        """Hand out what there is room for."""
        assert room > 0
        self.fail_if_told()
        await asyncio.sleep(0.001)
        taken = [Held(self, data) for data in self.waiting[:room]]
        del self.waiting[:room]
        self.held += taken
        self.most_held = max(self.most_held, len(self.held))
        return taken

    async def sample(self) -> QueueState:
        """Say how many wait."""
        return QueueState(ready=len(self.waiting), in_flight=len(self.held))


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds; fail after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0.001)


class Shop:
    """One job that does what it is told, on a queue with a fake broker."""

    def __init__(
        self, act: Callable[..., Awaitable[object]], *, deliveries: int = 100, **options: Any
    ) -> None:
        self.broker = Broker()
        self.ledger = Ledger("email", local=False)
        jobs: dict[str, Job[Any]] = {}
        chosen = PoolOptions(**{"attempts": 3, "backoff": 0.001, "concurrency": 3, **options})
        self.engine = Distributed(self.broker, jobs, self.ledger, chosen, deliveries)
        jobs["send"] = Job(act, "send", self)
        self.ledger.tracker.expect(("send",))

    async def enqueue(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Put a job in."""
        message = Message.of(name, args, kwargs)
        await self.engine.put(message, message.encode())

    def outcomes(self) -> dict[str, int]:
        """Return the attempts by outcome, those that there were."""
        readings = Readings()
        self.ledger.report(readings)
        found: Counter[str] = Counter()
        for (_, _, outcome), count in readings.numbers[catalogue.QUEUE_COMPLETED].items():
            found[outcome] += int(count)
        return dict(+found)


async def test_jobs_are_run_and_settled() -> None:
    """What was sent is run with its arguments, and then forgotten by the broker."""
    ran = []

    async def send(order: int, *, to: str) -> None:
        ran.append((order, to))

    shop = Shop(send)
    await shop.engine.start(workers=True)
    for order in range(10):
        await shop.enqueue("send", order, to="ada")
    await until(lambda: len(shop.broker.done) == 10)
    assert sorted(ran) == [(order, "ada") for order in range(10)]
    assert await shop.engine.stop() == 0
    assert shop.outcomes() == {"ok": 10}


async def test_no_more_is_taken_than_there_is_room_for() -> None:
    """What waits stays in the broker, where it can be counted."""
    go = asyncio.Event()

    async def send() -> None:
        await go.wait()

    shop = Shop(send, concurrency=3)
    for _ in range(10):
        await shop.enqueue("send")
    await shop.engine.start(workers=True)
    await until(lambda: len(shop.broker.held) == 3)
    await asyncio.sleep(0.02)
    assert len(shop.broker.waiting) == 7
    go.set()
    await until(lambda: len(shop.broker.done) == 10)
    assert shop.broker.most_held == 3
    await shop.engine.stop()


async def test_one_that_fails_is_tried_again_and_then_put_aside() -> None:
    """Attempts, each counted; the broker has it until the last, and then the dead letters have."""
    seen = []

    async def send() -> None:
        seen.append(len(shop.broker.held))
        raise OSError("busy")

    shop = Shop(send, attempts=3)
    await shop.engine.start(workers=True)
    await shop.enqueue("send")
    await until(lambda: shop.broker.dead)
    assert seen == [1, 1, 1]
    assert shop.broker.dead[0][1] == "OSError: busy"
    assert shop.outcomes() == {"retry": 2, "dead": 1}
    await shop.engine.stop()


async def test_what_is_not_to_be_repeated() -> None:
    """An exception that is not among those to retry on puts the job aside at once."""

    async def send() -> None:
        raise ValueError("wrong address")

    shop = Shop(send, retry_on=OSError)
    await shop.engine.start(workers=True)
    await shop.enqueue("send")
    await until(lambda: shop.broker.dead)
    assert shop.outcomes() == {"dead": 1}
    await shop.engine.stop()


async def test_one_that_cancels_itself() -> None:
    """A job that raises CancelledError though nobody cancelled it has failed, and is not hot."""

    async def send() -> None:
        raise asyncio.CancelledError

    shop = Shop(send, attempts=2)
    await shop.engine.start(workers=True)
    await shop.enqueue("send")
    await until(lambda: shop.broker.dead)
    assert shop.outcomes() == {"retry": 1, "dead": 1}
    await shop.engine.stop()


async def test_one_that_raises_what_is_no_exception() -> None:
    """A BaseException, as a group may be, is a failure that is not repeated."""

    async def send() -> None:
        raise BaseExceptionGroup("of a task group", [asyncio.CancelledError()])

    shop = Shop(send, attempts=2)
    await shop.engine.start(workers=True)
    await shop.enqueue("send")
    await until(lambda: shop.broker.dead)
    assert shop.outcomes() == {"dead": 1}
    await shop.engine.stop()


async def test_one_that_takes_too_long() -> None:
    """An attempt that is over its time is cancelled and tried again."""
    calls = []

    async def send() -> None:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(60)

    shop = Shop(send, timeout=0.02)
    await shop.engine.start(workers=True)
    await shop.enqueue("send")
    await until(lambda: shop.broker.done)
    assert shop.outcomes() == {"retry": 1, "ok": 1}
    await shop.engine.stop()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"garbage", "not a job's message"),
        (Message.of("unknown", (), {}).encode(), "no job is named 'unknown'"),
    ],
)
async def test_what_is_no_job_is_put_aside(data: bytes, reason: str) -> None:
    """What nobody can run is kept with the dead letters and counted, and not lost without a word."""

    async def send() -> None:
        """Do nothing."""

    shop = Shop(send)
    shop.broker.waiting.append(data)
    await shop.engine.start(workers=True)
    await until(lambda: shop.broker.dead)
    assert shop.broker.dead[0][0] == data
    assert shop.broker.dead[0][1].startswith(reason)
    assert shop.outcomes() == {"dead": 1}
    await shop.engine.stop()


async def test_one_that_was_handed_out_too_often() -> None:
    """What was never settled, so often, is not begun once more; the job's own outcome says so."""
    ran = []

    async def send(order: int) -> None:
        ran.append(order)

    shop = Shop(send, deliveries=3)
    for order in range(2):
        await shop.enqueue("send", order)
    shop.broker.handed_out.update({shop.broker.waiting[0]: 3, shop.broker.waiting[1]: 2})
    await shop.engine.start(workers=True)
    await until(lambda: shop.broker.dead and shop.broker.done)
    assert ran == [1]
    [(_, reason)] = shop.broker.dead
    assert reason == "send was handed out 3 times and never ended; did it kill its worker?"
    assert shop.outcomes() == {"ok": 1, "dead": 1}
    await shop.engine.stop()


@pytest.mark.parametrize("identity", ["the same", "", None])
async def test_ids_that_are_none(identity: str | None) -> None:
    """Messages that another sender gave one id, or none, are each run, also at the same time."""
    go = asyncio.Event()
    ran = []

    async def send(order: int) -> None:
        ran.append(order)
        await go.wait()

    shop = Shop(send, concurrency=3)
    for order in range(3):
        fields: dict[str, Any] = {
            "task_id": identity,
            "task_name": "send",
            "args": [order],
            "kwargs": {},
        }
        shop.broker.waiting.append(json.dumps(fields).encode())
    await shop.engine.start(workers=True)
    await until(lambda: len(ran) == 3)
    go.set()
    await until(lambda: len(shop.broker.done) == 3)
    assert sorted(ran) == [0, 1, 2]
    await shop.engine.stop()


async def test_a_stop_lets_jobs_end() -> None:
    """A job that ends in time is settled; nothing new is taken meanwhile."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def send() -> None:
        begun.set()
        await go.wait()

    shop = Shop(send, concurrency=1)
    await shop.enqueue("send")
    await shop.enqueue("send")
    await shop.engine.start(workers=True)
    await begun.wait()
    stopping = asyncio.create_task(shop.engine.stop())
    await asyncio.sleep(0.01)
    go.set()
    assert await stopping == 0
    assert len(shop.broker.done) == 1
    assert len(shop.broker.waiting) == 1


async def test_a_stop_gives_back_what_does_not_end() -> None:
    """A job that takes longer than the drain is cancelled, and handed out to another worker."""

    async def send() -> None:
        await asyncio.sleep(60)

    shop = Shop(send, drain=0.02)
    await shop.enqueue("send")
    await shop.engine.start(workers=True)
    await until(lambda: shop.broker.held)
    await asyncio.sleep(0.01)
    assert await shop.engine.stop() == 1
    assert not shop.broker.held
    assert len(shop.broker.waiting) == 1
    assert shop.outcomes() == {"cancelled": 1}


async def test_a_stop_gives_back_what_makes_an_error_of_its_cancellation() -> None:
    """A job that is cut short has not failed, whatever it raises then; another worker runs it."""

    async def send() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("interrupted") from None

    shop = Shop(send, drain=0.01, attempts=1)
    await shop.enqueue("send")
    await shop.engine.start(workers=True)
    await until(lambda: shop.broker.held)
    assert await shop.engine.stop() == 1
    assert (len(shop.broker.waiting), shop.broker.dead) == (1, [])
    assert shop.outcomes() == {"cancelled": 1}


async def test_a_stop_does_not_wait_for_a_retry() -> None:
    """A job that waits for its next attempt is given back at once."""

    async def send() -> None:
        raise OSError("busy")

    shop = Shop(send, backoff=60, backoff_max=60, drain=30, rng=Random(1))
    await shop.enqueue("send")
    await shop.engine.start(workers=True)
    await until(lambda: shop.outcomes() == {"retry": 1})
    async with asyncio.timeout(10):
        await shop.engine.stop()
    assert len(shop.broker.waiting) == 1


async def test_a_broker_that_goes_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """While the broker can't be asked it is asked again; one line says so, another that it is back."""
    caplog.set_level("INFO", logger="aiosvc.jobs")
    ran = []

    async def send() -> None:
        ran.append(1)

    shop = Shop(send)
    shop.broker.failing = 3
    await shop.engine.start(workers=True)
    await until(lambda: not shop.broker.failing)
    await shop.enqueue("send")
    await until(lambda: shop.broker.done)
    assert [record.getMessage() for record in caplog.records] == [
        "the fake broker can't be asked for jobs: ConnectionError: the broker is down",
        "the fake broker is back",
    ]
    await shop.engine.stop()


async def closed() -> Sequence[Held]:
    """Raise what a client does whose connection was closed under it."""
    raise ConnectionError("the connection is closed")


async def nothing() -> Sequence[Held]:
    """Return what a client does that has found nothing."""
    return []


@pytest.mark.parametrize("then", [closed, nothing])
async def test_a_library_that_keeps_a_cancellation_to_itself(
    then: Callable[[], Awaitable[Sequence[Held]]],
) -> None:
    """A worker that is cancelled while it asks for jobs ends, whatever its broker's client does."""

    async def send() -> None:
        """Do nothing."""

    shop = Shop(send)

    async def take(room: int) -> Sequence[Held]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return await then()
        return []

    shop.broker.take = take  # type: ignore[method-assign]
    await shop.engine.start(workers=True)
    await asyncio.sleep(0.01)
    worker = shop.engine._tasks[0]
    worker.cancel()
    await until(worker.done)
    await shop.engine.stop()


async def test_an_end_that_can_not_be_told_at_once_is_told_later() -> None:
    """Settling is tried again while the broker fails."""

    async def send() -> None:
        shop.broker.failing = 2

    shop = Shop(send, concurrency=1)
    await shop.enqueue("send")
    await shop.engine.start(workers=True)
    await until(lambda: shop.broker.done)
    assert shop.outcomes() == {"ok": 1}
    await shop.engine.stop()


async def test_what_is_in_hand_is_kept() -> None:
    """The broker is told regularly that a long job is still worked on."""
    go = asyncio.Event()

    async def send() -> None:
        await go.wait()

    shop = Shop(send)
    shop.broker.keep_every = 0.01
    await shop.enqueue("send")
    await shop.engine.start(workers=True)
    await until(lambda: len(shop.broker.kept) > 2)
    go.set()
    await until(lambda: shop.broker.done)
    await shop.engine.stop()


async def test_keeping_ends_though_a_library_drops_its_cancellation() -> None:
    """A worker that stops does not go on keeping jobs, whatever its broker's client makes of it."""

    async def keep(held: Held) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            shop.broker.kept.append(held.data)

    async def send() -> None:
        await asyncio.sleep(60)

    shop = Shop(send, drain=0.01)
    shop.broker.keep_every = 0.01
    shop.broker.keeper = keep
    await shop.enqueue("send")
    await shop.engine.start(workers=True)
    await until(lambda: shop.broker.held)
    await asyncio.sleep(0.05)
    keeping = shop.engine._tasks[1]
    await shop.engine.stop()
    assert keeping.done()
    assert len(shop.broker.kept) == 1


@settings(max_examples=30, deadline=None)
@given(
    acts=st.lists(st.sampled_from(["ok", "fail", "hang", "cancel", "slow"]), max_size=12),
    stop_after=st.integers(0, 20),
    seed=st.integers(0, 1000),
)
async def test_nothing_is_ever_in_no_place(acts: list[str], stop_after: int, seed: int) -> None:
    """Whatever jobs do and whenever it stops: waiting, done and dead are all that was sent."""
    rng = Random(seed)

    async def send(act: str) -> None:
        if act == "slow":
            await asyncio.sleep(0.005)
        elif act == "hang":
            await asyncio.sleep(60)
        elif act == "cancel":
            raise asyncio.CancelledError
        elif act == "fail" and rng.random() < 0.7:
            raise OSError("busy")

    shop = Shop(send, drain=0.01, timeout=0.02, concurrency=2)
    for act in acts:
        await shop.enqueue("send", act)
    await shop.engine.start(workers=True)
    for _ in range(stop_after):
        await asyncio.sleep(0.001)
    await shop.engine.stop()
    broker = shop.broker
    assert not broker.held
    places = [*broker.waiting, *broker.done, *(data for data, _ in broker.dead)]
    assert len(places) == len(acts)
    assert len(set(places)) == len(acts)
