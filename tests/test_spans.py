"""Whatever is decorated is measured while it runs, and stays what it was."""

import asyncio
import functools
import inspect
import threading
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import aiosvc
from aiosvc.spans import Measure


class Probe(Measure):
    """A measure that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.ends: list[str | None] = []

    def begin(self) -> float:
        """Count."""
        self.begun += 1
        return float(self.begun)

    def end(self, _begun: float, error: BaseException | None) -> None:
        """Keep how it ended."""
        self.ends.append(None if error is None else type(error).__name__)


@pytest.fixture
def probe() -> Probe:
    """Return a measure that keeps what it is told."""
    return Probe()


def test_functions(probe: Probe) -> None:
    """A function's call is measured, its result and its exception come through."""

    @probe
    def divide(a: int, b: int = 1) -> float:
        """Divide."""
        return a / b

    assert divide(6, b=3) == 2
    with pytest.raises(ZeroDivisionError) as raised:
        divide(1, 0)
    assert raised.value.__cause__ is None
    assert probe.ends == [None, "ZeroDivisionError"]
    assert (divide.__name__, divide.__doc__) == ("divide", "Divide.")
    assert str(inspect.signature(divide)) == "(a: int, b: int = 1) -> float"


async def test_coroutine_functions(probe: Probe) -> None:
    """A coroutine is measured while it is awaited: not when it is made, nor if never awaited."""

    @probe
    async def work(go: asyncio.Event) -> str:
        await go.wait()
        return "done"

    assert inspect.iscoroutinefunction(work)
    go = asyncio.Event()
    pending = work(go)
    assert probe.begun == 0
    task = asyncio.create_task(pending)
    await asyncio.sleep(0)
    assert (probe.begun, probe.ends) == (1, [])
    go.set()
    assert await task == "done"
    assert probe.ends == [None]
    never = work(go)
    never.close()
    assert probe.begun == 1


async def test_cancelled_and_timed_out_calls(probe: Probe) -> None:
    """A call that is cancelled has ended, and its cancellation goes on."""

    @probe
    async def hang() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hang(), 0.001)
    assert probe.ends == ["CancelledError", "CancelledError"]


def test_generators(probe: Probe) -> None:
    """A generator is measured from its first item to its end, its close or its exception."""

    @probe
    def items(n: int) -> Iterator[int]:
        yield from range(n)

    assert inspect.isgeneratorfunction(items)
    made = items(3)
    assert probe.begun == 0
    assert list(made) == [0, 1, 2]
    closed = items(3)
    assert next(closed) == 0
    closed.close()
    items(3)
    assert probe.ends == [None, "GeneratorExit"]

    @probe
    def echo() -> Any:
        got = None
        while got != "stop":
            try:
                got = yield got
            except KeyError:
                got = "caught"
        return "returned"

    talk = echo()
    assert next(talk) is None
    assert talk.send("a") == "a"
    assert talk.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as stopped:
        talk.send("stop")
    assert stopped.value.value == "returned"
    fails = echo()
    next(fails)
    with pytest.raises(ValueError, match="mine"):
        fails.throw(ValueError("mine"))
    assert probe.ends[2:] == [None, "ValueError"]


async def test_async_generators(probe: Probe) -> None:
    """An async generator too: to its end, its close, what is thrown into it, and what is sent."""
    closed = []

    @probe
    async def echo(stop: object = "stop") -> Any:
        got: Any = None
        try:
            while got != stop:
                try:
                    got = yield got
                except KeyError:
                    got = "caught"
        finally:
            await asyncio.sleep(0)
            closed.append(stop)

    assert inspect.isasyncgenfunction(echo)
    talk = echo()
    assert probe.begun == 0
    assert await anext(talk) is None
    assert await talk.asend("a") == "a"
    assert await talk.athrow(KeyError()) == "caught"
    with pytest.raises(StopAsyncIteration):
        await talk.asend("stop")
    early = echo("early")
    await anext(early)
    await early.aclose()
    thrown = echo("thrown")
    await anext(thrown)
    with pytest.raises(ValueError, match="mine"):
        await thrown.athrow(ValueError("mine"))
    assert closed == ["stop", "early", "thrown"]
    assert probe.ends == [None, "GeneratorExit", "ValueError"]


