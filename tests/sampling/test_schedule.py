"""When a source has its turns, without a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.sampling.schedule import Schedule, next_turn


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


class TestSchedule:
    """The turns of one source."""

    def test_the_first_turn_is_at_once(self) -> None:
        """A schedule that begins is due, whatever the clock says."""
        schedule = Schedule(10)
        schedule.advance(5.0)
        schedule.begin()
        assert schedule.due == 0.0

    def test_sources_of_one_interval_share_their_turns(self) -> None:
        """Whenever they began, schedules of the same interval are due at the same moment."""
        schedules = [Schedule(1.0) for _ in range(3)]
        for place, schedule in enumerate(schedules):
            schedule.advance(7.1 + place * 0.3)
        assert {schedule.due for schedule in schedules} == {8.0}

    @given(now=st.floats(0, 1e6), chance=st.floats(0, 1, exclude_max=True))
    def test_jitter_puts_each_turn_off(self, now: float, chance: float) -> None:
        """A turn is within the jitter after its whole interval, and never before now."""
        schedule = Schedule(10.0, jitter=4.0, chance=lambda: chance)
        plain = Schedule(10.0)
        schedule.advance(now)
        plain.advance(now)
        assert plain.due <= schedule.due < plain.due + 4.0 + 1e-6

    def test_one_that_goes_on_failing_is_asked_less_often(self) -> None:
        """After three failures the time doubles, up to the limit, and is the usual one after."""
        schedule = Schedule(1.0, backoff=10.0)
        now, waited = 100.0, []
        for failures in range(1, 9):
            schedule.advance(now, failures)
            waited.append(schedule.due - now)
            now = schedule.due
        assert waited == [1, 1, 1, 2, 4, 8, 10, 10]
        schedule.advance(now)
        assert schedule.due - now == 1.0

    @pytest.mark.parametrize("backoff", [0.0, 10.0])
    def test_no_backoff_for_one_that_is_asked_seldom(self, backoff: float) -> None:
        """An interval that is longer than the limit stays as it is, and 0 is no backoff."""
        schedule = Schedule(15.0, backoff=backoff)
        schedule.advance(30.0, failures=20)
        assert schedule.due == 45.0
