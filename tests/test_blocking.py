"""Blocking functions in threads of their own."""

import asyncio
import os
import threading
import time
from collections.abc import Callable

import pytest

from aiosvc.blocking import InThread, end


async def ended(future: "asyncio.Future[object]") -> BaseException | None:
    """Return what a future failed with, within ten seconds."""
    await asyncio.wait([future], timeout=10)
    return future.exception()


def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


@pytest.mark.parametrize("raised", [OSError("gone"), SystemExit(3), asyncio.CancelledError()])
async def test_what_it_raises_is_the_futures(raised: BaseException) -> None:
    """Whatever the function raises, the thread hands it over and goes on."""
    answers: list[BaseException | None] = [raised, None]

    def read() -> str:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return "fine"

    thread = InThread("test", read)
    assert await ended(thread.read()) is raised
    assert await thread.read() == "fine"
    end([thread])


async def test_an_iterator_that_is_through() -> None:
    """A StopIteration, which no future takes, is an error like others, and not a call for ever."""
    thread = InThread("test", lambda: next(iter(())))
    for _ in range(2):
        failure = await ended(thread.read())
        assert isinstance(failure, RuntimeError)
        assert str(failure) == "raised StopIteration(None)"
    end([thread])


async def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process may have no more threads, the call fails, and a later one works."""

    def fail(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thread = InThread("test", lambda: 7)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                thread.read()
    assert await asyncio.wait_for(thread.read(), 10) == 7
    end([thread])


def test_a_loop_that_closes_meanwhile() -> None:
    """The next loop's call finds a thread, also where the last loop was closed under a call."""
    go = threading.Event()
    calls = []

    def read() -> int:
        calls.append(1)
        go.wait(10)
        return len(calls)

    thread = InThread("test", read)

    async def ask() -> None:
        thread.read()
        await asyncio.sleep(0)

    async def answer() -> int:
        found: int = await asyncio.wait_for(thread.read(), 10)
        return found

    before = threading.active_count()
    asyncio.run(ask())
    until(lambda: calls)
    go.set()
    until(lambda: threading.active_count() == before)
    assert asyncio.run(answer()) == 2
    end([thread])


async def test_it_is_never_entered_twice() -> None:
    """While the function hangs it is not called again, also after the thread was given up."""
    go, inside, most = threading.Event(), [], []

    def read() -> None:
        inside.append(1)
        most.append(len(inside))
        go.wait(10)
        inside.pop()

    thread = InThread("test", read)
    first = thread.read()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="has not returned yet"):
            thread.read()
        thread.close()
    go.set()
    await first
    await thread.read()
    assert most == [1, 1]
    end([thread])


async def test_many_that_hang_end_as_one() -> None:
    """The ends of hung threads are waited for together, not each in its turn."""
    go = threading.Event()
    threads = [InThread("test", lambda: go.wait(10)) for _ in range(40)]
    answers = [thread.read() for thread in threads]
    begun = time.thread_time()
    clock = time.monotonic()
    end(threads)
    # One after the other it would be two seconds; a loaded machine has ten times what it needs.
    assert time.monotonic() - clock < 1.0
    assert time.thread_time() - begun < 1.0
    go.set()
    await asyncio.gather(*answers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("held", [True, False])
def test_a_fork_in_the_midst_of_a_call(held: bool) -> None:
    """A child calls the function in a thread of its own, whatever the parent's was in."""
    go = threading.Event()
    inside = threading.Event()

    def read() -> int:
        inside.set()
        go.wait(10)
        return os.getpid()

    thread = InThread("fork", read)

    async def begin() -> None:
        thread.read().cancel()

    async def again() -> int:
        async with asyncio.timeout(5):
            found: int = await thread.read()
            return found

    asyncio.run(begin())
    assert inside.wait(10)
    if held:
        thread._deciding.acquire()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            thread.abandon()
            go.set()
            status = int(asyncio.run(again()) != os.getpid())
        finally:
            os._exit(status)
    if held:
        thread._deciding.release()
    go.set()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    end([thread])
