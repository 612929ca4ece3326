"""One source: what may still be shown, and how it is doing, with the time given."""

import pytest
from prometheus_client import Metric

from aiosvc import catalogue
from aiosvc.readings import Readings
from aiosvc.sampling.schedule import Schedule
from aiosvc.sampling.source import Source


def source(*, interval: float = 1.0, timeout: float = 5.0, keep: int = 3) -> Source:
    """Return a source that nobody runs."""
    return Source(
        "carts", Readings, schedule=Schedule(interval), timeout=timeout, keep=keep, on_loop=True
    )


def reading(value: float) -> Readings:
    """Return a reading of one gauge."""
    readings = Readings()
    family = Metric("carts", "Carts.", "gauge")
    family.add_sample("carts", {}, value)
    readings.family(family)
    return readings


def shown(of: Source, now: float) -> tuple[float | None, float | None]:
    """Return the gauge and the health that are exported at *now*, None where one is absent."""
    readings = Readings()
    of.report(readings, now)
    family = readings.families.get("carts")
    value = None if family is None else family.samples[0].value
    return value, readings.numbers.get(catalogue.SOURCE_UP, {}).get(("carts",))


def test_nothing_is_said_of_one_that_was_never_read() -> None:
    """Before its first sample a source is neither up nor down."""
    assert shown(source(), 100.0) == (None, None)


def test_failing_it_is_kept_for_some_intervals_and_then_dropped() -> None:
    """What it said is shown for as long as promised, with the source down, and not longer."""
    it = source()
    it.succeed(reading(7), 0.01, now=100.0)
    it.schedule.due = 101.0
    assert shown(it, 100.5) == (7, 1)
    it.fail("no broker", 0.01)
    for now in (101.1, 102.1, 103.0):
        it.schedule.due = now + 1
        assert shown(it, now) == (7, 0)
    assert shown(it, 103.1) == (None, 0)


def test_keep_nothing() -> None:
    """With 0 intervals, a source that fails shows nothing from then on."""
    it = source(keep=0)
    it.succeed(reading(7), 0.01, now=100.0)
    it.fail("no broker", 0.01)
    it.schedule.due = 102.0
    assert shown(it, 101.0) == (None, 0)


def test_a_slow_one_is_shown_while_its_sample_runs() -> None:
    """An answer that takes as long as it may leaves no hole in the scrape."""
    it = source(timeout=5.0)
    it.succeed(reading(7), 4.9, now=100.0)
    it.schedule.due = 107.0
    assert shown(it, 106.0) == (7, 1)


def test_one_that_gets_no_turns_is_down() -> None:
    """Where nobody asks it, because the loop stands still, it is down and its last word is gone."""
    it = source()
    it.succeed(reading(7), 0.01, now=100.0)
    it.schedule.due = 101.0
    assert shown(it, 108.0) == (7, 1)
    assert shown(it, 110.0) == (None, 0)


def test_back_again() -> None:
    """One success makes it what it was."""
    it = source()
    it.succeed(reading(7), 0.01, now=100.0)
    it.fail("no broker", 0.01)
    it.succeed(reading(8), 0.01, now=120.0)
    it.schedule.due = 121.0
    assert shown(it, 120.5) == (8, 1)
    assert it.failures == 0


def test_forgotten_it_is_as_new() -> None:
    """After a stop nothing is said of it."""
    it = source()
    it.succeed(reading(7), 0.01, now=100.0)
    it.forget()
    assert shown(it, 100.1) == (None, None)


def test_one_that_is_read_seldom_is_shown_between_its_turns() -> None:
    """A source that is well has no hole in its series, however long its interval is."""
    for keep in (0, 1, 3):
        it = source(interval=30.0, keep=keep)
        it.succeed(reading(7), 0.01, now=100.0)
        it.schedule.due = 159.0  # the next turn, put off by a jitter
        assert shown(it, 158.9) == (7, 1)


class MuteError(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("no answer", "source carts is down: no answer"),
        (OSError("gone\nfor \x1b[2J ever"), "source carts is down: OSError: gone for [2J ever"),
        (MuteError(), "source carts is down: MuteError"),
    ],
)
def test_a_change_of_state_is_one_line(
    error: Exception | str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever an error has to say, it is one line of the log, and the source is down."""
    it = source()
    it.fail(error, 0.01)
    assert [record.getMessage() for record in caplog.records] == [said]
    assert it.up is False


def test_the_last_success_ages() -> None:
    """Its time is not known before the first one, and stays what it was while the source fails."""
    it = source()
    it.fail("no broker", 0.01)
    readings = Readings()
    it.report(readings, 100.0)
    assert catalogue.SOURCE_LAST_SUCCESS not in readings.numbers
    stamps = []
    it.succeed(reading(7), 0.01, now=101.0)
    for now in (101.0, 102.0, 500.0):
        readings = Readings()
        it.report(readings, now)
        stamps.append(readings.numbers[catalogue.SOURCE_LAST_SUCCESS]["carts",])
        it.fail("no broker", 0.01)
    assert len(set(stamps)) == 1
