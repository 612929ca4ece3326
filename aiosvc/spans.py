"""
A call, or a block of code, from where it begins to where it ends.

Rule: knows no metric. Rule: a call is measured from where its body begins to run to where it ends,
however it ends: a coroutine function's while it is awaited and not while the coroutine is made, a
generator's from the first item asked for to exhaustion or close. Rule: what is decorated stays what
it is: a coroutine function, a generator function, a class method, with its name and signature; what
it returns and raises is not touched.
"""

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from aiosvc.callables import gives_async_generator, gives_coroutine, gives_generator
from aiosvc.errors import ConfigError

__all__ = ["Measure", "Span"]

log = logging.getLogger("aiosvc")

F = TypeVar("F")


class Span:
    """
    One call or block, from where it begins to where it ends.

    An error of the measure's goes no further than to it; what could not begin does not end.
    """

    __slots__ = ("_begun", "_measure")

    def __init__(self, measure: "Measure") -> None:
        self._measure = measure
        self._begun: float | None = None

    def __enter__(self) -> None:
        try:
            self._begun = self._measure.begin()
        except Exception as error:  # noqa: BLE001 - the metric's, and not the call's
            self._measure.failed(error)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._begun is None:
            return
        try:
            self._measure.end(self._begun, error)
        except Exception as own:  # noqa: BLE001 - the metric's, and not the call's
            self._measure.failed(own)


class Measure:
    """
    What is done where a call or a block begins and ends.

    As a decorator it takes functions, coroutine functions, generator functions of both kinds, and
    class and static methods. As a context manager it may be entered many times at once.
    """

    def __init__(self) -> None:
        self._open: dict[object, list[Span]] = {}
        self._has_failed = False

    def begin(self) -> float:
        """Do what is to be done at the beginning; what it returns is handed to `end`."""
        return 0.0

    def end(self, begun: float, error: BaseException | None) -> None:
        """Do what is to be done at the end; *error* is how it ended, if not well."""

    def failed(self, error: Exception) -> None:
        """Tell of an error of the metric's, which is none of the call's; the first one only."""
        if not self._has_failed:
            self._has_failed = True
            log.error("a call could not be measured; no further error is logged", exc_info=error)

    def __call__(self, function: F) -> F:
        """Return *function*, measured."""
        if isinstance(function, classmethod | staticmethod):
            return cast(F, type(function)(self(function.__func__)))
        if isinstance(function, type) or not callable(function):
            raise ConfigError(f"{function!r} given; expected a function or method to measure")
        return cast(F, functools.wraps(function)(self._wrapped(function)))

    def __enter__(self) -> Self:
        span = Span(self)
        span.__enter__()
        self._open.setdefault(_current(), []).append(span)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        current = _current()
        entered = self._open[current]
        span = entered.pop()
        if not entered:
            del self._open[current]
        span.__exit__(kind, error, traceback)

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if gives_coroutine(function):
            return self._coroutine(function)
        if gives_async_generator(function):
            return self._async_generator(function)
        if gives_generator(function):
            return self._generator(function)
        return self._plain(function)

    def _plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            with Span(self):
                return function(*args, **kwargs)

        return measured

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def measured(*args: Any, **kwargs: Any) -> Any:
            with Span(self):
                return await function(*args, **kwargs)

        return measured

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with Span(self):
                return (yield from function(*args, **kwargs))

        return measured

    def _async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def measured(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with Span(self):
                items = function(*args, **kwargs)
                step = items.asend(None)
                while True:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        return
                    try:
                        sent = yield item
                    except GeneratorExit:
                        await items.aclose()
                        raise
                    except BaseException as thrown:  # noqa: BLE001 - it is the other's to judge
                        step = items.athrow(thrown)
                    else:
                        step = items.asend(sent)

        return measured


def _current() -> object:
    """Return what runs now: the task, or the thread where there is none."""
    try:
        return asyncio.current_task() or threading.get_ident()
    except RuntimeError:
        return threading.get_ident()
