"""The sampler: schedules, isolation, timeouts, restarts."""

import asyncio
import gc
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from aiosvc import catalogue
from aiosvc.errors import ConfigError
from aiosvc.readings import Readings
from aiosvc.sampling import Sampler

FAST = 0.01


class Errors:
    """Stands in for the collector's error counter."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, BaseException]] = []

    def __call__(self, where: str, error: BaseException) -> None:
        """Note it."""
        self.seen.append((where, error))


@pytest.fixture
def errors() -> Errors:
    """Collect what the sampler reports as its own errors."""
    return Errors()


@pytest.fixture
async def sampler(errors: Errors) -> "Iterator[Sampler]":  # type: ignore[misc]
    """Give a fast sampler, stopped at the end."""
    made = Sampler(interval=FAST, timeout=5 * FAST, on_error=errors)
    yield made
    await made.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(FAST / 2)


def report(sampler: Sampler) -> Readings:
    """Return what the sampler says now."""
    readings = Readings()
    sampler.report(readings)
    return readings


def up(sampler: Sampler, name: str) -> float | None:
    """Return aiosvc_source_up of a source, None where it is absent."""
    return report(sampler).numbers.get(catalogue.SOURCE_UP, {}).get((name,))


def values(sampler: Sampler, name: str) -> dict[tuple[str, ...], float]:
    """Return a user's gauge by its label values."""
    family = report(sampler).families.get(name)
    return {} if family is None else {tuple(s.labels.values()): s.value for s in family.samples}


def shifted(clock: Callable[[], float], by: float) -> float:
    """Return what a clock that jumped says."""
    return clock() + by


def counting(calls: list[int]) -> Callable[[], float]:
    """Return a source that notes each call and returns their number."""

    def read() -> float:
        calls.append(1)
        return len(calls)

    return read


async def test_numbers_become_a_gauge(sampler: Sampler) -> None:
    """A function that returns a number is a gauge of its name."""
    sampler.add("open_carts", lambda: 7, on_loop=True)
    sampler.start()
    await until(lambda: up(sampler, "open_carts") == 1)
    assert values(sampler, "open_carts") == {(): 7.0}


async def test_async_functions_are_awaited(sampler: Sampler) -> None:
    """An async function's result is the gauge's value."""

    async def count() -> float:
        await asyncio.sleep(0)
        return 3.5

    sampler.add("open_carts", count)
    sampler.start()
    await until(lambda: values(sampler, "open_carts") == {(): 3.5})


async def test_blocking_functions_run_in_a_thread(sampler: Sampler) -> None:
    """A plain function may block: it does not run on the event loop's thread."""
    threads = []

    def count() -> float:
        threads.append(threading.get_ident())
        return 1

    sampler.add("open_carts", count)
    sampler.start()
    await until(lambda: values(sampler, "open_carts") == {(): 1.0})
    assert threading.get_ident() not in threads


async def test_label_sets_that_vanish_leave_the_scrape(sampler: Sampler) -> None:
    """A mapping is replaced as a whole: what is not in the last sample is not exported."""
    pools = {("a",): 1.0, ("b",): 2.0}
    sampler.add("pool_size", lambda: dict(pools), labelnames=("pool",), on_loop=True)
    sampler.start()
    await until(lambda: values(sampler, "pool_size") == {("a",): 1.0, ("b",): 2.0})
    del pools["a",]
    await until(lambda: values(sampler, "pool_size") == {("b",): 2.0})


async def test_families_are_exported_as_they_are(sampler: Sampler) -> None:
    """A source may return whole metric families."""

    def families() -> list[Metric]:
        family = Metric("shop", "The shop.", "info")
        family.add_sample("shop_info", {"name": "x"}, 1)
        return [family]

    sampler.add("shop", families, on_loop=True)
    sampler.start()
    await until(lambda: "shop" in report(sampler).families)
    assert report(sampler).families["shop"].type == "info"


