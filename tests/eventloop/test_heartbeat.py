"""The heartbeat: a timer, and how late it comes."""

import asyncio
import os
from typing import cast

import pytest

from aiosvc.eventloop.heartbeat import HeartbeatProbe
from aiosvc.eventloop.lag import SLOT

from .doubles import Clock, FakeLoop, Slots


class Bench:
    """A started heartbeat on a fake loop."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loop = FakeLoop()
        self.slots = Slots()
        self.errors: list[BaseException] = []
        self.probe = HeartbeatProbe(
            cast(asyncio.AbstractEventLoop, self.loop),
            self.slots,
            self.errors.append,
            clock=self.clock,
        )
        self.probe.start()

    def beat(self, late: float = 0.0) -> None:
        """Let the timer come, so late."""
        (delay, call) = self.loop.later.pop()
        self.clock.now += delay + late
        call()


@pytest.fixture
def bench() -> Bench:
    """Give a started heartbeat."""
    return Bench()


def test_a_beat_on_time_is_no_lag(bench: Bench) -> None:
    """There is one observation in 50 ms, of nothing."""
    for _ in range(20):
        bench.beat()
    assert bench.slots.seen == [0.0] * 20
    assert bench.clock.now == pytest.approx(1001.0)


@pytest.mark.parametrize("late", [5.0, 10.0, 86_400.0])
def test_a_late_beat_is_one_observation(bench: Bench, late: float) -> None:
    """What was missed is not made up for, be it a block, a stopped process or a clock's leap."""
    bench.beat()
    bench.beat(late)
    for _ in range(3):
        bench.beat()
    assert bench.slots.seen == [0.0, pytest.approx(late), 0.0, 0.0, 0.0]
    assert len(bench.loop.later) == 1


def test_an_early_beat_is_no_lag(bench: Bench) -> None:
    """A timer that the loop's coarse clock brought too soon gives nothing negative."""
    bench.beat(-0.001)
    assert bench.slots.seen == [0.0]


def test_it_owes_a_beat_from_when_it_is_due(bench: Bench) -> None:
    """A thread can tell since when a beat is due, until the next one is set."""
    assert bench.probe.owing_since() == pytest.approx(1000.0 + SLOT)
    bench.clock.now += 3.0
    assert bench.probe.owing_since() == pytest.approx(1000.0 + SLOT)
    bench.beat()
    owing = bench.probe.owing_since()
    assert owing is not None
    assert owing > bench.clock.now


def test_busy_and_idle_are_not_known(bench: Bench) -> None:
    """How long the loop waits can't be seen from outside."""
    assert bench.probe.times() is None  # type: ignore[func-returns-value]


def test_stop_ends_it(bench: Bench) -> None:
    """After the stop no beat comes and none is owed."""
    bench.probe.stop()
    bench.probe.stop()
    assert bench.loop.cancelled == 1
    assert bench.probe.owing_since() is None


def test_a_closed_loop_owes_nothing(bench: Bench) -> None:
    """A loop that was closed without a stop is not late."""
    bench.loop.closed = True
    assert bench.probe.owing_since() is None


def test_a_forked_process_owes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process forked from the loop's, no beat is late."""
    pid = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: pid)
    assert bench.probe.owing_since() is None


def test_an_observer_that_fails_does_not_end_it(bench: Bench) -> None:
    """An error in the measuring is reported, and the next beat comes."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    bench.probe._observe = fail
    bench.beat()
    bench.beat()
    assert [type(error) for error in bench.errors] == [ZeroDivisionError] * 2
