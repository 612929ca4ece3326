"""
When a source has its turns.

Rule: turns are on whole intervals of the monotonic clock, so sources of the same interval share
their wake-ups, nothing drifts, and a turn that was missed is skipped and not made up for.
"""

import math
import random
from collections.abc import Callable

__all__ = ["Schedule", "next_turn"]

#: Failures in a row after which a source is asked less often.
PATIENCE = 3


def next_turn(due: float, interval: float, now: float) -> float:
    """
    Return the first turn after *now* of a schedule that has one at *due* and every *interval*.

    All three are seconds on one monotonic clock. The result keeps the phase of *due*, so a schedule
    does not drift; turns between *due* and *now* are skipped.
    """
    if now < due:
        return due
    following = due + interval * (math.floor((now - due) / interval) + 1)
    return following if following > now else following + interval


class Schedule:
    """
    The turns of one source.

    *interval* is seconds between two turns; each is put off by a random part of *jitter* seconds. A
    source that goes on failing is asked after twice the time, and again twice, up to *backoff*
    seconds; 0 never puts it off. *chance* gives numbers from 0 to 1.
    """

    def __init__(
        self,
        interval: float,
        *,
        jitter: float = 0.0,
        backoff: float = 0.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.interval = interval
        self._jitter = jitter
        self._backoff = backoff
        self._chance = chance
        #: Monotonic seconds of the next turn; 0 is at once.
        self.due = 0.0

    def begin(self) -> None:
        """Have the first turn at once."""
        self.due = 0.0

    def advance(self, now: float, failures: int = 0) -> None:
        """Set the turn after *now*, for a source that failed so many times in a row."""
        turn = next_turn(0.0, self.interval, now + self._put_off(failures))
        self.due = turn + self._chance() * self._jitter if self._jitter else turn

    def _put_off(self, failures: int) -> float:
        if failures <= PATIENCE or self._backoff <= self.interval:
            return 0.0
        doubled = self.interval * 2.0 ** min(failures - PATIENCE, 40)
        return min(doubled, self._backoff) - self.interval
