"""
How work that is done in slices gives way to others, on its event loop or in its interpreter.

Rule: knows asyncio and the time, and nothing of the work.

Theory of operation. One turn of the loop between two slices is enough where the loop is idle. Where
it is busy it is not: a request takes several turns and would wait for a slice in each, and a slice
in every turn may be more than the requests leave. So turns go by until one comes in which others had
hardly anything to do, or until they have had many times as long as the slice took. Work on a loop of
its own competes for the interpreter instead: there a turn is a short sleep, and one that others had
much to do in is one that ended late.
"""

import asyncio
from time import perf_counter, sleep
from typing import Final

__all__ = ["Pace"]

#: A turn is idle in which others took less than this share of a slice.
IDLE: Final = 0.25
#: How many times as long as a slice others may have at most, before the next one.
MOST: Final = 16


class Pace:
    """
    The pace of work in slices of *seconds* each, with a turn of *pause* seconds between them.

    From *hurry* on, in the time of `perf_counter`, there is one turn between two slices and no more.
    """

    __slots__ = ("_hurry", "_idle", "_most", "_pause")

    def __init__(self, seconds: float, *, pause: float = 0.0, hurry: float) -> None:
        self._pause = pause
        self._idle = IDLE * seconds
        self._most = MOST * seconds
        self._hurry = hurry

    async def give_way(self) -> None:
        """Return when the next slice may begin."""
        since = now = perf_counter()
        while True:
            begun = now
            if self._pause:
                # Nothing else lets go of the interpreter for less than a millisecond.
                sleep(self._pause)  # noqa: ASYNC251 - of a loop that serves nobody else
            await asyncio.sleep(0)
            now = perf_counter()
            if now - begun - self._pause < self._idle:
                return
            if now - since >= self._most or now >= self._hurry:
                return
