"""
What is counted about HTTP requests, whatever server received them, and under which labels.

Rule: knows no framework. An adapter passes a method, a route's template, a status and what became
of the request; this module decides the label values, and no label value is ever a client's choice.
Rule: the usual request needs none of this: an adapter keeps the `RouteSeries` of its routes, and
asks here only for new ones.
"""

import logging
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any, Final, Protocol

from aiosvc import catalogue
from aiosvc.catalogue import MetricSpec
from aiosvc.config import Settings
from aiosvc.labels import LabelPolicy
from aiosvc.readings import Distribution, Labels, Readings, Total
from aiosvc.series import (
    EXCEPTION,
    OTHER,
    SERVER_ERROR,
    RouteSeries,
    SizedSeries,
    Snapshot,
    SocketSeries,
)

__all__ = [
    "CLASSIC_FAMILIES",
    "METHODS",
    "OTEL_FAMILIES",
    "UNMATCHED",
    "InFlight",
    "RequestMetrics",
    "is_excluded",
]

log = logging.getLogger("aiosvc")

#: The endpoint of requests that matched no route.
UNMATCHED: Final = "_unmatched"

#: The methods of RFC 9110 and RFC 5789; a lookup that misses means `_other`.
METHODS: Final = {
    name: name
    for name in ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
}

#: URL schemes; a lookup that misses means `_other`. An upgrade is counted without one.
SCHEMES: Final = {name: name for name in ("", "http", "https", "ws", "wss")}

#: Exception classes that are told apart, by application.
MAX_EXCEPTIONS: Final = 50

#: Series that are reported in one step.
STEP: Final = 32

#: Requests in progress that are looked at in one step.
IN_PROGRESS_STEP: Final = 128

#: What a refined series of the preset `otel` has before the user's labels: status, scheme, error.
OTEL_EXTRA: Final = 3

#: The families that each preset exports, from the start.
CLASSIC_FAMILIES: Final = (
    catalogue.HTTP_REQUESTS,
    catalogue.HTTP_DURATION,
    catalogue.HTTP_IN_PROGRESS,
    catalogue.HTTP_REQUEST_SIZE,
    catalogue.HTTP_RESPONSE_SIZE,
)
OTEL_FAMILIES: Final = (
    catalogue.OTEL_DURATION,
    catalogue.OTEL_ACTIVE,
    catalogue.OTEL_REQUEST_SIZE,
    catalogue.OTEL_RESPONSE_SIZE,
)
FAMILIES: Final = (
    catalogue.HTTP_FAILURES,
    catalogue.HTTP_EXCEPTIONS,
    catalogue.WEBSOCKET_CONNECTIONS,
    catalogue.WEBSOCKET_CONNECTIONS_TOTAL,
    catalogue.WEBSOCKET_DURATION,
    catalogue.WEBSOCKET_CLOSES,
)


class InFlight(Protocol):
    """What an adapter knows about the requests that it has begun and not finished."""

    def begun(self, *, otel: bool) -> Iterable[tuple[Labels, float]]:
        """
        Give each of them, WebSockets and our own endpoints left out; may be paused in between.

        That is its label values, and when it began in seconds of perf_counter. The values are
        method, endpoint and the extra labels; for *otel* method and URL scheme.
        """


