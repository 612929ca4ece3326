"""The probe around a selector: what it measures, and that the selector is as it was."""

import asyncio
import math
import os
import selectors
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.eventloop.lag import SLOT
from aiosvc.eventloop.selector import SLACK, SelectorProbe

from .doubles import Clock, FakeLoop, FakeSelector, Slots


class Bench:
    """A started probe around a fake selector, and what it observed."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = Clock()
        self.selector = FakeSelector(self.clock)
        self.loop = FakeLoop(self.selector)
        self.slots = Slots()
        self.errors: list[BaseException] = []
        self.probe = SelectorProbe(
            cast(asyncio.AbstractEventLoop, self.loop),
            self.slots,
            self.errors.append,
            clock=clock or self.clock,
        )
        self.probe.start()

    def work(self, seconds: float) -> None:
        """Let the loop run callbacks."""
        self.clock.now += seconds

    def wait(self, timeout: float | None, takes: float | None = None) -> None:
        """Let the loop wait."""
        self.selector.takes = takes
        assert self.selector.select(timeout) == ["event"]

    def times(self) -> tuple[float, float]:
        """Return the busy and idle seconds, rounded for comparison."""
        busy, idle = self.probe.times() or (math.nan, math.nan)
        return round(busy, 6), round(idle, 6)


@pytest.fixture
def bench() -> Bench:
    """Give a started probe."""
    return Bench()


def test_busy_is_outside_of_select_and_idle_within(bench: Bench) -> None:
    """Each second is either busy or idle, by whether the loop waits."""
    bench.work(0.2)
    bench.wait(1.0)
    bench.work(0.3)
    bench.wait(None, takes=2.0)
    assert bench.times() == (0.5, 3.0)


def test_a_select_that_polls_is_work(bench: Bench) -> None:
    """A loop that always has something ready is never idle, though it polls in between."""
    for _ in range(10):
        bench.work(0.01)
        bench.wait(0, takes=0.001)
    assert bench.times() == (0.11, 0.0)


def test_a_block_is_one_observation_of_its_length(bench: Bench) -> None:
    """Five blocked seconds are one observation of five seconds, not a hundred."""
    bench.wait(0.01)
    bench.work(5.0)
    bench.wait(0.01)
    assert [round(s, 6) for s in bench.slots.seen if s] == [5.0]
    assert len(bench.slots.seen) <= 2


def test_waiting_counts_as_slots_of_zero(bench: Bench) -> None:
    """A second of waiting is 20 observations of nothing, made when it is over."""
    bench.wait(1.0)
    bench.work(0.002)
    bench.wait(0.1)
    bench.work(0.003)
    bench.wait(1.0)
    assert len(bench.slots.seen) in (20, 21, 22)
    assert max(bench.slots.seen) == pytest.approx(0.002)


def test_the_longest_of_a_slot_counts(bench: Bench) -> None:
    """Of many short periods within 50 ms, there is one observation: the longest."""
    for milliseconds in (1, 7, 2, 3):
        bench.work(milliseconds / 1000)
        bench.wait(0.001)
    bench.wait(0.2)
    bench.work(0.0001)
    bench.wait(0.2)
    assert bench.slots.seen[0] == pytest.approx(0.007)
    assert all(seconds == 0 for seconds in bench.slots.seen[1:])


def test_a_wait_that_ends_late_is_lag(bench: Bench) -> None:
    """A process that was stopped for ten seconds within a wait gives one observation of them."""
    bench.wait(0.5, takes=10.5)
    bench.work(0.001)
    bench.wait(0.5)
    bench.work(0.001)
    bench.wait(0.5)
    late = [seconds for seconds in bench.slots.seen if seconds > SLOT]
    assert late == [pytest.approx(10.0)]
    assert bench.times() == (10.002, 1.5)


def test_a_wait_may_end_a_little_late(bench: Bench) -> None:
    """That the system rounds timeouts up is no lag."""
    for _ in range(100):
        bench.wait(0.05, takes=0.05 + SLACK * 0.9)
    bench.probe.stop()
    assert max(bench.slots.seen) == 0
    assert bench.times()[0] == 0


def test_a_clock_that_jumps_is_one_observation(bench: Bench) -> None:
    """A monotonic clock that leaps ahead, as where sleep counts, gives one long period."""
    bench.work(86_400.0)
    bench.wait(0.05)
    bench.work(0.001)
    bench.wait(0.05)
    assert [s for s in bench.slots.seen if s > SLOT] == [pytest.approx(86_400.0)]


def test_a_reader_sees_what_goes_on(bench: Bench) -> None:
    """Busy and idle seconds are right at any time, not only between turns."""
    bench.work(0.7)
    assert bench.times() == (0.7, 0.0)
    assert bench.probe.owing_since() == 1000.0
    seen: list[object] = []

    def during() -> None:
        seen.append(bench.probe.owing_since())
        bench.clock.now += 2.0
        seen.append(bench.times())

    bench.selector.during = during
    bench.wait(None, takes=1.0)
    assert seen == [None, (0.7, 2.0)]
    assert bench.times() == (0.7, 3.0)
    assert bench.probe.owing_since() == bench.clock.now


def test_a_reader_sees_that_a_wait_is_late(bench: Bench) -> None:
    """What is past a wait's timeout is busy time for a reader, as it will be when it ends."""
    seen = []

    def during() -> None:
        bench.clock.now += 4.0
        seen.append(bench.times())

    bench.selector.during = during
    bench.wait(1.0, takes=0.0)
    assert seen == [(3.0, 1.0)]
    assert bench.times() == (3.0, 1.0)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.3),
            st.one_of(st.none(), st.just(0.0), st.floats(0.0001, 3.0)),
            st.floats(0, 1.2),
        ),
        max_size=60,
    )
)
def test_nothing_is_lost_or_counted_twice(turns: list[tuple[float, float | None, float]]) -> None:
    """Whatever a loop does, times add up and only rise, and the longest period is observed."""
    bench = Bench()
    longest = total = 0.0
    last = 0.0, 0.0

    def look() -> None:
        nonlocal last
        busy, idle = bench.probe.times() or (math.nan, math.nan)
        assert busy >= last[0] - 1e-9
        assert idle >= last[1] - 1e-9
        assert busy + idle == pytest.approx(bench.clock.now - 1000.0, abs=1e-6)
        last = busy, idle

    bench.selector.during = look
    polled = 0.0
    for work, timeout, share in turns:
        bench.work(work)
        look()
        period = work + polled
        takes = 1.0 if timeout is None else timeout * share
        overdue = 0.0 if timeout is None else takes - timeout
        late = overdue if timeout and overdue > SLACK + 1e-6 else 0.0
        if timeout and 0 < overdue <= SLACK + 1e-6:
            takes = timeout
        bench.wait(timeout, takes=takes)
        look()
        # A poll's own time is part of the period after it.
        polled = takes if timeout == 0 else 0.0
        longest = max(longest, period, late)
        total += period + late
    bench.probe.stop()
    assert max(bench.slots.seen, default=0.0) == pytest.approx(longest, abs=1e-6)
    assert sum(bench.slots.seen) <= total + 1e-6
    assert len(bench.slots.seen) <= (bench.clock.now - 1000.0) / SLOT + 1
    assert bench.errors == []


