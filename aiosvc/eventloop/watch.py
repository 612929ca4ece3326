"""
One service's watch over its event loop: begun on the running loop, and ended there.

Rule: a loop is measured once, by as few means as can be, whoever asks; the last to leave puts it
back as it was. Rule: a registry is told of a loop once, however many of its services run there.
"""

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable
from types import CodeType
from typing import Protocol
from weakref import WeakKeyDictionary, ref

from aiosvc.eventloop.heartbeat import HeartbeatProbe
from aiosvc.eventloop.lag import Observe, Probe, Tally
from aiosvc.eventloop.selector import SelectorProbe
from aiosvc.eventloop.stacks import Sighting, loop_code, sight
from aiosvc.eventloop.stalls import Stall, Stalls
from aiosvc.eventloop.watchdog import Watchdog
from aiosvc.readings import Reporter

__all__ = ["LoopWatch", "Registrar"]

#: Tells how many of the seconds between two times something else took.
Collecting = Callable[[float, float], float]


class Registrar(Protocol):
    """What reports to a registry, and counts errors: its collector."""

    def attach(self, reporter: Reporter) -> None:
        """Include a reporter from now on."""

    def retire(self, reporter: Reporter) -> None:
        """Leave it out from now on, but keep what it counted."""

    def error(self, where: str, error: BaseException) -> None:
        """Count an error."""


class LoopWatch:
    """
    Reports the event loop of one service to its registry's collector.

    *kind* is the option `loop_probe`. A loop is stalled from *stall_threshold* seconds on.
    *collecting* says how many seconds between two times the garbage collector took.
    """

    def __init__(
        self,
        registrar: Registrar,
        *,
        kind: str,
        stall_threshold: float,
        collecting: Collecting = lambda _since, _until: 0.0,
    ) -> None:
        self._registrar = registrar
        self._kind = kind
        self._threshold = stall_threshold
        self._collecting = collecting
        self._monitor: _Monitor | None = None
        self._stalls: Stalls | None = None

    def start(self) -> None:
        """Watch the running event loop."""
        if self._monitor is None and self._kind != "off":
            loop = asyncio.get_running_loop()
            self._monitor = _monitor_of(loop, self._kind, self._collecting)
            self._monitor.join(self._registrar, self._threshold)
            self._stalls = self._monitor.stalls

    def stop(self) -> None:
        """Watch no longer; what was counted stays."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.leave(self._registrar)

    def stalls(self) -> list[Stall]:
        """Return the last stalls of the loop, at most 100, oldest first, also after the stop."""
        known = [] if self._stalls is None else self._stalls.list()
        return [stall for stall in known if stall.seconds >= self._threshold]


class _Monitor:
    """What measures one event loop, and whom it tells."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kind: str, collecting: Collecting) -> None:
        self._loop = ref(loop)
        self._tallies: dict[Registrar, tuple[Tally, int]] = {}
        self._told: tuple[Tally, ...] = ()
        self._thread = threading.get_ident()
        self._beneath: CodeType | None = None
        fits = kind == "auto" and SelectorProbe.fits(loop)
        self._probe: Probe = self._made(SelectorProbe if fits else HeartbeatProbe, loop)
        self.stalls = Stalls(self._probe.clock, collecting=collecting)
        self._watchdog = self._made_watchdog()

    def join(self, registrar: Registrar, threshold: float) -> None:
        """Tell *registrar* too, from now on; it says `leave` as often."""
        known = self._tallies.get(registrar)
        if known is not None:
            self._tallies[registrar] = known[0], known[1] + 1
            return
        first = not self._tallies
        tally = Tally(threshold)
        self._tallies[registrar] = tally, 1
        self._tell()
        if first:
            self._start()
        tally.follow(self._probe)
        registrar.attach(tally)

    def leave(self, registrar: Registrar) -> None:
        """Tell *registrar* no longer, once all its services have left."""
        tally, members = self._tallies.pop(registrar)
        if members > 1:
            self._tallies[registrar] = tally, members - 1
            return
        if not self._tallies:
            # While the tally still listens: the last slot belongs to it.
            self._probe.stop()
            self._watchdog.stop()
        registrar.retire(tally)
        self._tell()

    @property
    def in_use(self) -> bool:
        """Whether anybody is told."""
        return bool(self._tallies)

    def _start(self) -> None:
        self._probe.start()
        self._watchdog.start()
        loop = self._loop()
        if loop is not None:
            loop.call_soon(self._settle, context=contextvars.Context())

    def _settle(self) -> None:
        """Take a second look, in the first turn that is measured."""
        self._beneath = loop_code()
        loop, probe = self._loop(), self._probe
        if loop is not None and isinstance(probe, SelectorProbe) and not probe.in_use:
            # It has a selector and does not use it as asyncio's own loops do.
            probe.stop()
            self._watchdog.stop()
            self._probe = self._made(HeartbeatProbe, loop)
            self._watchdog = self._made_watchdog()
            if self._tallies:
                self._probe.start()
                self._watchdog.start()
                for tally in self._told:
                    tally.follow(self._probe)

    def _made(self, kind: Callable[..., Probe], loop: asyncio.AbstractEventLoop) -> Probe:
        observe: Observe = self._observe
        return kind(loop, observe, self._fail)

    def _made_watchdog(self) -> Watchdog:
        return Watchdog(self._probe, self.stalls, self._threshold, self._sight, self._fail)

    @property
    def _threshold(self) -> float:
        return min((tally.threshold for tally in self._told), default=math.inf)

    def _tell(self) -> None:
        self._told = tuple(tally for tally, _ in self._tallies.values())
        self._watchdog.threshold = self._threshold

    def _observe(self, seconds: float, since: float, idle_slots: int) -> None:
        for tally in self._told:
            tally.observe(seconds, idle_slots)
        if seconds >= self._watchdog.threshold:
            self._watchdog.end(since, seconds)
        self._watchdog.revive()

    def _sight(self) -> Sighting | None:
        return sight(self._thread, self._loop(), self._beneath)

    def _fail(self, error: BaseException) -> None:
        for registrar in list(self._tallies):
            registrar.error("event loop watch", error)


_monitors: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Monitor]] = WeakKeyDictionary()
_monitors_lock = threading.Lock()


def _monitor_of(loop: asyncio.AbstractEventLoop, kind: str, collecting: Collecting) -> _Monitor:
    with _monitors_lock:
        of_loop = _monitors.setdefault(loop, {})
        monitor = of_loop.get(kind)
        if monitor is None or not monitor.in_use:
            of_loop[kind] = monitor = _Monitor(loop, kind, collecting)
        return monitor
