"""
One attempt to process an item, and how it ended.

Rule: an attempt ends exactly once, in one outcome, whatever ends it: a return, an exception, a
cancellation, an exit of the interpreter, a coroutine that is closed where it stood.
"""

import time
from bisect import bisect_left
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

from aiosvc.catalogue import PROCESSING_BUCKETS
from aiosvc.errors import ConfigError

__all__ = [
    "CANCELLED",
    "DEAD",
    "ERROR",
    "EXITS",
    "OK",
    "OUTCOMES",
    "RETRY",
    "TIMEOUT",
    "Attempt",
    "JobSeries",
    "Ledger",
    "outcome_of",
]

OK: Final = "ok"
ERROR: Final = "error"
RETRY: Final = "retry"
TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"
DEAD: Final = "dead"
OUTCOMES: Final = (OK, ERROR, RETRY, TIMEOUT, CANCELLED, DEAD)

#: What ends a coroutine or the process, and is no failure of a job; a cancellation may be either.
EXITS: Final = (GeneratorExit, KeyboardInterrupt, SystemExit)


class Ended(NamedTuple):
    """How an attempt ended, after how many seconds, and at what Unix time."""

    outcome: str
    seconds: float
    at: float


class Ledger(Protocol):
    """Whoever keeps the attempts of a queue."""

    def clock(self) -> float:
        """Return the monotonic time in seconds."""

    def note_start(self, attempt: "Attempt") -> None:
        """Take an attempt among those that run."""

    def note_end(self, attempt: "Attempt") -> None:
        """Take note that an attempt has ended; called wherever a coroutine may be closed."""


class Attempt:
    """
    One attempt to process an item, as a context manager, async or not.

    Without further ado it ends as `ok`; as `timeout` with a TimeoutError, as `cancelled` when it is
    cancelled or its coroutine is closed, as `error` with any other exception, which goes on. Within
    the block, `retry()` and `dead()` say that the item will be tried again, or was given up on.
    """

    __slots__ = ("_ledger", "_said", "began", "busy_from", "ended", "job")

    def __init__(self, ledger: Ledger, job: str) -> None:
        self.job = job
        self.began: float | None = None
        self.busy_from = 0.0
        self.ended: Ended | None = None
        self._said: str | None = None
        self._ledger = ledger

    def retry(self) -> None:
        """Have this attempt end as `retry`: the item will be tried again."""
        self._said = RETRY

    def dead(self) -> None:
        """Have this attempt end as `dead`: the item was given up on and put aside."""
        self._said = DEAD

    def end(self, outcome: str) -> None:
        """End the attempt, unless it has ended; raises ConfigError for what is no outcome."""
        if outcome not in OUTCOMES:
            raise ConfigError(f"outcome: {outcome!r} given; expected one of {', '.join(OUTCOMES)}")
        if self.began is not None and self.ended is None:
            self.ended = Ended(outcome, self._ledger.clock() - self.began, time.time())
            self._ledger.note_end(self)

    def __enter__(self) -> Self:
        if self.began is None:
            self.began = self.busy_from = self._ledger.clock()
            self._ledger.note_start(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(self._said or outcome_of(error))

    def busy(self, now: float) -> float:
        """Return the seconds that it was busy and that were not counted elsewhere."""
        until = now if self.ended is None else (self.began or 0.0) + self.ended.seconds
        return max(0.0, until - self.busy_from)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


def outcome_of(error: BaseException | None) -> str:
    """Return how an attempt that raised *error*, or nothing, has ended."""
    if error is None:
        return OK
    if isinstance(error, TimeoutError):
        return TIMEOUT
    # CancelledError of asyncio and of others; GeneratorExit where a coroutine was closed.
    if isinstance(error, GeneratorExit) or type(error).__name__ in ("CancelledError", "Cancelled"):
        return CANCELLED
    return ERROR


class JobSeries:
    """The settled attempts of one job."""

    __slots__ = ("buckets", "outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.buckets = [0] * (len(PROCESSING_BUCKETS) + 1)
        self.seconds = 0.0

    def add(self, ended: Ended) -> None:
        """Count one attempt."""
        self.outcomes[ended.outcome] += 1
        self.buckets[bisect_left(PROCESSING_BUCKETS, ended.seconds)] += 1
        self.seconds += ended.seconds
