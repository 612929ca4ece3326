"""
Queues of other kinds, by what they say of themselves: anyio, aiojobs, executors, semaphores.

Rule: nothing is changed in what is looked at, and no library is imported: an object is recognised by
what it can say. Rule: what an object says is read by `guarded`, whether it is public or not, so that
a version that says it otherwise only leaves something out.
"""

import asyncio
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

from aiosvc.errors import ConfigError
from aiosvc.queues.state import Probe, QueueState, guarded

__all__ = ["probe_of", "subject_of"]

#: From here on a pool of threads counts a thread as idle only when it is; see `_threads`.
TRUE_IDLE: Final = (3, 13)


class Statistics:
    """Reads an object that a function knows how to read, and that is held weakly."""

    def __init__(self, backend: str, watched: Any, read: Callable[[Any], QueueState]) -> None:
        self.backend = backend
        try:
            self._ref = weakref.ref(watched)
        except TypeError:
            raise ConfigError(
                f"watch_queue: {watched!r} can't be referred to weakly; give its class a __weakref__"
            ) from None
        self._read = read

    def read(self) -> QueueState:
        """Return how it stands now."""
        watched = self._ref()
        return QueueState() if watched is None else self._read(watched)


def subject_of(watched: Any) -> Any:
    """Return what both ends of a stream have in common, or *watched* itself."""
    state = getattr(watched, "_state", None)
    return state if _says(watched, STREAM) and _says(state, STREAM) else watched


def probe_of(watched: Any) -> Probe | None:
    """
    Return what reads *watched*; None where it says nothing about a queue.

    Raises ConfigError where it can't be held weakly.
    """
    for backend, recognised, read in KINDS:
        if recognised(watched):
            return Statistics(backend, watched, read)
    return None


STREAM: Final = "current_buffer_used"
LIMITER: Final = "borrowed_tokens"


def _says(watched: Any, name: str) -> bool:
    try:
        return hasattr(watched.statistics(), name)
    except Exception:  # noqa: BLE001 - whatever is in the way, it does not say so
        return False


def _stream(watched: Any) -> QueueState:
    said = watched.statistics()
    capacity = guarded(lambda: said.max_buffer_size)
    return QueueState(
        depth=guarded(lambda: said.current_buffer_used),
        capacity=None if capacity is None or capacity == float("inf") else capacity,
        consumers=guarded(lambda: said.open_receive_streams),
        consumers_waiting=guarded(lambda: said.tasks_waiting_receive),
        producers_waiting=guarded(lambda: said.tasks_waiting_send),
    )


def _limiter(watched: Any) -> QueueState:
    slots = guarded(lambda: watched.total_tokens)
    return QueueState(
        depth=guarded(lambda: watched.statistics().tasks_waiting),
        slots=None if slots is None or slots == float("inf") else slots,
        busy=guarded(lambda: watched.borrowed_tokens),
    )


def _scheduler(watched: Any) -> QueueState:
    busy = guarded(lambda: max(0, watched.active_count))
    capacity = guarded(lambda: watched.pending_limit)
    return QueueState(
        depth=guarded(lambda: watched.pending_count),
        in_flight=busy,
        capacity=capacity if capacity is not None and capacity > 0 else None,
        slots=guarded(lambda: watched.limit),
        busy=busy,
    )


def _semaphore(watched: Any) -> QueueState:
    # How many may hold a plain one nobody knows: release() may be called without an acquire().
    slots = guarded(lambda: watched._bound_value)
    free = guarded(lambda: watched._value)
    return QueueState(
        depth=guarded(lambda: len(watched._waiters or ())),
        slots=slots,
        busy=None if slots is None or free is None else max(0, slots - free),
    )


def _threads(watched: Any) -> QueueState:
    waiting = guarded(lambda: int(watched._work_queue.qsize()))
    if waiting and guarded(lambda: int(watched._shutdown)):
        waiting -= 1  # what tells the threads to end lies in the queue too
    busy = None
    # Before, a thread that goes from one job straight to the next counts as idle once more.
    if sys.version_info[:2] >= TRUE_IDLE:
        busy = guarded(lambda: max(0, len(watched._threads) - watched._idle_semaphore._value))
    return QueueState(
        depth=waiting, in_flight=busy, slots=guarded(lambda: watched._max_workers), busy=busy
    )


def _processes(watched: Any) -> QueueState:
    slots = guarded(lambda: watched._max_workers)
    # Those that were handed to a process stay in here until they are done.
    unfinished = guarded(lambda: len(watched._pending_work_items))
    if slots is None or unfinished is None:
        return QueueState(slots=slots)
    busy = min(slots, unfinished)
    return QueueState(depth=unfinished - busy, in_flight=busy, slots=slots, busy=busy)


def _sized(watched: Any) -> QueueState:
    capacity = guarded(lambda: watched.maxsize)
    return QueueState(
        depth=guarded(watched.qsize),
        capacity=capacity if capacity is not None and capacity > 0 else None,
    )


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda watched: all(hasattr(watched, name) for name in names)


#: The kinds, the first that fits is meant: how it is called, what to recognise it by, how to read it.
KINDS: Final[tuple[tuple[str, Callable[[Any], bool], Callable[[Any], QueueState]], ...]] = (
    ("semaphore", lambda watched: isinstance(watched, asyncio.Semaphore), _semaphore),
    (
        "executor",
        lambda watched: isinstance(watched, Executor) and hasattr(watched, "_work_queue"),
        _threads,
    ),
    (
        "executor",
        lambda watched: isinstance(watched, Executor) and hasattr(watched, "_pending_work_items"),
        _processes,
    ),
    ("anyio", lambda watched: _says(watched, STREAM), _stream),
    ("anyio", lambda watched: _says(watched, LIMITER), _limiter),
    ("aiojobs", _has("active_count", "pending_count", "pending_limit", "limit"), _scheduler),
    (
        "queue",
        lambda watched: not isinstance(watched, type) and callable(getattr(watched, "qsize", None)),
        _sized,
    ),
)
