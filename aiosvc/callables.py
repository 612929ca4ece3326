"""
What a call gives, told without calling: a coroutine, a generator, or a plain result.

Rule: the same is said of a function, a method and an object with a `__call__`; `inspect` alone knows
nothing of the last.
"""

import inspect
from collections.abc import Callable

__all__ = ["gives_async_generator", "gives_coroutine", "gives_generator"]


def gives_coroutine(call: object) -> bool:
    """Say whether *call* is an async function, or what `types.coroutine` made of another one."""
    return _is(inspect.iscoroutinefunction, call) or _is(_is_marked, call)


def gives_async_generator(call: object) -> bool:
    """Say whether *call* is an async function that yields."""
    return _is(inspect.isasyncgenfunction, call)


def gives_generator(call: object) -> bool:
    """Say whether *call* is a function that yields."""
    return _is(inspect.isgeneratorfunction, call)


def _is(test: Callable[[object], bool], call: object) -> bool:
    return test(call) or test(getattr(call, "__call__", None))  # noqa: B004 - it is to be looked at


def _is_marked(call: object) -> bool:
    code = getattr(inspect.unwrap(call) if callable(call) else None, "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)
