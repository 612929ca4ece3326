"""
Where an aiohttp server's requests are seen: between its protocol and the application.

Rule: the only module that uses names of aiohttp which its documentation does not promise.
Rule: whatever is seen here is passed on unchanged, and an error of ours is counted, never raised.

Theory of operation. No single place of aiohttp sees a request whole. A middleware sees what the
handler returned, but not parser errors, not the writing of the body, and not a client that left
while the body was written; an access logger sees the end, but not cancelled or aborted requests.
The protocol sees all of it: `RequestHandler._handle_request` runs for every request, parser errors
included, from its start until its response is written or given up. `MeasuredProtocol` wraps that
one call, so a request is begun and finished in one frame, exactly once, whatever ends it:

* `_handle_request` returned: the response was written (or, *reset*, its client was gone by then);
* it raised ConnectionError: the handler failed after headers had been sent;
* it was cancelled: by the client's leaving (with `handler_cancellation`) or by a shutdown;
* it raised anything else: the response could not be prepared or written.

What the frame can't see is noted on the way: `handle_error` is told a handler's exception,
`finish_response` what the handler returned, `connection_lost` who closed the connection and what
had been written by then, and `set_parser` an upgrade. The writer is left alone where the length of
the body is known beforehand; a stream's is made a `MeasuredWriter` when its headers are written.

A connection handles one request at a time, so the protocol object itself is the record, and the
usual request costs no allocation and no lock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Any, Final

from aiohttp import web
from aiohttp.http_writer import StreamWriter, _serialize_headers
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from aiosvc.requests import (
    ABORTED,
    CANCELLED,
    CLIENT_DISCONNECTED,
    CLIENT_LEFT,
    EXCEPTION,
    METHODS,
    OTHER,
    TIMEOUT,
    UNMATCHED,
    RequestMetrics,
    RouteSeries,
    ScrapeSeries,
    SocketSeries,
)
from aiosvc.templates import template_of

__all__ = ["Tap"]

#: What `handle_error` was told, where that is not an exception.
BAD_REQUEST: Final = "bad request"
TIMED_OUT: Final = "timed out"
NO_RESPONSE: Final = "no response"
SECOND_RESPONSE: Final = "second response"

#: Where a response's length is noted: it is a stream, and its `MeasuredWriter` counts.
STREAM: Final = -1

#: Statuses whose responses have no body, whatever their Content-Length says.
BODILESS: Final = frozenset({204, 304})


class MeasuredWriter(StreamWriter):
    """Knows the status sent and the bytes of body that the transport took, chunk framing left out."""

    status = 0
    body = 0

    def _write(self, chunk: Any) -> None:
        super()._write(chunk)  # raises where the transport is gone, and nothing counts
        if not self.status:
            self.status = int(chunk[9:12])
        elif not self.chunked:
            self.body += len(chunk)

    def _writelines(self, chunks: Iterable[Any]) -> None:
        parts = chunks if isinstance(chunks, tuple) else tuple(chunks)
        super()._writelines(parts)
        if not self.status:
            self.status = int(parts[0][9:12])
            parts = parts[1:]
        if self.chunked:
            parts = parts[1:-1]  # the line with the size before, the line ends after
        for part in parts:
            self.body += len(part)


class MeasuredProtocol(RequestHandler):
    """One connection; also the record of the request that it is handling."""

    __slots__ = (
        "_arrived", "_begun", "_client_left", "_ended", "_fault", "_in_progress", "_length",
        "_open", "_plain", "_request", "_response", "_socket", "_tap", "_written_at_end",
    )  # fmt: skip

    def __init__(self, tap: "Tap", manager: web.Server, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._tap = tap
        self._in_progress = tap.in_progress
        self._arrived = self._begun = self._ended = 0.0
        self._client_left = self._open = False
        self._plain = True
        self._length: int | None = None
        self._written_at_end: int | None = None
        self._fault: BaseException | str | None = None
        self._request: web.BaseRequest | None = None
        self._response: web.StreamResponse | None = None
        self._socket: SocketSeries | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        super().connection_made(transport)
        self._open = True
        self._tap.open_connections += 1
        self._tap.metrics.connections += 1

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count the connection's end, and note whether it was the client's doing."""
        if self._open:
            self._open = False
            self._tap.open_connections -= 1
            # The server's own `force_close` has taken the transport away by now.
            self._client_left = self.transport is not None
        self._note_end()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Note what had been written; asyncio closes the transport now."""
        self._note_end()
        super().eof_received()

    def force_close(self) -> None:
        """Note what had been written; the server takes the transport away now."""
        self._note_end()
        super().force_close()

    def data_received(self, data: bytes) -> None:
        """Note when the next request came in, unless one is being handled."""
        if not self._request_in_progress and not self._messages:
            self._arrived = perf_counter()
        RequestHandler.data_received(self, data)

    def set_parser(self, parser: Any, *args: Any, **kwargs: Any) -> None:
        """Note the upgrade to WebSocket, or to whatever a handler makes of the connection."""
        super().set_parser(parser, *args, **kwargs)
        self._tap.upgraded(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Note what makes aiohttp answer by itself."""
        self._plain = False
        if message is not None:
            self._fault = BAD_REQUEST
        else:
            self._fault = TIMED_OUT if exc is None else exc
        return super().handle_error(request, status, exc, message)

    def finish_response(self, request: web.BaseRequest, resp: Any, start_time: float | None) -> Any:
        """Note what the handler returned; of what is no response, aiohttp makes a 500."""
        self._response = resp
        if type(resp) is not web.Response and not hasattr(resp, "prepare"):
            self._fault = NO_RESPONSE
            self._plain = False
        return RequestHandler.finish_response(self, request, resp, start_time)

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        begun = self._arrived
        # A pipelined request came in while its predecessor was handled; its turn is now.
        self._begun = begun if begun > self._ended else perf_counter()
        self._fault = self._length = self._response = None
        self._plain = True
        self._request = request
        request._payload_writer._on_headers_sent = self._on_headers  # type: ignore[attr-defined]
        self._in_progress[self] = request
        try:
            result = await RequestHandler._handle_request(
                self, request, start_time, request_handler
            )
        except BaseException as error:
            self._tap.finished(self, request, None, error)
            raise
        self._tap.finished(self, request, result, None)
        return result

    def _on_headers(self, _headers: Any) -> "asyncio.Future[None]":
        tap = self._tap
        request = self._request
        if request is not None:
            writer: Any = request._payload_writer
            if self._length is not None:
                self._fault = SECOND_RESPONSE
            elif writer.length is None or writer.chunked or self._current_request is not None:
                # A stream: how much of it gets written is known only by counting.
                self._length = STREAM
                self._plain = False
                writer.__class__ = MeasuredWriter
            else:
                self._length = writer.length
            if tap.times_headers:
                tap.headers_sent(self, request)
        return tap.nothing

    def _note_end(self) -> None:
        if self._written_at_end is None:
            request = self._request
            self._written_at_end = 0 if request is None else request._payload_writer.output_size