def test_an_interrupted_wait_leaves_the_numbers_right(bench: Bench) -> None:
    """An exception out of select, as Ctrl-C raises one, passes, and time goes on to add up."""

    def interrupt() -> None:
        bench.clock.now += 1.0
        raise KeyboardInterrupt

    bench.selector.during = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.selector.select(5.0)
    bench.selector.during = lambda: None
    bench.work(0.5)
    assert bench.times() == (0.5, 1.0)


def test_an_interrupt_within_the_probe_heals() -> None:
    """A signal's handler that raises between the probe's own lines spoils no more than that wait."""
    calls = 0

    def clock() -> float:
        nonlocal calls
        calls += 1
        if calls == 3:  # start, before the wait, after the wait
            raise KeyboardInterrupt
        return bench_clock.now

    bench_clock = Clock()
    bench = Bench(clock)
    bench.clock = bench.selector.clock = bench_clock
    with pytest.raises(KeyboardInterrupt):
        bench.selector.select(1.0)
    bench.work(0.5)
    bench.wait(2.0)
    assert bench.times() == (1.5, 2.0)


def test_an_observer_that_fails_does_not_fail_the_loop(bench: Bench) -> None:
    """An error in the measuring is reported, and select returns what it does."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    bench.probe._observe = fail
    bench.work(1.0)
    bench.wait(0.1)
    assert [type(error) for error in bench.errors] == [ZeroDivisionError]


def test_what_is_counted_is_no_longer_under_way(bench: Bench) -> None:
    """When a period is told, it has ended for every reader, so that none counts it twice."""
    seen = []
    bench.probe._observe = lambda *_: seen.append(bench.probe.owing_since())
    bench.work(5.0)
    bench.wait(0.1)
    assert seen == [1005.0]


def test_the_sleeper_is_woken_when_a_wait_ends(bench: Bench) -> None:
    """Who sleeps until the loop has something to do is woken by the end of a wait, not of a poll."""
    woken = []
    bench.probe.on_wake = lambda: woken.append(bench.clock.now)
    bench.wait(1.0)
    assert woken == []
    bench.probe.parked = True
    bench.wait(0)
    assert woken == []
    bench.wait(1.0)
    assert woken == [1002.0]


def test_select_gets_what_the_loop_gave(bench: Bench) -> None:
    """Timeouts arrive as they were, by position or by name."""
    bench.selector.select(0)
    bench.selector.select(timeout=0.25)
    bench.selector.select()
    bench.selector.select(-1)
    assert bench.selector.asked == [0, 0.25, None, -1]


def test_stop_leaves_the_selector_as_it_was(bench: Bench) -> None:
    """After the stop the selector has its own method again, and the slot under way is told."""
    bench.work(0.02)
    bench.wait(0.001)
    assert "select" in vars(bench.selector)
    bench.probe.stop()
    assert "select" not in vars(bench.selector)
    assert bench.slots.seen == [pytest.approx(0.02)]


def test_a_foreign_wrapper_from_before_survives() -> None:
    """What somebody else put on the selector is called, and is there after the stop."""
    bench = Bench()
    bench.probe.stop()
    own = bench.selector.select
    seen: list[float | None] = []

    def foreign(timeout: float | None = None) -> list[Any]:
        seen.append(timeout)
        return own(timeout)

    bench.selector.select = foreign  # type: ignore[method-assign]
    bench.probe.start()
    bench.wait(0.5)
    bench.probe.stop()
    assert seen == [0.5]
    assert vars(bench.selector)["select"] is foreign


def test_a_foreign_wrapper_from_after_survives(bench: Bench) -> None:
    """What somebody else put over ours stays, works on, and ours then tells nobody."""
    ours = bench.selector.select
    seen: list[float | None] = []

    def foreign(timeout: float | None = None) -> list[Any]:
        seen.append(timeout)
        return ours(timeout)

    bench.selector.select = foreign  # type: ignore[method-assign]
    bench.probe.stop()
    assert vars(bench.selector)["select"] is foreign
    bench.work(5.0)
    bench.wait(0.5)
    assert seen == [0.5]
    assert bench.slots.seen == []


def test_only_loops_with_a_selector_of_the_standard_kind_fit() -> None:
    """Whether a loop can be measured is found by what it has."""

    class Slotted(FakeSelector):
        __slots__ = ()

    class Proactor:
        def select(self, timeout: float | None = None) -> list[Any]:
            return []

    def fits(loop: object) -> bool:
        return SelectorProbe.fits(cast(asyncio.AbstractEventLoop, loop))

    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    assert fits(loop)
    loop.close()
    assert not fits(loop)
    assert fits(FakeLoop(Slotted(Clock())))
    assert not fits(FakeLoop(cast(FakeSelector, Proactor())))
    assert not fits(object())


def test_a_closed_loop_stands_still(bench: Bench) -> None:
    """A loop that was closed without a stop gets no busier."""
    bench.wait(1.0)
    bench.loop.closed = True
    bench.work(100.0)
    assert bench.times() == (0.0, 1.0)
    assert bench.probe.owing_since() is None


def test_a_forked_process_does_not_run_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process forked from the loop's, where that loop can't go on, the numbers stand still."""
    bench.wait(1.0)
    pid = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: pid)
    bench.work(100.0)
    assert bench.times() == (0.0, 1.0)
    assert bench.probe.owing_since() is None
