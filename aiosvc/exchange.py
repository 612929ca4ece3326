"""
Requests that come through a gateway interface: one record each, and where they are counted.

Rule: knows neither ASGI nor WSGI; an adapter fills in what it saw. Rule: an error of ours is counted
and never raised; no request fails because it is measured.

The question of how a request ended is asked here once for both interfaces, and answered as for
aiohttp (see `endings`): the client comes before whatever its leaving caused.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any, Final

from aiosvc.config import Settings
from aiosvc.exemplars import is_exemplary, trace_id_of_header
from aiosvc.readings import Labels
from aiosvc.requests import METHODS, UNMATCHED, RequestMetrics, is_excluded
from aiosvc.series import (
    ABORTED,
    BODILESS,
    CANCELLED,
    CLIENT_DISCONNECTED,
    CLIENT_LEFT,
    EXCEPTION,
    OTHER,
    SERVER_ERROR,
    TIMEOUT,
    Ending,
    NoSeries,
    RouteSeries,
    SocketSeries,
)

__all__ = ["SWITCHING", "Exchange", "Exchanges", "Headers", "is_consequence"]

#: The status of a request that became a WebSocket.
SWITCHING: Final = 101

#: Exceptions by which frameworks tell an application that its client has left.
DISCONNECTS: Final = frozenset({"ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect"})

NO_SERIES: Final = NoSeries()

#: Series that are kept at hand by method and template; past it they are looked up each time.
MOST_KEPT: Final = 10_000

#: What a request is counted in: the series of its route, or none at all.
Series = RouteSeries | NoSeries


def is_consequence(error: BaseException) -> bool:
    """Return whether *error* is what becomes of an application whose client has left."""
    return isinstance(error, OSError) or type(error).__name__ in DISCONNECTS


class Headers:
    """What `FromResponseHeader` reads: the headers of a response, looked up in any case."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = self
        self._headers = headers

    def get(self, name: str) -> str | None:
        """Return a header's value, None where it is missing."""
        return self._headers.get(name.lower())


class Exchange:
    """
    One request, from its arrival until it is counted.

    *request* is the interface's own: a scope or an environ.
    """

    __slots__ = (
        "begun",  # perf_counter seconds
        "ended",  # when the response was complete, None before
        "entry",  # script name and path, as the server gave them
        "left",  # whether the client was gone before that
        "method",
        "raised",  # an exception that a framework turned into its 500
        "received",  # bytes of the request's body
        "request",
        "sent",  # bytes of the response's body
        "socket",  # where the WebSocket is counted that it became
        "started",  # seconds to the headers
        "status",  # that was sent, 0 before
        "template",  # of its route, None where that is not known yet
        "trace_id",
    )

    def __init__(self, method: str, request: Any) -> None:
        self.begun = perf_counter()
        self.ended: float | None = None
        self.entry = "", ""
        self.left = False
        self.method = method
        self.raised: BaseException | None = None
        self.received = 0
        self.request = request
        self.sent = 0
        self.socket: SocketSeries | None = None
        self.started: float | None = None
        self.status = 0
        self.template: str | None = None
        self.trace_id: str | None = None

    def note_route(self) -> None:
        """Keep the template while the framework knows it; for adapters that may lose it."""

    def header(self, _name: str) -> str | None:
        """Return a header of the request, None where it is missing; an adapter's business."""
        return None

    def response(self) -> Headers | None:
        """Return the response's headers, None before; an adapter's business."""
        return None

    def scheme(self) -> str:
        """Return the URL's scheme; an adapter's business."""
        return ""

    def ending(self, error: BaseException | None) -> Ending:
        """Return how it ended: *error* is what the application raised, if it did."""
        complete = self.ended is not None and not self.left
        seconds = (perf_counter() if self.ended is None else self.ended) - self.begun
        raised = error if isinstance(error, Exception) else self.raised
        status, reason = self.status, None
        if complete:
            if raised is not None and status >= SERVER_ERROR:
                reason = TIMEOUT if isinstance(raised, TimeoutError) else EXCEPTION
        elif self.left and (raised is None or is_consequence(raised)):
            reason, raised = CLIENT_DISCONNECTED, None
        elif error is not None and not isinstance(error, Exception):
            reason = CANCELLED
        elif status:
            reason = ABORTED
        else:
            reason = TIMEOUT if isinstance(raised, TimeoutError) else EXCEPTION
        if not status:
            gone = self.left or reason is CANCELLED
            status = CLIENT_LEFT if gone else SERVER_ERROR
        return Ending(seconds, status, self.sent, reason, raised)


