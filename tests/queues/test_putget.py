"""Queues that are instrumented in place: what is measured, and that they stay what they were."""

import asyncio
import gc
import queue
import sys
import threading
import weakref
from collections import OrderedDict
from typing import Any

import janus
import pytest

from aiosvc.queues.putget import instruments_of

from .readouts import Readout, kinds, settle

needs_shutdown = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="Queue.shutdown came with Python 3.13"
)


#: What a queue raises that was shut down; of a class that Python 3.11 does not have.
SHUT_DOWN: type[Exception] = getattr(asyncio, "QueueShutDown", RuntimeError)


@pytest.fixture
def readout() -> Readout:
    """Return queues on a registry of the test's own."""
    return Readout()


class Item:
    """Something that compares equal to all of its kind and can't be hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item)

    def __lt__(self, other: object) -> bool:
        return False


@pytest.mark.parametrize("kind", kinds())
async def test_wait_and_age(readout: Readout, kind: Any) -> None:
    """The wait of each item goes into the histogram, the age is that of the oldest one left."""
    jobs = readout.queues.watch(kind(maxsize=5), "jobs")
    for number in range(3):
        await jobs.put(number)
        readout.clock.now += 10
    assert readout.value("queue_depth") == 3
    assert readout.value("queue_oldest_item_age_seconds") == 30
    order = [await jobs.get() for _ in range(2)]
    waits = {0: 30, 1: 20, 2: 10}
    assert readout.value("queue_wait_seconds_sum") == sum(waits[number] for number in order)
    assert readout.value("queue_wait_seconds_count") == 2
    assert readout.value("queue_oldest_item_age_seconds") == waits[3 - sum(order)]
    await jobs.get()
    assert readout.value("queue_oldest_item_age_seconds") == 0
    assert readout.value("queue_depth") == 0
    assert readout.value("queue_capacity") == 5
    assert readout.value("queue_items_enqueued_total") == 3


async def test_an_unbounded_queue_has_no_capacity(readout: Readout) -> None:
    """What has no bound says nothing about it."""
    jobs = readout.queues.watch(asyncio.Queue[int](), "jobs")
    assert readout.value("queue_capacity") is None
    assert readout.value("queue_info", backend="asyncio", scope="process") == 1
    assert jobs.empty()  # it is held until here


@pytest.mark.parametrize("kind", kinds())
async def test_items_from_before(readout: Readout, kind: Any) -> None:
    """Items that were there already have an age of at least since then, and are in no wait."""
    jobs = kind()
    jobs.put_nowait(1)
    jobs.put_nowait(2)
    readout.queues.watch(jobs, "jobs")
    readout.clock.now += 7
    jobs.put_nowait(3)
    assert readout.value("queue_oldest_item_age_seconds") == 7
    readout.clock.now += 1
    for _ in range(3):
        jobs.get_nowait()
    assert readout.value("queue_wait_seconds_count") == 1
    assert readout.value("queue_wait_seconds_sum") == 1
    assert readout.value("queue_items_enqueued_total") == 1
    assert readout.value("queue_oldest_item_age_seconds") == 0


async def test_refusals(readout: Readout) -> None:
    """A refused item is counted once, by why: full, or a put that was given up."""
    jobs = readout.queues.watch(asyncio.Queue[int](maxsize=1), "jobs")
    jobs.put_nowait(1)
    with pytest.raises(asyncio.QueueFull):
        jobs.put_nowait(2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(jobs.put(3), 0.001)
    waiting = asyncio.create_task(jobs.put(4))
    await settle()
    assert readout.value("queue_producers_waiting") == 1
    waiting.cancel()
    await settle()
    assert readout.value("queue_items_rejected_total", reason="full") == 1
    assert readout.value("queue_items_rejected_total", reason="cancelled") == 2
    assert readout.value("queue_items_rejected_total", reason="shutdown") == 0
    assert readout.value("queue_items_enqueued_total") == 1
    assert readout.value("queue_producers_waiting") == 0


async def test_a_put_that_is_closed(readout: Readout) -> None:
    """A coroutine of put that is closed where it waits is no refusal, and none that never ran."""
    jobs = readout.queues.watch(asyncio.Queue[int](maxsize=1), "jobs")
    jobs.put_nowait(1)
    waiting = jobs.put(2)
    waiting.send(None)
    waiting.close()
    jobs.put(3).close()
    assert readout.value("queue_items_rejected_total", reason="cancelled") == 0
    assert readout.value("queue_items_rejected_total", reason="error") == 0


async def test_waiting_consumers(readout: Readout) -> None:
    """Idle consumers are those that wait for an item; how many there are in all is not known."""
    jobs = readout.queues.watch(asyncio.Queue[int](), "jobs")
    tasks = [asyncio.create_task(jobs.get()) for _ in range(4)]
    await settle()
    assert readout.value("queue_consumers_waiting") == 4
    assert readout.value("queue_consumers") is None
    jobs.put_nowait(1)
    jobs.put_nowait(2)
    await settle()
    assert readout.value("queue_consumers_waiting") == 2
    for task in tasks:
        task.cancel()
    await settle()
    assert readout.value("queue_consumers_waiting") == 0


async def test_in_flight_once_it_is_known(readout: Readout) -> None:
    """Items in flight are only known once a consumer says when it has finished one."""
    jobs = readout.queues.watch(asyncio.Queue[int](), "jobs")
    for number in range(3):
        jobs.put_nowait(number)
    jobs.get_nowait()
    jobs.get_nowait()
    assert readout.value("queue_in_flight") is None
    jobs.task_done()
    assert readout.value("queue_in_flight") == 1
    jobs.task_done()
    assert readout.value("queue_in_flight") == 0
    assert "task_done" not in vars(jobs)
    jobs.get_nowait()
    jobs.task_done()
    await jobs.join()
    with pytest.raises(ValueError, match="too many"):
        jobs.task_done()


@pytest.mark.parametrize("kind", kinds())
async def test_counts_only(readout: Readout, kind: Any) -> None:
    """Without waits there are counts and depth, no times, and `get` is left alone."""
    jobs = readout.queues.watch(kind(maxsize=2), "jobs", waits=False)
    jobs.put_nowait(1)
    await jobs.put(2)
    with pytest.raises(asyncio.QueueFull):
        jobs.put_nowait(3)
    jobs.get_nowait()
    assert readout.value("queue_items_enqueued_total") == 2
    assert readout.value("queue_items_rejected_total", reason="full") == 1
    assert readout.value("queue_depth") == 1
    assert readout.value("queue_wait_seconds_count") is None
    assert readout.value("queue_oldest_item_age_seconds") is None
    assert "_get" not in vars(jobs)


@pytest.mark.parametrize("kind", kinds())
async def test_equal_and_unhashable_items(readout: Readout, kind: Any) -> None:
    """Items that are equal and can't be hashed, one of them twice, each have their own wait."""
    jobs = readout.queues.watch(kind(), "jobs")
    one, other = Item(), Item()
    for item in (one, other, one):
        jobs.put_nowait(item)
        readout.clock.now += 1
    for _ in range(3):
        jobs.get_nowait()
    assert readout.value("queue_wait_seconds_sum") == 3 + 2 + 1
    assert readout.errors == []


