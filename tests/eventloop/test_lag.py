"""What one registry is told of a loop: everything only rises."""

import pytest

from aiosvc import catalogue
from aiosvc.eventloop.lag import Tally
from aiosvc.readings import Readings

from .doubles import Clock, FakeProbe


@pytest.fixture
def clock() -> Clock:
    """Give a clock."""
    return Clock()


@pytest.fixture
def probe(clock: Clock) -> FakeProbe:
    """Give a probe that says what it is told to."""
    return FakeProbe(clock)


@pytest.fixture
def tally(probe: FakeProbe) -> Tally:
    """Give a tally with a threshold of 0.1 s that follows the probe."""
    made = Tally(0.1)
    made.follow(probe)
    return made


def report(tally: Tally) -> Readings:
    """Return what it says now."""
    readings = Readings()
    tally.report(readings)
    return readings


def stalls(tally: Tally) -> float:
    """Return the stalls that it says."""
    return report(tally).numbers[catalogue.EVENTLOOP_STALLS][()]


def test_all_families_are_there_from_the_start(tally: Tally) -> None:
    """Before anything happened there are zeros, so that the first rise is seen."""
    readings = report(tally)
    lag = readings.distributions[catalogue.EVENTLOOP_LAG][()]
    assert (lag.sum, set(lag.counts)) == (0.0, {0})
    assert " ".join(f"{b:g}" for b in lag.bounds) == (
        "0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10"
    )
    assert readings.numbers[catalogue.EVENTLOOP_TIME] == {("busy",): 0.0, ("idle",): 0.0}
    assert readings.numbers[catalogue.EVENTLOOP_STALLS] == {(): 0}


def test_observations_fall_into_buckets(tally: Tally) -> None:
    """A slot counts once in its bucket, and slots of waiting in the first; from 0.1 s a stall."""
    tally.observe(0.0, 19)
    tally.observe(0.099)
    tally.observe(0.1)
    tally.observe(20.0)
    lag = report(tally).distributions[catalogue.EVENTLOOP_LAG][()]
    assert lag.counts == (20, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1)
    assert lag.sum == pytest.approx(20.199)
    assert stalls(tally) == 2


def test_a_stall_under_way_counts_once(tally: Tally, probe: FakeProbe, clock: Clock) -> None:
    """A stall counts from its threshold on, while it lasts, and not again when it ends."""
    probe.since = clock.now
    clock.now += 0.09
    assert stalls(tally) == 0
    clock.now += 0.02
    assert stalls(tally) == 1
    clock.now += 5
    assert stalls(tally) == 1
    probe.since = clock.now
    assert stalls(tally) == 1
    tally.observe(5.11)
    assert stalls(tally) == 1
    probe.since = None
    tally.observe(0.2)
    assert stalls(tally) == 2


def test_times_count_from_the_beginning(tally: Tally, probe: FakeProbe) -> None:
    """A registry is told of what happened since it asked."""
    probe.known = (10.0, 20.0)
    late = Tally(0.1)
    late.follow(probe)
    probe.known = (11.0, 25.0)
    assert report(late).numbers[catalogue.EVENTLOOP_TIME] == {("busy",): 1.0, ("idle",): 5.0}
    assert report(tally).numbers[catalogue.EVENTLOOP_TIME] == {("busy",): 11.0, ("idle",): 25.0}


def test_no_time_falls(tally: Tally, probe: FakeProbe) -> None:
    """Be it by a float's rounding, no counter says less than before."""
    probe.known = (1.0, 2.0)
    first = report(tally).numbers[catalogue.EVENTLOOP_TIME]
    probe.known = (1.0 - 1e-12, 2.0 - 1e-12)
    assert report(tally).numbers[catalogue.EVENTLOOP_TIME] == first


def test_times_that_are_not_known_are_absent(tally: Tally, probe: FakeProbe) -> None:
    """Unknown is absent, not 0."""
    probe.known = None
    assert catalogue.EVENTLOOP_TIME not in report(tally).numbers


def test_two_scrapers_do_not_disturb_each_other(tally: Tally, probe: FakeProbe) -> None:
    """Who reads changes nothing for the next one."""
    probe.known = (1.0, 2.0)
    tally.observe(0.3)
    first, second = report(tally), report(tally)
    assert first.numbers == second.numbers
    assert first.distributions == second.distributions
