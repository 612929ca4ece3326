"""
From what a protocol saw of a request to the numbers that it is counted in.

Rule: an error of ours is counted and never raised; no request fails because it is measured.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, Final
from weakref import WeakSet

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD

from aiosvc.config import Settings
from aiosvc.endings import ending_of
from aiosvc.exemplars import is_exemplary, trace_id_of_header
from aiosvc.protocol import BAD_REQUEST, MeasuredProtocol, MeasuredServer, Result
from aiosvc.readings import Labels
from aiosvc.requests import METHODS, UNMATCHED, RequestMetrics, is_excluded
from aiosvc.series import BODILESS, Ending, NoSeries, RouteSeries
from aiosvc.templates import template_of

__all__ = ["Tap"]


class _Whole(dict[type, bool]):
    """Whether responses of a class are written in one piece, found out once for each class."""

    def __missing__(self, kind: type) -> bool:
        self[kind] = whole = issubclass(kind, web.Response)
        return whole


WHOLE: Final = _Whole()
#: Stands for the body of what is not a response in one piece.
NO_BODY: Final = object()

NO_SERIES: Final = NoSeries()
#: What a route's requests are counted in: its series, or none at all.
Series = RouteSeries | NoSeries


class Tap:
    """Feeds one application's `RequestMetrics` from the servers that serve it."""

    def __init__(
        self,
        app: web.Application,
        metrics: RequestMetrics,
        settings: Settings,
        on_error: Callable[[str, BaseException], None],
        on_serving: Callable[[], None],
    ) -> None:
        self.metrics = metrics
        self.open_connections = 0
        self._servers: WeakSet[MeasuredServer] = WeakSet()
        self.times_headers = settings.response_start
        self.has_served = False
        #: A future that is done: what a writer awaits of its callback, at next to no cost.
        self.nothing: asyncio.Future[None]
        self._app = app
        #: The templates of metrics endpoints, this application's and those of its sub-applications.
        self.own: frozenset[str] = frozenset()
        self._exclude = settings.exclude
        self._exemplars = settings.exemplars
        self._slow = settings.slow
        #: Whether a finished request needs more than its route's series.
        self._more = metrics.refined or self.times_headers or settings.exemplars != "off"
        self._on_error = on_error
        self._on_serving = on_serving
        self._late: Callable[[], None] | None = None
        self._by_route: dict[tuple[str, Any], Series] = {}
        metrics.watch(self)

    def install(self) -> None:
        """Have every server that will be made of the application make measured protocols."""
        make_handler = self._app._make_handler

        def make_measured_handler(**kwargs: Any) -> web.Server:
            server: Any = make_handler(**kwargs)
            server.__class__ = MeasuredServer
            server.observed = self
            self.nothing = server._loop.create_future()
            self.nothing.set_result(None)
            self._servers.add(server)
            self.has_served = True
            self._on_serving()
            return server  # type: ignore[no-any-return]  # a MeasuredServer now

        # In development mode an Application warns about attributes that it does not know.
        object.__setattr__(self._app, "_make_handler", make_measured_handler)

    def connected(self) -> None:
        """Count a connection that was accepted."""
        self.open_connections += 1
        self.metrics.connections += 1

    def disconnected(self) -> None:
        """Count the end of a connection."""
        self.open_connections -= 1

    def start(self) -> None:
        """Count for metrics that are reported."""
        self._late = None

    def stop(self, late: Callable[[], None]) -> None:
        """Look every series up anew, after the metrics forgot theirs; tell *late* of stragglers."""
        self._by_route.clear()
        self._late = late

    def begun(self, *, otel: bool) -> Iterator[tuple[Labels, float]]:
        """Give the labels and the begin of each request in progress that is counted."""
        # Found among the connections at a scrape, so that no request has to be put on a list.
        for protocol in [each for server in list(self._servers) for each in server.connections]:
            if not isinstance(protocol, MeasuredProtocol) or protocol.socket is not None:
                continue
            begun, request = protocol.begun, protocol.request
            if request is None:
                continue
            series = self._series(request)
            if isinstance(series, RouteSeries):
                second = _scheme(request) if otel else series.endpoint
                extra = self.metrics.labels.values(request, None)
                yield (series.method, second, *extra), begun

    def upgraded(self, protocol: MeasuredProtocol) -> None:
        """Move a request that was upgraded from the requests to the WebSockets."""
        request: Any = protocol.request
        if request is None or protocol.socket is not None:
            return
        try:
            series = self._series(request)
            status = request._payload_writer.status
            if isinstance(series, RouteSeries):
                protocol.socket = self.metrics.socket(series.endpoint)
                protocol.socket.opened += 1
                protocol.begun = perf_counter()
                if self.metrics.refined:
                    series = self.metrics.refine(series, request, None, (status, "", ""))
            series.upgraded(status)
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._on_error("upgrade", failure)

    def finished(  # noqa: C901, PLR0912 - what every request goes through is one function
        self, protocol: MeasuredProtocol, request: Any, result: Result, error: BaseException | None
    ) -> None:
        """Count a request, with its result or with what it raised."""
        now = protocol.ended = perf_counter()
        try:
            try:
                series = self._by_route[request._method, request._match_info._route]
            except (AttributeError, KeyError):  # no match was tried; or it is a new one
                series = self._series(request)
            response: Any = None
            body: Any = NO_BODY
            if protocol.plain and protocol.length is not None and result is not None:
                response, reset = result
                if not reset and WHOLE[type(response)]:
                    body = response._body
            if type(body) is bytes or body is None:
                # The usual request: a response in one piece, of which all was written.
                status: int = response._status
                if body is None or status in BODILESS or request._method == "HEAD":
                    sent = 0
                elif response._compressed_body is None:
                    sent = len(body)
                else:
                    sent = len(response._compressed_body)
                if self._more:
                    ending = Ending(now - protocol.begun, status, sent)
                    series = self._refined(protocol, request, result, series, ending)
                payload = request._payload
                if payload is EMPTY_PAYLOAD:
                    series.finish(status, now - protocol.begun, 0, sent)
                elif payload._eof and payload.total_compressed_bytes is None:
                    series.finish(status, now - protocol.begun, payload.total_bytes, sent)
                else:
                    received = self._received(protocol, request, series)
                    series.finish(status, now - protocol.begun, received, sent)
            elif protocol.is_undecided():
                settle = partial(self._ended, protocol, request, result, error, series)
                seconds = now - protocol.begun
                protocol.deferred = partial(
                    self._settle, protocol, protocol.response, settle, seconds
                )
            else:
                self._ended(protocol, request, result, error, series, now - protocol.begun)
                protocol.forget_request()
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            protocol.forget_request()
            self._on_error("request", failure)
        finally:
            protocol.request = protocol.response = None

    def _settle(
        self,
        protocol: MeasuredProtocol,
        response: Any,
        settle: Callable[[float], None],
        seconds: float,
    ) -> None:
        protocol.response = response
        try:
            settle(seconds)
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._on_error("request", failure)
        finally:
            protocol.request = protocol.response = None

    def _ended(
        self,
        protocol: MeasuredProtocol,
        request: Any,
        result: Result,
        error: BaseException | None,
        series: Series,
        seconds: float,
    ) -> None:
        """Count a request that ended otherwise than with a whole response."""
        ending = ending_of(protocol, request, result, error, seconds)
        if protocol.fault is BAD_REQUEST:
            self.metrics.bad_requests += 1
        series = self._refined(protocol, request, result, series, ending)
        if protocol.socket is not None:
            socket, protocol.socket = protocol.socket, None
            socket.close(_close_code(protocol), ending.seconds)
        else:
            received = self._received(protocol, request, series)
            series.finish(ending.status, ending.seconds, received, ending.sent)
        if ending.reason is not None:
            series.fail(ending.reason)
        if ending.raised is not None and isinstance(series, RouteSeries):
            self.metrics.exception(series.endpoint, ending.raised)
        if self._late is not None:
            self._late()
            self._by_route.clear()

    def _refined(
        self,
        protocol: MeasuredProtocol,
        request: Any,
        result: Result,
        series: Series,
        ending: Ending,
    ) -> Series:
        """Return the series with all labels, after the request became its exemplar if it may."""
        if not self._more:
            return series
        # What is not taken now would be taken for the next request's.
        started, protocol.started = protocol.started, None
        trace_id, protocol.trace_id = protocol.trace_id, None
        if not isinstance(series, RouteSeries):
            return series
        if self.metrics.refined:
            response = protocol.response if result is None else result[0]
            error = self.metrics.error_type(ending.status, ending.reason, ending.raised)
            outcome = ending.status, _scheme(request), error
            series = self.metrics.refine(series, request, response, outcome)
        if protocol.socket is None:
            if started is not None:
                series.started(started)
            if is_exemplary(ending, self._exemplars, self._slow):
                trace_id = trace_id or trace_id_of_header(request.headers.get("traceparent"))
                if trace_id is not None:
                    series.exemplify(ending.seconds, trace_id)
        return series

    def _received(self, protocol: MeasuredProtocol, request: Any, series: Series) -> int:
        payload = request._payload
        if payload is EMPTY_PAYLOAD:
            return 0
        received: int = payload.total_raw_bytes
        if not payload.is_eof():
            protocol.remainder = _Remainder(series, payload, received)
            payload.on_eof(protocol.remainder)
        return received

    def _series(self, request: Any) -> Series:
        # No match was tried, or it is one of a router that knows no routes.
        route = getattr(request._match_info, "route", None)
        if route is None:
            return self.metrics.route(request.method, UNMATCHED)
        known = self._by_route.get((request.method, route))
        return known or self._find_series(request, request.method, route)

    def _find_series(self, request: web.Request, method: str, route: web.AbstractRoute) -> Series:
        series: Series
        template = template_of(self._app, request)
        if template in self.own or is_excluded(template, self._exclude):
            series = NO_SERIES
        else:
            series = self.metrics.route(method, template)
        # Not kept for the routes that aiohttp makes anew for each 404 and 405, nor for methods that
        # a client made up: both would grow without end.
        if route.resource is not None and method in METHODS:
            self._by_route[method, route] = series
        return series


class _Remainder:
    """Adds the rest of a request's body, which comes in after the response, to its series."""

    __slots__ = ("_known", "_payload", "_series")

    def __init__(self, series: Series, payload: Any, known: int) -> None:
        self._series = series
        self._payload = payload
        self._known = known

    def __call__(self) -> None:
        total = self._payload.total_raw_bytes
        self._series.received += total - self._known
        self._known = total


def _scheme(request: Any) -> str:
    # Not the request's own: before 3.14 aiohttp takes that of a target which has one, which is
    # whatever the client wrote there.
    return "https" if request._transport_sslcontext else "http"


def _close_code(protocol: MeasuredProtocol) -> int | None:
    if protocol.close_code is not None:
        return protocol.close_code
    return getattr(protocol.response, "close_code", None)
