"""
What takes the place of a queue's methods, on the instance.

Rule: what a method does, returns and raises stays as it was. Once an item has entered or left,
nothing in here raises; what goes wrong is kept in the instrument.
"""

import asyncio
import functools
import inspect
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from aiosvc.catalogue import WAIT_BUCKETS
from aiosvc.queues.instrument import Instrument
from aiosvc.queues.stamps import IdentityStamps, OrderedStamps

__all__ = [
    "by_identity",
    "counting",
    "counting_refusals",
    "dropping_rest",
    "in_order",
    "notice_task_done",
]

#: Where a refusal keeps who has counted it, while it passes from `put_nowait` through `put`.
COUNTED: Final = "_aiosvc_counted"

Size = Callable[[], int]


def in_order(watched: Any, made: Instrument, size: Size, *, lifo: bool) -> tuple[Any, Any]:
    """Return a `_put` and `_get` for a queue that is served from one end."""
    inner_put, inner_get = watched._put, watched._get
    numbers, returning, clock = made.numbers, made.returning, made.clock
    buckets, bounds = numbers.waits, WAIT_BUCKETS
    made.stamps = stamps = OrderedStamps(lifo=lifo)
    append, take, held = stamps.append, stamps.take, stamps.held
    stamps.restart(size(), clock())

    def _put(item: Any) -> None:
        inner_put(item)
        if returning and (due := returning.pop(id(item), None)) is not None:
            append(due)
        else:
            append(clock())
            numbers.enqueued += 1

    def _get() -> Any:
        item = inner_get()
        try:
            since = take()
            if made.dropper is not None and made.drops():
                since = None
            if since is not None:
                seconds = clock() - since
                buckets[bisect_left(bounds, seconds)] += 1
                numbers.seconds += seconds
            if len(held) != size():
                made.restart(size)
        except IndexError:
            made.restart(size)
        except Exception as error:  # noqa: BLE001 - the item is out and must reach its taker
            made.failure = error
        return item

    return _put, _get


def by_identity(watched: Any, made: Instrument, size: Size, *, faithful: bool) -> tuple[Any, Any]:
    """
    Return a `_put` and `_get` for a queue of any order.

    It is *faithful* where it keeps every item that is put; a class of the user's own may not.
    """
    made.stamps = stamps = IdentityStamps()
    stamps.restart(size(), made.clock())
    _put = _put_by_identity(watched._put, made, stamps)

    def _put_and_compare(item: Any) -> None:
        _put(item)
        made.compare(size)

    _get = _get_by_identity(watched._get, made, stamps, size)
    return (_put if faithful else _put_and_compare), _get


def _put_by_identity(
    inner: Callable[[Any], None], made: Instrument, stamps: IdentityStamps
) -> Callable[[Any], None]:
    numbers, returning, clock = made.numbers, made.returning, made.clock
    held, twins = stamps.held, stamps.twins

    def _put(item: Any) -> None:
        inner(item)
        key = id(item)
        due = returning.pop(key, None) if returning else None
        if due is None:
            numbers.enqueued += 1
            due = clock()
        if twins or key in held:
            stamps.add(item, due)
        else:
            held[key] = due

    return _put


def _get_by_identity(
    inner: Callable[[], Any], made: Instrument, stamps: IdentityStamps, size: Size
) -> Callable[[], Any]:
    numbers, clock = made.numbers, made.clock
    buckets, bounds = numbers.waits, WAIT_BUCKETS
    held, twins = stamps.held, stamps.twins

    def _get() -> Any:
        item = inner()
        try:
            since = stamps.take(item) if twins or stamps.unknown else held.pop(id(item), None)
            if made.dropper is not None and made.drops():
                since = None
            if since is not None:
                seconds = clock() - since
                buckets[bisect_left(bounds, seconds)] += 1
                numbers.seconds += seconds
                made.lost = False
            if len(held) + stamps.unknown != size():
                made.lost = since is None
                made.restart(size)
        except Exception as error:  # noqa: BLE001 - the item is out and must reach its taker
            made.failure = error
        return item

    return _get


def counting(watched: Any, made: Instrument) -> Any:
    """Return a `_put` that counts; without times, no `_get` is needed."""
    inner_put = watched._put
    numbers, returning = made.numbers, made.returning

    def _put(item: Any) -> None:
        inner_put(item)
        if not returning or returning.pop(id(item), None) is None:
            numbers.enqueued += 1

    return _put


def counting_refusals(inner: Callable[..., Any], made: Instrument) -> Callable[..., Any]:
    """Return *inner*, a queue's `put` or `put_nowait`, that counts what it raises."""
    function = getattr(inner, "__func__", None)
    if function in (asyncio.Queue.put, asyncio.Queue.put_nowait):
        wrapper = _of_one_item(inner, made)
    elif inspect.iscoroutinefunction(inner):

        async def wrapper(*args: Any, **named: Any) -> Any:
            try:
                return await inner(*args, **named)
            except BaseException as error:
                _refused(made, error, args)
                raise

    else:

        def wrapper(*args: Any, **named: Any) -> Any:
            try:
                return inner(*args, **named)
            except BaseException as error:
                _refused(made, error, args)
                raise

    return functools.wraps(inner)(wrapper)


def _of_one_item(inner: Callable[[Any], Any], made: Instrument) -> Callable[..., Any]:
    # The two that every item of most queues passes have their parameter written out: it is faster.
    if inspect.iscoroutinefunction(inner):

        async def put(item: Any) -> Any:
            try:
                return await inner(item)
            except BaseException as error:
                _refused(made, error, (item,))
                raise

        return put

    def put_nowait(item: Any) -> Any:
        try:
            return inner(item)
        except BaseException as error:
            _refused(made, error, (item,))
            raise

    return put_nowait


def _refused(made: Instrument, error: BaseException, args: tuple[Any, ...]) -> None:
    counted: tuple[Instrument, ...] = getattr(error, COUNTED, ())
    if made in counted or (made.returning and args and id(args[0]) in made.returning):
        return
    made.numbers.reject(error)
    with suppress(AttributeError, TypeError):
        setattr(error, COUNTED, (*counted, made))


def notice_task_done(end: Any, made: Instrument) -> None:
    """Notice the first call of the `task_done` of *end*, and leave it alone after that."""
    inner = end.task_done
    was_own = getattr(inner, "__func__", None) is not type(end).task_done

    @functools.wraps(inner)
    def task_done() -> None:
        if not made.counts_unfinished:
            made.counts_unfinished = True
            if end.task_done is task_done:
                if was_own:
                    end.task_done = inner
                else:
                    del end.task_done
        inner()

    end.task_done = task_done


def dropping_rest(inner: Callable[..., Any], watched: Any, made: Instrument) -> Callable[..., Any]:
    """Return *inner*, a queue's `shutdown`, that counts what it takes out as dropped."""

    @functools.wraps(inner)
    def shutdown(*args: Any, **named: Any) -> Any:
        with made.dropping():
            if made.stamps is not None:
                return inner(*args, **named)
            inner_get = watched._get  # which may be another observer's by now

            def _get() -> Any:
                item = inner_get()
                made.drops()
                return item

            watched._get = _get
            try:
                return inner(*args, **named)
            finally:
                watched._get = inner_get

    return shutdown
