"""
What is counted about HTTP requests, whatever server received them.

Rule: knows no framework. An adapter passes a method, a route's template, a status and what became
of the request; this module decides the label values, and no label value is ever a client's choice.
Rule: numbers are plain Python numbers, written by one thread (the adapter's event loop) without a
lock and read from any.

Theory of operation. Counting a request is a few additions in one `RouteSeries`, found through a
dict that the adapter keeps by its own route objects, so no label is built while requests are
served. A reader in another thread must not see half of a request's additions: `begun` is raised
before them and `count` after, so what was copied while the two were equal, and `count` stayed the
same, is whole. Counters and histograms are built from these numbers only when somebody scrapes.
"""

import logging
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from aiosvc import catalogue
from aiosvc.catalogue import MetricSpec
from aiosvc.readings import Distribution, Labels, Readings, Total

__all__ = [
    "ABORTED",
    "CANCELLED",
    "CLIENT_DISCONNECTED",
    "CLIENT_LEFT",
    "EXCEPTION",
    "METHODS",
    "OTHER",
    "TIMEOUT",
    "UNMATCHED",
    "InFlight",
    "RequestMetrics",
    "RouteSeries",
    "ScrapeSeries",
    "SocketSeries",
]

log = logging.getLogger("aiosvc")

#: The label value for whatever is past a cap or not known.
OTHER: Final = "_other"
#: The endpoint of requests that matched no route.
UNMATCHED: Final = "_unmatched"

#: The methods of RFC 9110 and RFC 5789; a lookup that misses means `_other`.
METHODS: Final = {
    name: name
    for name in ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
}

#: The status of a request whose client left before any was sent, as nginx logs it.
CLIENT_LEFT: Final = 499

EXCEPTION: Final = "exception"
TIMEOUT: Final = "timeout"
CLIENT_DISCONNECTED: Final = "client_disconnected"
ABORTED: Final = "aborted"
CANCELLED: Final = "cancelled"
REASONS: Final = (EXCEPTION, TIMEOUT, CLIENT_DISCONNECTED, ABORTED, CANCELLED)

#: Close codes that are names of conditions (RFC 6455, 7.4); 3000 to 4999 are the peers' own choice.
CLOSE_CODES: Final = {code: str(code) for code in (*range(1000, 1004), *range(1005, 1016))}

#: Copies of a series' numbers that a reader in another thread tries to get whole.
READ_ATTEMPTS: Final = 100


class Snapshot(NamedTuple):
    """One whole state of a `RouteSeries`."""

    statuses: dict[int, int]
    buckets: tuple[int, ...]
    seconds: float
    start_buckets: tuple[int, ...]
    start_seconds: float
    received: int
    sent: int
    finished: int


class RouteSeries:
    """The numbers of one (method, endpoint)."""

    __slots__ = (
        "begun", "bounds", "buckets", "count", "endpoint", "failures", "method", "received",
        "seconds", "sent", "start_bounds", "start_buckets", "start_seconds", "statuses",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        endpoint: str,
        bounds: tuple[float, ...],
        start_bounds: tuple[float, ...],
    ) -> None:
        self.method = method
        self.endpoint = endpoint
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
        self.begun = 0
        self.count = 0

    def finish(self, status: int, seconds: float, received: int, sent: int) -> None:
        """Count one request: its status, duration in seconds, and body bytes in and out."""
        bucket = bisect_left(self.bounds, seconds)
        self.begun += 1
        try:
            self.statuses[status] += 1
        except KeyError:
            self.statuses[status] = 1
        self.buckets[bucket] += 1
        self.seconds += seconds
        self.received += received
        self.sent += sent
        self.count += 1

    def started(self, seconds: float) -> None:
        """Count a response's headers, *seconds* after the request was parsed."""
        bucket = bisect_left(self.start_bounds, seconds)
        self.start_buckets[bucket] += 1
        self.start_seconds += seconds

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
            count = self.count
            copy = Snapshot(
                self.statuses.copy(),
                tuple(self.buckets),
                self.seconds,
                tuple(self.start_buckets),
                self.start_seconds,
                self.received,
                self.sent,
                count,
            )
            if self.begun == count == self.count:
                break
        return copy


class ScrapeSeries:
    """Stands where a `RouteSeries` would, for an endpoint of ours: counts answers by status."""

    __slots__ = ("codes",)

    def __init__(self) -> None:
        self.codes = {200: 0, 500: 0, 503: 0}

    def finish(self, status: int, _seconds: float, _received: int, _sent: int) -> None:
        """Count one answer."""
        self.codes[status] = self.codes.get(status, 0) + 1

    def started(self, _seconds: float) -> None:
        """Take no notice of the headers."""

    def upgraded(self, status: int) -> None:
        """Count one answer."""
        self.codes[status] = self.codes.get(status, 0) + 1

    def fail(self, _reason: str) -> None:
        """Take no notice: a scraper that leaves is not a failure of the service."""


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


class InFlight(Protocol):
    """What an adapter knows about the requests that it has begun and not finished."""

    def series(self) -> Iterable[RouteSeries | ScrapeSeries]:
        """Return the series of each of them, WebSockets left out."""

    def oldest(self) -> float:
        """Return the age in seconds of the oldest of them, 0.0 when there is none."""


