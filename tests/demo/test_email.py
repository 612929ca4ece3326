"""The e-mail workers: outcomes, retries, crashes, drain, and the estimate of the drain rate."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from aiosvc.config import Settings
from aiosvc.demo import email
from aiosvc.demo.email import Drained, DrainRate, Mailer, SendError, SimulatedTransport
from aiosvc.demo.orders import BusinessMetrics, Order, Status
from aiosvc.service import Observer

from .waiting import until

TEMPORARY = SendError("busy")
BUG = RuntimeError("bug")


class Script:
    """A transport that raises what `outcome(order)` returns, and waits while `closed`."""

    def __init__(self, outcome: Callable[[Order], Exception | None] = lambda _: None) -> None:
        self.outcome = outcome
        self.sending = 0
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, order: Order) -> None:
        """Do what the script says."""
        self.sending += 1
        try:
            await self.open.wait()
            if error := self.outcome(order):
                raise error
        finally:
            self.sending -= 1


class Shop:
    """A mailer with its queue, registry and orders."""

    def __init__(
        self, transport: email.Transport, *, workers: int, max_attempts: int, queue_size: int
    ) -> None:
        self.registry = CollectorRegistry()
        self.queue: asyncio.Queue[Order] = asyncio.Queue(maxsize=queue_size)
        self.orders: list[Order] = []
        self.mailer = Mailer(
            Observer(self.registry, Settings()),
            self.queue,
            transport,
            BusinessMetrics.of(self.registry),
            workers=workers,
            max_attempts=max_attempts,
            expected_seconds=0.05,
            rng=Random(1),
        )

    def order(self, count: int = 1) -> None:
        """Enqueue so many orders."""
        for _ in range(count):
            order = Order(len(self.orders) + 1, 1, "book", 1)
            self.mailer.enqueue(order)
            self.orders.append(order)

    def value(self, name: str) -> float:
        """Return a sample of the registry."""
        return self.registry.get_sample_value(name) or 0.0

    def statuses(self) -> list[str]:
        """Return the orders' statuses, in the order of their ids."""
        return [order.status.value for order in self.orders]


@asynccontextmanager
async def running(
    transport: email.Transport, *, workers: int = 2, max_attempts: int = 3, queue_size: int = 100
) -> AsyncIterator[Shop]:
    """Run a mailer's workers for as long as the block lasts."""
    shop = Shop(transport, workers=workers, max_attempts=max_attempts, queue_size=queue_size)
    shop.mailer.start()
    try:
        yield shop
    finally:
        await shop.mailer.stop()


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat failed attempts at once."""
    monkeypatch.setattr(email, "_BACKOFF", 0.0)


async def test_order_is_sent() -> None:
    """An order whose attempt succeeds is sent, once."""
    async with running(Script()) as shop:
        shop.order()
        await until(lambda: shop.mailer.pending == 0)
        assert shop.statuses() == ["sent"]
        assert shop.orders[0].attempts == 1
        assert shop.value("emails_sent_total") == 1
        assert shop.value("email_send_seconds_count") == 1


async def test_status_while_sending() -> None:
    """An order that a worker is busy with says so."""
    script = Script()
    script.open.clear()
    async with running(script, workers=1) as shop:
        shop.order(2)
        await until(lambda: script.sending == 1)
        assert shop.statuses() == ["sending", "accepted"]


async def test_failed_attempts_are_retried(no_backoff: None) -> None:
    """An order that fails twice and then succeeds is sent at the third attempt."""
    script = Script(lambda order: TEMPORARY if order.attempts < 3 else None)
    async with running(script) as shop:
        shop.order()
        await until(lambda: shop.mailer.pending == 0)
        assert shop.statuses() == ["sent"]
        assert shop.orders[0].attempts == 3
        assert shop.value("emails_retried_total") == 2
        assert shop.value("emails_failed_total") == 0
        assert shop.value("email_send_seconds_count") == 3


async def test_gives_up_after_max_attempts(no_backoff: None) -> None:
    """An order that fails at every attempt has failed after max_attempts."""
    async with running(Script(lambda _: TEMPORARY), max_attempts=2) as shop:
        shop.order()
        await until(lambda: shop.mailer.pending == 0)
        assert shop.statuses() == ["failed"]
        assert shop.orders[0].attempts == 2
        assert shop.value("emails_retried_total") == 1
        assert shop.value("emails_failed_total") == 1


async def test_waiting_retry_keeps_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one order waits for its next attempt, the only worker sends the next order."""
    monkeypatch.setattr(email, "_BACKOFF", 3600.0)
    script = Script(lambda order: TEMPORARY if order.id == 1 else None)
    async with running(script, workers=1) as shop:
        shop.order(2)
        await until(lambda: shop.mailer.pending == 1)
        assert shop.statuses() == ["accepted", "sent"]
        assert shop.queue.qsize() == 0