async def test_one_that_raises_costs_only_itself(sampler: Sampler) -> None:
    """A source that raises is down; the others are up and go on being read."""
    counted = 0

    def count() -> float:
        nonlocal counted
        counted += 1
        return counted

    sampler.add("broken", lambda: 1 / 0, on_loop=True)
    sampler.add("working", count, on_loop=True)
    sampler.start()
    await until(lambda: counted > 3)
    assert up(sampler, "broken") == 0
    assert up(sampler, "working") == 1


async def test_one_that_hangs_costs_only_itself(sampler: Sampler) -> None:
    """An async source that never ends is given up after its timeout; the others go on."""
    counted = 0

    async def hang() -> float:
        await asyncio.Event().wait()
        return 0

    def count() -> float:
        nonlocal counted
        counted += 1
        return counted

    sampler.add("hanging", hang)
    sampler.add("working", count, on_loop=True)
    sampler.start()
    await until(lambda: up(sampler, "hanging") == 0)
    assert counted > 1


async def test_a_hung_thread_is_not_started_twice(sampler: Sampler) -> None:
    """A blocking function that hangs is down, runs once, and is up again when it ends."""
    go, calls = threading.Event(), []

    def read() -> float:
        calls.append(1)
        go.wait(30)
        return 1

    sampler.add("slow", read, timeout=FAST)
    sampler.start()
    try:
        await until(lambda: up(sampler, "slow") == 0)
        await asyncio.sleep(10 * FAST)
        assert len(calls) == 1
    finally:
        go.set()
    await until(lambda: up(sampler, "slow") == 1)


async def test_a_coroutine_that_ignores_its_cancellation(sampler: Sampler) -> None:
    """A source that swallows the cancellation is down, and not started again meanwhile."""
    go, calls = asyncio.Event(), []

    async def stubborn() -> float:
        calls.append(1)
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return 2

    sampler.add("stubborn", stubborn, timeout=FAST)
    sampler.start()
    await until(lambda: up(sampler, "stubborn") == 0)
    await asyncio.sleep(5 * FAST)
    assert len(calls) == 1
    go.set()
    await until(lambda: len(calls) > 1)


async def test_what_a_failing_source_said_is_dropped(sampler: Sampler) -> None:
    """The last values of a source leave the scrape while it fails, and return when it is back."""
    fail = False

    def read() -> float:
        if fail:
            raise ConnectionError("no broker")
        return 5

    sampler.add("depth", read, on_loop=True)
    sampler.start()
    await until(lambda: values(sampler, "depth") == {(): 5.0})
    fail = True
    await until(lambda: up(sampler, "depth") == 0)
    await until(lambda: values(sampler, "depth") == {})
    fail = False
    await until(lambda: values(sampler, "depth") == {(): 5.0})
    assert up(sampler, "depth") == 1


async def test_one_that_alternates(sampler: Sampler) -> None:
    """A source that fails each second time keeps its series: they are never older than that."""
    calls: list[int] = []
    seen: list[dict[tuple[str, ...], float]] = []

    def read() -> float:
        calls.append(1)
        if len(calls) % 2 == 0:
            raise ConnectionError("now and then")
        return 5

    sampler.add("depth", read, on_loop=True, keep=1000)
    sampler.start()
    await until(lambda: calls)
    while len(calls) < 10:
        seen.append(values(sampler, "depth"))
        await asyncio.sleep(FAST / 2)
    assert {(): 5.0} in seen
    assert {} not in seen


async def test_a_scrape_does_not_ask_one_that_fails(sampler: Sampler) -> None:
    """However often it is scraped, a failing source is asked at its own turns only."""
    calls: list[int] = []

    def read() -> float:
        calls.append(1)
        raise ConnectionError("no broker")

    sampler.add("depth", read, on_loop=True, interval=60)
    sampler.start()
    await until(lambda: up(sampler, "depth") == 0)
    for _ in range(5):
        sampler.refresh()
    assert len(calls) == 1


