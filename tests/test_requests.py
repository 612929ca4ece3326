"""The series of requests, whoever asks for them."""

import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from time import perf_counter

import pytest

from aiosvc import catalogue
from aiosvc.config import Settings
from aiosvc.labels import LabelPolicy
from aiosvc.readings import Labels, Readings
from aiosvc.requests import IN_PROGRESS_STEP, RequestMetrics

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


class Crowd:
    """Many requests in progress, and how many of them were looked at."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen = 0
        self.now = perf_counter()

    def begun(self, *, otel: bool) -> Iterator[tuple[Labels, float]]:
        """Give them, the oldest last."""
        for number in range(1, self.size + 1):
            self.seen = number
            yield ("GET", "http" if otel else f"/{number % 3}"), self.now - number


@pytest.mark.parametrize("preset", ["classic", "otel"])
def test_requests_in_progress_are_reported_in_steps(preset: str) -> None:
    """However many there are, few are looked at before the event loop has its turn."""
    metrics = RequestMetrics(Settings(preset=preset), LabelPolicy({}, lambda _where, _error: None))
    crowd = Crowd(10_000)
    metrics.watch(crowd)
    readings = Readings()
    seen = [crowd.seen for _ in metrics.steps(readings)]
    assert max(b - a for a, b in pairwise([*seen, crowd.seen])) <= IN_PROGRESS_STEP
    spec = catalogue.HTTP_IN_PROGRESS if preset == "classic" else catalogue.OTEL_ACTIVE
    assert sum(readings.numbers[spec].values()) == 10_000
    assert len(readings.numbers[spec]) == (3 if preset == "classic" else 1)
    [oldest] = readings.numbers[catalogue.HTTP_OLDEST].values()
    assert oldest >= 10_000