async def test_an_async_generator_left_in_a_loop(probe: Probe) -> None:
    """A `break` that nobody follows with aclose() ends it too, once it is collected."""

    @probe
    async def forever() -> AsyncIterator[int]:
        while True:
            await asyncio.sleep(0)
            yield 1

    async for _ in forever():
        break
    for _ in range(5):
        await asyncio.sleep(0)
    assert probe.ends == ["GeneratorExit"]


async def test_an_async_generator_is_cancelled(probe: Probe) -> None:
    """A cancellation reaches the generator that waits, and is its end."""

    @probe
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in slow():
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert probe.ends == ["CancelledError"]


async def test_methods(probe: Probe) -> None:
    """Methods of all kinds are measured, whichever decorator comes first."""

    class Shop:
        @probe
        def plain(self) -> str:
            return "plain"

        @probe
        async def waits(self) -> str:
            return "waits"

        @classmethod
        @probe
        def inner(cls) -> str:
            return cls.__name__

        @probe
        @classmethod
        def outer(cls) -> str:
            return cls.__name__

        @probe
        @staticmethod
        async def alone() -> str:
            return "alone"

    shop = Shop()
    assert shop.plain() == "plain"
    assert await shop.waits() == "waits"
    assert (shop.inner(), Shop.outer()) == ("Shop", "Shop")
    assert await Shop.alone() == "alone"
    assert inspect.iscoroutinefunction(Shop.alone)
    assert probe.ends == [None] * 5


async def test_other_callables(probe: Probe) -> None:
    """A partial, an object with an async __call__ and a coroutine of generators are awaited."""

    async def add(a: int, b: int) -> int:
        return a + b

    class Adder:
        async def __call__(self, a: int, b: int) -> int:
            return a + b

    @types.coroutine
    def by_generator(a: int, b: int) -> Any:
        yield from asyncio.sleep(0).__await__()
        return a + b

    given: list[Any] = [functools.partial(add, 1), Adder(), by_generator]
    for function in given:
        measured = probe(function)
        assert inspect.iscoroutinefunction(measured)
        pending = measured(*((2,) if isinstance(function, functools.partial) else (1, 2)))
        begun = probe.begun
        assert await pending == 3
        assert probe.begun == begun + 1


@pytest.mark.skipif(not hasattr(inspect, "markcoroutinefunction"), reason="from Python 3.12 on")
async def test_marked_functions(probe: Probe) -> None:
    """A function marked as one that returns a coroutine is measured while that is awaited."""

    async def inner() -> int:
        return 1

    def returns() -> Any:
        return inner()

    measured = probe(inspect.markcoroutinefunction(returns))  # type: ignore[attr-defined]
    pending = measured()
    assert probe.begun == 0
    assert await pending == 1
    assert inspect.iscoroutinefunction(measured)


async def test_blocks_entered_at_once() -> None:
    """One object may be entered by many tasks and threads, and in itself; none are mixed up."""
    clock = iter([0.0, 10.0, 15.0, 30.0, 30.5, 31.0])
    seen: list[float] = []
    fake: Any = type("Observes", (), {"observe": lambda _self, amount: seen.append(amount)})()
    timer = aiosvc.timed(fake, clock=lambda: next(clock))
    first, second = asyncio.Event(), asyncio.Event()

    async def block(until: asyncio.Event) -> None:
        with timer:
            await until.wait()

    tasks = [asyncio.create_task(block(first)), asyncio.create_task(block(second))]
    await asyncio.sleep(0)
    first.set()
    await tasks[0]
    second.set()
    await tasks[1]
    assert seen == [15, 20]
    with timer:
        pass
    assert seen == [15, 20, 0.5]
    assert timer._open == {}


def test_nested_blocks_and_threads(probe: Probe) -> None:
    """A block in a block of the same object, and one in another thread, end on their own."""
    with probe:
        with probe, pytest.raises(KeyError), probe:
            raise KeyError
        thread = threading.Thread(target=probe(lambda: None))
        thread.start()
        thread.join()
        assert probe.ends == ["KeyError", None, None]
    assert probe.begun == len(probe.ends) == 4
