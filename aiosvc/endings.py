"""
How a request ended that did not just end with a response of known length.

Rule: reads the record that the protocol kept and decides; counts nothing and changes nothing.

The questions, in this order: what of a response went out? Was it complete? If not, or if aiohttp
had to answer by itself: was the client gone, did the handler fail, was it cancelled, or could the
response not be written? The client comes before whatever its leaving caused: an OSError raised
after the client had left is the leaving, any other exception is the handler's own.
"""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.http_writer import _serialize_headers

from aiosvc.protocol import (
    BAD_REQUEST,
    SECOND_RESPONSE,
    TIMED_OUT,
    MeasuredProtocol,
    MeasuredWriter,
    Result,
)
from aiosvc.series import (
    ABORTED,
    CANCELLED,
    CLIENT_DISCONNECTED,
    CLIENT_LEFT,
    EXCEPTION,
    TIMEOUT,
    Ending,
)

__all__ = ["ending_of"]


def ending_of(
    protocol: MeasuredProtocol,
    request: web.BaseRequest,
    result: Result,
    error: BaseException | None,
    seconds: float,
) -> Ending:
    """Return how *request* ended, with its *result* or the *error* that it raised."""
    writer = request._payload_writer
    response = protocol.response if result is None else result[0]
    if isinstance(writer, MeasuredWriter):
        status, sent = writer.status, writer.body
    else:
        status, sent = _written(protocol, request, response)
    client_gone = _client_gone(protocol)
    if not sent and status:
        sent = _of_file(protocol, request, response)
    complete = result is not None and not result[1] and not _cut(writer, client_gone=client_gone)
    if complete and status and protocol.fault in (None, BAD_REQUEST):
        return Ending(seconds, status, sent)
    reason, raised = _reason(protocol, error, sent=status > 0, client_gone=client_gone)
    if isinstance(raised, web.HTTPException):
        raised = None  # an answer, if one that came too late
    if not status:
        status = CLIENT_LEFT if reason in (CLIENT_DISCONNECTED, CANCELLED) or client_gone else 500
    return Ending(seconds, status, sent, reason, raised)


def _written(protocol: MeasuredProtocol, request: Any, response: Any) -> tuple[int, int]:
    """Return status and body bytes that went out of a response whose writer did not count."""
    output = protocol.written_at_end
    if output is None:
        output = request._payload_writer.output_size
    if not output or not isinstance(response, web.StreamResponse):
        return 0, 0
    version = request.version
    line = f"HTTP/{version[0]}.{version[1]} {response.status} {response.reason}"
    return response.status, max(0, output - len(_serialize_headers(line, response.headers)))


def _of_file(protocol: MeasuredProtocol, request: web.BaseRequest, response: Any) -> int:
    """Return the bytes that the kernel sent of a file by itself, past every writer."""
    if protocol.file_bytes:
        return protocol.file_bytes
    sent_in_handler = isinstance(response, web.FileResponse) and response._eof_sent
    return response.content_length or 0 if sent_in_handler and request.method != "HEAD" else 0


def _cut(writer: Any, *, client_gone: bool) -> bool:
    """Return whether a stream ended before its end, though nobody was told."""
    if not isinstance(writer, MeasuredWriter):
        return False
    return writer.failed or (client_gone and bool(writer.length))


def _client_gone(protocol: MeasuredProtocol) -> bool:
    transport = protocol.transport
    closing = transport is not None and transport.is_closing()
    return protocol.client_left or (closing and (protocol._eof or not protocol.told))


def _reason(
    protocol: MeasuredProtocol, error: BaseException | None, *, sent: bool, client_gone: bool
) -> tuple[str, BaseException | None]:
    fault = protocol.fault
    raised = fault if isinstance(fault, BaseException) else None
    consequence = raised is None or isinstance(raised, OSError)
    if client_gone and consequence:
        return CLIENT_DISCONNECTED, None
    if protocol.server_left and consequence and fault is not TIMED_OUT:
        return CANCELLED, None
    if fault is SECOND_RESPONSE or (fault is not None and error is not None and sent):
        return ABORTED, raised
    if fault is not None:
        return TIMEOUT if fault is TIMED_OUT else EXCEPTION, raised
    return _unwritten(protocol, error, sent=sent)


def _unwritten(
    protocol: MeasuredProtocol, error: BaseException | None, *, sent: bool
) -> tuple[str, BaseException | None]:
    """Return why a response was not written, where neither handler nor client was seen to fail."""
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED, None
    if error is None and not sent and protocol.length is None:
        return EXCEPTION, None  # the response had been sent before, to another request
    if error is not None and not isinstance(error, ConnectionError):
        return ABORTED if sent else EXCEPTION, error
    if protocol.transport is None or protocol.transport.is_closing():
        return ABORTED, None  # the application ended the connection
    return CLIENT_DISCONNECTED, None  # the kernel said so, and the transport does not know yet