async def test_a_change_of_state_is_logged_once(
    sampler: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    """Down is one line, up again is one line, however often it is sampled between."""
    fail = True

    def read() -> float:
        calls.append(1)
        if fail:
            raise ConnectionError("no broker")
        return 5

    caplog.set_level("INFO", logger="aiosvc")
    calls: list[int] = []
    sampler.add("depth", read, on_loop=True)
    sampler.start()
    await until(lambda: len(calls) > 2)
    fail = False
    await until(lambda: up(sampler, "depth") == 1)
    sampler.refresh()
    assert [record.getMessage() for record in caplog.records] == [
        "source depth is down: ConnectionError: no broker",
        "source depth is back",
    ]


async def test_missed_turns_are_skipped(sampler: Sampler) -> None:
    """A loop that was blocked samples once when it is free again, and says how late it was."""
    calls: list[float] = []

    def read() -> float:
        calls.append(time.monotonic())
        return len(calls)

    sampler.add("calls", read, on_loop=True)
    sampler.start()
    await until(lambda: len(calls) > 2)
    before = len(calls)
    time.sleep(20 * FAST)  # noqa: ASYNC251 - the loop is to be blocked
    await until(lambda: len(calls) > before)
    assert len(calls) <= before + 2
    assert report(sampler).numbers[catalogue.SAMPLER_LATENESS][()] > 10 * FAST


async def test_a_wall_clock_that_jumps(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule is on the monotonic clock: a day to and fro changes nothing but the timestamp."""
    calls: list[int] = []
    sampler.add("calls", counting(calls), on_loop=True)
    sampler.start()
    await until(lambda: len(calls) > 1)
    real = time.time
    for jump in (86_400.0, -86_400.0):
        monkeypatch.setattr(time, "time", partial(shifted, real, jump))
        calls.clear()
        await until(lambda: len(calls) > 2)
        stamp = report(sampler).numbers[catalogue.SOURCE_LAST_SUCCESS]["calls",]
        assert abs(stamp - real() - jump) < 60
    seconds = report(sampler).numbers[catalogue.SOURCE_DURATION]["calls",]
    assert 0 <= seconds < 60


@pytest.mark.parametrize("how", ["raise", "cancel"])
async def test_its_own_end_is_counted_and_mended(
    sampler: Sampler, errors: Errors, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A sampler task that dies, or is cancelled by a stranger, is counted and started again."""
    calls: list[int] = []
    sampler.add("calls", counting(calls), on_loop=True)
    sampler.start()
    await until(lambda: calls)
    task = next(t for t in asyncio.all_tasks() if t.get_name() == "aiosvc sampler")
    if how == "cancel":
        task.cancel()
    else:
        with monkeypatch.context() as patch:
            patch.setattr(sampler, "_take_turn", lambda _source: 1 / 0)
            await until(task.done)
    await until(lambda: errors.seen)
    seen = len(calls)
    await until(lambda: len(calls) > seen + 2)
    assert [where for where, _ in errors.seen] == ["sampler"]


async def test_sources_may_come_while_it_runs(sampler: Sampler) -> None:
    """A source that is added to a running sampler has its first turn at once."""
    sampler.add("first", lambda: 1, on_loop=True, interval=60)
    sampler.start()
    await until(lambda: up(sampler, "first") == 1)
    sampler.add("second", lambda: 2, on_loop=True, interval=60)
    await until(lambda: up(sampler, "second") == 1)


async def test_stopping_leaves_nothing(errors: Errors) -> None:
    """After a stop there is no task left and nothing in the scrape."""
    sampler = Sampler(interval=FAST, timeout=1, on_error=errors)

    async def hang() -> float:
        await asyncio.Event().wait()
        return 0

    before = asyncio.all_tasks()
    sampler.add("hanging", hang)
    sampler.add("number", lambda: 1, on_loop=True)
    sampler.start()
    await until(lambda: up(sampler, "number") == 1)
    await sampler.stop()
    await asyncio.sleep(5 * FAST)
    assert asyncio.all_tasks() == before
    assert report(sampler).numbers == {}
    assert report(sampler).families == {}
    assert not errors.seen
    gc.collect()


async def test_it_can_be_started_again(sampler: Sampler) -> None:
    """A stopped sampler starts again, as an application that is served twice does."""
    sampler.add("number", lambda: 1, on_loop=True)
    for _ in range(2):
        sampler.start()
        await until(lambda: up(sampler, "number") == 1)
        await sampler.stop()


def test_a_loop_that_ends_takes_it_along(errors: Errors) -> None:
    """Without a stop, the end of the loop is quiet: no warning, no task that was destroyed."""

    def sleep() -> float:
        time.sleep(0.2)
        return 1

    async def main() -> None:
        sampler = Sampler(interval=FAST, timeout=1, on_error=errors)
        sampler.add("slow", sleep)
        sampler.add("number", lambda: 1, on_loop=True)
        sampler.start()
        await until(lambda: up(sampler, "number") == 1)

    asyncio.run(main())
    gc.collect()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("queue_depth", "aiosvc exports a metric of that name itself"),
        ("http_requests", "aiosvc exports a metric of that name itself"),
        ("open carts", "not a metric name"),
        ("", "not a metric name"),
        ("taken", "is there already"),
        ("carts_total", "only a counter's name"),
    ],
)
def test_names_that_will_not_do(errors: Errors, name: str, expected: str) -> None:
    """A name that is no metric's, or somebody else's, is refused at once."""
    sampler = Sampler(interval=1, timeout=1, on_error=errors)
    sampler.add("taken", lambda: 1)
    with pytest.raises(ConfigError, match=f"source '{name}': {expected}"):
        sampler.add(name, lambda: 1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        *(({name: w}, name) for name in ("interval", "timeout") for w in (0, -1, math.nan, True)),
        ({"interval": math.inf}, "interval"),
        ({"jitter": -1}, "jitter"),
        ({"jitter": 1.0}, "jitter: 1.0 given; expected seconds, 0 to less than 1"),
        ({"keep": -1}, "keep"),
        ({"keep": 1.5}, "keep"),
        ({"backoff": -1}, "backoff"),
        ({"max_series": 0}, "max_series"),
        ({"kind": "histogram"}, "kind"),
        ({"labelnames": "state"}, "labelnames: 'state' given; expected a tuple"),
        ({"labelnames": ("a", "a")}, "label 'a': give each name once"),
        ({"labelnames": ("le",)}, "neither le nor quantile"),
        ({"labelnames": ("__x",)}, "no '__' first"),
        ({"on_loop": 1}, "on_loop"),
        ({"documentation": None}, "documentation"),
        ({"intervall": 1}, "did you mean 'interval'"),
    ],
)
def test_options_that_will_not_do(
    errors: Errors, options: dict[str, object], expected: str
) -> None:
    """An option that makes no sense is refused at once, and nothing is added."""
    sampler = Sampler(interval=1, timeout=1, on_error=errors)
    with pytest.raises(ConfigError, match=f"source 'number': .*{re.escape(expected)}"):
        sampler.add("number", lambda: 1, **options)  # type: ignore[call-overload]
    sampler.add("number", lambda: 1)


