"""What a call gives, told without calling."""

import asyncio
import functools
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from aiosvc.callables import gives_async_generator, gives_coroutine, gives_generator


def plain() -> int:
    """Return."""
    return 1


async def coroutine() -> int:
    """Return, when awaited."""
    return 1


def generator() -> Iterator[int]:
    """Yield."""
    yield 1


async def async_generator() -> AsyncIterator[int]:
    """Yield, when awaited."""
    yield 1


@types.coroutine
def marked() -> Iterator[Any]:
    """Wait, in the way of before async functions."""
    yield from asyncio.sleep(0).__await__()


FUNCTIONS = {
    plain: None,
    coroutine: gives_coroutine,
    generator: gives_generator,
    async_generator: gives_async_generator,
}


def forms(function: Callable[..., object]) -> list[object]:
    """Return the function, and all else that gives the same when it is called."""
    holder = type("Holder", (), {"method": staticmethod(function)})
    called = type("Called", (), {"__call__": staticmethod(function)})
    return [function, functools.partial(function), holder().method, called()]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_methods_and_objects_alike(function: Callable[..., object]) -> None:
    """Exactly one kind is told of a function, and the same of every form that it may have."""
    for form in forms(function):
        for kind in (gives_coroutine, gives_generator, gives_async_generator):
            assert kind(form) is (kind is FUNCTIONS[function]), (kind, form)


def test_a_coroutine_of_a_generator() -> None:
    """What `types.coroutine` has marked is awaited, so it gives a coroutine."""
    assert gives_coroutine(marked)


@pytest.mark.parametrize("other", [None, 1, "text", len, int])
def test_what_is_no_function(other: object) -> None:
    """Of anything else nothing is said, and nothing raised."""
    assert not any(
        kind(other) for kind in (gives_coroutine, gives_generator, gives_async_generator)
    )
