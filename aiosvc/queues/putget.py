"""
Queues that put and get through `_put` and `_get`: those of asyncio, queue and janus, in place.

Rule: the queue behaves as before. What it raises goes on unchanged, what goes wrong in here is kept
for whoever exports the numbers, and after an item has left or entered nothing in here raises. Rule:
a queue is instrumented once, however many observers look at it, and nothing in here keeps it alive.

Theory of operation. CPython documents `_init`, `_put` and `_get` as what a subclass may override, and
every item passes them, whoever puts or takes it and however long it had to wait for it. An attribute
of the instance overrides them without a subclass. Refusals never get that far, so `put` and
`put_nowait` are wrapped too; a refusal that passes both counts once. `task_done` is wrapped until
its first call, which says that the queue's number of unfinished tasks means something.

Nothing in here asks a queue for its `__dict__`: CPython keeps the attributes of an object that nobody
asked in a faster place, and the queue's own code would be the slower for it.

The attributes hold the queue's own methods, and so the queue: a cycle that the garbage collector
frees.
"""

import asyncio
import queue
import weakref
from collections.abc import Callable
from typing import Any, Final

from aiosvc.queues import overrides
from aiosvc.queues.instrument import Instrument
from aiosvc.queues.state import QueueState, guarded

__all__ = ["PutGet", "instrument", "instruments_of", "whole_of"]

#: Where a queue keeps what it was instrumented with.
ATTRIBUTE: Final = "_aiosvc_putget"

#: Where the queues come from that keep every item that is put.
MODULES: Final = ("asyncio.queues", "queue", "janus")

#: The classes whose `_put` and `_get` serve strictly from one end, and whether from the last.
ORDERED: Final = {
    (module, f"{name}.{verb}"): lifo
    for module in MODULES
    for name, lifo in (("Queue", False), ("LifoQueue", True))
    for verb in ("_put", "_get")
}


class PutGet(Instrument):
    """One instrumented queue, which it knows weakly, and how it stands."""

    def __init__(self, watched: Any, backend: str, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.backend = backend
        self._ref = weakref.ref(watched)

    def read(self) -> QueueState:
        """Return how the queue stands now."""
        watched = self._ref()
        if watched is None:
            return QueueState()
        depth = guarded(_size_of(watched))
        capacity = guarded(lambda: watched.maxsize)
        in_flight = None
        if self.counts_unfinished and depth is not None:
            unfinished = guarded(lambda: _unfinished(watched))
            in_flight = None if unfinished is None else max(0, unfinished - depth)
        getters, putters = _waiting(watched)
        return QueueState(
            depth=depth,
            capacity=capacity if capacity is not None and capacity > 0 else None,
            in_flight=in_flight,
            consumers_waiting=getters,
            producers_waiting=putters,
            oldest_age=self.oldest_age(depth),
        )


def instruments_of(watched: Any) -> tuple[PutGet, ...]:
    """Return what a queue, or an end of one, is instrumented with."""
    kept: dict[bool, PutGet] = getattr(whole_of(watched), ATTRIBUTE, {})
    return tuple(kept.values())


def instrument(watched: Any, clock: Callable[[], float], *, waits: bool) -> PutGet | None:
    """
    Return the instrument of a queue, put in place at the first call.

    None where the object does not put and get this way, or does not let its attributes be set.
    """
    watched = whole_of(watched)
    backend = _backend(watched)
    if backend is None:
        return None
    kept: dict[bool, PutGet] = getattr(watched, ATTRIBUTE, {})
    known = kept.get(True) or kept.get(waits)
    if known is not None:
        return known
    made = PutGet(watched, backend, clock)
    try:
        setattr(watched, ATTRIBUTE, {**kept, waits: made})
    except (AttributeError, TypeError):
        return None
    size = _size_of(watched)
    lifo = _lifo(watched, nested=bool(kept))
    if not waits:
        watched._put = overrides.counting(watched, made)
    elif lifo is None:
        faithful = type(watched)._put.__module__ in MODULES
        watched._put, watched._get = overrides.by_identity(watched, made, size, faithful=faithful)
    else:
        watched._put, watched._get = overrides.in_order(watched, made, size, lifo=lifo)
    for end in _ends(watched):
        for verb in ("put", "put_nowait"):
            setattr(end, verb, overrides.counting_refusals(getattr(end, verb), made))
        overrides.notice_task_done(end, made)
    if hasattr(watched, "shutdown"):
        watched.shutdown = overrides.dropping_rest(watched.shutdown, watched, made)
    return made


def whole_of(watched: Any) -> Any:
    """Return the queue that *watched* is, or that it is an end of."""
    parent = getattr(watched, "_parent", None)
    return parent if _backend(parent) == "janus" else watched


def _backend(watched: Any) -> str | None:
    if isinstance(watched, asyncio.Queue):
        return "asyncio"
    if isinstance(watched, queue.Queue):
        return "queue"
    names = ("_put", "_get", "_qsize", "sync_q", "async_q")
    return "janus" if all(hasattr(watched, name) for name in names) else None


def _ends(watched: Any) -> tuple[Any, ...]:
    return (watched.sync_q, watched.async_q) if _backend(watched) == "janus" else (watched,)


def _size_of(watched: Any) -> Callable[[], int]:
    # The public qsize() of a queue for threads waits for the mutex, which a put or get holds.
    size: Callable[[], int] = watched.qsize if _backend(watched) == "asyncio" else watched._qsize
    return size


def _lifo(watched: Any, *, nested: bool) -> bool | None:
    """Return whether the last in is the first out, None where the order is not known."""
    bound = (getattr(method, "__func__", None) for method in (watched._put, watched._get))
    if not nested and (type(watched)._put, type(watched)._get) != tuple(bound):
        return None  # somebody else's, on this instance
    orders = {
        ORDERED.get((method.__module__, method.__qualname__))
        for method in (type(watched)._put, type(watched)._get)
    }
    return orders.pop() if len(orders) == 1 else None


def _unfinished(watched: Any) -> Any:
    names = ("unfinished_tasks", "_unfinished_tasks")
    return next(getattr(watched, name) for name in names if hasattr(watched, name))


def _waiting(watched: Any) -> tuple[float | None, float | None]:
    """Return how many wait for an item, and how many for room; all of these names are private."""
    if isinstance(watched, asyncio.Queue):
        inside: Any = watched
        return guarded(lambda: len(inside._getters)), guarded(lambda: len(inside._putters))
    if isinstance(watched, queue.Queue):
        inside = watched
        return (
            guarded(lambda: len(inside.not_empty._waiters)),
            guarded(lambda: len(inside.not_full._waiters)),
        )
    return (
        guarded(lambda: watched._sync_not_empty_waiting + watched._async_not_empty_waiting),
        guarded(lambda: watched._sync_not_full_waiting + watched._async_not_full_waiting),
    )