@pytest.mark.parametrize("wrong", [None, 3, "read", object()])
def test_what_is_no_source(errors: Errors, wrong: object) -> None:
    """What can neither be called nor collected from is refused at once."""
    sampler = Sampler(interval=1, timeout=1, on_error=errors)
    with pytest.raises(ConfigError, match="expected a function, or a collector"):
        sampler.add("number", wrong)  # type: ignore[call-overload]


async def test_labels_that_do_not_fit(sampler: Sampler, caplog: pytest.LogCaptureFixture) -> None:
    """A mapping whose keys do not fit the label names is the source's failure, in words."""
    sampler.add("pool", lambda: {("a", "b"): 1.0}, labelnames=("pool",), on_loop=True)
    sampler.start()
    await until(lambda: up(sampler, "pool") == 0)
    assert values(sampler, "pool") == {}
    assert "labels ('a', 'b') do not fit the label names ('pool',)" in caplog.text


async def test_a_decorator_adds_what_it_decorates(sampler: Sampler) -> None:
    """Without a source, add is a decorator, and the function stays what it was."""

    @sampler.add("open_carts", interval=FAST)
    async def count() -> float:
        return 4

    assert await count() == 4
    sampler.start()
    await until(lambda: values(sampler, "open_carts") == {(): 4.0})