class RequestMetrics:
    """All request metrics of one application; a reporter for the collector."""

    def __init__(self, settings: Settings, labels: LabelPolicy) -> None:
        self.bad_requests = 0
        self.connections = 0
        #: Whether the adapter sees connections and what the parser refused; unknown is absent.
        self.sees_connections = True
        self.labels = labels
        self._settings = settings
        self._otel = settings.preset == "otel"
        #: Whether a request's series depends on more than its method and route.
        self.refined = self._otel or bool(labels.names)
        self._start_bounds = settings.response_start_bounds if settings.response_start else ()
        self._endpoints: set[str] = set()
        self._warned: set[str] = set()
        self._routes: dict[tuple[str, ...], RouteSeries] = {}
        self._sockets: dict[str, SocketSeries] = {}
        self._exceptions: dict[Labels, int] = {}
        self._exception_names: set[str] = set()
        self._in_flight: InFlight | None = None

    def forget(self) -> None:
        """Start from zero, after what was counted went somewhere else."""
        self.bad_requests = self.connections = 0
        self._routes.clear()
        self._sockets.clear()
        self._exceptions.clear()

    def watch(self, in_flight: InFlight) -> None:
        """Ask *in_flight* at each scrape what is in progress."""
        self._in_flight = in_flight

    def expect(self, method: str, template: str) -> None:
        """Export the series of a route that was not asked for yet, as zeros, where it is known."""
        if not self._otel and self.labels.static is not None:
            self._kept(METHODS.get(method, OTHER), self._endpoint(template), self.labels.static)

    def route(self, method: str, template: str) -> RouteSeries:
        """
        Return the series of a request method and a route's template, made when new.

        Where series are refined, it only says under which method and endpoint to `refine`.
        """
        method, endpoint = METHODS.get(method, OTHER), self._endpoint(template)
        if self.refined:
            return RouteSeries(method, endpoint, (), self._start_bounds)
        return self._kept(method, endpoint)

    def refine(
        self,
        series: RouteSeries,
        request: Any,
        response: Any | None,
        outcome: tuple[int, str, str] | None,
    ) -> RouteSeries:
        """
        Return the series of *request* with all its labels.

        *outcome* is (status, URL scheme, error type) of a finished request, None of one that is in
        progress.
        """
        extra = self.labels.values(request, response)
        if self._otel:
            status, scheme, error = outcome or (0, "", "")
            extra = (str(status), SCHEMES.get(scheme, OTHER), error, *extra)
        return self._kept(series.method, series.endpoint, extra)

    def error_type(self, status: int, reason: str | None, raised: BaseException | None) -> str:
        """Return OpenTelemetry's `error.type` of a finished request, empty where it succeeded."""
        if raised is not None:
            return self._exception_name(raised)
        if reason is not None and reason != EXCEPTION:
            return reason
        return str(status) if status >= SERVER_ERROR else ""

    def socket(self, endpoint: str) -> SocketSeries:
        """Return the WebSocket series of an endpoint label, made when new."""
        series = self._sockets.get(endpoint)
        if series is None:
            series = SocketSeries(self._settings.websocket_bounds)
            series = self._sockets.setdefault(endpoint, series)
        return series

    def exception(self, endpoint: str, error: BaseException) -> None:
        """Count an exception that nothing caught, by its class."""
        key = endpoint, self._exception_name(error)
        self._exceptions[key] = self._exceptions.get(key, 0) + 1

    def report(self, readings: Readings) -> None:
        """Add all of it to *readings*."""
        for _ in self.steps(readings):
            pass

    def steps(self, readings: Readings) -> Iterator[None]:
        """Add all of it to *readings*, and give way after each few series."""
        readings.declare(*(OTEL_FAMILIES if self._otel else CLASSIC_FAMILIES), *FAMILIES)
        if self._in_flight is not None:
            # First, since whoever looks at them may find that some are over, and counts these.
            yield from self._in_progress_steps(self._in_flight, readings)
            yield
        overflow = {"method": -self.bad_requests, "endpoint": 0}
        for place, series in enumerate(list(self._routes.values())):
            if place % STEP == STEP - 1:
                yield
            now = series.snapshot()
            requests = sum(now.statuses.values())
            overflow["method"] += requests if series.method == OTHER else 0
            overflow["endpoint"] += requests if series.endpoint == OTHER else 0
            if self._otel:
                _report_otel(series, now, readings)
            else:
                _report_route(series, now, readings)
            own = series.extra[OTEL_EXTRA:] if self._otel else series.extra
            _report_failures(series, own, readings)
        for label, times in overflow.items():
            readings.number(catalogue.LABEL_OVERFLOW, times, (self._counter.name, label))
        others = sum(n for (_, name), n in list(self._exceptions.items()) if name == OTHER)
        labels = catalogue.HTTP_EXCEPTIONS.name, "exception"
        readings.number(catalogue.LABEL_OVERFLOW, others, labels)
        for place, (endpoint, socket) in enumerate(list(self._sockets.items())):
            if place % STEP == STEP - 1:
                yield
            _report_socket(endpoint, socket, readings)
        for key, count in list(self._exceptions.items()):
            readings.number(catalogue.HTTP_EXCEPTIONS, count, key)
        if self.sees_connections:
            readings.number(catalogue.HTTP_BAD_REQUESTS, self.bad_requests)
            readings.number(catalogue.CONNECTIONS, self.connections)

    def _in_progress_steps(self, in_flight: InFlight, readings: Readings) -> Iterator[None]:
        now = oldest = perf_counter()
        counts: dict[Labels, int] = {}
        for place, (labels, begun) in enumerate(in_flight.begun(otel=self._otel)):
            if place % IN_PROGRESS_STEP == IN_PROGRESS_STEP - 1:
                yield
            counts[labels] = counts.get(labels, 0) + 1
            oldest = min(oldest, begun)
        for labels, count in counts.items():
            if self._otel:
                method, scheme, *extra = labels
                active = _otel_method(method), SCHEMES.get(scheme, OTHER), *extra
                readings.number(catalogue.OTEL_ACTIVE, count, active)
            else:
                readings.number(catalogue.HTTP_IN_PROGRESS, count, labels)
        readings.number(catalogue.HTTP_OLDEST, now - oldest)

    @property
    def _counter(self) -> MetricSpec:
        return catalogue.OTEL_DURATION if self._otel else catalogue.HTTP_REQUESTS

    def _kept(self, method: str, endpoint: str, extra: Labels = ()) -> RouteSeries:
        key = method, endpoint, *extra
        series = self._routes.get(key)
        if series is None:
            bounds = self._settings.duration_bounds, self._start_bounds
            if self._otel:
                sizes = catalogue.SIZE_BUCKETS
                series = SizedSeries(method, endpoint, *bounds, extra, sizes)
            else:
                series = RouteSeries(method, endpoint, *bounds, extra)
            # A scrape in another thread may have made it meanwhile, and there must be one only.
            series = self._routes.setdefault(key, series)
        return series

    def _endpoint(self, template: str) -> str:
        if template in self._endpoints or template in (UNMATCHED, OTHER):
            return template
        if len(self._endpoints) < self._settings.max_endpoints:
            self._endpoints.add(template)
            return template
        self._warn("endpoint", template)
        return OTHER

    def _exception_name(self, error: BaseException) -> str:
        name = type(error).__qualname__
        if name not in self._exception_names:
            if len(self._exception_names) >= MAX_EXCEPTIONS:
                self._warn("exception", name)
                return OTHER
            self._exception_names.add(name)
        return name

    def _warn(self, label: str, offender: str) -> None:
        if label not in self._warned:
            self._warned.add(label)
            log.warning(
                "label %s has reached its cap: %r and all further values count as %r",
                label,
                offender,
                OTHER,
            )