async def test_retry_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that is due while the queue is full is put back later, not lost."""
    monkeypatch.setattr(email, "_BACKOFF", 3600.0)
    script = Script(lambda order: TEMPORARY if (order.id, order.attempts) == (1, 1) else None)
    async with running(script, workers=1, queue_size=1) as shop:
        shop.order()
        await until(lambda: shop.value("emails_retried_total") == 1)
        script.open.clear()
        shop.order()
        await until(lambda: script.sending == 1)
        shop.order()  # fills the queue
        drain = asyncio.create_task(shop.mailer.drain(5))  # makes order 1 due
        for _ in range(10):
            await asyncio.sleep(0)
        assert shop.queue.full()
        script.open.set()
        assert await drain == Drained(processed=3, left=0)
        assert shop.statuses() == ["sent", "sent", "sent"]


async def test_crash_is_logged_and_the_worker_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception fails its order without a retry, is logged, and harms no other."""
    script = Script(lambda order: BUG if order.id == 1 else None)
    async with running(script, workers=1) as shop:
        shop.order(2)
        await until(lambda: shop.mailer.pending == 0)
        assert shop.statuses() == ["failed", "sent"]
        assert shop.orders[0].attempts == 1
    assert [record.getMessage() for record in caplog.records] == [
        "queue email: attempt 1 at send_confirmation failed, and is not repeated"
    ]
    assert caplog.records[0].exc_info is not None


async def test_full_queue_takes_nothing() -> None:
    """An order that the full queue refuses is not pending."""
    shop = Shop(Script(), workers=1, max_attempts=1, queue_size=1)
    shop.order()
    with pytest.raises(asyncio.QueueFull):
        shop.order()
    assert shop.mailer.pending == 1


async def test_drain_finishes_what_is_queued(caplog: pytest.LogCaptureFixture) -> None:
    """A drain with enough time leaves nothing and says how many orders it settled."""
    caplog.set_level(logging.INFO, "aiosvc.queues")
    async with running(Script()) as shop:
        shop.order(10)
        assert await shop.mailer.drain(5) == Drained(processed=10, left=0)
        assert set(shop.statuses()) == {"sent"}
    assert [record.getMessage() for record in caplog.records] == [
        "queue email drained: 10 processed, 0 left"
    ]


async def test_drain_counts_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """A drain that runs out of time counts what was queued and what was being sent as left."""
    script = Script()
    script.open.clear()
    async with running(script, workers=2) as shop:
        shop.order(5)
        assert await shop.mailer.drain(0.01) == Drained(processed=0, left=5)
        assert set(shop.statuses()) == {"accepted"}
        assert script.sending == 0
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == ("queue email drained: 0 processed, 5 left, dropped")


