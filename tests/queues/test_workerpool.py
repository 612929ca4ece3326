"""The worker pool: outcomes, retries, dead letters, time limits, and how it stops."""

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import anyio
import anyio.streams.stapled
import janus
import pytest

from aiosvc.errors import ConfigError
from aiosvc.queues import Drained, PoolClosedError, PoolOptions, WorkerPool

from .readouts import Readout, settle

Handler = Callable[[Any], Awaitable[object]]


@pytest.fixture
def readout() -> Readout:
    """Return queues on a registry of the test's own."""
    return Readout()


class Shop:
    """A pool that does with each item what the item says, until `closed` is cleared."""

    def __init__(self, readout: Readout, *, size: int = 0, queue: Any = None, **options: Any):
        self.readout = readout
        self.queue: asyncio.Queue[Any] = asyncio.Queue(size) if queue is None else queue
        self.seen: list[Any] = []
        self.open = asyncio.Event()
        self.open.set()
        options = {"concurrency": 1, "backoff": 0.0, **options}
        self.pool: WorkerPool = readout.queues.pool(self.queue, self.send, "jobs", **options)

    async def send(self, item: Any) -> None:
        """Do what *item* says: wait, then fail so often as it says."""
        self.seen.append(item)
        await self.open.wait()
        if isinstance(item, BaseException):
            raise item
        if callable(item):
            await item()

    async def idle(self) -> None:
        """Wait until everything is done."""
        await asyncio.wait_for(self.queue.join(), 60)


async def test_items_are_processed(readout: Readout) -> None:
    """Each item is handled once; slots, busy workers and outcomes say so."""
    shop = Shop(readout, concurrency=2)
    shop.open.clear()
    async with shop.pool:
        for number in range(3):
            shop.pool.put_nowait(number)
        await settle()
        assert readout.value("worker_slots") == 2
        assert readout.value("workers_busy") == readout.value("queue_in_flight") == 2
        assert readout.value("queue_consumers") == 2
        assert readout.value("queue_depth") == 1
        readout.clock.now += 5
        assert readout.value("queue_oldest_running_seconds") == 5
        assert readout.value("worker_busy_seconds_total") == 10
        shop.open.set()
        await shop.idle()
        assert readout.outcomes("send") == {"ok": 3}
        assert readout.value("workers_busy") == 0
    assert sorted(shop.seen) == [0, 1, 2]
    assert readout.value("worker_slots") is None
    assert readout.value("queue_items_completed_total", job="send", outcome="dead") == 0


async def test_retries(readout: Readout) -> None:
    """A failed item goes back into the queue and is no new one; its wait begins anew."""
    failures = [ValueError("1"), ValueError("2")]

    async def fail_twice() -> None:
        if failures:
            raise failures.pop()

    shop = Shop(readout, attempts=3)
    async with shop.pool:
        await shop.pool.put(fail_twice)
        readout.clock.now += 100
        await shop.idle()
    assert shop.seen == [fail_twice] * 3
    assert readout.outcomes("send") == {"retry": 2, "ok": 1}
    assert readout.value("queue_items_enqueued_total") == 1
    assert readout.value("queue_wait_seconds_count") == 3
    assert readout.value("queue_wait_seconds_sum") == 100


async def test_a_waiting_retry(readout: Readout) -> None:
    """While a retry waits it is scheduled, keeps no worker, and `join` waits for it."""
    shop = Shop(readout, attempts=2, backoff=1e6, backoff_max=1e6, rng=Random(1))
    shop.pool.start()
    shop.pool.put_nowait(ValueError("no"))
    shop.pool.put_nowait("next")
    await settle(12)
    assert readout.value("queue_scheduled") == 1
    assert readout.value("queue_in_flight") == 0
    assert readout.value("queue_depth") == 0
    assert shop.seen[1:] == ["next"]
    joining = asyncio.create_task(shop.queue.join())
    await settle()
    assert not joining.done()
    await shop.pool.stop()
    await asyncio.wait_for(joining, 60)
    assert readout.outcomes("send") == {"retry": 1, "error": 1, "ok": 1}


