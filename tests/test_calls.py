"""Whatever is decorated is measured while it runs, and stays what it was."""

import asyncio
import functools
import inspect
import logging
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

import aiosvc
from aiosvc.calls import MAX_CLASSES, Measure


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


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return an empty registry."""
    return CollectorRegistry()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """Return the value of a series."""
    return registry.get_sample_value(name, labels)


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


async def test_count(registry: CollectorRegistry) -> None:
    """Calls are counted when they have ended, however that was."""
    orders = Counter("orders", "Orders.", ["kind"], registry=registry)

    @aiosvc.count(orders.labels("book"))
    async def order(ok: bool) -> None:
        if not ok:
            raise ValueError

    await order(True)
    with pytest.raises(ValueError):
        await order(False)
    assert value(registry, "orders_total", kind="book") == 2


async def test_in_progress(registry: CollectorRegistry) -> None:
    """The gauge says how many are running, and returns to 0 after a cancellation."""
    running = Gauge("running", "Running.", registry=registry)

    @aiosvc.in_progress(running)
    async def hang() -> None:
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(hang()) for _ in range(3)]
    await asyncio.sleep(0)
    assert value(registry, "running") == 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert value(registry, "running") == 0


@pytest.mark.parametrize("kind", [Histogram, prometheus_client.Summary, aiosvc.Summary])
async def test_timed(registry: CollectorRegistry, kind: Any) -> None:
    """Seconds go into histograms and summaries, prometheus_client's and ours."""
    times = iter([100.0, 101.5, 200.0, 199.0])
    metric = kind("work_seconds", "Work.", registry=registry)

    @aiosvc.timed(metric, clock=lambda: next(times))
    async def work() -> None:
        pass

    await work()
    assert value(registry, "work_seconds_sum") == 1.5
    await work()
    assert value(registry, "work_seconds_sum") == 1.5
    assert value(registry, "work_seconds_count") == 2


async def test_prometheus_client_measures_the_making_of_a_coroutine() -> None:
    """Why these exist: prometheus_client's own decorators see no coroutine, failure or wait."""
    registry = CollectorRegistry()
    seconds = Histogram("s", "S.", registry=registry)
    running = Gauge("g", "G.", registry=registry)
    failed = Counter("f", "F.", registry=registry)

    @seconds.time()
    @running.track_inprogress()
    @failed.count_exceptions()
    async def theirs() -> None:
        assert value(registry, "g") == 0  # though it runs
        await asyncio.sleep(0.05)
        raise ValueError

    pending = theirs()
    assert value(registry, "s_count") == 1  # before any of it has run
    made = value(registry, "s_sum") or 0
    with pytest.raises(ValueError):
        await pending
    assert value(registry, "s_count") == 1
    assert value(registry, "f_total") == 0

    @aiosvc.timed(seconds)
    @aiosvc.in_progress(running)
    @aiosvc.count_exceptions(failed)
    async def ours() -> None:
        assert value(registry, "g") == 1
        await asyncio.sleep(0.05)
        raise ValueError

    with pytest.raises(ValueError):
        await ours()
    assert (value(registry, "s_sum") or 0) - made >= 0.049
    assert value(registry, "f_total") == 1
    assert value(registry, "g") == 0