class MeasuredServer(web.Server):
    """Makes a `MeasuredProtocol` for each connection."""

    tap: "Tap"

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        try:
            return MeasuredProtocol(self.tap, self, loop=self._loop, **self._kwargs)
        except TypeError:
            # aiohttp's own rule for unknown keyword arguments, with its own warning: keep two.
            super().__call__()
            kept = ("debug", "access_log_class")
            kwargs = {name: self._kwargs[name] for name in kept if name in self._kwargs}
            return MeasuredProtocol(self.tap, self, loop=self._loop, **kwargs)


class Tap:
    """Feeds one application's `RequestMetrics` from the servers that serve it."""

    def __init__(
        self,
        app: web.Application,
        metrics: RequestMetrics,
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self.metrics = metrics
        self.open_connections = 0
        self.in_progress: dict[MeasuredProtocol, web.BaseRequest] = {}
        self.times_headers = False
        #: A future that is done: what a writer awaits of its callback, at next to no cost.
        self.nothing: asyncio.Future[None]
        self._app = app
        self._on_error = on_error
        self._by_route: dict[tuple[str, Any], RouteSeries | ScrapeSeries] = {}
        self._ours: set[Any] = set()
        metrics.watch(self)

    def install(self) -> None:
        """Have every server that will be made of the application make measured protocols."""
        make_handler = self._app._make_handler

        def make_measured_handler(**kwargs: Any) -> web.Server:
            server = make_handler(**kwargs)
            server.__class__ = MeasuredServer
            server.tap = self  # type: ignore[attr-defined]  # it is a MeasuredServer now
            self.nothing = server._loop.create_future()
            self.nothing.set_result(None)
            return server

        # In development mode an Application warns about attributes that it does not know.
        object.__setattr__(self._app, "_make_handler", make_measured_handler)

    def leave_out(self, route: web.AbstractRoute) -> None:
        """Count requests to *route* as scrapes, not as requests of the service."""
        self._ours.add(route)

    def forget(self) -> None:
        """Look every series up anew, after the metrics forgot theirs."""
        self._by_route.clear()

    def series(self) -> list[RouteSeries | ScrapeSeries]:
        """Return the series of the requests in progress."""
        return [self._series(request) for request in list(self.in_progress.values())]

    def oldest(self) -> float:
        """Return the age in seconds of the oldest request in progress, 0.0 when there is none."""
        for protocol, request in list(self.in_progress.items()):
            if isinstance(self._series(request), RouteSeries):
                return max(0.0, perf_counter() - protocol._begun)
        return 0.0

    def headers_sent(self, protocol: MeasuredProtocol, request: web.BaseRequest) -> None:
        """Count the time to a response's headers."""
        try:
            self._series(request).started(perf_counter() - protocol._begun)
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._on_error("headers", failure)

    def upgraded(self, protocol: MeasuredProtocol) -> None:
        """Move a request that was upgraded from the requests to the WebSockets."""
        request: Any = self.in_progress.pop(protocol, None)
        if request is None:
            return
        try:
            series = self._series(request)
            series.upgraded(request._payload_writer.status)
            if isinstance(series, RouteSeries):
                protocol._socket = self.metrics.socket(series.endpoint)
                protocol._socket.opened += 1
                protocol._begun = perf_counter()
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._on_error("upgrade", failure)

    def finished(
        self,
        protocol: MeasuredProtocol,
        request: Any,
        result: tuple[web.StreamResponse, bool] | None,
        error: BaseException | None,
    ) -> None:
        """Count a request, with its result or with what it raised."""
        now = protocol._ended = perf_counter()
        try:
            try:
                series = self._by_route[request._method, request._match_info._route]
            except (AttributeError, KeyError):  # no match was tried; or it is a new one
                series = self._series(request)
            if protocol._plain and result is not None and not result[1]:
                status: int = result[0]._status
                sent = protocol._length or 0
                if sent and (request._method == "HEAD" or status in BODILESS):
                    sent = 0
            else:
                status, sent = self._settle(protocol, series, request, result, error)
            payload = request._payload
            received = 0 if payload is EMPTY_PAYLOAD else _received(series, payload)
            if protocol._socket is None:
                series.finish(status, now - protocol._begun, received, sent)
            else:
                socket, protocol._socket = protocol._socket, None
                socket.close(_close_code(result, protocol._fault), now - protocol._begun)
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._on_error("request", failure)
        finally:
            self.in_progress.pop(protocol, None)
            protocol._request = protocol._response = None

    def _settle(
        self,
        protocol: MeasuredProtocol,
        series: RouteSeries | ScrapeSeries,
        request: Any,
        result: tuple[web.StreamResponse, bool] | None,
        error: BaseException | None,
    ) -> tuple[int, int]:
        """Return status and body bytes sent of any request; count why it did not end well."""
        writer = request._payload_writer
        response = protocol._response if result is None else result[0]
        if isinstance(writer, MeasuredWriter):
            status, body = writer.status, writer.body
        else:
            status, body = _written(protocol, writer, response)
        if protocol._fault is BAD_REQUEST:
            self.metrics.bad_requests += 1
        complete = result is not None and not result[1]
        if complete and protocol._fault in (None, BAD_REQUEST):
            return status, body
        client_gone = _client_gone(protocol)
        reason, raised = _reason(protocol, error, sent=status > 0, client_gone=client_gone)
        series.fail(reason)
        if raised is not None and isinstance(series, RouteSeries):
            self.metrics.exception(series.endpoint, raised)
        if not status:
            status = CLIENT_LEFT if client_gone or reason is CANCELLED else 500
        return status, body

    def _series(self, request: Any) -> RouteSeries | ScrapeSeries:
        match = request._match_info
        if match is None:
            return self.metrics.route(OTHER, UNMATCHED)
        route = match.route
        known = self._by_route.get((request.method, route))
        return known or self._find_series(request, request.method, route)

    def _find_series(
        self, request: web.Request, method: str, route: web.AbstractRoute
    ) -> RouteSeries | ScrapeSeries:
        series: RouteSeries | ScrapeSeries
        if route in self._ours:
            series = self.metrics.scrapes
        else:
            series = self.metrics.route(method, template_of(self._app, request))
        # Not kept for the routes that aiohttp makes anew for each 404 and 405, nor for methods that
        # a client made up: both would grow without end.
        if route.resource is not None and method in METHODS:
            self._by_route[method, route] = series
        return series


def _received(series: RouteSeries | ScrapeSeries, payload: Any) -> int:
    received: int = payload.total_raw_bytes
    if not payload.is_eof() and isinstance(series, RouteSeries):
        payload.on_eof(_Remainder(series, payload, received))
    return received


class _Remainder:
    """Adds the rest of a request's body, read after the response, when it has all come in."""

    __slots__ = ("_known", "_payload", "_series")

    def __init__(self, series: RouteSeries, payload: Any, known: int) -> None:
        self._series = series
        self._payload = payload
        self._known = known

    def __call__(self) -> None:
        self._series.received += self._payload.total_raw_bytes - self._known


def _client_gone(protocol: MeasuredProtocol) -> bool:
    transport = protocol.transport
    return protocol._client_left or (transport is not None and transport.is_closing())


def _reason(
    protocol: MeasuredProtocol, error: BaseException | None, *, sent: bool, client_gone: bool
) -> tuple[str, BaseException | None]:
    """Return the failure reason of a request, and the exception that nothing caught."""
    fault = protocol._fault
    raised = fault if isinstance(fault, BaseException) else None
    if client_gone and (raised is None or isinstance(raised, OSError)):
        return CLIENT_DISCONNECTED, None
    if fault is SECOND_RESPONSE or (error is not None and fault is not None and sent):
        return ABORTED, raised
    if fault is not None:
        return TIMEOUT if fault is TIMED_OUT else EXCEPTION, raised
    if isinstance(error, asyncio.CancelledError) or protocol._force_close:
        return CANCELLED, None
    # The response could not be prepared or written, and not for want of a client.
    return ABORTED if sent else EXCEPTION, error


def _written(protocol: MeasuredProtocol, writer: Any, response: Any) -> tuple[int, int]:
    """Return status and body bytes that went out of a response whose writer did not count."""
    output: int = (
        writer.output_size if protocol._written_at_end is None else protocol._written_at_end
    )
    if not output or response is None:
        return 0, 0
    version = response._req.version if response._req is not None else (1, 1)
    line = f"HTTP/{version[0]}.{version[1]} {response.status} {response.reason}"
    return response.status, max(0, output - len(_serialize_headers(line, response.headers)))


def _close_code(
    result: tuple[web.StreamResponse, bool] | None, fault: BaseException | str | None
) -> int | None:
    if result is None or fault is not None:
        return None
    return getattr(result[0], "close_code", None)
