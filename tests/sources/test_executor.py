"""The default executor of an event loop: what is seen of it, and that none is made."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from aiosvc import catalogue
from aiosvc.readings import Readings
from aiosvc.sources import executor as executor_module
from aiosvc.sources.executor import ExecutorSource, _default_executor, _read_pool

NAMES = {
    catalogue.ASYNCIO_EXECUTOR_THREADS: "threads",
    catalogue.ASYNCIO_EXECUTOR_BUSY: "busy",
    catalogue.ASYNCIO_EXECUTOR_MAX: "most",
    catalogue.ASYNCIO_EXECUTOR_QUEUE: "waiting",
}


def said(readings: Readings) -> dict[str, float]:
    """Return the numbers by short names."""
    return {NAMES[spec]: numbers[()] for spec, numbers in readings.numbers.items()}


def now() -> dict[str, float]:
    """Return what the source says of the running loop."""
    return said(ExecutorSource().read())


async def settled(**expected: float) -> None:
    """Wait until the source says that; a thread that has just begun or ended takes a moment."""
    async with asyncio.timeout(30):
        while not expected.items() <= now().items():  # noqa: ASYNC110 - a pool sets no event
            await asyncio.sleep(0.001)


async def busy_then_idle() -> dict[str, float]:
    """Have three of two threads' work, and return what was said before the first use."""
    loop = asyncio.get_running_loop()
    before = now()
    loop.set_default_executor(ThreadPoolExecutor(2))
    go_on = threading.Event()
    waiting = [loop.run_in_executor(None, go_on.wait) for _ in range(5)]
    await settled(threads=2, busy=2, most=2, waiting=3)
    go_on.set()
    await asyncio.gather(*waiting)
    await settled(threads=2, busy=0, most=2, waiting=0)
    # A backlog spoils the pool's own count of idle threads (Python 3.11); not ours.
    go_on.clear()
    again = loop.run_in_executor(None, go_on.wait)
    await settled(threads=2, busy=1, waiting=0)
    go_on.set()
    await again
    return before


def test_a_pool_at_work() -> None:
    """Threads, those at work and what waits are counted, and 0 before the first use."""
    assert asyncio.run(busy_then_idle()) == {"threads": 0, "busy": 0, "waiting": 0}


def test_a_pool_at_work_on_uvloop() -> None:
    """A loop in C shows its executor from the first use on; before that nothing is known."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(busy_then_idle()) == {}


async def test_none_is_made() -> None:
    """Looking does not make an executor."""
    loop = asyncio.get_running_loop()
    assert now() == {"threads": 0, "busy": 0, "waiting": 0}
    assert _default_executor(loop) is None


async def test_the_default_of_asyncio() -> None:
    """The executor that asyncio makes is seen after its first use."""
    await asyncio.to_thread(int)
    await settled(threads=1, busy=0, waiting=0)
    assert now()["most"] >= 1


async def test_an_executor_that_is_no_thread_pool() -> None:
    """Of somebody's own executor nothing is known, so nothing is said."""
    loop: Any = asyncio.get_running_loop()
    loop._default_executor = object()
    try:
        assert now() == {}
    finally:
        loop._default_executor = None


def test_a_loop_that_shows_nothing() -> None:
    """A loop without the attribute, and with several executors of others, is not guessed at."""
    assert _default_executor(object()) is executor_module.UNKNOWN
    pools = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]
    assert _default_executor(SimpleNamespace(mine=pools[0])) is executor_module.UNKNOWN
    assert _default_executor(pools) is executor_module.UNKNOWN
    assert _default_executor(pools[:1]) is pools[0]


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ("_max_workers", {"threads", "busy", "waiting"}),
        ("_work_queue", {"threads", "busy", "most"}),
        ("_threads", {"most", "waiting"}),
    ],
)
def test_an_attribute_that_is_gone(missing: str, left: set[str]) -> None:
    """Each private attribute that is not there leaves out its own metrics only."""
    pool = ThreadPoolExecutor(1)
    del pool.__dict__[missing]
    readings = Readings()
    _read_pool(pool, readings)
    assert said(readings).keys() == left


def test_an_idle_thread_that_can_not_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the function that waits for work, how many threads are busy is unknown."""
    monkeypatch.setattr(executor_module, "WAITING", None)
    readings = Readings()
    _read_pool(ThreadPoolExecutor(1), readings)
    assert said(readings).keys() == {"threads", "most", "waiting"}


def test_threads_that_ended_are_not_counted() -> None:
    """A pool that was shut down has no threads."""
    with ThreadPoolExecutor(2) as pool:
        pool.submit(int).result()
    readings = Readings()
    _read_pool(pool, readings)
    assert said(readings)["threads"] == 0