class Retrying(asyncio.Queue[int]):
    """A queue whose public verbs are overridden, with a parameter more."""

    async def put(self, item: int, times: int = 1) -> None:
        """Put it so many times."""
        for _ in range(times):
            await super().put(item)

    def get_nowait(self) -> int:
        """Return ten times what was put."""
        return super().get_nowait() * 10


class Unique(asyncio.Queue[int]):
    """A queue that keeps one of each item, in a container of its own."""

    def _init(self, maxsize: int) -> None:
        self._queue: OrderedDict[int, None] = OrderedDict()

    def _put(self, item: int) -> None:
        self._queue[item] = None

    def _get(self) -> int:
        return self._queue.popitem(last=False)[0]


class Boxed(asyncio.Queue[Any]):
    """A queue that gives something else than what was put."""

    def _get(self) -> Any:
        return [super()._get()]


async def test_subclass_with_other_verbs(readout: Readout) -> None:
    """A subclass that overrides put and get goes on doing so, and is measured below that."""
    jobs = readout.queues.watch(Retrying(), "jobs")
    await jobs.put(1, times=2)
    await jobs.put(item=3)
    readout.clock.now += 2
    assert [jobs.get_nowait(), await jobs.get()] == [10, 10]
    assert isinstance(jobs, Retrying)
    assert readout.value("queue_items_enqueued_total") == 3
    assert readout.value("queue_wait_seconds_sum") == 4