async def test_count_exceptions(registry: CollectorRegistry) -> None:
    """Exceptions are counted by class; a cancellation and an early close are none."""
    failed = Counter("failed", "Failed.", ["exception"], registry=registry)

    @aiosvc.count_exceptions(failed, by="exception")
    async def fail(error: BaseException | None) -> None:
        if error is not None:
            raise error

    await fail(None)
    for error in (ValueError(), ValueError(), KeyError(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await fail(error)
    assert value(registry, "failed_total", exception="ValueError") == 2
    assert value(registry, "failed_total", exception="KeyError") == 1
    [family] = failed.collect()
    assert len({s.labels["exception"] for s in family.samples}) == 2


def test_chosen_exceptions(registry: CollectorRegistry) -> None:
    """With *classes* only those are counted, and those that are no Exception if asked for."""
    failed = Counter("failed", "Failed.", registry=registry)
    measure = aiosvc.count_exceptions(failed, classes=(KeyError, asyncio.CancelledError))
    for error, known in ((KeyError(), 1), (ValueError(), 1), (asyncio.CancelledError(), 2)):
        with pytest.raises(type(error)), measure:
            raise error
        assert value(registry, "failed_total") == known


def test_exception_classes_are_bounded(registry: CollectorRegistry) -> None:
    """Classes beyond the fiftieth count as one."""
    failed = Counter("failed", "Failed.", ["exception"], registry=registry)
    measure = aiosvc.count_exceptions(failed, by="exception")
    for number in range(MAX_CLASSES + 30):
        kind = type(f"Error{number}", (Exception,), {})
        with pytest.raises(kind), measure:
            raise kind
    [family] = failed.collect()
    assert len({s.labels["exception"] for s in family.samples}) == MAX_CLASSES + 1
    assert value(registry, "failed_total", exception="_other") == 30


def test_metrics_by_name(registry: CollectorRegistry) -> None:
    """A name and a sentence make the metric, once; the name alone, or both, find it again."""
    for documentation in ("Orders.", None, "Orders."):
        with aiosvc.count("orders_total", documentation, registry=registry):
            pass
    with (
        aiosvc.timed("order_seconds", "Time.", registry=registry),
        aiosvc.in_progress("orders_in_progress", "Running.", registry=registry),
        suppress(KeyError),
        aiosvc.count_exceptions("errors_total", "Errors.", by="class_", registry=registry),
    ):
        assert value(registry, "orders_in_progress") == 1
        raise KeyError
    assert value(registry, "orders_total") == 3
    assert value(registry, "order_seconds_count") == 1
    assert value(registry, "errors_total", class_="KeyError") == 1


ORDERS = Counter("orders", "Orders.", registry=None)
LABELLED = Counter("labelled", "Labelled.", ["a", "b"], registry=None)
WRONG: Any = ORDERS
NOTHING: Any = None
SECONDS = Histogram("seconds", "Seconds.", ["a"], registry=None)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda r: aiosvc.count("x_total", registry=r), "'x_total' given without documentation"),
        (lambda r: aiosvc.count(ORDERS, "Orders."), "given beside a metric"),
        (lambda r: aiosvc.count(LABELLED), "with labels ('a', 'b') given; expected labels(...)"),
        (lambda r: aiosvc.timed(SECONDS), "with labels ('a',) given"),
        (lambda r: aiosvc.timed(aiosvc.Summary("s", "S.", ["a"], registry=None)), "labels ('a',)"),
        (lambda r: aiosvc.timed(WRONG), "expected a Histogram, or the name of one"),
        (lambda r: aiosvc.in_progress(WRONG), "expected a Gauge"),
        (lambda r: aiosvc.count(NOTHING), "None given; expected a Counter"),
        (lambda r: aiosvc.count_exceptions(ORDERS, by="x"), "expected one with the label 'x' only"),
        (lambda r: aiosvc.count_exceptions(LABELLED, by="a"), "the label 'a' only"),
        (
            lambda r: aiosvc.count_exceptions(ORDERS, classes=NOTHING),
            "expected classes of exceptions",
        ),
        (lambda r: aiosvc.count(ORDERS)(3), "3 given; expected a function or method"),
        (lambda r: aiosvc.count(ORDERS)(dict), "<class 'dict'> given; expected a function"),
    ],
)
def test_mistakes(registry: CollectorRegistry, call: Callable[[Any], object], says: str) -> None:
    """What can't work is said where it is written, not where it is called."""
    with pytest.raises(aiosvc.ConfigError) as raised:
        call(registry)
    assert says in str(raised.value)


def test_a_name_that_is_taken(registry: CollectorRegistry) -> None:
    """A name is of one kind, and of one owner."""
    aiosvc.count("a_total", "A.", registry=registry)
    with pytest.raises(aiosvc.ConfigError, match="already a Counter with labels"):
        aiosvc.in_progress("a_total", "A.", registry=registry)
    Gauge("b", "B.", registry=registry)
    with pytest.raises(aiosvc.ConfigError, match="Duplicated timeseries"):
        aiosvc.in_progress("b", "B.", registry=registry)


def test_a_metric_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The call goes on if its metric can't be changed, and the log says so once."""

    class Broken:
        def observe(self, _amount: float) -> None:
            raise OSError("no space left")

    @aiosvc.timed(Broken())
    def work() -> int:
        return 1

    with caplog.at_level(logging.ERROR):
        assert [work(), work()] == [1, 1]
    assert len(caplog.records) == 1


def test_what_could_not_begin_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    """A gauge that could not be raised is not lowered, so it never says less than nothing."""
    changes: list[str] = []

    class Broken:
        def inc(self) -> None:
            raise OSError("no space left")

        def dec(self) -> None:
            changes.append("dec")

    measure = aiosvc.in_progress(Broken())  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR), measure:
        assert measure(lambda: 1)() == 1
    assert changes == []
    assert len(caplog.records) == 1
