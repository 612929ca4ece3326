"""The watchdog: when it looks, what it makes of it, and that it ends."""

import math
import threading

import pytest

from aiosvc.eventloop.stacks import Sighting
from aiosvc.eventloop.stalls import Stalls
from aiosvc.eventloop.watchdog import LONGEST_PAUSE, Watchdog

from .doubles import HERE, Clock, FakeProbe, wait_for


class Bench:
    """A watchdog with a threshold of 0.1 s for a fake probe."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.probe = FakeProbe(self.clock)
        self.stalls = Stalls(self.clock)
        self.errors: list[BaseException] = []
        self.looks = 0
        self.raising: BaseException | None = None
        self.used = Clock(0.0)
        self.watchdog = Watchdog(
            *(self.probe, self.stalls, 0.1, self.sight, self.errors.append), cpu_clock=self.used
        )

    def sight(self) -> Sighting | None:
        """Count a look."""
        self.looks += 1
        if self.raising is not None:
            raise self.raising
        return HERE

    def threads(self) -> list[threading.Thread]:
        """Return the thread of this watchdog, if it runs."""
        thread = self.watchdog._thread
        return [] if thread is None or not thread.is_alive() else [thread]


@pytest.fixture
def bench() -> Bench:
    """Give one that was not started."""
    return Bench()


def test_a_waiting_loop_is_left_alone(bench: Bench) -> None:
    """While the loop waits there is no next look, and no stack is looked at."""
    assert bench.watchdog.look() is None
    assert bench.looks == 0


def test_a_busy_loop_is_looked_at_when_it_would_be_a_stall(bench: Bench) -> None:
    """The next look is when the turn that runs now would reach the threshold."""
    bench.probe.since = bench.clock.now - 0.03
    assert bench.watchdog.look() == pytest.approx(0.07)
    assert bench.looks == 0


def test_a_beat_that_is_to_come_is_waited_for(bench: Bench) -> None:
    """With a heartbeat the next look is when the next beat would be late by the threshold."""
    bench.probe.since = bench.clock.now + 0.05
    assert bench.watchdog.look() == pytest.approx(0.15)


def test_a_stall_is_looked_at_whenever_it_has_doubled(bench: Bench) -> None:
    """Looks get rarer as a stall gets longer, down to one in ten seconds."""
    bench.probe.since = bench.clock.now
    times = []
    for _ in range(12):
        bench.clock.now += bench.watchdog.look() or 0.0
        times.append(round(bench.clock.now - 1000.0, 6))
    assert times == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 22.8, 32.8, 42.8, 52.8]
    assert LONGEST_PAUSE == 10
    assert bench.looks == 11
    (stall,) = bench.stalls.list()
    assert (stall.ended, stall.code) == (False, HERE.code)


def test_five_blocked_seconds_end_as_one_stall(bench: Bench) -> None:
    """A block, however often it was looked at, is one stall with its final length."""
    since = bench.probe.since = bench.clock.now
    while bench.clock.now < 1005.0:
        bench.clock.now += bench.watchdog.look() or 0.0
    bench.probe.since = None
    bench.watchdog.end(since, 5.0)
    assert bench.watchdog.look() is None
    (stall,) = bench.stalls.list()
    assert (stall.ended, stall.seconds, stall.code) == (True, 5.0, HERE.code)


@pytest.mark.parametrize(("used", "seen"), [(0.0, False), (0.4, False), (2.5, True)])
def test_a_stopped_process_blames_no_line(bench: Bench, used: float, *, seen: bool) -> None:
    """A look that is late itself counts if the process worked meanwhile, and not if it stood."""
    since = bench.probe.since = bench.clock.now
    bench.clock.now += bench.watchdog.look() or 0.0
    bench.clock.now += 2.5
    bench.used.now += used
    pause = bench.watchdog.look()
    assert pause == pytest.approx(2.6 if seen else 0.1)
    assert bool(bench.stalls.list()) is seen
    # Where it goes on to be held up, the next look is one in time.
    bench.clock.now += pause or 0.0
    bench.watchdog.look()
    bench.probe.since = None
    bench.watchdog.end(since, bench.clock.now - since)
    bench.watchdog.look()
    assert [stall.code for stall in bench.stalls.list()] == [HERE.code]


def test_what_is_over_while_it_looks_is_not_blamed(bench: Bench) -> None:
    """A stack that was read after the turn had ended tells nothing of it."""
    since = bench.probe.since = bench.clock.now

    def sight() -> Sighting:
        bench.probe.since = bench.clock.now
        return HERE

    bench.watchdog._sight = sight
    bench.clock.now += 0.3
    bench.watchdog.look()
    bench.watchdog.end(since, 0.3)
    bench.watchdog.look()
    (stall,) = bench.stalls.list()
    assert (stall.seconds, stall.innermost) == (0.3, None)


def test_it_sleeps_until_the_loop_wakes_it(bench: Bench) -> None:
    """Parked, it does not run at all; woken, it finds the stall; then it parks again."""
    bench.watchdog.start()
    wait_for(lambda: bench.probe.parked, "parked")
    bench.probe.since = bench.clock.now - 1.0
    assert bench.looks == 0
    bench.probe.on_wake()
    wait_for(lambda: bench.looks, "a look")
    since, bench.probe.since = bench.probe.since, None
    bench.watchdog.end(since, 1.0)
    wait_for(lambda: bench.probe.parked, "parked again")
    assert [stall.ended for stall in bench.stalls.list()] == [True]
    bench.watchdog.stop()
    wait_for(lambda: not bench.threads(), "its end")


def test_waking_it_twice_is_harmless(bench: Bench) -> None:
    """The loop may wake one that is awake."""
    bench.watchdog.start()
    for _ in range(100):
        bench.watchdog.wake()
    wait_for(lambda: bench.probe.parked, "parked")
    bench.watchdog.stop()
    bench.watchdog.stop()
    wait_for(lambda: not bench.threads(), "its end")


def test_an_error_is_counted_and_it_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that fails is reported; the next one may succeed."""
    monkeypatch.setattr("aiosvc.eventloop.watchdog.PAUSE", 0.01)
    bench.raising = ZeroDivisionError()
    bench.probe.since = bench.clock.now - 0.2
    bench.watchdog.start()
    wait_for(lambda: len(bench.errors) > 1, "errors")
    bench.raising = None
    wait_for(bench.stalls.list, "a stall")
    bench.watchdog.stop()
    wait_for(lambda: not bench.threads(), "its end")
    assert {type(error) for error in bench.errors} == {ZeroDivisionError}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_replaced(bench: Bench) -> None:
    """Where the thread dies, the loop starts another one, and it is counted."""
    bench.raising = SystemExit()
    bench.probe.since = bench.clock.now - 0.2
    bench.watchdog.start()
    wait_for(lambda: not bench.threads(), "its death")
    bench.raising = None
    bench.watchdog.revive()
    wait_for(bench.stalls.list, "a stall")
    bench.watchdog.revive()
    assert [str(error) for error in bench.errors] == [
        "the watchdog's thread had ended; there is another one"
    ]
    bench.watchdog.stop()
    wait_for(lambda: not bench.threads(), "its end")
    bench.watchdog.revive()
    assert not bench.threads()


def test_without_a_thread_it_is_an_error_and_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process may have no more threads, that is counted and the service starts."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    bench.watchdog.start()
    bench.watchdog.end(1.0, 2.0)
    bench.watchdog.stop()
    assert [str(error) for error in bench.errors] == ["can't start new thread"]


@pytest.mark.parametrize("threshold", [1e12, math.inf])
def test_a_threshold_that_is_never_reached(bench: Bench, threshold: float) -> None:
    """However long a stall must be, the thread looks again within a time that it can wait."""
    bench.watchdog.threshold = threshold
    bench.probe.since = bench.clock.now
    pause = bench.watchdog.look()
    assert pause is not None
    assert pause <= threading.TIMEOUT_MAX
