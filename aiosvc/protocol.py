"""
The vantage point: aiohttp's own protocol, with a record of the request that it is handling.

Rule: this module, `tap` and `endings` are the only ones that use names of aiohttp which its
documentation does not promise. Rule: whatever is seen here is passed on unchanged.

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
import sys
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.http_writer import StreamWriter
from aiohttp.web_protocol import RequestHandler

from aiosvc.series import SocketSeries

__all__ = [
    "BAD_REQUEST",
    "NO_RESPONSE",
    "SECOND_RESPONSE",
    "STREAM",
    "TIMED_OUT",
    "MeasuredProtocol",
    "MeasuredServer",
    "MeasuredWriter",
    "Observed",
    "Result",
]

#: What `handle_error` and others were told, where that is not an exception.
BAD_REQUEST: Final = "bad request"
TIMED_OUT: Final = "timed out"
NO_RESPONSE: Final = "no response"
SECOND_RESPONSE: Final = "second response"

#: Where a response's length is noted: it is a stream, and its `MeasuredWriter` counts.
STREAM: Final = -1

#: What `_handle_request` returns: the response, and whether its client was gone; None if it raised.
Result = tuple[web.StreamResponse, bool] | None


class Observed(Protocol):
    """Who is told what a protocol sees."""

    times_headers: bool
    #: A future that is done: what a writer awaits of its callback, at next to no cost.
    nothing: "asyncio.Future[None]"

    def connected(self) -> None:
        """Count a connection that was accepted."""

    def disconnected(self) -> None:
        """Count the end of a connection."""

    def upgraded(self, protocol: "MeasuredProtocol") -> None:
        """Take note that the request became a WebSocket, or whatever its handler makes of it."""

    def finished(
        self,
        protocol: "MeasuredProtocol",
        request: web.BaseRequest,
        result: Result,
        error: BaseException | None,
    ) -> None:
        """Count a request, with its result or with what it raised."""


class MeasuredWriter(StreamWriter):
    """Knows the status sent and the bytes of body that the transport took, chunk framing left out."""

    status = 0
    body = 0
    #: Whether something was to be written when the client was gone.
    failed = False

    def _write(self, chunk: Any) -> None:
        try:
            super()._write(chunk)
        except ConnectionError:
            self.failed = True
            raise
        if not self.status:
            self.status = int(chunk[9:12])
        elif not self.chunked:
            self.body += len(chunk)

    def _writelines(self, chunks: Iterable[Any]) -> None:
        parts = chunks if isinstance(chunks, tuple) else tuple(chunks)
        try:
            super()._writelines(parts)
        except ConnectionError:
            self.failed = True
            raise
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
        "_eof",
        "arrived",  # when the next request came in
        "begun",  # when the request was parsed, or its turn came
        "client_left",  # whether it was the client that ended the connection
        "close_code",  # of the WebSocket, as far as it was said
        "deferred",  # settles a request whose connection's end is not explained yet
        "ended",  # when the request before was finished
        "fault",  # what made aiohttp answer by itself
        "file_bytes",  # that the kernel sent of a file by itself
        "length",  # of the body as declared, STREAM where it is counted, None before the headers
        "nothing",  # what `_on_headers` gives to be awaited
        "observed",
        "open",  # whether the connection is counted as open
        "plain",  # whether nothing but a response of known length was seen so far
        "remainder",  # of the request body, when it was not read to its end
        "request",  # in progress, None between requests
        "response",  # that the handler returned
        "server_left",  # whether it was the server that ended the connection
        "socket",  # where the WebSocket is counted that the request became
        "started",  # seconds to the headers
        "told",  # whether the event loop tells of a reset; uvloop ends the connection without a word
        "trace_id",
        "written_at_end",  # what had been written when the connection's end began, None before
    )

    def __init__(self, observed: Observed, manager: web.Server, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self.observed = observed
        self.nothing = observed.nothing
        self.arrived = self.begun = self.ended = 0.0
        self.client_left = self.server_left = self.open = self._eof = False
        self.file_bytes: int | None = None
        self.plain = True
        self.told = isinstance(self._loop, asyncio.BaseEventLoop)
        self.started: float | None = None
        self.trace_id: str | None = None
        self.length: int | None = None
        self.written_at_end: int | None = None
        self.fault: BaseException | str | None = None
        self.request: web.BaseRequest | None = None
        self.response: Any = None
        self.deferred: Callable[[], None] | None = None
        self.remainder: Callable[[], None] | None = None
        self.socket: SocketSeries | None = None
        self.close_code: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        super().connection_made(transport)
        self.open = True
        self.observed.connected()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count the connection's end, and note whether it was the client's doing."""
        if self.open:
            self.open = False
            self.observed.disconnected()
            # A client that leaves is an end of file or an error. The server's `force_close` has
            # taken the transport away by now; a handler's `transport.close()` is neither.
            left = self._eof or exc is not None or not self.told
            self.client_left = left and self.transport is not None
        self._note_end()
        super().connection_lost(exc)
        if self.deferred is not None:
            self.deferred()
            self.deferred = None
        if self.remainder is not None:
            self.remainder()
            self.remainder = None

    def eof_received(self) -> None:
        """Note what had been written; asyncio closes the transport now."""
        self._eof = True
        self._note_end()
        super().eof_received()

    def force_close(self) -> None:
        """Note what had been written; the server takes the transport away now."""
        self.server_left = self.server_left or self.open
        self._note_end()
        super().force_close()

    def data_received(self, data: bytes) -> None:
        """Note when the next request came in, unless one is being handled."""
        if not self._request_in_progress and not self._messages:
            self.arrived = perf_counter()
        RequestHandler.data_received(self, data)

    def is_undecided(self) -> bool:
        """
        Return whether the connection is ending and nobody said by whom.

        A transport that failed to write closes itself at once and tells why a moment later. One
        that the application closed says nothing then, and may have something left to write.
        """
        transport = self.transport
        return (
            self.told
            and not self._eof
            and transport is not None
            and transport.is_closing()
            and not transport.get_write_buffer_size()
        )

    def set_parser(self, parser: Any, *args: Any, **kwargs: Any) -> None:
        """Note the upgrade, and from now on the WebSocket's close code."""
        super().set_parser(parser, *args, **kwargs)
        # A WebSocketResponse calls this when it is prepared, and is to be had in no other way.
        response = sys._getframe(1).f_locals.get("self")
        if isinstance(response, web.WebSocketResponse):
            self.response = response
            self._note_close_code(response)
        self.observed.upgraded(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Note what makes aiohttp answer by itself."""
        self.plain = False
        if message is not None:
            self.fault = BAD_REQUEST
        else:
            self.fault = TIMED_OUT if exc is None else exc
        return super().handle_error(request, status, exc, message)

    def finish_response(self, request: web.BaseRequest, resp: Any, start_time: float | None) -> Any:
        """Note what the handler returned; of what is no response, aiohttp makes a 500."""
        if self.socket is None:
            self.response = resp
        if type(resp) is not web.Response:
            if not hasattr(resp, "prepare"):
                self.fault = NO_RESPONSE
                self.plain = False
            elif isinstance(resp, web.FileResponse):
                self._note_file_bytes(resp)
        return RequestHandler.finish_response(self, request, resp, start_time)

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        begun = self.arrived
        # A pipelined request came in while its predecessor was handled; its turn is now.
        self.begun = begun if begun > self.ended else perf_counter()
        self.length = None
        self.request = request
        if self.written_at_end is not None:
            self.written_at_end = 0
        request._payload_writer._on_headers_sent = self._on_headers  # type: ignore[attr-defined]
        try:
            result = await RequestHandler._handle_request(
                self, request, start_time, request_handler
            )
        except BaseException as error:
            self.observed.finished(self, request, None, error)
            raise
        self.observed.finished(self, request, result, None)
        return result

    def forget_request(self) -> None:
        """Forget what was noted of a request that was not plain, before the next one."""
        self.fault = self.file_bytes = None
        self.plain = True

    def _on_headers(self, _headers: Any) -> "asyncio.Future[None]":
        observed = self.observed
        request: Any = self.request
        if request is not None:
            writer = request._payload_writer
            whole = writer.length is not None and not writer.chunked
            if self.length is None and whole and self._current_request is None:
                self.length = writer.length
            else:
                self._on_stream(writer)
            if observed.times_headers and not self._is_closing():
                self.started = perf_counter() - self.begun
        return self.nothing

    def _is_closing(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def _on_stream(self, writer: Any) -> None:
        if self.length is not None and writer.output_size:
            self.fault = SECOND_RESPONSE
        elif self.length != STREAM:
            # How much of it gets written is known only by counting.
            self.length = STREAM
            writer.__class__ = MeasuredWriter
        self.plain = False

    def _note_end(self) -> None:
        if self.written_at_end is None:
            request = self.request
            self.written_at_end = 0 if request is None else request._payload_writer.output_size

    def _note_file_bytes(self, response: web.FileResponse) -> None:
        # A file is sent by the kernel, past every writer; how far it came shows in the file.
        sendfile = response._sendfile

        async def noted(request: Any, fobj: Any, offset: int, count: int) -> Any:
            try:
                return await sendfile(request, fobj, offset, count)
            finally:
                self.file_bytes = max(0, fobj.tell() - offset)

        response._sendfile = noted  # type: ignore[method-assign]

    def _note_close_code(self, response: web.WebSocketResponse) -> None:
        # The code of whoever closed first: the client's, which the response knows by then, or ours.
        self.close_code = None
        writer: Any = response._writer
        close = writer.close

        async def noted(code: int = 1000, message: bytes | str = b"") -> None:
            first = response.close_code
            await close(code, message)
            if self.close_code is None:
                self.close_code = int(code) if first is None else int(first)

        writer.close = noted


class MeasuredServer(web.Server):
    """Makes a `MeasuredProtocol` for each connection."""

    observed: Observed

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        try:
            return MeasuredProtocol(self.observed, self, loop=self._loop, **self._kwargs)
        except TypeError:
            # aiohttp's own rule for unknown keyword arguments, with its own warning: keep two.
            super().__call__()
            kept = ("debug", "access_log_class")
            kwargs = {name: self._kwargs[name] for name in kept if name in self._kwargs}
            return MeasuredProtocol(self.observed, self, loop=self._loop, **kwargs)
