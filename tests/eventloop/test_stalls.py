"""The list of stalls, and their warnings."""

import dataclasses
import logging

import pytest

from aiosvc.eventloop.stacks import Place, Sighting
from aiosvc.eventloop.stalls import KEPT, LONG, PLACES, QUIET, Stall, Stalls

from .doubles import HERE, Clock


class Bench:
    """A list of stalls, with a clock for the process and one for the wall."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wall = Clock(1_700_000_000.0)
        #: Seconds that the garbage collector took of whatever is asked for.
        self.collected = 0.0
        self.stalls = Stalls(
            self.clock, wall_clock=self.wall, collecting=lambda _since, _until: self.collected
        )

    def go(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds
        self.wall.now += seconds

    def stall(self, seconds: float, sighting: Sighting | None = HERE) -> None:
        """Let one happen from begin to end."""
        since = self.clock.now
        self.go(seconds)
        if sighting is not None:
            self.stalls.see(since, sighting)
        self.stalls.end(since, seconds)


@pytest.fixture
def bench() -> Bench:
    """Give an empty list."""
    return Bench()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Give what is logged from now on."""
    caplog.set_level(logging.INFO, "aiosvc.eventloop")
    return caplog


def test_a_stall_says_when_how_long_and_where(bench: Bench) -> None:
    """A stall has its begin on the wall's clock, its length, its place and its task."""
    bench.stall(0.25)
    assert bench.stalls.list() == [
        Stall(
            began=1_700_000_000.0,
            seconds=0.25,
            ended=True,
            code=Place("shop.py", 3, "price"),
            innermost=Place("lib.py", 7, "work"),
            task="Task-1",
            coroutine="order",
        )
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        bench.stalls.list()[0].seconds = 1.0  # type: ignore[misc]


def test_one_under_way_is_listed_last_and_grows(bench: Bench) -> None:
    """Who asks while it lasts gets its length so far."""
    bench.stall(0.2)
    since = bench.clock.now
    bench.go(0.1)
    bench.stalls.see(since, HERE)
    bench.go(2.0)
    last = bench.stalls.list()[-1]
    assert (last.ended, round(last.seconds, 6)) == (False, 2.1)
    bench.stalls.end(since, 2.2)
    assert [stall.ended for stall in bench.stalls.list()] == [True, True]


def test_the_last_look_counts(bench: Bench) -> None:
    """Where the loop was at the last look, after the longest time, is where it was held up."""
    since = bench.clock.now
    other = dataclasses.replace(HERE, code=Place("shop.py", 99, "slow"))
    for sighting in (HERE, other):
        bench.go(0.1)
        bench.stalls.see(since, sighting)
    bench.stalls.end(since, 0.25)
    (stall,) = bench.stalls.list()
    assert stall.code == other.code
    assert stall.began == pytest.approx(1_700_000_000.0)


def test_one_that_nobody_saw_has_no_place(bench: Bench, warnings: pytest.LogCaptureFixture) -> None:
    """Where a stall was over before anybody could look, it is listed without a place."""
    bench.stall(3.0, None)
    (stall,) = bench.stalls.list()
    assert (stall.seconds, stall.code, stall.innermost, stall.task) == (3.0, None, None, None)
    assert warnings.messages == [
        (
            "the event loop was held up for 3.00 s at an unknown place: the interpreter was not "
            "free, or the process was stopped"
        )
    ]


def test_the_collector_is_told_from_the_line_that_it_ran_at(
    bench: Bench, warnings: pytest.LogCaptureFixture
) -> None:
    """What the garbage collector did is not put down to the line that made an object just then."""
    bench.collected = 0.3
    bench.stall(0.4)
    bench.stall(0.4, None)
    bench.stall(0.7)  # its own, for the most part
    assert [stall.is_collection for stall in bench.stalls.list()] == [True, True, False]
    assert [stall.collecting for stall in bench.stalls.list()] == [0.3] * 3
    place = "shop.py:3 in price, which called lib.py:7 in work (Task-1, order)"
    blame = "the garbage collector, which took 0.30 s of it"
    assert str(bench.stalls.list()[1]) == blame
    assert warnings.messages == [
        f"the event loop was held up for 0.40 s by {blame}, near {place}",
        f"the event loop was held up for 0.70 s at {place}",
    ]


def test_one_whose_end_was_missed_is_closed_by_the_next(bench: Bench) -> None:
    """A stall of which no end was told ends with what was known of it."""
    first = bench.clock.now
    bench.go(0.1)
    bench.stalls.see(first, HERE)
    bench.go(5.0)
    second = bench.clock.now
    bench.go(0.3)
    bench.stalls.see(second, HERE)
    assert [(s.ended, round(s.seconds, 3)) for s in bench.stalls.list()] == [
        (True, 0.1),
        (False, 0.3),
    ]


def test_the_list_is_bounded(bench: Bench) -> None:
    """The last 100 are kept."""
    for number in range(KEPT + 50):
        bench.stall(1.0 + number)
    lengths = [stall.seconds for stall in bench.stalls.list()]
    assert lengths == [51.0 + number for number in range(KEPT)]


def test_a_place_is_warned_of_once_in_ten_minutes(
    bench: Bench, warnings: pytest.LogCaptureFixture
) -> None:
    """The same place is not warned of again until ten minutes later, then with how often it was."""
    for _ in range(5):
        bench.stall(0.2)
    assert warnings.messages == [
        (
            "the event loop was held up for 0.20 s at shop.py:3 in price, which called lib.py:7 in "
            "work (Task-1, order)"
        )
    ]
    bench.stall(0.3, dataclasses.replace(HERE, code=Place("shop.py", 4, "price"), task=None))
    assert warnings.messages[1:] == [
        "the event loop was held up for 0.30 s at shop.py:4 in price, which called lib.py:7 in work"
    ]
    bench.go(QUIET)
    bench.stall(0.4)
    assert warnings.messages[2].endswith("; 4 more times since the last warning of it")
    bench.go(QUIET)
    bench.stall(0.4)
    assert "more times" not in warnings.messages[3]


def test_a_long_one_is_warned_of_while_it_lasts(
    bench: Bench, warnings: pytest.LogCaptureFixture
) -> None:
    """A loop that hangs is told of, before it ends if it ever does, and once."""
    since = bench.clock.now
    bench.go(LONG / 2)
    bench.stalls.see(since, HERE)
    assert warnings.messages == []
    bench.go(LONG)
    bench.stalls.see(since, HERE)
    bench.go(LONG)
    bench.stalls.see(since, HERE)
    assert [message[:42] for message in warnings.messages] == [
        "the event loop has been held up for 1.50 s"
    ]
    bench.stalls.end(since, 3.0)
    assert len(warnings.messages) == 1


def test_places_are_bounded(bench: Bench) -> None:
    """However many places there are, what is kept of their warnings does not grow."""
    for line in range(PLACES + 10):
        bench.stall(0.1, dataclasses.replace(HERE, code=Place("shop.py", line, "f")))
    assert len(bench.stalls._warnings) == PLACES


@pytest.mark.parametrize("leap", [-86_400.0, 86_400.0])
def test_the_walls_clock_may_leap(bench: Bench, leap: float) -> None:
    """A change of the time of day changes no length, and no other stall's begin."""
    bench.stall(0.2)
    since = bench.clock.now
    bench.go(0.1)
    bench.stalls.see(since, HERE)
    bench.wall.now += leap
    bench.go(0.1)
    bench.stalls.end(since, 0.2)
    first, second = bench.stalls.list()
    assert first.began == 1_700_000_000.0
    assert second.seconds == 0.2
    assert second.began == pytest.approx(1_700_000_000.2)
