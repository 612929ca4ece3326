"""Doubles for an event loop's parts, on a clock that only moves when it is told to."""

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiosvc.eventloop.stacks import Place, Sighting
from aiosvc.readings import Readings, Reporter

__all__ = [
    "HERE",
    "OTHERS",
    "Clock",
    "FakeLoop",
    "FakeProbe",
    "FakeSelector",
    "Registry",
    "Slots",
    "all_watchdogs",
    "block",
    "until",
    "wait_for",
    "watchdogs",
]

HERE = Sighting(Place("lib.py", 7, "work"), Place("shop.py", 3, "price"), "Task-1", "order")

#: Seconds after which something that should happen has not happened.
DEADLINE = 20.0


class Clock:
    """Seconds that pass when a test adds them."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class FakeSelector(selectors.BaseSelector):
    """Waits as long as `takes` says, or to the timeout; calls `during` while it does."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.takes: float | None = None
        self.during: Callable[[], object] = lambda: None
        self.asked: list[float | None] = []

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        """Nothing is registered."""
        raise NotImplementedError

    def unregister(self, fileobj: Any) -> Any:
        """Nothing is registered."""
        raise NotImplementedError

    def get_map(self) -> Mapping[Any, Any]:
        """Nothing is registered."""
        raise NotImplementedError

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let the time pass."""
        self.asked.append(timeout)
        self.during()
        takes, self.takes = self.takes, None
        self.clock.now += (timeout or 0.0) if takes is None else takes
        return ["event"]


class FakeLoop:
    """What a probe wants of an event loop."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector
        self.closed = False
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.cancelled = 0

    def is_closed(self) -> bool:
        """Say whether it is closed."""
        return self.closed

    def call_later(self, delay: float, call: Callable[[], None], context: object = None) -> Any:
        """Keep the timer for the test."""
        self.later.append((delay, call))
        return self

    def cancel(self) -> None:
        """Cancel what was called later; the loop is its own handle."""
        self.cancelled += 1


class Slots:
    """Notes what a probe observes."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.since: list[float] = []

    def __call__(self, seconds: float, since: float, idle_slots: int) -> None:
        """Note one, and the slots of waiting."""
        self.seen.append(seconds)
        self.since.append(since)
        self.seen.extend([0.0] * idle_slots)


class FakeProbe:
    """A probe that says what the test wants."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.parked = False
        self.on_wake: Callable[[], None] = lambda: None
        self.since: float | None = None
        self.known: tuple[float, float] | None = (0.0, 0.0)
        self.started = 0

    def start(self) -> None:
        """Count it."""
        self.started += 1

    def stop(self) -> None:
        """Count it."""
        self.started -= 1

    def owing_since(self) -> float | None:
        """Return what the test has set."""
        return self.since

    def times(self) -> tuple[float, float] | None:
        """Return what the test has set."""
        return self.known


class Registry:
    """Stands in for a registry's collector."""

    def __init__(self) -> None:
        self.reporters: list[Reporter] = []
        self.errors: list[tuple[str, BaseException]] = []
        self.retired = Readings()

    def attach(self, reporter: Reporter) -> None:
        """Keep it."""
        self.reporters.append(reporter)

    def retire(self, reporter: Reporter) -> None:
        """Keep what it says last."""
        self.reporters.remove(reporter)
        last = Readings()
        reporter.report(last)
        self.retired.absorb(last)

    def error(self, where: str, error: BaseException) -> None:
        """Note it."""
        self.errors.append((where, error))

    def readings(self) -> Readings:
        """Return what all of them say now."""
        readings = Readings()
        readings.absorb(self.retired)
        for reporter in self.reporters:
            reporter.report(readings)
        return readings


def block(seconds: float) -> None:
    """Hold up the thread."""
    time.sleep(seconds)


#: The watchdogs that ran before a test.
OTHERS: set[threading.Thread] = set()


def all_watchdogs() -> set[threading.Thread]:
    """Return all watchdog threads of the process."""
    return {each for each in threading.enumerate() if each.name == "aiosvc watchdog"}


def watchdogs() -> list[threading.Thread]:
    """Return the watchdog threads that run and that the test has started."""
    return list(all_watchdogs() - OTHERS)


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait in a thread until *condition* holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait on the event loop until *condition* holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.005)
