"""
The stalls of one event loop: the last of them, and a warning for each place that caused one.

Rule: knows neither probe nor thread; what was seen and what was measured come in, texts go out.
Rule: bounded, whatever happens: so many stalls, so many places, a warning in so many minutes.
"""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiosvc.eventloop.stacks import Place, Sighting

__all__ = ["KEPT", "Stall", "Stalls"]

log = logging.getLogger("aiosvc.eventloop")

#: Stalls that are kept.
KEPT = 100

#: Seconds until the same place is warned of again.
QUIET = 600.0

#: Places of which it is kept when they were warned of.
PLACES = 1000

#: Stands for a place where no line is to blame.
COLLECTOR = "the garbage collector"

#: Seconds after which one is warned of that has not ended yet.
LONG = 1.0


@dataclass(frozen=True, slots=True)
class Stall:
    """
    One time that an event loop was held up.

    *began* is a Unix time; *seconds* is how long it took, or takes so far while it has not *ended*.
    *code* is the innermost line of code that is neither Python's library nor an installed package
    (where there is none, of an installed package, as when the service is one itself); *innermost*
    is the line that the loop's thread was at, which may be in a library that *code* called. *task*
    and *coroutine* are the names of what ran there, None where it was a plain callback.

    It is what was found at the last look, and looks are made after the threshold and whenever the
    duration has doubled. All four are None where nobody could look while it lasted: compiled code
    did not let go of the interpreter until the turn was over, or the process was stopped. Code that
    does so in the midst of a turn is seen when it is through, at its own line or one just after it.

    *collecting* is how many of the seconds the garbage collector took; whatever line it was at, where
    it is most of them, is not to blame.
    """

    began: float
    seconds: float
    ended: bool
    code: Place | None = None
    innermost: Place | None = None
    task: str | None = None
    coroutine: str | None = None
    collecting: float = 0.0

    @property
    def is_collection(self) -> bool:
        """Whether it was the garbage collector's, for the most part."""
        return self.collecting > self.seconds / 2

    def __str__(self) -> str:
        """Return where it was, in words."""
        place = self._place()
        if self.is_collection:
            near = f", near {place}" if place else ""
            return f"the garbage collector, which took {self.collecting:.2f} s of it{near}"
        return place or "an unknown place: the interpreter was not free, or the process was stopped"

    def _place(self) -> str:
        if self.innermost is None:
            return ""
        place = str(self.code or self.innermost)
        if self.code not in (None, self.innermost):
            place = f"{place}, which called {self.innermost}"
        if self.task is not None:
            place = f"{place} ({self.task}, {self.coroutine})"
        return place


class Stalls:
    """
    What is known of one loop's stalls.

    Written by one thread, read by any. *clock* is that of the probe, *wall_clock* gives Unix times;
    *collecting* says how many seconds between two times of the clock the garbage collector took.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        wall_clock: Callable[[], float] = time.time,
        collecting: Callable[[float, float], float] = lambda _since, _until: 0.0,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._collecting = collecting
        self._ended: deque[Stall] = deque(maxlen=KEPT)
        # The one under way: since when, what is known of it, and whether it was warned of.
        self._open: tuple[float, Stall] | None = None
        self._warned_of: float | None = None
        self._warnings: OrderedDict[Place | str | None, tuple[float, int]] = OrderedDict()

    def list(self) -> "list[Stall]":
        """Return the last stalls, oldest first, the one under way included."""
        under_way = self._open
        ended = list(self._ended)
        if under_way is not None:
            since, stall = under_way
            ended.append(replace(stall, seconds=self._clock() - since))
        return ended

    def see(self, since: float, sighting: Sighting) -> None:
        """Take note of where the loop is, that has been held up *since* then."""
        if self._open is not None and self._open[0] != since:
            self.end(self._open[0], self._open[1].seconds)
        seconds = self._clock() - since
        stall = self._stall(since, seconds, sighting, ended=False)
        self._open = since, stall
        if seconds >= LONG and self._warned_of != since:
            self._warned_of = since
            self._warn(stall)

    def end(self, since: float, seconds: float) -> None:
        """Take note that what began *since* then took so many *seconds*."""
        if self._open is not None and self._open[0] == since:
            collecting = self._collecting(since, since + seconds)
            stall = replace(self._open[1], seconds=seconds, ended=True, collecting=collecting)
            self._open = None
        else:
            stall = self._stall(since, seconds, None, ended=True)
        self._ended.append(stall)
        if self._warned_of != since:
            self._warn(stall)

    def _stall(
        self, since: float, seconds: float, sighting: Sighting | None, *, ended: bool
    ) -> Stall:
        began = self._wall_clock() - (self._clock() - since)
        collecting = self._collecting(since, since + seconds)
        if sighting is None:
            return Stall(began, seconds, ended, collecting=collecting)
        return Stall(
            began,
            seconds,
            ended,
            sighting.code,
            sighting.innermost,
            sighting.task,
            sighting.coroutine,
            collecting,
        )

    def _warn(self, stall: Stall) -> None:
        place = COLLECTOR if stall.is_collection else stall.code or stall.innermost
        now = self._clock()
        last, untold = self._warnings.get(place, (-QUIET, 0))
        if now - last < QUIET:
            self._warnings[place] = last, untold + 1
            return
        self._warnings[place] = now, 0
        self._warnings.move_to_end(place)
        if len(self._warnings) > PLACES:
            self._warnings.popitem(last=False)
        log.warning(
            "the event loop %s %.2f s %s %s%s",
            "was held up for" if stall.ended else "has been held up for",
            stall.seconds,
            "by" if stall.is_collection else "at",
            stall,
            f"; {untold} more times since the last warning of it" if untold else "",
        )