async def test_last_failure_without_dead_letters(readout: Readout) -> None:
    """Where nothing is put aside, an item that is given up on has failed."""
    shop = Shop(readout, attempts=2)
    async with shop.pool:
        shop.pool.put_nowait(ValueError("no"))
        await shop.idle()
    assert readout.outcomes("send") == {"retry": 1, "error": 1}
    assert readout.value("queue_dead") is None


async def test_dead_letters(readout: Readout) -> None:
    """The last items that were given up on are kept, and older ones that had to go are counted."""
    shop = Shop(readout, dead_letters=2)
    errors = [ValueError(str(number)) for number in range(3)]
    async with shop.pool:
        for error in errors:
            shop.pool.put_nowait(error)
        await shop.idle()
        assert readout.value("queue_dead") == 2
    assert list(shop.pool.dead_letters) == errors[1:]
    assert readout.outcomes("send") == {"dead": 3}
    assert readout.value("queue_items_dropped_total", reason="dead_letters") == 1


async def test_dead_letters_into_a_queue(readout: Readout) -> None:
    """Dead letters may go into a queue; one that does not fit is counted as dropped."""
    aside: asyncio.Queue[Any] = asyncio.Queue(1)
    shop = Shop(readout, dead_letters=aside)
    async with shop.pool:
        for _ in range(2):
            shop.pool.put_nowait(ValueError("no"))
        await shop.idle()
        assert readout.value("queue_dead") == aside.qsize() == 1
    assert readout.value("queue_items_dropped_total", reason="dead_letters") == 1
    assert readout.outcomes("send") == {"dead": 2}


@pytest.mark.parametrize("is_async", [True, False])
async def test_dead_letters_to_a_function(readout: Readout, is_async: bool) -> None:
    """Dead letters may go to a function, which gets the exception too; it may fail."""
    told: list[Any] = []

    def tell(item: Any, error: BaseException) -> None:
        told.append((item, error))
        if len(told) > 1:
            raise RuntimeError("no room")

    async def tell_async(item: Any, error: BaseException) -> None:
        tell(item, error)

    shop = Shop(readout, dead_letters=tell_async if is_async else tell)
    errors = [ValueError("a"), ValueError("b")]
    async with shop.pool:
        for error in errors:
            shop.pool.put_nowait(error)
        await shop.idle()
        assert readout.value("queue_dead") is None
    assert told == [(error, error) for error in errors]
    assert readout.value("queue_items_dropped_total", reason="dead_letters") == 1


