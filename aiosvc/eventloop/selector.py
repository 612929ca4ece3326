"""
The probe for asyncio's own selector loops: it measures around the selector's `select`.

Rule: the loop is never disturbed; whatever fails here is reported, and `select` does what it did.
Rule: only this module knows that a loop keeps its selector in `_selector`.

Theory of operation. In every turn the loop calls `select` once (`BaseEventLoop._run_once`, the same
from Python 3.11 to 3.14), with timeout 0 while callbacks are ready, and runs callbacks until the
next call. So it is *idle* within a `select` that may wait, and *busy* otherwise; a `select` that
only polls is a look, and part of the work. One that returns later than its timeout has not waited
for anything since that ran out: the process was stopped, or had no processor, or no interpreter
lock. That is busy time, and lag. (A process that is stopped in a `select` without a timeout, or
before it runs out, is not missed until then. A machine that sleeps does not show on Linux and
macOS, whose monotonic clocks sleep too.)

The idle seconds are one number, so that a scrape in another thread reads them without a lock, right
to the moment: at its start a wait subtracts the time, at its end it adds the time. While the number
is negative, the loop waits, and the time now completes it. Where the number is the same before and
after a look at the clock, it was right at that time, and busy is all other time.

Who may be in the way: `select` is set on the selector itself, over whatever is found there. A
wrapper of somebody else's stays in the chain, be it set before or after this one; if it came after,
this one can't be taken out at the end, and then measures for nobody.
"""

import asyncio
import math
import os
import weakref
from collections.abc import Callable
from selectors import BaseSelector
from time import perf_counter
from typing import Any, Final

from aiosvc.eventloop.lag import SLOT, Observe

__all__ = ["SelectorProbe"]

#: Seconds by which a wait may end late: the system rounds its timeout up to a millisecond.
SLACK = 0.002

#: Looks at the numbers until one was not disturbed by the loop.
READ_ATTEMPTS = 100

SELECT: Final = "select"


class SelectorProbe:
    """
    Measures one loop around its selector.

    *observe* is told of each slot, on the loop's thread; *on_error* of what went wrong here.
    """

    # Slots: they are faster to write than a dict's attributes, and are written in each turn.
    __slots__ = (
        "_before", "_began", "_loop", "_observe", "_on_error", "_pid", "_select", "_selector",
        "clock", "idle", "mark", "on_wake", "parked", "since", "slot_end", "wake", "worst",
    )  # fmt: skip

    @staticmethod
    def fits(loop: asyncio.AbstractEventLoop) -> bool:
        """Say whether the loop has a selector that can be measured."""
        selector = getattr(loop, "_selector", None)
        return isinstance(selector, BaseSelector) and hasattr(selector, "__dict__")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        observe: Observe,
        on_error: Callable[[BaseException], None],
        *,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.clock = clock
        self.parked = False
        self.on_wake: Callable[[], None] = _do_nothing
        #: When the last look was.
        self.since = 0.0
        #: Idle seconds until the last wait, and less its start while one is under way.
        self.idle = self.mark = 0.0
        #: When the wait under way is to end.
        self.wake = math.inf
        #: The longest period of the slot, and the slot's end.
        self.worst = 0.0
        self.slot_end = 0.0
        self._loop = weakref.ref(loop)
        self._selector: BaseSelector = loop._selector  # type: ignore[attr-defined]  # noqa: SLF001 - it fits
        self._observe = observe
        self._on_error = on_error
        self._began = 0.0
        self._pid = 0
        self._select: Any = None
        self._before: Any = None

    def start(self) -> None:
        """Begin to measure; called on the loop, so it is busy."""
        now = self.clock()
        self._began = self.since = now
        self.slot_end = now + SLOT
        self._pid = os.getpid()
        own = vars(self._selector)
        self._before = own.get(SELECT)
        self._select = own[SELECT] = _around(self._selector.select, self)

    def stop(self) -> None:
        """Take the wrapper out, if nobody has put another one over it."""
        if self.worst:
            self._observe(self.worst, self.since, 0)
        self._observe = _tell_nobody
        self.parked = False
        own = vars(self._selector)
        if own.get(SELECT) is self._select:
            if self._before is None:
                del own[SELECT]
            else:
                own[SELECT] = self._before

    @property
    def in_use(self) -> bool:
        """Whether the loop has called the wrapper."""
        return self.since != self._began

    def owing_since(self) -> float | None:
        """Return since when the loop runs callbacks, None while it waits."""
        since = self.since
        return None if self.mark < 0 or self._is_over() else since

    def times(self) -> tuple[float, float] | None:
        """Return the seconds busy and idle so far, with those of what it does now."""
        if self._is_over():
            return self.since - self._began - self.idle, self.idle
        for _ in range(READ_ATTEMPTS):
            mark, wake = self.mark, self.wake
            now = self.clock()
            if mark == self.mark:
                break
        idle = mark if mark >= 0 else mark + min(now, wake)
        return now - self._began - idle, idle

    def turn(self, since: float, now: float) -> None:
        """Take a period that ended after its slot's end; whatever fails, the loop goes on."""
        try:
            # First of all: who sees the period counted must not see it as under way too.
            self.since = now
            if since >= self.slot_end:
                # The open slot was over before this period began; all since then was waiting.
                waited = int((since - self.slot_end) / SLOT)
                self._observe(self.worst, since, waited)
                self.worst = 0.0
                self.slot_end += (waited + 1) * SLOT
            if now < self.slot_end:
                self.worst = max(self.worst, now - since)
            else:
                self._observe(max(self.worst, now - since), since, 0)
                self.worst = 0.0
                self.slot_end = now + SLOT
        except Exception as error:  # noqa: BLE001 - the loop must not see it
            self.worst = 0.0
            self.slot_end = now + SLOT
            self._on_error(error)

    def _is_over(self) -> bool:
        # A closed loop, or one that was left behind in the process that this one was forked from.
        loop = self._loop()
        return loop is None or loop.is_closed() or self._pid != os.getpid()


def _around(
    inner: Callable[[float | None], list[Any]], probe: SelectorProbe
) -> Callable[[float | None], list[Any]]:
    """Return *inner*, a `select`, measured; this is what each turn of the loop pays for."""
    clock = probe.clock
    turn = probe.turn

    def select(timeout: float | None = None) -> list[Any]:
        now = clock()
        since = probe.since
        if now >= probe.slot_end:
            turn(since, now)
        elif now - since > probe.worst:
            probe.worst = now - since
        if timeout is not None and timeout <= 0:
            probe.since = now
            return inner(timeout)
        probe.wake = wake = math.inf if timeout is None else now + timeout
        # From the number before and not by `-=`, and before the `try`: so it is right again at the
        # next wait where a signal's handler raises between these lines.
        probe.mark = probe.idle - now
        try:
            return inner(timeout)
        finally:
            now = clock()
            probe.since = now
            if now - wake <= SLACK:
                probe.mark = probe.idle = probe.mark + now
            else:
                probe.mark = probe.idle = probe.mark + wake
                _be_late(probe, wake, now)
            if probe.parked:
                probe.on_wake()

    return select


def _be_late(probe: SelectorProbe, wake: float, now: float) -> None:
    if now >= probe.slot_end:
        probe.turn(wake, now)
    elif now - wake > probe.worst:
        probe.worst = now - wake


def _tell_nobody(_seconds: float, _since: float, _idle_slots: int) -> None:
    pass


def _do_nothing() -> None:
    pass
