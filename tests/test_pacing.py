"""Giving way between two slices of work, with a clock that only others' work moves."""

import asyncio
from collections.abc import Iterable
from math import inf

import pytest

from aiosvc import pacing
from aiosvc.pacing import MOST, Pace

SLICE = 0.001


class Clock:
    """The time, and what a thread's sleeps take longer than they were to."""

    def __init__(self, late: Iterable[float] = ()) -> None:
        self.now = 100.0
        self.slept = 0
        self._late = iter(late)

    def time(self) -> float:
        """Return it."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let it go by, and a bit more."""
        self.slept += 1
        self.now += seconds + next(self._late, 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that the module looks at."""
    return put_in(monkeypatch, Clock())


def put_in(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Clock:
    """Have the module look at *clock*."""
    monkeypatch.setattr(pacing, "perf_counter", clock.time)
    monkeypatch.setattr(pacing, "sleep", clock.sleep)
    return clock


async def turns_of(pace: Pace, clock: Clock, others: Iterable[float]) -> int:
    """Return the turns that *pace* gives to others, who need so many seconds in each."""
    turns = 0

    async def work() -> None:
        nonlocal turns
        for seconds in others:
            turns += 1
            clock.now += seconds
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await pace.give_way()
    task.cancel()
    await asyncio.wait([task])
    return turns


@pytest.mark.parametrize(
    ("others", "turns"),
    [
        ([0.0] * 9, 1),
        ([SLICE / 5] * 9, 1),
        ([SLICE / 2, SLICE, 0.0, 0.0], 3),
        ([3 * SLICE, SLICE / 5, 0.0, 0.0], 2),
    ],
)
async def test_until_others_have_little_to_do(
    clock: Clock, others: list[float], turns: int
) -> None:
    """On an idle loop there is one turn between two slices, on a busy one as many as it needs."""
    assert await turns_of(Pace(SLICE, hurry=inf), clock, others) == turns


async def test_others_do_not_have_everything(clock: Clock) -> None:
    """On a loop that is always busy the work goes on, with a small share of it."""
    assert await turns_of(Pace(SLICE, hurry=inf), clock, [SLICE] * 99) == MOST


async def test_a_turn_that_takes_long(clock: Clock) -> None:
    """One turn that takes longer than others may have is the last."""
    assert await turns_of(Pace(SLICE, hurry=inf), clock, [1.0] * 9) == 1


async def test_when_it_has_to_hurry(clock: Clock) -> None:
    """Late in its time there is one turn, however busy the loop is."""
    pace = Pace(SLICE, hurry=clock.now + 2.5 * SLICE)
    assert await turns_of(pace, clock, [SLICE] * 9) == 3
    assert await turns_of(pace, clock, [SLICE] * 9) == 1


async def test_beside_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that wakes up late was kept from the interpreter, and sleeps once more."""
    clock = put_in(monkeypatch, Clock([SLICE, SLICE / 2, SLICE / 10, SLICE]))
    pace = Pace(SLICE, pause=SLICE / 2, hurry=inf)
    await pace.give_way()
    assert clock.slept == 3
    await pace.give_way()
    assert clock.slept == 5