def is_excluded(template: str, patterns: tuple[str, ...]) -> bool:
    """Return whether one of *patterns* is the template, or its beginning and a '*'."""
    return any(
        template.startswith(pattern[:-1]) if pattern.endswith("*") else template == pattern
        for pattern in patterns
    )


def _report_route(series: RouteSeries, now: Snapshot, readings: Readings) -> None:
    labels = series.method, series.endpoint, *series.extra
    finished = sum(now.buckets)
    for status, count in now.statuses.items():
        names = _labels(series, status, series.extra)
        readings.number(catalogue.HTTP_REQUESTS, count, names)
    duration = Distribution(series.bounds, now.buckets, now.seconds, series.exemplars.copy())
    readings.distribution(catalogue.HTTP_DURATION, duration, labels)
    if series.start_bounds:
        start = Distribution(series.start_bounds, now.start_buckets, now.start_seconds)
        readings.distribution(catalogue.HTTP_RESPONSE_START, start, labels)
    readings.number(catalogue.HTTP_IN_PROGRESS, 0, labels)
    readings.total(catalogue.HTTP_REQUEST_SIZE, Total(finished, now.received), labels)
    readings.total(catalogue.HTTP_RESPONSE_SIZE, Total(finished, now.sent), labels)


def _report_otel(series: RouteSeries, now: Snapshot, readings: Readings) -> None:
    if not sum(now.buckets):
        return  # an upgrade: it has a status and no duration
    method = _otel_method(series.method)
    # OpenTelemetry has no name for what is no route.
    route = "" if series.endpoint == UNMATCHED else series.endpoint
    labels = method, route, *series.extra
    _, scheme, _, *own = series.extra
    readings.number(catalogue.OTEL_ACTIVE, 0, (method, scheme, *own))
    duration = Distribution(series.bounds, now.buckets, now.seconds, series.exemplars.copy())
    readings.distribution(catalogue.OTEL_DURATION, duration, labels)
    received = Distribution(catalogue.SIZE_BUCKETS, now.received_buckets, now.received)
    readings.distribution(catalogue.OTEL_REQUEST_SIZE, received, labels)
    sent = Distribution(catalogue.SIZE_BUCKETS, now.sent_buckets, now.sent)
    readings.distribution(catalogue.OTEL_RESPONSE_SIZE, sent, labels)
    if series.start_bounds:
        start = Distribution(series.start_bounds, now.start_buckets, now.start_seconds)
        names = series.method, series.endpoint, *series.extra[OTEL_EXTRA:]
        readings.distribution(catalogue.HTTP_RESPONSE_START, start, names)


def _otel_method(method: str) -> str:
    """Return OpenTelemetry's name of a method label."""
    return "_OTHER" if method == OTHER else method


def _report_failures(series: RouteSeries, own: Labels, readings: Readings) -> None:
    for reason, count in series.failures.items():
        readings.number(catalogue.HTTP_FAILURES, count, _labels(series, reason, own))


def _labels(series: RouteSeries, what: int | str, own: Labels) -> Labels:
    """Return method, endpoint, *what* and *own*: the same tuple always, so that none are made."""
    labels = series.labels.get(what)
    if labels is None:
        labels = series.labels[what] = (series.method, series.endpoint, str(what), *own)
    return labels


def _report_socket(endpoint: str, series: SocketSeries, readings: Readings) -> None:
    labels = (endpoint,)
    duration = Distribution(series.bounds, tuple(series.buckets), series.seconds)
    readings.distribution(catalogue.WEBSOCKET_DURATION, duration, labels)
    readings.number(catalogue.WEBSOCKET_CONNECTIONS, series.opened - series.closed, labels)
    readings.number(catalogue.WEBSOCKET_CONNECTIONS_TOTAL, series.opened, labels)
    for code, count in list(series.codes.items()):
        readings.number(catalogue.WEBSOCKET_CLOSES, count, (endpoint, code))
