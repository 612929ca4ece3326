"""The token bucket."""

import pytest

from aiosvc.admin.ratelimit import TokenBucket
from aiosvc.admin.webconfig import RateLimit


class Clock:
    """Seconds that stand still until they are told."""

    now = 50.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_burst_then_interval() -> None:
    """As many as the burst pass at once, then one each interval."""
    clock = Clock()
    bucket = TokenBucket(RateLimit(2.0, 3), clock)
    assert [bucket.wait() for _ in range(4)] == [0, 0, 0, 2.0]
    clock.now += 1.5
    assert bucket.wait() == pytest.approx(0.5)
    clock.now += 0.5
    assert bucket.wait() == 0
    assert bucket.wait() == pytest.approx(2.0)


def test_rest_gives_no_more_than_the_burst() -> None:
    """After a long rest there is one burst, and no more."""
    clock = Clock()
    bucket = TokenBucket(RateLimit(0.001, 2), clock)
    clock.now += 1e9
    assert [bool(bucket.wait()) for _ in range(3)] == [False, False, True]