async def test_only_some_errors_are_retried(
    readout: Readout, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that is not to be retried ends the item at once, and its traceback is logged."""
    shop = Shop(readout, attempts=5, retry_on=OSError)
    async with shop.pool:
        shop.pool.put_nowait(ValueError("no"))
        await shop.idle()
    assert readout.outcomes("send") == {"error": 1}
    (record,) = caplog.records
    assert record.getMessage() == "queue jobs: attempt 1 at send failed, and is not repeated"
    assert record.exc_info is not None


async def test_time_limit(readout: Readout) -> None:
    """An attempt whose time is over is ended, and the worker goes on."""
    shop = Shop(readout, timeout=0.001)
    async with shop.pool:
        shop.pool.put_nowait(asyncio.Event().wait)
        shop.pool.put_nowait("next")
        await shop.idle()
    assert readout.outcomes("send") == {"timeout": 1, "ok": 1}


async def test_time_limit_and_retry(readout: Readout) -> None:
    """An attempt whose time is over is repeated where a TimeoutError is."""
    shop = Shop(readout, timeout=0.001, attempts=2)
    async with shop.pool:
        shop.pool.put_nowait(asyncio.Event().wait)
        await shop.idle()
    assert readout.outcomes("send") == {"retry": 1, "timeout": 1}


async def test_a_timeout_of_the_handlers_own(readout: Readout) -> None:
    """A TimeoutError that the handler raises within its time is an error."""
    shop = Shop(readout, timeout=60)
    async with shop.pool:
        shop.pool.put_nowait(TimeoutError("the database"))
        await shop.idle()
    assert readout.outcomes("send") == {"error": 1}


async def test_a_caught_time_limit(readout: Readout) -> None:
    """A handler that catches its cancellation and returns has not done its work in time."""

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    shop = Shop(readout, timeout=0.001)
    async with shop.pool:
        shop.pool.put_nowait(stubborn)
        await shop.idle()
    assert readout.outcomes("send") == {"timeout": 1}


async def test_a_handler_that_cancels_itself(readout: Readout) -> None:
    """A CancelledError of the handler's own ends its attempt and not the worker."""
    shop = Shop(readout)
    async with shop.pool:
        shop.pool.put_nowait(asyncio.CancelledError())
        shop.pool.put_nowait("next")
        await shop.idle()
        assert readout.value("queue_consumers") == 1
    assert readout.outcomes("send") == {"cancelled": 1, "ok": 1}


async def test_a_dead_letter_function_that_cancels(readout: Readout) -> None:
    """A CancelledError of the function for dead letters does not end the worker either."""

    def tell(_item: Any, _error: BaseException) -> None:
        raise asyncio.CancelledError

    shop = Shop(readout, dead_letters=tell)
    async with shop.pool:
        shop.pool.put_nowait(ValueError("no"))
        shop.pool.put_nowait("next")
        await shop.idle()
    assert readout.outcomes("send") == {"dead": 1, "ok": 1}


async def test_a_handler_that_is_not_async(
    readout: Readout, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that returns nothing to await fails with a word about what was expected."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    handler: Any = lambda _item: None  # noqa: E731 - it has no name to be a job's
    pool: WorkerPool = readout.queues.pool(queue, handler, "jobs")
    async with pool:
        pool.put_nowait(1)
        await queue.join()
    assert readout.outcomes("jobs") == {"error": 1}
    assert "the handler must be async" in caplog.text


@pytest.mark.parametrize("dead_letters", [0, 10])
async def test_exceptions_that_are_no_exception(readout: Readout, dead_letters: int) -> None:
    """An item whose handler raises a BaseException, as a group may be, has failed; workers go on."""

    class Abort(BaseException):
        pass

    shop = Shop(readout, dead_letters=dead_letters)
    failures = [Abort(), BaseExceptionGroup("of a task group", [Abort()])]
    async with shop.pool:
        for failure in failures:
            shop.pool.put_nowait(failure)
        shop.pool.put_nowait("the next one")
        await shop.idle()
        assert readout.value("queue_consumers") == 1
        failed = "dead" if dead_letters else "error"
        assert readout.outcomes("send") == {failed: 2, "ok": 1}
        assert list(shop.pool.dead_letters) == (failures if dead_letters else [])


async def test_a_dead_letter_function_that_aborts(readout: Readout) -> None:
    """Whatever the function for dead letters raises, the letter is dropped and the worker goes on."""

    def aside(item: Any, error: BaseException) -> None:
        raise BaseExceptionGroup("of a task group", [asyncio.CancelledError()])

    shop = Shop(readout, dead_letters=aside)
    async with shop.pool:
        shop.pool.put_nowait(OSError())
        shop.pool.put_nowait("the next one")
        await shop.idle()
        assert readout.value("queue_consumers") == 1
        assert readout.value("queue_items_dropped_total", reason="dead_letters") == 1


def test_an_exit(readout: Readout) -> None:
    """An exit of the interpreter ends the attempt as an error, and goes on its way."""

    async def start() -> None:
        shop = Shop(readout)
        shop.pool.start()
        shop.pool.put_nowait(SystemExit(3))
        await asyncio.sleep(60)

    with pytest.raises(SystemExit):
        asyncio.run(start())
    assert readout.outcomes("send") == {"error": 1}


def test_a_loop_that_is_given_up(readout: Readout) -> None:
    """Attempts whose event loop was closed under them were cancelled."""
    loop = asyncio.new_event_loop()

    async def start() -> None:
        shop = Shop(readout)
        shop.open.clear()
        shop.pool.start()
        shop.pool.put_nowait(1)
        await settle()

    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(start())
    assert readout.value("workers_busy") == 1
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # said on purpose
        task.get_coro().close()
    del tasks, task
    loop.close()
    gc.collect()
    assert readout.value("workers_busy") == 0
    assert readout.outcomes("send") == {"cancelled": 1}


async def test_stop_works_off_the_queue(readout: Readout, caplog: pytest.LogCaptureFixture) -> None:
    """A stop with enough time leaves nothing, cuts waits short and says how many it processed."""
    caplog.set_level(logging.INFO, "aiosvc.queues")
    shop = Shop(readout, attempts=2, backoff=1e6, backoff_max=1e6)
    shop.pool.start()
    shop.pool.put_nowait(ValueError("no"))
    await settle()
    for number in range(3):
        shop.pool.put_nowait(number)
    assert await shop.pool.stop(60) == Drained(4, ())
    assert "queue jobs drained: 4 processed, 0 left" in caplog.messages
    assert readout.value("queue_items_dropped_total", reason="shutdown") == 0


async def test_stop_without_time(readout: Readout, caplog: pytest.LogCaptureFixture) -> None:
    """What a stop leaves is handed back, logged, and counted as dropped, wherever it was."""
    shop = Shop(readout, attempts=2, backoff=1e6, backoff_max=1e6)
    shop.pool.start()
    failing = ValueError("no")
    shop.pool.put_nowait(failing)
    await settle(12)
    shop.open.clear()
    for item in ("running", "queued", "queued too"):
        shop.pool.put_nowait(item)
    await settle()
    drained = await shop.pool.stop(0)
    assert drained.processed == 0
    assert set(drained.left) == {failing, "running", "queued", "queued too"}
    assert readout.outcomes("send") == {"retry": 1, "cancelled": 1}
    assert readout.value("queue_items_dropped_total", reason="shutdown") == 4
    assert readout.value("queue_depth") == 0
    assert readout.value("queue_wait_seconds_count") == 2
    assert readout.value("workers_busy") == 0
    assert caplog.messages[-1] == "queue jobs drained: 0 processed, 4 left, dropped"
    await asyncio.wait_for(shop.queue.join(), 60)
    assert await shop.pool.stop(60) is drained


async def test_a_stopped_pool_takes_nothing(readout: Readout) -> None:
    """An item for a pool that has stopped is refused and counted; it can be started again."""
    shop = Shop(readout)
    async with shop.pool:
        pass
    with pytest.raises(PoolClosedError, match="queue jobs takes nothing in any more"):
        shop.pool.put_nowait(1)
    with pytest.raises(PoolClosedError):
        await shop.pool.put(1)
    assert readout.value("queue_items_rejected_total", reason="shutdown") == 2
    async with shop.pool:
        shop.pool.put_nowait(2)
        await shop.idle()
    assert shop.seen == [2]


async def test_stop_before_start(readout: Readout) -> None:
    """A pool that was never started stops at once, and hands back what waits."""
    shop = Shop(readout)
    shop.pool.put_nowait(1)
    assert await shop.pool.stop(3600) == Drained(0, (1,))


async def test_jobs_that_ignore_their_cancellation(
    readout: Readout, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop does not wait for ever for a job that won't be cancelled, and says so."""
    monkeypatch.setattr("aiosvc.queues.workerpool.GRACE", 0.01)
    go = asyncio.Event()

    async def stubborn() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    shop = Shop(readout)
    shop.pool.start()
    shop.pool.put_nowait(stubborn)
    await settle()
    await shop.pool.stop(0)
    assert "; 1 jobs ignore their cancellation and go on" in caplog.messages[-1]
    assert readout.value("workers_busy") == 1
    shop.pool.start()
    go.set()
    await settle()
    assert readout.value("workers_busy") == 0
    assert readout.value("queue_consumers") == readout.value("worker_slots") == 1
    await shop.pool.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_retry_waits_for_room(readout: Readout) -> None:
    """A retry that is due while the queue is full goes back later and is not refused."""
    shop = Shop(readout, size=1, attempts=2)
    shop.open.clear()
    shop.pool.start()
    failing = ValueError("no")
    shop.pool.put_nowait(failing)
    await settle()
    shop.pool.put_nowait("fills the queue")
    shop.open.set()
    assert (await shop.pool.stop(60)).left == ()
    assert shop.seen == [failing, "fills the queue", failing]
    assert readout.value("queue_items_enqueued_total") == 2
    assert readout.value("queue_items_rejected_total", reason="cancelled") == 0
    assert readout.value("queue_wait_seconds_count") == 3


async def test_priorities_hold_for_retries(readout: Readout) -> None:
    """A retry goes back to where its priority puts it."""
    queue: asyncio.PriorityQueue[tuple[int, str]] = asyncio.PriorityQueue()
    order: list[str] = []

    async def send(item: tuple[int, str]) -> None:
        order.append(item[1])
        if order == ["urgent"]:
            for number in range(3):
                queue.put_nowait((5 + number, "later"))
            raise ValueError
        await settle()

    async with readout.queues.pool(
        queue, send, "jobs", attempts=2, concurrency=1, backoff=0.0
    ) as pool:
        pool.put_nowait((1, "urgent"))
        await asyncio.wait_for(queue.join(), 60)
    assert sorted(order) == ["later"] * 3 + ["urgent"] * 2
    assert order[-1] == "later"


async def test_equal_items_are_tried_separately(readout: Readout) -> None:
    """The same object put twice is tried as often as two would be."""
    shop = Shop(readout, attempts=3, concurrency=2)
    failing = ValueError("no")
    async with shop.pool:
        shop.pool.put_nowait(failing)
        shop.pool.put_nowait(failing)
        await shop.idle()
    assert len(shop.seen) == 6
    assert readout.outcomes("send") == {"retry": 4, "error": 2}
    assert shop.pool._retries._tries == {}


async def test_jobs_by_item(readout: Readout) -> None:
    """The job of an item is what job_of says, where it is one of jobs."""
    shop = Shop(readout, jobs=["a", "b"], job_of=lambda item: item["kind"])
    async with shop.pool:
        for item in ({"kind": "a"}, {"kind": "b"}, {"kind": "c"}, {}):
            shop.pool.put_nowait(item)
        await shop.idle()
    assert readout.outcomes("a") == readout.outcomes("b") == {"ok": 1}
    assert readout.outcomes("_other") == {"ok": 2}


async def test_janus(readout: Readout) -> None:
    """A pool works on a janus queue that threads put into, with retries."""
    queue: janus.Queue[Any] = janus.Queue()
    failures = [ValueError("once")]
    seen = []

    async def send(item: int) -> None:
        seen.append(item)
        if item == 1 and failures:
            raise failures.pop()

    pool = readout.queues.pool(queue, send, "jobs", attempts=2, backoff=0.0)
    async with pool:
        for number in range(3):
            await asyncio.to_thread(queue.sync_q.put, number)
        await queue.async_q.join()
    assert sorted(seen) == [0, 1, 1, 2]
    assert readout.value("queue_items_enqueued_total") == 3
    await queue.aclose()


async def test_anyio_streams(readout: Readout) -> None:
    """A pool works on a stream until its end; with both ends it can put back."""
    send, receive = anyio.create_memory_object_stream[Any](10)
    failures = [ValueError("once")]
    seen = []

    async def work(item: int) -> None:
        seen.append(item)
        if failures:
            raise failures.pop()

    both = anyio.streams.stapled.StapledObjectStream(send, receive)
    with pytest.raises(ConfigError, match="nothing can be put back into"):
        readout.queues.pool(receive, work, "one-end", attempts=2)
    readout.queues.watch(receive, "jobs")
    tracker = readout.queues.track("jobs")
    pool = WorkerPool(both, work, tracker, PoolOptions(attempts=2, backoff=0.0, concurrency=1))
    async with pool:
        await pool.put(1)
        await pool.put(2)
        while len(seen) < 3:  # noqa: ASYNC110 - a stream does not say when it is done
            await asyncio.sleep(0)
    assert sorted(seen) == [1, 1, 2] or sorted(seen) == [1, 2, 2]
    assert readout.outcomes("work") == {"retry": 1, "ok": 2}
    await both.aclose()
    pool.start()
    await settle()
    assert pool.consumers == 0
    assert await pool.stop(60) == Drained(0, ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency: 0 given; expected a whole number, 1 or more"),
        ({"attempts": True}, "attempts: True given; expected a whole number, 1 or more"),
        ({"timeout": 0}, "timeout: 0 given; expected seconds, above 0, or None for no limit"),
        ({"timeout": float("inf")}, "timeout: inf given; expected seconds"),
        ({"backoff": -1}, "backoff: -1 given; expected seconds"),
        ({"drain": "long"}, "drain: 'long' given; expected seconds"),
        ({"retry_on": KeyboardInterrupt}, "retry_on: .* given; expected exception classes"),
        ({"retry_on": (1,)}, "retry_on: .* given; expected exception classes"),
        ({"jobs": "send"}, "jobs: 'send' given; expected names"),
        ({"jobs": ["a", "b"]}, "with more than one, job_of must say which an item is"),
        ({"job_of": "kind"}, "job_of: 'kind' given; expected a function"),
        ({"rng": 1}, "rng: 1 given; expected a random.Random"),
        ({"dead_letters": -1}, "dead_letters: -1 given; expected a number of items"),
        ({"dead_letters": True}, "dead_letters: True given; expected a number of items"),
        ({"dead_letters": "list"}, "dead_letters: 'list' given; expected a number of items"),
        ({"worker": 3}, "no option named 'worker'"),
        ({"concurency": 3}, "did you mean 'concurrency'"),
    ],
)
def test_wrong_options(readout: Readout, options: dict[str, Any], message: str) -> None:
    """A wrong option is a ConfigError that says what was given and what was expected."""

    async def send(_item: int) -> None:
        pass

    queue: asyncio.Queue[int] = asyncio.Queue()
    with pytest.raises(ConfigError, match=message):
        readout.queues.pool(queue, send, "jobs", **options)


def test_wrong_queue_or_handler(readout: Readout) -> None:
    """What is no queue to wait for, and what can't be called, is said at once."""
    import queue  # noqa: PLC0415 - the only one that can't be awaited

    async def send(_item: int) -> None:
        pass

    with pytest.raises(ConfigError, match=r"expected a queue whose get\(\) is awaited"):
        readout.queues.pool(queue.Queue(), send, "threads")
    with pytest.raises(ConfigError, match="worker_pool: 5 given; expected an async function"):
        readout.queues.pool(asyncio.Queue(), 5, "jobs")  # type: ignore[arg-type]  # it is wrong


def test_backoff() -> None:
    """Waits are drawn evenly up to a limit that doubles, and never grow past the cap."""
    options = PoolOptions(backoff=0.5, backoff_max=10.0)
    rng = Random(1)
    for attempt, limit in ((2, 0.5), (3, 1.0), (4, 2.0), (20, 10.0), (100_000, 10.0)):
        waits = [options.wait_before(attempt, rng) for _ in range(500)]
        assert 0 <= min(waits) < 0.1 * limit
        assert 0.9 * limit < max(waits) <= limit
