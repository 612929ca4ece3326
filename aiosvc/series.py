"""
The numbers of one route, of one endpoint's WebSockets, of our own endpoints.

Rule: knows no framework and no label policy; bytes, seconds and status codes in, numbers out.

Theory of operation. Counting a request is a few additions in one `RouteSeries`. They are plain
Python numbers, written by one thread (the adapter's event loop) without a lock and read from any. A
reader in another thread must not see half of a request's additions: `entered` is raised before them
and `left` after, so what was copied while the two were equal, and `left` stayed the same, is whole.
Counters and histograms are built from these numbers only when somebody scrapes.
"""

import time
from bisect import bisect_left
from typing import Final, NamedTuple

from prometheus_client.samples import Exemplar

__all__ = [
    "ABORTED",
    "BODILESS",
    "CANCELLED",
    "CLIENT_DISCONNECTED",
    "CLIENT_LEFT",
    "EXCEPTION",
    "OTHER",
    "REASONS",
    "SERVER_ERROR",
    "TIMEOUT",
    "Ending",
    "NoSeries",
    "RouteSeries",
    "SizedSeries",
    "Snapshot",
    "SocketSeries",
]

#: The label value for whatever is past a cap or not known.
OTHER: Final = "_other"

EXCEPTION: Final = "exception"
TIMEOUT: Final = "timeout"
CLIENT_DISCONNECTED: Final = "client_disconnected"
ABORTED: Final = "aborted"
CANCELLED: Final = "cancelled"
REASONS: Final = (EXCEPTION, TIMEOUT, CLIENT_DISCONNECTED, ABORTED, CANCELLED)

#: The status of a request whose client left before any was sent, as nginx logs it.
CLIENT_LEFT: Final = 499

#: The first status that is the server's own error.
SERVER_ERROR: Final = 500

#: Statuses whose responses have no body, whatever their Content-Length says.
BODILESS: Final = frozenset({*range(100, 200), 204, 304})

#: Close codes that are names of conditions (RFC 6455, 7.4); 3000 to 4999 are the peers' own choice.
CLOSE_CODES: Final = {code: str(code) for code in (*range(1000, 1004), *range(1005, 1016))}

#: Copies of a series' numbers that a reader in another thread tries to get whole.
READ_ATTEMPTS: Final = 100


class Ending(NamedTuple):
    """Seconds, status, body bytes sent, failure reason and uncaught exception of a request."""

    seconds: float
    status: int
    sent: int
    reason: str | None = None
    raised: BaseException | None = None


class Snapshot(NamedTuple):
    """One whole state of the numbers that one request changes together."""

    statuses: dict[int, int]
    buckets: tuple[int, ...]
    seconds: float
    start_buckets: tuple[int, ...]
    start_seconds: float
    received: int
    sent: int
    received_buckets: tuple[int, ...]
    sent_buckets: tuple[int, ...]