async def test_subclass_that_discards(readout: Readout) -> None:
    """What a subclass's own _put does not keep is counted as discarded; later waits are true."""
    jobs = readout.queues.watch(Unique(), "jobs")
    for item in (1000, 1001, 1000):
        jobs.put_nowait(item)
    assert readout.value("queue_depth") == 2
    assert readout.value("queue_items_enqueued_total") == 3
    assert readout.value("queue_items_dropped_total", reason="discarded") == 1
    readout.clock.now += 5
    assert readout.value("queue_oldest_item_age_seconds") == 5
    assert [jobs.get_nowait(), jobs.get_nowait()] == [1000, 1001]
    jobs.put_nowait(1002)
    readout.clock.now += 3
    jobs.get_nowait()
    assert readout.value("queue_wait_seconds_count") == 1
    assert readout.value("queue_wait_seconds_sum") == 3


async def test_subclass_that_gives_something_else(readout: Readout) -> None:
    """Where what is taken is not what was put, waits and age are not known, and the rest is."""
    jobs = readout.queues.watch(Boxed(), "jobs")
    jobs.put_nowait("a")
    jobs.put_nowait("b")
    readout.clock.now += 5
    assert jobs.get_nowait() == ["a"]
    assert readout.value("queue_wait_seconds_count") == 0
    assert readout.value("queue_oldest_item_age_seconds") is None
    assert readout.value("queue_depth") == 1


async def test_subclass_whose_size_fails(readout: Readout) -> None:
    """A size that can't be had leaves the depth out and the queue working."""

    class Sizeless(asyncio.Queue[int]):
        broken = False

        def qsize(self) -> int:
            if self.broken:
                raise RuntimeError("no size today")
            return super().qsize()

    jobs = readout.queues.watch(Sizeless(), "jobs")
    jobs.put_nowait(1)
    jobs.put_nowait(2)
    jobs.broken = True
    assert jobs.get_nowait() == 1
    assert readout.value("queue_depth") is None
    assert readout.value("queue_items_enqueued_total") == 2
    assert [(where, str(error)) for where, error in readout.errors] == [
        ("queue jobs", "no size today")
    ]


@pytest.mark.parametrize("kind", kinds())
async def test_changed_behind_its_back(readout: Readout, kind: Any) -> None:
    """A container that is emptied by hand costs the age until the queue is used again."""
    jobs = readout.queues.watch(kind(), "jobs")
    for number in range(5):
        jobs.put_nowait(number)
    readout.clock.now += 60
    jobs._queue.clear()
    assert readout.value("queue_oldest_item_age_seconds") == 0
    for number in (10, 11, 12):
        jobs.put_nowait(number)
    assert readout.value("queue_oldest_item_age_seconds") is None
    jobs.get_nowait()
    readout.clock.now += 2
    assert readout.value("queue_oldest_item_age_seconds") == 2
    for _ in range(2):
        jobs.get_nowait()
    jobs.put_nowait(13)
    readout.clock.now += 1
    before = readout.value("queue_wait_seconds_sum") or 0
    jobs.get_nowait()
    assert (readout.value("queue_wait_seconds_sum") or 0) - before == 1


async def test_a_failing_comparison(readout: Readout) -> None:
    """An item that a priority queue can't compare raises as before, and is counted as an error."""
    jobs = readout.queues.watch(asyncio.PriorityQueue[Any](), "jobs")
    jobs.put_nowait((1, "a"))
    with pytest.raises(TypeError):
        jobs.put_nowait("b")
    assert readout.value("queue_items_rejected_total", reason="error") == 1
    assert jobs.get_nowait() == (1, "a")


@needs_shutdown
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("kind", kinds())
async def test_shutdown_at_once(readout: Readout, kind: Any, waits: bool) -> None:
    """What an immediate shutdown takes out is dropped, and nobody waited for it."""
    jobs = readout.queues.watch(kind(maxsize=3), "jobs", waits=waits)
    for number in range(3):
        jobs.put_nowait(number)
    blocked = asyncio.create_task(jobs.put(4))
    await settle()
    jobs.get_nowait()
    await settle()
    second = asyncio.create_task(jobs.put(5))
    await settle()
    jobs.shutdown(immediate=True)
    await settle()
    assert readout.value("queue_items_dropped_total", reason="shutdown") == 3
    assert readout.value("queue_items_rejected_total", reason="shutdown") == 1
    assert readout.value("queue_wait_seconds_count") == (1 if waits else None)
    assert readout.value("queue_depth") == 0
    with pytest.raises(SHUT_DOWN):
        jobs.put_nowait(6)
    assert readout.value("queue_items_rejected_total", reason="shutdown") == 2
    await blocked
    with pytest.raises(SHUT_DOWN):
        await second