class Exchanges:
    """
    The requests of one application: those in progress, and the numbers of those that ended.

    *template_of* gives the template that a request matched, None where it has none (yet).
    """

    def __init__(
        self,
        metrics: RequestMetrics,
        settings: Settings,
        on_error: Callable[[str, BaseException], None],
        template_of: Callable[[Exchange], str | None],
    ) -> None:
        self.metrics = metrics
        self.open: set[Exchange] = set()
        #: Told of a request that ended after the metrics were given up.
        self.late: Callable[[], None] | None = None
        #: Whether a finished request needs more than its route's series.
        self.more = metrics.refined or settings.response_start or settings.exemplars != "off"
        self.times_headers = settings.response_start
        self.notes_traces = settings.exemplars != "off"
        self._settings = settings
        self.on_error = on_error
        self._template_of = template_of
        self._kept: dict[tuple[str, str], Series] = {}
        metrics.watch(self)

    def forget(self) -> None:
        """Look every series up anew, after the metrics forgot theirs."""
        self._kept.clear()

    def expect(self, routes: Iterable[tuple[str, str]]) -> None:
        """Export series of (method, template) that nobody has asked for yet, as zeros."""
        try:
            for method, template in routes:
                if not is_excluded(template, self._settings.exclude):
                    self.metrics.expect(method, template)
        except Exception as failure:  # noqa: BLE001 - a framework that changed costs the zeros
            self.on_error("routes", failure)

    def begun(self, *, otel: bool) -> Iterator[tuple[Labels, float]]:
        """Give the labels and the begin of each request in progress that is counted."""
        for exchange in list(self.open):
            series = self._series(exchange)
            if isinstance(series, RouteSeries):
                extra = self.metrics.labels.values(exchange.request, None)
                second = exchange.scheme() if otel else series.endpoint
                yield (series.method, second, *extra), exchange.begun

    def finish(self, exchange: Exchange, ending: Ending) -> None:
        """Count a request that ended so."""
        self.open.discard(exchange)
        try:
            series = self._series(exchange)
            if self.more:
                series = self._refined(exchange, series, ending)
            if exchange.status != SWITCHING:
                bodiless = exchange.method == "HEAD" or ending.status in BODILESS
                sent = 0 if bodiless else ending.sent
                series.finish(ending.status, ending.seconds, exchange.received, sent)
            if ending.reason is not None:
                series.fail(ending.reason)
            if ending.raised is not None and isinstance(series, RouteSeries):
                self.metrics.exception(series.endpoint, ending.raised)
            if self.late is not None:
                self.late()
                self.forget()
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self.on_error("request", failure)

    def opened(self, exchange: Exchange, status: int) -> None:
        """Move a request from the requests to the WebSockets."""
        self.open.discard(exchange)
        try:
            series = self._series(exchange)
            if isinstance(series, RouteSeries):
                exchange.socket = self.metrics.socket(series.endpoint)
                exchange.socket.opened += 1
                exchange.begun = perf_counter()
                if self.metrics.refined:
                    request = exchange.request
                    series = self.metrics.refine(series, request, None, (status, "", ""))
            series.upgraded(status)
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self.on_error("upgrade", failure)

    def matched(self, exchange: Exchange) -> str | None:
        """Return the template that the request has matched by now, None where it has none."""
        try:
            return self._template_of(exchange)
        except Exception as failure:  # noqa: BLE001 - a framework that changed costs the template
            self.on_error("template", failure)
            return None

    def raised_late(self, exchange: Exchange, error: BaseException) -> None:
        """Count an exception that came after its request was counted."""
        try:
            series = self._series(exchange)
            if isinstance(series, RouteSeries):
                self.metrics.exception(series.endpoint, error)
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self.on_error("request", failure)

    def _series(self, exchange: Exchange) -> Series:
        template = exchange.template or self.matched(exchange) or UNMATCHED
        try:
            return self._kept[exchange.method, template]
        except KeyError:
            pass
        series: Series
        if is_excluded(template, self._settings.exclude):
            series = NO_SERIES
        else:
            series = self.metrics.route(exchange.method, template)
        # Not kept for methods that a client made up, nor for templates past the cap.
        other = isinstance(series, RouteSeries) and series.endpoint == OTHER
        if exchange.method in METHODS and not other and len(self._kept) < MOST_KEPT:
            self._kept[exchange.method, template] = series
        return series

    def _refined(self, exchange: Exchange, series: Series, ending: Ending) -> Series:
        """Return the series with all labels, after the request became its exemplar if it may."""
        if not isinstance(series, RouteSeries):
            return series
        if self.metrics.refined:
            error = self.metrics.error_type(ending.status, ending.reason, ending.raised)
            outcome = ending.status, exchange.scheme(), error
            request, response = exchange.request, exchange.response()
            series = self.metrics.refine(series, request, response, outcome)
        if exchange.status != SWITCHING:
            if exchange.started is not None:
                series.started(exchange.started)
            if is_exemplary(ending, self._settings.exemplars, self._settings.slow):
                trace_id = exchange.trace_id or trace_id_of_header(exchange.header("traceparent"))
                if trace_id is not None:
                    series.exemplify(ending.seconds, trace_id)
        return series
