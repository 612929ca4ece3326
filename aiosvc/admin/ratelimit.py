"""
A token bucket, as exporter-toolkit's `rate_limit` asks for one.

Rule: arithmetic on a monotonic clock; it keeps no list of requests.
"""

import time
from collections.abc import Callable

from aiosvc.admin.webconfig import RateLimit

__all__ = ["TokenBucket"]


class TokenBucket:
    """Lets *limit.burst* requests pass at once, and one more each *limit.interval* seconds."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._tokens = float(limit.burst)
        self._counted = clock()

    def wait(self) -> float:
        """Take a token and return 0, or return in how many seconds there will be one."""
        now = self._clock()
        self._tokens += (now - self._counted) / self.limit.interval
        self._tokens = min(self._tokens, float(self.limit.burst))
        self._counted = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) * self.limit.interval
