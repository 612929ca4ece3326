"""Queues of other kinds, by what they say of themselves."""

import asyncio
import concurrent.futures
import multiprocessing
import queue
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiojobs
import anyio
import pytest

from .readouts import Readout, settle


@pytest.fixture
def readout() -> Readout:
    """Return queues on a registry of the test's own."""
    return Readout()


@asynccontextmanager
async def running(*works: Any) -> AsyncIterator[None]:
    """Run coroutines for as long as the block lasts."""
    tasks = [asyncio.create_task(work) for work in works]
    await settle()
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("end", [0, 1])
async def test_anyio_stream(readout: Readout, end: int) -> None:
    """A memory object stream says what it holds and who waits, whichever end is watched."""
    send, receive = anyio.create_memory_object_stream[int](2)
    with send, receive:
        ends = (send, receive)
        assert readout.queues.watch(ends[end], "jobs") is ends[end]
        assert readout.queues.watch(ends[1 - end], "jobs") is ends[1 - end]
        with receive.clone():
            send.send_nowait(1)
            await send.send(2)
            async with running(send.send(3)):
                assert readout.value("queue_depth") == 2
                assert readout.value("queue_capacity") == 2
                assert readout.value("queue_producers_waiting") == 1
                assert readout.value("queue_consumers") == 2
        for _ in range(2):
            receive.receive_nowait()
        async with running(receive.receive()):
            assert readout.value("queue_consumers_waiting") == 1
            assert readout.value("queue_depth") == 0
        # What a stream does not say is not known.
        assert readout.value("queue_items_enqueued_total") is None
        assert readout.value("queue_oldest_item_age_seconds") is None
        assert readout.value("queue_info", backend="anyio", scope="process") == 1


async def test_unbounded_anyio_stream(readout: Readout) -> None:
    """A stream that holds any number of items has no capacity."""
    send, receive = anyio.create_memory_object_stream[int](float("inf"))
    with send, receive:
        readout.queues.watch(send, "jobs")
        assert readout.value("queue_depth") == 0
        assert readout.value("queue_capacity") is None


async def test_anyio_limiter(readout: Readout) -> None:
    """A CapacityLimiter has slots, and tasks that wait for one are its queue."""
    limiter = readout.queues.watch(anyio.CapacityLimiter(1), "jobs")

    async def hold() -> None:
        async with limiter:
            await asyncio.sleep(3600)

    async with running(hold(), hold(), hold()):
        assert readout.value("worker_slots") == 1
        assert readout.value("workers_busy") == 1
        assert readout.value("queue_depth") == 2
    assert readout.value("workers_busy") == 0
    limiter.total_tokens = float("inf")
    assert readout.value("worker_slots") is None


async def test_aiojobs(readout: Readout) -> None:
    """A scheduler of aiojobs says how many jobs run and how many wait."""
    scheduler = readout.queues.watch(aiojobs.Scheduler(limit=2, pending_limit=10), "jobs")
    for _ in range(5):
        await scheduler.spawn(asyncio.sleep(3600))
    assert readout.value("queue_depth") == 3
    assert readout.value("queue_capacity") == 10
    assert readout.value("worker_slots") == 2
    assert readout.value("workers_busy") == readout.value("queue_in_flight") == 2
    await scheduler.close()
    assert readout.value("workers_busy") == 0
    assert readout.value("queue_info", backend="aiojobs", scope="process") == 1


async def test_aiojobs_without_limits(readout: Readout) -> None:
    """A scheduler without limits has neither slots nor a capacity."""
    scheduler = readout.queues.watch(aiojobs.Scheduler(limit=None, pending_limit=0), "jobs")
    assert readout.value("queue_depth") == 0
    assert readout.value("worker_slots") is None
    assert readout.value("queue_capacity") is None
    await scheduler.close()


async def test_bounded_semaphore(readout: Readout) -> None:
    """A bounded semaphore has slots, and tasks that wait for it are its queue."""
    semaphore = readout.queues.watch(asyncio.BoundedSemaphore(2), "jobs")

    async def hold() -> None:
        async with semaphore:
            await asyncio.sleep(3600)

    async with running(hold(), hold(), hold()):
        assert readout.value("worker_slots") == 2
        assert readout.value("workers_busy") == 2
        assert readout.value("queue_depth") == 1
    assert readout.value("workers_busy") == 0
    assert readout.value("queue_depth") == 0


async def test_plain_semaphore(readout: Readout) -> None:
    """Of a plain semaphore nobody knows how many may hold it, only who waits."""
    semaphore = readout.queues.watch(asyncio.Semaphore(0), "jobs")
    async with running(semaphore.acquire()):
        assert readout.value("queue_depth") == 1
    assert readout.value("worker_slots") is None
    assert readout.value("workers_busy") is None


def test_threads(readout: Readout) -> None:
    """A pool of threads says what waits; how many are busy from the Python that knows it on."""
    go = threading.Event()
    began = threading.Semaphore(0)

    def work() -> None:
        began.release()
        assert go.wait(60)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        readout.queues.watch(pool, "jobs")
        jobs = [pool.submit(work) for _ in range(5)]
        for _ in range(2):
            assert began.acquire(timeout=60)
        assert readout.value("queue_depth") == 3
        assert readout.value("worker_slots") == 2
        assert readout.value("workers_busy") == (2 if sys.version_info >= (3, 13) else None)
        go.set()
        concurrent.futures.wait(jobs)
        assert readout.value("queue_depth") == 0
    assert readout.value("queue_depth") == 0
    assert readout.value("queue_info", backend="executor", scope="process") == 1


def test_processes(readout: Readout) -> None:
    """A pool of processes says what waits and what runs, also when it has ended."""
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
    readout.queues.watch(pool, "jobs")
    assert readout.value("queue_depth") == 0
    jobs = [pool.submit(pow, 2, number) for number in range(3)]
    depth, busy = readout.value("queue_depth"), readout.value("workers_busy")
    assert (depth, busy) in [(2, 1), (1, 1), (0, 1), (0, 0)]
    assert [job.result(60) for job in jobs] == [1, 2, 4]
    assert readout.value("worker_slots") == 1
    pool.shutdown()
    assert readout.value("workers_busy") == 0


def test_queue_that_only_has_a_size(readout: Readout) -> None:
    """Anything with qsize() has a depth, and nothing else is known of it."""
    jobs = readout.queues.watch(queue.SimpleQueue[int](), "jobs")
    jobs.put(1)
    assert readout.value("queue_depth") == 1
    assert readout.value("queue_items_enqueued_total") is None
    assert readout.value("queue_in_flight") is None
