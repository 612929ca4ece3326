"""
Threads of the event loop's default executor: how many there are, work, and are waited for.

Rule: looks only, and never makes an executor. Rule: what is read is private to asyncio and
concurrent.futures; an attribute that is not there, or not what it was, leaves its metric out.

Theory of operation. The executor is made by the first `run_in_executor(None, ...)`. Before that there
are no threads, and nothing waits. A loop in C, like uvloop's, does not show its attribute; there the
executor is found among the objects that the loop refers to, from its first use on. A thread of the
pool is idle when the function that it runs is the one that waits for work; the pool's own count of
idle threads is wrong after a backlog (Python 3.11).
"""

import asyncio
import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as pool
from typing import Any, Final

from aiosvc import catalogue
from aiosvc.readings import Readings

__all__ = ["ExecutorSource"]

UNKNOWN: Final = object()

#: What a thread of a pool runs while it has nothing to do.
WAITING = getattr(getattr(pool, "_worker", None), "__code__", None)


class ExecutorSource:
    """Reads the default executor of the loop that it is read on."""

    def read(self) -> Readings:
        """Return what is known of it now."""
        readings = Readings()
        executor = _default_executor(asyncio.get_running_loop())
        if executor is None:
            readings.number(catalogue.ASYNCIO_EXECUTOR_THREADS, 0)
            readings.number(catalogue.ASYNCIO_EXECUTOR_BUSY, 0)
            readings.number(catalogue.ASYNCIO_EXECUTOR_QUEUE, 0)
        elif isinstance(executor, ThreadPoolExecutor):
            _read_pool(executor, readings)
        return readings


def _default_executor(loop: Any) -> object:
    """Return the executor, None where there is none yet, UNKNOWN where that can't be seen."""
    executor = getattr(loop, "_default_executor", UNKNOWN)
    if executor is not UNKNOWN:
        return executor
    # Attributes that somebody gave the loop are referred to in the same way.
    foreign = {id(each) for each in getattr(loop, "__dict__", {}).values()}
    found = [
        each
        for each in gc.get_referents(loop)
        if isinstance(each, ThreadPoolExecutor) and id(each) not in foreign
    ]
    return found[0] if len(found) == 1 else UNKNOWN


def _read_pool(executor: Any, readings: Readings) -> None:
    most = getattr(executor, "_max_workers", None)
    if isinstance(most, int):
        readings.number(catalogue.ASYNCIO_EXECUTOR_MAX, most)
    waiting = getattr(getattr(executor, "_work_queue", None), "qsize", None)
    if callable(waiting):
        readings.number(catalogue.ASYNCIO_EXECUTOR_QUEUE, waiting())
    threads = getattr(executor, "_threads", None)
    if isinstance(threads, set):
        running = sys._current_frames()  # noqa: SLF001 - documented, despite its name
        # Without those that ended. A copy: another thread may use the same executor.
        mine = [running[t.ident] for t in tuple(threads) if t.ident in running]
        readings.number(catalogue.ASYNCIO_EXECUTOR_THREADS, len(mine))
        if WAITING is not None:
            busy = sum(frame.f_code is not WAITING for frame in mine)
            readings.number(catalogue.ASYNCIO_EXECUTOR_BUSY, busy)