class RouteSeries:
    """
    The numbers of one method and endpoint, and of one set of *extra* label values where there are.

    *bounds* and *start_bounds* are the buckets of durations and of times to headers; without any of
    the latter these are not kept.
    """

    __slots__ = (
        "bounds", "buckets", "endpoint", "entered", "exemplars", "extra", "failures", "labels",
        "left", "method", "received", "received_buckets", "seconds", "sent", "sent_buckets",
        "start_bounds", "start_buckets", "start_seconds", "statuses",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        endpoint: str,
        bounds: tuple[float, ...],
        start_bounds: tuple[float, ...] = (),
        extra: tuple[str, ...] = (),
    ) -> None:
        self.method = method
        self.endpoint = endpoint
        self.extra = extra
        #: Label values by status or failure, made when they are first reported.
        self.labels: dict[int | str, tuple[str, ...]] = {}
        self.exemplars: dict[int, Exemplar] = {}
        self.received_buckets: list[int] = []
        self.sent_buckets: list[int] = []
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.start_bounds = start_bounds
        self.start_buckets = [0] * (len(start_bounds) + 1)
        self.statuses: dict[int, int] = {}
        self.failures = dict.fromkeys(REASONS, 0)
        self.seconds = 0.0
        self.start_seconds = 0.0
        self.received = 0
        self.sent = 0
        self.entered = 0
        self.left = 0

    def finish(self, status: int, seconds: float, received: int, sent: int) -> None:
        """Count one request: its status, duration in seconds, and body bytes in and out."""
        bucket = bisect_left(self.bounds, seconds)
        self.entered += 1
        try:
            self.statuses[status] += 1
        except KeyError:
            self.statuses[status] = 1
        self.buckets[bucket] += 1
        self.seconds += seconds
        self.received += received
        self.sent += sent
        self.left += 1

    def exemplify(self, seconds: float, trace_id: str) -> None:
        """Make a request of *seconds* the example of its bucket."""
        place = bisect_left(self.bounds, seconds)
        self.exemplars[place] = Exemplar({"trace_id": trace_id}, seconds, time.time())

    def started(self, seconds: float) -> None:
        """Count a response's headers, *seconds* after the request was parsed."""
        bucket = bisect_left(self.start_bounds, seconds)
        self.entered += 1
        self.start_buckets[bucket] += 1
        self.start_seconds += seconds
        self.left += 1

    def upgraded(self, status: int) -> None:
        """Count a request that became another protocol; its duration is no request's duration."""
        try:
            self.statuses[status] += 1
        except KeyError:
            self.statuses[status] = 1

    def fail(self, reason: str) -> None:
        """Count one of `REASONS`."""
        self.failures[reason] += 1

    def snapshot(self) -> Snapshot:
        """Return a whole state, also while another thread counts."""
        for _ in range(READ_ATTEMPTS):
            left = self.left
            copy = Snapshot(
                self.statuses.copy(),
                tuple(self.buckets),
                self.seconds,
                tuple(self.start_buckets),
                self.start_seconds,
                self.received,
                self.sent,
                tuple(self.received_buckets),
                tuple(self.sent_buckets),
            )
            if self.entered == left == self.left:
                break
        return copy


class SizedSeries(RouteSeries):
    """A `RouteSeries` that puts body sizes into buckets too."""

    __slots__ = ("size_bounds",)

    def __init__(
        self,
        method: str,
        endpoint: str,
        bounds: tuple[float, ...],
        start_bounds: tuple[float, ...],
        extra: tuple[str, ...],
        size_bounds: tuple[float, ...],
    ) -> None:
        super().__init__(method, endpoint, bounds, start_bounds, extra)
        self.size_bounds = size_bounds
        self.received_buckets = [0] * (len(size_bounds) + 1)
        self.sent_buckets = [0] * (len(size_bounds) + 1)

    def finish(self, status: int, seconds: float, received: int, sent: int) -> None:
        """Count one request, and its body sizes."""
        self.entered += 1
        self.received_buckets[bisect_left(self.size_bounds, received)] += 1
        self.sent_buckets[bisect_left(self.size_bounds, sent)] += 1
        super().finish(status, seconds, received, sent)
        self.left += 1


class NoSeries:
    """Stands where a `RouteSeries` would, for a route that is not to be counted."""

    __slots__ = ("received",)

    def __init__(self) -> None:
        self.received = 0

    def finish(self, _status: int, _seconds: float, _received: int, _sent: int) -> None:
        """Count nothing."""

    def started(self, _seconds: float) -> None:
        """Count nothing."""

    def upgraded(self, _status: int) -> None:
        """Count nothing."""

    def fail(self, _reason: str) -> None:
        """Count nothing."""


class SocketSeries:
    """The WebSockets of one endpoint."""

    __slots__ = ("bounds", "buckets", "closed", "codes", "opened", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.seconds = 0.0
        self.opened = 0
        self.closed = 0
        self.codes: dict[str, int] = {}

    def close(self, code: int | None, seconds: float) -> None:
        """Count the end of one after *seconds*, with its close code (None: there was none)."""
        name = CLOSE_CODES.get(1006 if code is None else code, OTHER)
        self.buckets[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds
        self.codes[name] = self.codes.get(name, 0) + 1
        self.closed += 1
