"""The series of requests, whoever asks for them."""

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from aiosvc.config import Settings
from aiosvc.labels import LabelPolicy
from aiosvc.requests import RequestMetrics

THREADS = 4
ROUNDS = 300


@pytest.fixture
def metrics() -> Iterator[RequestMetrics]:
    """Give request metrics, while threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        settings = Settings(max_endpoints=2 * ROUNDS)
        yield RequestMetrics(settings, LabelPolicy({}, lambda _where, _error: None))
    finally:
        sys.setswitchinterval(interval)


def at_once(call: Callable[[int], object]) -> list[list[object]]:
    """Return, by round, what *call* gives to threads that all ask in the same moment."""
    barrier = threading.Barrier(THREADS)
    found: list[list[object]] = [[] for _ in range(ROUNDS)]

    def ask() -> None:
        for number, row in enumerate(found):
            barrier.wait()
            row.append(call(number))

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_one_series_for_all_threads(metrics: RequestMetrics) -> None:
    """A scrape that meets a route's first request has the series that the request counts in."""
    for routes in at_once(lambda number: metrics.route("GET", f"/{number}")):
        assert len(set(map(id, routes))) == 1
    for sockets in at_once(lambda number: metrics.socket(f"/{number}")):
        assert len(set(map(id, sockets))) == 1