@needs_shutdown
async def test_shutdown_with_a_blocked_put(readout: Readout) -> None:
    """A put that still waits for room at a shutdown is refused once."""
    jobs = readout.queues.watch(asyncio.Queue[int](maxsize=1), "jobs")
    jobs.put_nowait(1)
    blocked = asyncio.create_task(jobs.put(2))
    await settle()
    jobs.shutdown()  # type: ignore[attr-defined]  # from Python 3.13 on
    await settle()
    assert blocked.exception() is not None
    assert readout.value("queue_items_rejected_total", reason="shutdown") == 1
    assert jobs.get_nowait() == 1
    assert readout.value("queue_wait_seconds_count") == 1
    assert readout.value("queue_items_dropped_total", reason="shutdown") == 0


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
def test_queue_for_threads(readout: Readout, kind: Any) -> None:
    """A queue for threads is measured the same way, whoever puts and takes."""
    jobs = readout.queues.watch(kind(maxsize=8), "jobs")
    taken: list[int] = []

    def work() -> None:
        while (item := jobs.get()) >= 0:
            taken.append(item)
            jobs.task_done()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(500):
        jobs.put(number)
    jobs.join()
    for _ in threads:
        jobs.put(10_000 if kind is queue.PriorityQueue else -1)
        if kind is queue.PriorityQueue:
            jobs.put(-1)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len([number for number in taken if number < 10_000]) == 500
    total = 500 + len(threads) * (2 if kind is queue.PriorityQueue else 1)
    assert readout.value("queue_items_enqueued_total") == total
    assert readout.value("queue_wait_seconds_count") == total - jobs.qsize()
    assert readout.value("queue_info", backend="queue", scope="process") == 1


def test_full_queue_for_threads(readout: Readout) -> None:
    """A refusal by a queue for threads counts once, though put_nowait goes through put."""
    jobs = readout.queues.watch(queue.Queue[int](maxsize=1), "jobs")
    jobs.put(1)
    with pytest.raises(queue.Full):
        jobs.put_nowait(2)
    with pytest.raises(queue.Full):
        jobs.put(3, timeout=0.001)
    assert readout.value("queue_items_rejected_total", reason="full") == 2
    assert readout.value("queue_producers_waiting") == 0


@pytest.mark.parametrize("kind", [janus.Queue, janus.LifoQueue, janus.PriorityQueue])
@pytest.mark.parametrize("given", ["whole", "sync_q", "async_q"])
async def test_janus(readout: Readout, kind: Any, given: str) -> None:
    """A janus queue is measured at both ends, whichever of them was handed over."""
    whole = kind(maxsize=2)
    handed = whole if given == "whole" else getattr(whole, given)
    assert readout.queues.watch(handed, "jobs") is handed
    assert readout.queues.watch(whole, "jobs") is whole
    await whole.async_q.put(1)
    readout.clock.now += 4
    await asyncio.to_thread(whole.sync_q.put, 2)
    with pytest.raises(janus.AsyncQueueFull):
        whole.async_q.put_nowait(3)
    with pytest.raises(janus.SyncQueueFull):
        whole.sync_q.put_nowait(3)
    assert readout.value("queue_oldest_item_age_seconds") == 4
    assert {await whole.async_q.get(), whole.sync_q.get()} == {1, 2}
    assert readout.value("queue_in_flight") is None
    whole.async_q.task_done()
    assert readout.value("queue_in_flight") == 1
    assert readout.value("queue_wait_seconds_sum") == 4
    assert readout.value("queue_wait_seconds_count") == 2
    assert readout.value("queue_items_rejected_total", reason="full") == 2
    assert readout.value("queue_capacity") == 2
    whole.sync_q.put(5)
    await whole.aclose()
    assert readout.value("queue_items_dropped_total", reason="shutdown") == 1
    assert readout.value("queue_info", backend="janus", scope="process") == 1


