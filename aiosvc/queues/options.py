"""
What a pool of workers is told: how many, how long, how often again, and where the rest goes.

Rule: as in `aiosvc.config`, frozen and checked when made; these are no flags, since a service may
have many pools.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, TypedDict

from aiosvc.errors import ConfigError
from aiosvc.validation import is_number, seconds, whole, wrong

__all__ = ["PoolKeywords", "PoolOptions"]

#: Doublings of a backoff after which it only grows by its cap; far beyond any that makes sense.
MAX_DOUBLINGS = 60


class PoolKeywords(TypedDict, total=False):
    """The keyword arguments of `Observer.worker_pool`; one for each field of `PoolOptions`."""

    concurrency: int
    timeout: float | None
    attempts: int
    retry_on: type[Exception] | tuple[type[Exception], ...]
    backoff: float
    backoff_max: float
    drain: float
    dead_letters: Any
    jobs: Iterable[str]
    job_of: Callable[[Any], str] | None
    rng: Random | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolOptions:
    """
    How a pool works.

    `concurrency` jobs run at once. Each attempt may take `timeout` seconds, None for any. An item
    whose handler raises one of `retry_on` (a TimeoutError where its time was over) is tried
    `attempts` times in all; before the n-th further one it waits between 0 and
    `backoff` * 2 ** (n - 1) seconds, `backoff_max` at most. A stop may take `drain` seconds for what
    is left to do.

    `dead_letters` is where an item goes that is given up on: a number, of the last ones that
    `WorkerPool.dead_letters` keeps (0, the default, keeps none); a queue with `put_nowait`; or a
    function of the item and the exception, async or not.

    `jobs` are the names that `job_of` gives for an item, as label values; any other becomes
    `_other`. Without `job_of` all items are one job, by default of the handler's name. `rng` is what
    the waits are drawn from, where they are to be the same each time.
    """

    concurrency: int = 4
    timeout: float | None = None
    attempts: int = 1
    retry_on: type[Exception] | tuple[type[Exception], ...] = (Exception,)
    backoff: float = 1.0
    backoff_max: float = 60.0
    drain: float = 10.0
    dead_letters: Any = 0
    jobs: Iterable[str] = ()
    job_of: Callable[[Any], str] | None = None
    rng: Random | None = None

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        for name in ("concurrency", "attempts"):
            whole(name, getattr(self, name), at_least=1)
        for name in ("backoff", "backoff_max", "drain"):
            seconds(name, getattr(self, name), at_least=0.0)
        if self.timeout is not None and not (is_number(self.timeout) and self.timeout > 0):
            raise wrong("timeout", self.timeout, "seconds, above 0, or None for no limit")
        kinds = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise wrong("retry_on", self.retry_on, "exception classes, like (OSError,)")
        if self.rng is not None and not isinstance(self.rng, Random):
            raise wrong("rng", self.rng, "a random.Random")
        self._check_jobs()

    def _check_jobs(self) -> None:
        if isinstance(self.jobs, str) or not isinstance(self.jobs, Iterable):
            raise wrong("jobs", self.jobs, "names, like ('send_welcome',)")
        object.__setattr__(self, "jobs", tuple(self.jobs))
        if self.job_of is not None and not callable(self.job_of):
            raise wrong("job_of", self.job_of, "a function of an item")
        if self.job_of is None and len(tuple(self.jobs)) > 1:
            raise ConfigError(
                f"jobs: {self.jobs!r} given; with more than one, job_of must say which an item is"
            )

    def wait_before(self, attempt: int, rng: Random) -> float:
        """Return the seconds to wait before the *attempt*-th one, which is 2 or more."""
        doublings = min(attempt - 2, MAX_DOUBLINGS)
        return rng.uniform(0.0, min(self.backoff_max, self.backoff * 2**doublings))