class RequestMetrics:
    """All request metrics of one application; a reporter for the collector."""

    def __init__(
        self,
        *,
        buckets: tuple[float, ...] = catalogue.DURATION_BUCKETS,
        max_endpoints: int = 500,
        max_exceptions: int = 50,
    ) -> None:
        self.buckets = buckets
        self.max_endpoints = max_endpoints
        self.max_exceptions = max_exceptions
        self.bad_requests = 0
        self.connections = 0
        self.scrapes = ScrapeSeries()
        self._endpoints: set[str] = set()
        self._overflowed: set[str] = set()
        self._overflow: dict[tuple[str, str], int] = {}
        self._routes: dict[tuple[str, str], RouteSeries] = {}
        self._sockets: dict[str, SocketSeries] = {}
        self._exceptions: dict[Labels, int] = {}
        self._exception_names: set[str] = set()
        self._in_flight: InFlight | None = None

    def forget(self) -> None:
        """Start from zero, after what was counted went somewhere else."""
        self.bad_requests = self.connections = 0
        self.scrapes = ScrapeSeries()
        self._routes.clear()
        self._sockets.clear()
        self._exceptions.clear()
        self._overflow.clear()

    def watch(self, in_flight: InFlight) -> None:
        """Ask *in_flight* at each scrape what is in progress."""
        self._in_flight = in_flight

    def endpoint(self, template: str) -> str:
        """Return the endpoint label of a route's template: itself, or `_other` past the cap."""
        if template in self._endpoints or template in (UNMATCHED, OTHER):
            return template
        if len(self._endpoints) < self.max_endpoints:
            self._endpoints.add(template)
            return template
        self._overflows(catalogue.HTTP_REQUESTS, "endpoint", template)
        return OTHER

    def route(self, method: str, template: str) -> RouteSeries:
        """Return the series of a request method and a route's template, made when new."""
        key = METHODS.get(method, OTHER), self.endpoint(template)
        series = self._routes.get(key)
        if series is None:
            series = self._routes[key] = RouteSeries(*key, self.buckets, ())
        return series

    def socket(self, endpoint: str) -> SocketSeries:
        """Return the WebSocket series of an endpoint label, made when new."""
        series = self._sockets.get(endpoint)
        if series is None:
            series = SocketSeries(catalogue.WEBSOCKET_DURATION.buckets)
            self._sockets[endpoint] = series
        return series

    def exception(self, endpoint: str, error: BaseException) -> None:
        """Count an exception that nothing caught, by its class."""
        name = type(error).__qualname__
        if name not in self._exception_names:
            if len(self._exception_names) < self.max_exceptions:
                self._exception_names.add(name)
            else:
                self._overflows(catalogue.HTTP_EXCEPTIONS, "exception", name)
                name = OTHER
        key = endpoint, name
        self._exceptions[key] = self._exceptions.get(key, 0) + 1

    def report(self, readings: Readings) -> None:
        """Add all of it to *readings*."""
        for series in list(self._routes.values()):
            _report_route(series, readings)
        for endpoint, socket in list(self._sockets.items()):
            _report_socket(endpoint, socket, readings)
        for labels, count in list(self._exceptions.items()):
            readings.number(catalogue.HTTP_EXCEPTIONS, count, labels)
        for (metric, label), count in list(self._overflow.items()):
            readings.number(catalogue.LABEL_OVERFLOW, count, (metric, label))
        for code, count in list(self.scrapes.codes.items()):
            readings.number(catalogue.SCRAPES, count, (str(code),))
        readings.number(catalogue.HTTP_BAD_REQUESTS, self.bad_requests)
        readings.number(catalogue.CONNECTIONS, self.connections)
        if self._in_flight is not None:
            for in_flight in self._in_flight.series():
                if isinstance(in_flight, RouteSeries):
                    labels = (in_flight.method, in_flight.endpoint)
                    readings.number(catalogue.HTTP_IN_PROGRESS, 1, labels)
            readings.number(catalogue.HTTP_OLDEST, self._in_flight.oldest())

    def _overflows(self, spec: MetricSpec, label: str, offender: str) -> None:
        key = spec.name, label
        self._overflow[key] = self._overflow.get(key, 0) + 1
        if label not in self._overflowed:
            self._overflowed.add(label)
            log.warning(
                "label %s of %s has reached its cap: %r and all new values count as %r",
                label, spec.name, offender, OTHER,
            )  # fmt: skip


def _report_route(series: RouteSeries, readings: Readings) -> None:
    labels = series.method, series.endpoint
    now = series.snapshot()
    for status, count in now.statuses.items():
        readings.number(catalogue.HTTP_REQUESTS, count, (*labels, str(status)))
    for reason, count in series.failures.items():
        readings.number(catalogue.HTTP_FAILURES, count, (*labels, reason))
    duration = Distribution(series.bounds, now.buckets, now.seconds)
    readings.distribution(catalogue.HTTP_DURATION, duration, labels)
    readings.number(catalogue.HTTP_IN_PROGRESS, 0, labels)
    readings.total(catalogue.HTTP_REQUEST_SIZE, Total(now.finished, now.received), labels)
    readings.total(catalogue.HTTP_RESPONSE_SIZE, Total(now.finished, now.sent), labels)


def _report_socket(endpoint: str, series: SocketSeries, readings: Readings) -> None:
    labels = (endpoint,)
    duration = Distribution(series.bounds, tuple(series.buckets), series.seconds)
    readings.distribution(catalogue.WEBSOCKET_DURATION, duration, labels)
    readings.number(catalogue.WEBSOCKET_CONNECTIONS, series.opened - series.closed, labels)
    readings.number(catalogue.WEBSOCKET_CONNECTIONS_TOTAL, series.opened, labels)
    for code, count in series.codes.items():
        readings.number(catalogue.WEBSOCKET_CLOSES, count, (endpoint, code))