async def test_two_looks_at_one_queue() -> None:
    """A queue that two services watch is instrumented once, and each counts from its first look."""
    jobs: asyncio.Queue[int] = asyncio.Queue()
    first, second = Readout(), Readout()
    first.queues.watch(jobs, "jobs")
    jobs.put_nowait(1)
    second.queues.watch(jobs, "other", waits=False)
    jobs.put_nowait(2)
    assert len(instruments_of(jobs)) == 1
    assert first.value("queue_items_enqueued_total") == 2
    assert second.value("queue_items_enqueued_total", "other") == 1
    assert second.value("queue_wait_seconds_count", "other") is None


async def test_a_second_look_that_wants_more() -> None:
    """Waits can still be measured of a queue whose items were only counted before."""
    jobs: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
    first, second = Readout(), Readout()
    first.queues.watch(jobs, "jobs", waits=False)
    second.queues.watch(jobs, "jobs")
    jobs.put_nowait(1)
    with pytest.raises(asyncio.QueueFull):
        jobs.put_nowait(2)
    second.clock.now += 3
    jobs.get_nowait()
    assert second.value("queue_wait_seconds_sum") == 3
    for each in (first, second):
        assert each.value("queue_items_enqueued_total") == 1
        assert each.value("queue_items_rejected_total", reason="full") == 1


@needs_shutdown
@pytest.mark.parametrize("kind", kinds())
async def test_a_shutdown_that_two_look_at(kind: Any) -> None:
    """What it takes out is dropped for both, and waited for by nobody, whoever looked first."""
    jobs = kind()
    first, second = Readout(), Readout()
    first.queues.watch(jobs, "jobs", waits=False)
    second.queues.watch(jobs, "jobs")
    for number in range(3):
        jobs.put_nowait(number)
    jobs.get_nowait()
    jobs.shutdown(immediate=True)
    for each in (first, second):
        assert each.value("queue_items_dropped_total", reason="shutdown") == 2
    assert second.value("queue_wait_seconds_count") == 1
    assert second.value("queue_oldest_item_age_seconds") == 0


async def test_somebody_elses_override(readout: Readout) -> None:
    """A queue whose instance was overridden by others goes on doing what they want."""
    jobs: asyncio.Queue[int] = asyncio.Queue()
    inner = jobs._put
    seen = []

    def _put(item: int) -> None:
        seen.append(item)
        inner(item)

    jobs._put = _put  # type: ignore[method-assign]
    readout.queues.watch(jobs, "jobs")
    jobs.put_nowait(1)
    readout.clock.now += 1
    assert jobs.get_nowait() == 1
    assert seen == [1]
    assert readout.value("queue_wait_seconds_sum") == 1


def test_nothing_keeps_it_alive(readout: Readout) -> None:
    """A queue that nobody uses any more is collected, with what was put around it."""
    jobs: asyncio.Queue[int] | None = readout.queues.watch(asyncio.Queue[int](), "jobs")
    assert jobs is not None
    jobs.put_nowait(1)
    gone = weakref.ref(jobs)
    assert readout.value("queue_depth") == 1
    jobs = None
    gc.collect()
    assert gone() is None
    assert readout.value("queue_depth") is None


@pytest.mark.parametrize("kind", kinds())
def test_used_from_several_threads(readout: Readout, kind: Any) -> None:
    """A queue that threads use as they must not is measured again once they have stopped."""
    jobs = readout.queues.watch(kind(), "jobs")
    taken: list[int] = []

    def work() -> None:
        for number in range(3000):
            jobs.put_nowait(number)
            try:
                taken.append(jobs.get_nowait())
            except (asyncio.QueueEmpty, IndexError):
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        readout.value("queue_depth")
    for thread in threads:
        thread.join(30)
    while not jobs.empty():
        taken.append(jobs.get_nowait())
    assert len(taken) == 12_000
    assert readout.value("queue_depth") == readout.value("queue_oldest_item_age_seconds") == 0
    before = readout.value("queue_wait_seconds_sum") or 0.0
    jobs.put_nowait(1)
    readout.clock.now += 5
    assert readout.value("queue_oldest_item_age_seconds") == 5
    jobs.get_nowait()
    assert (readout.value("queue_wait_seconds_sum") or 0.0) - before == 5
    assert readout.errors == []
