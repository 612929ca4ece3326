"""
The probe for any other event loop, such as uvloop: a timer, and how late it comes.

Rule: uses what `asyncio.AbstractEventLoop` promises and nothing else.

Theory of operation. A timer is set every 50 ms; what it is late by is the lag that it met. The next
one counts from then, so what was missed is not made up for: a loop that is blocked for five seconds
gives one late beat of five seconds, less the 50 ms at most that the timer had still to run. A
process that was stopped for ten gives one of ten. How long the loop waits can't be known from
outside (libuv counts its idle time, but uvloop does not say it), so there are no busy and idle
seconds. It costs an idle loop 20 wake-ups a second.
"""

import asyncio
import contextvars
import os
import weakref
from collections.abc import Callable
from time import perf_counter

from aiosvc.eventloop.lag import SLOT, Observe

__all__ = ["HeartbeatProbe"]


class HeartbeatProbe:
    """
    Measures one loop by a timer.

    *observe* is told of each beat, on the loop's thread; *on_error* of what went wrong here.
    """

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
        self.on_wake: Callable[[], None] = lambda: None
        self._loop = weakref.ref(loop)
        self._observe = observe
        self._on_error = on_error
        self._due = 0.0
        self._pid = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat on the running loop."""
        self._pid = os.getpid()
        self._set()

    def stop(self) -> None:
        """Stop beating."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def owing_since(self) -> float | None:
        """Return when the beat is due, which may be ahead; None where there is none to come."""
        loop = self._loop()
        if self._timer is None or loop is None or loop.is_closed() or self._pid != os.getpid():
            return None
        return self._due

    def times(self) -> None:
        """Return None: it can't be known."""

    def _set(self) -> None:
        loop = self._loop()
        if loop is not None:
            self._due = self.clock() + SLOT
            # An empty context: nobody's context variables are to live for as long as the service.
            self._timer = loop.call_later(SLOT, self._beat, context=contextvars.Context())

    def _beat(self) -> None:
        due, late = self._due, max(0.0, self.clock() - self._due)
        # First of all: who sees the period counted must not see it as under way too.
        self._set()
        try:
            self._observe(late, due, 0)
        except Exception as error:  # noqa: BLE001 - the loop must not see it
            self._on_error(error)