class Orders:
    """A collector with an async generator, that notes whether it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def collect(self) -> AsyncIterator[Metric]:
        """Give one family."""
        await asyncio.sleep(0)
        yield GaugeMetricFamily("shop_orders", "Orders.", value=3)

    async def close(self) -> None:
        """Note it."""
        self.closed += 1


class Listed:
    """A collector with an async function that returns a list."""

    async def collect(self) -> list[Metric]:
        """Give one family."""
        return [GaugeMetricFamily("shop_orders", "Orders.", value=3)]


class Blocking:
    """prometheus_client's own protocol: a generator, which may block."""

    def collect(self) -> Iterator[Metric]:
        """Give one family, from whatever thread it is called in."""
        assert threading.current_thread() is not threading.main_thread()
        yield GaugeMetricFamily("shop_orders", "Orders.", value=3)


class Called:
    """An object that is called, and is async."""

    async def __call__(self) -> list[Metric]:
        """Give one family."""
        return [GaugeMetricFamily("shop_orders", "Orders.", value=3)]


@pytest.mark.parametrize("kind", [Orders, Listed, Blocking, Called])
async def test_collectors_of_every_kind(sampler: Sampler, kind: type) -> None:
    """A collector may be an async generator, an async function, or prometheus_client's own kind."""
    sampler.add("orders", kind())
    sampler.start()
    await until(lambda: values(sampler, "shop_orders") == {(): 3.0})


async def test_a_slow_collector_holds_up_no_scrape(sampler: Sampler) -> None:
    """What a collector said last is what a scrape gets, while it is being asked again."""
    go, calls = asyncio.Event(), []

    class Slow:
        async def collect(self) -> list[Metric]:
            calls.append(1)
            if len(calls) > 1:
                await go.wait()
            return [GaugeMetricFamily("shop_orders", "Orders.", value=len(calls))]

    sampler.add("orders", Slow(), timeout=30)
    sampler.start()
    await until(lambda: len(calls) == 2)
    assert values(sampler, "shop_orders") == {(): 1.0}
    assert up(sampler, "orders") == 1
    go.set()
    await until(lambda: values(sampler, "shop_orders").get((), 0) > 1)


async def test_one_that_is_slower_than_its_interval(sampler: Sampler) -> None:
    """A sample that may still answer in time is left to it: the source stays up, and is one task."""
    running, most, ended = 0, 0, 0

    async def read() -> float:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        await asyncio.sleep(5 * FAST)
        running -= 1
        ended += 1
        return 1

    downs = []
    sampler.add("slow", read, timeout=60)
    sampler.start()
    await until(lambda: up(sampler, "slow") is not None)
    while ended < 3:
        downs.append(up(sampler, "slow"))
        await asyncio.sleep(FAST)
    assert most == 1
    assert set(downs) == {1}


async def test_sources_are_closed_with_it(sampler: Sampler) -> None:
    """A source that has something to close is closed when the sampling stops."""
    orders = Orders()
    sampler.add("orders", orders)
    sampler.start()
    await until(lambda: up(sampler, "orders") == 1)
    await sampler.stop()
    assert orders.closed == 1


