"""Metrics of one's own about calls and blocks: counted, timed, in progress, and what they raise."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

import aiosvc
from aiosvc.calls import MAX_CLASSES


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return an empty registry."""
    return CollectorRegistry()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """Return the value of a series."""
    return registry.get_sample_value(name, labels)


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
        (
            lambda r: aiosvc.count("x_total", registry=r),
            "'x_total' given with documentation None; say in a sentence",
        ),
        (lambda r: aiosvc.count("x_total", cast(Any, 5), registry=r), "with documentation 5; say"),
        (lambda r: aiosvc.count_exceptions("x_total", "X.", by="", registry=r), "by: '' given"),
        (
            lambda r: aiosvc.count_exceptions("x_total", "X.", by=cast(Any, 5), registry=r),
            "by: 5 given; expected the name of a label",
        ),
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