async def test_drain_cuts_backoff_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that is an hour away is made at once when draining."""
    monkeypatch.setattr(email, "_BACKOFF", 3600.0)
    script = Script(lambda order: TEMPORARY if order.attempts == 1 else None)
    async with running(script) as shop:
        shop.order(3)
        await until(lambda: shop.value("emails_retried_total") == 3)
        assert await shop.mailer.drain(5) == Drained(processed=3, left=0)
        assert set(shop.statuses()) == {"sent"}


async def test_second_drain_repeats_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """Draining twice gives the first result and logs nothing more."""
    caplog.set_level(logging.INFO, "aiosvc.queues")
    async with running(Script()) as shop:
        shop.order(2)
        assert await shop.mailer.drain(5) == await shop.mailer.drain(5) == Drained(2, 0)
    assert len(caplog.records) == 1


@settings(max_examples=40, deadline=None)
@given(
    outcomes=st.lists(st.lists(st.sampled_from("sfx"), min_size=4, max_size=4), max_size=20),
    workers=st.integers(1, 4),
    max_attempts=st.integers(1, 4),
    turns=st.integers(0, 30),
)
def test_each_order_has_one_outcome(
    outcomes: list[list[str]], workers: int, max_attempts: int, turns: int
) -> None:
    """Whatever fails and whenever it stops: accepted == sent + failed + left, in every count."""

    def outcome(order: Order) -> Exception | None:
        return {"s": None, "f": TEMPORARY, "x": BUG}[outcomes[order.id - 1][order.attempts - 1]]

    async def run() -> None:
        async with running(Script(outcome), workers=workers, max_attempts=max_attempts) as shop:
            shop.order(len(outcomes))
            for _ in range(turns):
                await asyncio.sleep(0)
            drained = await shop.mailer.drain(0 if turns % 2 else 5)
            statuses = shop.statuses()
            sent, failed = statuses.count("sent"), statuses.count("failed")
            assert len(outcomes) == sent + failed + drained.left
            assert statuses.count("accepted") == drained.left == shop.mailer.pending
            assert shop.value("emails_sent_total") == sent
            assert shop.value("emails_failed_total") == failed
            assert turns % 2 or drained.left == 0
            assert all(order.attempts <= max_attempts for order in shop.orders)

    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(run())
    finally:
        logging.disable(logging.NOTSET)


async def test_simulated_transport_is_seeded() -> None:
    """Two transports with the same seed fail for the same orders, in about the asked share."""

    async def failures(seed: int) -> list[int]:
        transport = SimulatedTransport(median=0.0, failure_rate=0.3, rng=Random(seed))
        failed = []
        for number in range(300):
            try:
                await transport.send(Order(number, 1, "book", 1))
            except SendError:
                failed.append(number)
        return failed

    first = await failures(1)
    assert first == await failures(1)
    assert first != await failures(2)
    assert 60 < len(first) < 120


class TestDrainRate:
    """The estimate behind Retry-After, on a clock that the test turns."""

    def rate(self, *, workers: int = 2, expected: float = 0.5) -> DrainRate:
        """Return an estimate whose clock is `self.now`."""
        self.now = 100.0
        return DrainRate(workers=workers, expected=expected, clock=lambda: self.now)

    def test_before_anything_was_observed(self) -> None:
        """Nothing observed: two workers at half a second each take 4 items per second."""
        assert self.rate().seconds_for(40) == pytest.approx(10.0)

    def test_observed_rate_takes_over(self) -> None:
        """After many takes at 10 per second the expectation no longer matters."""
        rate = self.rate(expected=60.0, workers=1)
        for _ in range(1000):
            self.now += 0.1
            rate.taken(left=50)
        assert rate.seconds_for(100) == pytest.approx(10.0 + 60 * 100 / 200, rel=0.01)

    def test_idle_time_is_no_slowness(self) -> None:
        """An hour with few orders does not make the queue look slow."""
        rate = self.rate()
        for _ in range(60):
            self.now += 60
            rate.taken(left=0)
        assert rate.seconds_for(40) == pytest.approx(10.0)

    def test_stuck_queue_slows_down(self) -> None:
        """When nothing is taken any more the estimate grows with the time that passes."""
        rate = self.rate()
        rate.taken(left=0)
        self.now += 99.5
        assert rate.seconds_for(2) == pytest.approx(100.0)


@pytest.mark.parametrize(("backlog", "seconds"), [(0, 1), (1, 1), (100, 5), (10_000, 60)])
async def test_retry_after_is_whole_and_bounded(backlog: int, seconds: int) -> None:
    """Retry-After is the backlog's time in whole seconds, at least 1 and at most 60."""
    shop = Shop(Script(), workers=1, max_attempts=1, queue_size=0)
    shop.order(backlog)
    assert shop.mailer.retry_after() == seconds


async def test_sent_is_final_status() -> None:
    """The statuses that orders end in are the two that the counters count."""
    assert {Status.SENT, Status.FAILED} == {"sent", "failed"}