async def test_one_that_can_not_be_closed(sampler: Sampler, errors: Errors) -> None:
    """An error in closing one source is counted, and the others are closed all the same."""

    class Broken(Orders):
        async def close(self) -> None:
            raise OSError("gone")

    orders = Orders()
    sampler.add("broken", Broken())
    sampler.add("orders", orders)
    sampler.start()
    await sampler.stop()
    assert orders.closed == 1
    assert [where for where, _ in errors.seen] == ["close of source broken"]


async def test_one_that_holds_the_loop_is_told_of_once(
    sampler: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    """A source that claims to return at once and does not is named in the log."""
    calls: list[int] = []

    def read() -> float:
        calls.append(1)
        time.sleep(0.02)
        return 1

    sampler.add("heavy", read, on_loop=True)
    sampler.start()
    await until(lambda: len(calls) > 3)
    assert len([r for r in caplog.records if "held the event loop" in r.getMessage()]) == 1


async def test_large_results_do_not_hold_the_loop(sampler: Sampler) -> None:
    """What an async source returns is converted in steps, with turns of the loop between them."""
    turns = 0

    async def read() -> dict[str, float]:
        nonlocal turns
        turns = 0
        return {f"p{i}": 1.0 for i in range(5000)}

    sampler.add("pool", read, labelnames=("pool",), max_series=5000, interval=60, timeout=60)
    sampler.start()
    while up(sampler, "pool") is None:
        turns += 1
        await asyncio.sleep(0)
    assert len(values(sampler, "pool")) == 5000
    assert turns > 10


async def test_overflow_is_counted(sampler: Sampler) -> None:
    """Label sets past the cap are added up in one, and counted."""
    sampler.add(
        "pool",
        lambda: {f"p{i}": 1.0 for i in range(10)},
        labelnames=("pool",),
        max_series=4,
        on_loop=True,
        interval=60,
    )
    sampler.start()
    await until(lambda: up(sampler, "pool") == 1)
    assert values(sampler, "pool")[("_other",)] == 6.0
    assert len(values(sampler, "pool")) == 5
    assert report(sampler).numbers[catalogue.LABEL_OVERFLOW]["pool", "pool"] == 6


async def test_a_loop_that_stands_still_is_not_good_health(errors: Errors) -> None:
    """Where the sampler gets no turns, sources are down and what they said is dropped."""
    now = 1000.5
    sampler = Sampler(interval=1, timeout=5, on_error=errors, clock=lambda: now)
    sampler.add("number", lambda: 1, on_loop=True)
    sampler.start()
    await until(lambda: up(sampler, "number") == 1)
    now += 8.4
    assert up(sampler, "number") == 1
    assert report(sampler).numbers[catalogue.SAMPLER_LATENESS][()] > 7
    now += 0.2
    assert up(sampler, "number") == 0
    assert values(sampler, "number") == {}
    await sampler.stop()


class Odd(BaseException):
    """What nobody expects."""


@pytest.mark.parametrize("raised", [asyncio.CancelledError(), Odd("odd"), GeneratorExit()])
async def test_one_that_raises_what_is_no_exception(
    sampler: Sampler, errors: Errors, raised: BaseException
) -> None:
    """Such as a future that was cancelled: it costs the source alone, wherever that is read."""
    go_on = True

    def read() -> float:
        if go_on:
            raise raised
        return 1

    async def read_async() -> float:
        return read()

    sampler.add("on_loop", read, on_loop=True)
    sampler.add("in_thread", read)
    sampler.add("as_task", read_async)
    sampler.add("fine", lambda: 1, on_loop=True)
    sampler.start()
    names = ("on_loop", "in_thread", "as_task")
    await until(lambda: all(up(sampler, name) == 0 for name in names))
    sampler.refresh()
    assert up(sampler, "fine") == 1
    go_on = False
    await until(lambda: all(up(sampler, name) == 1 for name in names))
    assert errors.seen == []


async def test_an_iterator_that_is_through(sampler: Sampler) -> None:
    """A StopIteration by mistake is an error like others, from which the source recovers."""
    left: Iterator[int] = iter([])
    sampler.add("next", lambda: next(left))
    sampler.start()
    await until(lambda: up(sampler, "next") == 0)
    left = iter([7] * 1000)
    await until(lambda: up(sampler, "next") == 1)


async def test_sources_may_come_from_another_thread(errors: Errors) -> None:
    """One that another thread adds has its first turn at once, also in asyncio's debug mode."""
    asyncio.get_running_loop().set_debug(True)
    sampler = Sampler(interval=3600, timeout=5, on_error=errors)
    sampler.add("first", lambda: 1, on_loop=True)
    sampler.start()
    await until(lambda: up(sampler, "first") == 1)
    await asyncio.to_thread(sampler.add, "second", lambda: 1, on_loop=True)
    await until(lambda: up(sampler, "second") == 1)
    await sampler.stop()
    assert errors.seen == []


async def test_many_come_from_many_threads(errors: Errors) -> None:
    """Sources that several threads add while turns are taken are all there, each once."""
    sampler = Sampler(interval=3600, timeout=5, on_error=errors)
    sampler.start()

    def add(first: int) -> None:
        for place in range(first, 200, 4):
            sampler.add(f"s{place}", lambda: 1, on_loop=True)

    await asyncio.gather(*(asyncio.to_thread(add, first) for first in range(4)))
    everyone = {(f"s{place}",): 1 for place in range(200)}
    await until(lambda: report(sampler).numbers.get(catalogue.SOURCE_UP) == everyone)
    await sampler.stop()
    assert errors.seen == []


def test_another_loop_later(errors: Errors) -> None:
    """Stopped on one loop it starts on the next, also while a thread of the last one hangs."""
    go, calls = threading.Event(), []
    sampler = Sampler(interval=FAST, timeout=2 * FAST, on_error=errors)

    def hang() -> Readings:
        calls.append(1)
        go.wait(10)
        return Readings()

    hung = sampler.add_source("hung", hang)
    sampler.add("number", lambda: 1)

    async def main(expected: int) -> None:
        sampler.start()
        await asyncio.wait_for(hung.known.wait(), 10)
        await until(lambda: up(sampler, "number") == 1)
        await until(lambda: up(sampler, "hung") == expected)
        await sampler.stop()

    asyncio.run(main(0))
    asyncio.run(main(0))
    assert len(calls) == 1
    go.set()
    asyncio.run(main(1))


async def test_an_answer_that_a_late_loop_finds_in_time(errors: Errors) -> None:
    """Where the loop was late, a source that has answered is not down for that."""
    now = 1000.5
    sampler = Sampler(interval=1, timeout=60, on_error=errors, clock=lambda: now)
    asked, go = threading.Event(), threading.Event()

    def read() -> float:
        asked.set()
        go.wait(10)
        return 1

    sampler.add("slow", read)
    sampler.add("beside", lambda: 1, on_loop=True)
    sampler.start()
    await asyncio.to_thread(asked.wait, 10)
    now += 100  # the loop is blocked; nobody has given up yet
    sampler.add("later", lambda: 1, on_loop=True)
    await until(lambda: up(sampler, "later") == 1)
    assert up(sampler, "slow") is None
    go.set()
    await until(lambda: up(sampler, "slow") == 1)
    await sampler.stop()


async def test_a_turn_of_many_gives_way(errors: Errors) -> None:
    """A turn of a thousand sources lets the loop do other things in between."""
    sampler = Sampler(interval=3600, timeout=5, on_error=errors)
    for place in range(1000):
        sampler.add(f"s{place}", lambda: 1, on_loop=True)
    sampler.start()
    turns = 0
    while up(sampler, "s999") is None:
        turns += 1
        await asyncio.sleep(0)
    assert turns > 100
    await sampler.stop()
