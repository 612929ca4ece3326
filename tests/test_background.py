"""An event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator

import pytest

from aiosvc.background import BackgroundLoop


@pytest.fixture
def background() -> Iterator[BackgroundLoop]:
    """Give a running one."""
    found = BackgroundLoop("test")
    yield found
    found.stop()


def test_call(background: BackgroundLoop) -> None:
    """A coroutine runs in the thread, and its result or exception comes back."""

    async def name() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise KeyError("no")

    assert background.call(name()) == "test"
    with pytest.raises(KeyError):
        background.call(fail())
    with pytest.raises(TimeoutError):
        background.call(asyncio.Event().wait(), timeout=0.01)


def test_call_after_the_end(background: BackgroundLoop) -> None:
    """A loop that has ended says so, and leaves no coroutine behind."""
    background.stop()
    background.stop()
    with pytest.raises(RuntimeError):
        background.call(asyncio.sleep(0))


async def _numbers(closed: list[bool], *, last: int) -> AsyncGenerator[bytes, None]:
    try:
        for number in range(last):
            yield str(number).encode()
        await asyncio.Event().wait()
    finally:
        closed.append(True)


def test_iterate(background: BackgroundLoop) -> None:
    """A body is closed on its loop, read to its end or not, and given up at its deadline."""
    closed: list[bool] = []
    chunks = background.iterate(_numbers(closed, last=3), 10.0)
    assert next(chunks) == b"0"
    chunks.close()  # type: ignore[attr-defined]  # it is a generator
    assert closed == [True]
    with pytest.raises(TimeoutError):
        list(background.iterate(_numbers(closed, last=3), 0.05))
    assert closed == [True, True]
