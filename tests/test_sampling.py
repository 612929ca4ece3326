"""The sampler: schedules, isolation, timeouts, restarts."""

import asyncio
import gc
import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric

from aiosvc import catalogue
from aiosvc.errors import ConfigError
from aiosvc.readings import Readings
from aiosvc.sampling import KEEP_FOR, Sampler, next_turn

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


class TestNextTurn:
    """The schedule, without a clock."""

    @given(
        due=st.floats(0, 1e9),
        interval=st.floats(0.01, 1e5),
        late=st.floats(0, 1e6),
    )
    def test_is_the_first_turn_to_come(self, due: float, interval: float, late: float) -> None:
        """The next turn is after now, and not more than an interval away."""
        now = due + late
        turn = next_turn(due, interval, now)
        assert turn > now
        assert turn - now <= interval * (1 + 1e-6) + 1e-6

    def test_keeps_its_phase_whatever_is_missed(self) -> None:
        """A turn that comes late, or not at all, does not shift the ones after it."""
        assert next_turn(10.25, 1.0, 10.9) == pytest.approx(11.25)
        assert next_turn(10.25, 1.0, 17.3) == pytest.approx(18.25)

    def test_does_not_drift_over_a_day(self) -> None:
        """After a day of ticks, each a little late, the schedule is where it was."""
        due, interval = 0.0, 1.0
        for tick in range(86_400):
            due = next_turn(due, interval, tick + 0.3)
        assert due == 86_400.0

    def test_one_turn_after_a_long_sleep(self) -> None:
        """A machine that slept for an hour has one turn to catch up, not thousands."""
        turns, due, now = 0, 100.0, 3_700.5
        while due <= now:
            due = next_turn(due, 1.0, now)
            turns += 1
        assert turns == 1

    def test_a_clock_that_stands_still_or_goes_back(self) -> None:
        """A clock that did not move on leaves the turn where it is."""
        assert next_turn(10.0, 1.0, 9.0) == 10.0


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
    """The last values of a source are kept for a few failures and then leave the scrape."""
    fail = False

    def read() -> float:
        if fail:
            raise ConnectionError("no broker")
        return 5

    sampler.add("depth", read, on_loop=True, interval=10)
    sampler.start()
    await until(lambda: values(sampler, "depth") == {(): 5.0})
    fail = True
    for _ in range(KEEP_FOR - 1):
        sampler.refresh()
        assert values(sampler, "depth") == {(): 5.0}
        assert up(sampler, "depth") == 0
    sampler.refresh()
    assert values(sampler, "depth") == {}
    fail = False
    sampler.refresh()
    assert values(sampler, "depth") == {(): 5.0}
    assert up(sampler, "depth") == 1


async def test_a_change_of_state_is_logged_once(
    sampler: Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    """Down is one line, up again is one line, however often it is sampled between."""
    fail = True

    def read() -> float:
        if fail:
            raise ConnectionError("no broker")
        return 5

    caplog.set_level("INFO", logger="aiosvc")
    sampler.add("depth", read, on_loop=True, interval=10)
    sampler.start()
    await until(lambda: up(sampler, "depth") == 0)
    for _ in range(5):
        sampler.refresh()
    fail = False
    for _ in range(5):
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
        ("open carts", "not a metric name"),
        ("", "not a metric name"),
        ("taken", "is there already"),
    ],
)
def test_names_that_will_not_do(errors: Errors, name: str, expected: str) -> None:
    """A name that is no metric's, or somebody else's, is refused at once."""
    sampler = Sampler(interval=1, timeout=1, on_error=errors)
    sampler.add("taken", lambda: 1)
    with pytest.raises(ConfigError, match=expected):
        sampler.add(name, lambda: 1)


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("option", ["interval", "timeout"])
def test_numbers_that_will_not_do(errors: Errors, option: str, wrong: float) -> None:
    """An interval or timeout that is no time is refused at once."""
    sampler = Sampler(interval=1, timeout=1, on_error=errors)
    with pytest.raises(ConfigError, match=option):
        sampler.add("number", lambda: 1, **{option: wrong})  # type: ignore[arg-type]


async def test_labels_that_do_not_fit(sampler: Sampler) -> None:
    """A mapping whose keys do not fit the label names is the source's failure, in words."""
    sampler.add("pool", lambda: {("a", "b"): 1.0}, labelnames=("pool",), on_loop=True)
    sampler.start()
    await until(lambda: up(sampler, "pool") == 0)
    assert values(sampler, "pool") == {}
