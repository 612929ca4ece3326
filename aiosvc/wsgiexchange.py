"""
One request of WSGI, seen through what its application starts, returns, and is closed by.

Rule: what passes is passed on unchanged: chunks, exceptions, `write`, and the object itself where a
server knows it by its class. Rule: the application's `close` is called whenever the server calls
ours, and once.

A request ends with its last chunk, or when the server closes what is left of it: then its client
was gone. A server that forgets to close drops the iterable instead; that is noted in `__del__`,
which may run anywhere and so only puts the request on a list.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

from aiosvc.exchange import Exchange, Exchanges, Headers
from aiosvc.exemplars import current_trace_id
from aiosvc.frameworks import EXCHANGE

__all__ = ["Environ", "StartResponse", "WsgiExchange", "measured_body", "measured_input"]

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]

CONTENT: Final = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


class WsgiExchange(Exchange):
    """One request; *start_response* is the server's."""

    __slots__ = ("_exchanges", "_said", "_start_response", "counted", "fields")

    def __init__(
        self, environ: Environ, start_response: StartResponse, exchanges: Exchanges
    ) -> None:
        super().__init__(environ.get("REQUEST_METHOD", ""), environ)
        self.entry = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
        self.counted = False
        self.fields: list[tuple[str, str]] = []
        self._exchanges = exchanges
        self._start_response = start_response
        #: The status that will be sent with the first chunk, 0 before it is known.
        self._said = 0
        exchanges.open.add(self)

    def start(
        self, status: str, headers: list[tuple[str, str]], *more: Any, **named: Any
    ) -> Callable[[bytes], object]:
        """Do what start_response does, and note the status."""
        write = self._start_response(status, headers, *more, **named)
        try:
            self.fields = headers
            self._said = int(status[:3])
            self.note_route()
            if self._exchanges.notes_traces:
                self.trace_id = current_trace_id()
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._exchanges.on_error("start_response", failure)

        def noted(data: bytes) -> object:
            result = write(data)
            self.gave(data)
            return result

        return noted

    def note_route(self) -> None:
        """Keep the template: Flask forgets its request when it has answered."""
        if self.template is None:
            self.template = self._exchanges.matched(self)

    def gave(self, data: bytes) -> None:
        """Take note of a chunk that the server has got; the first one sends the headers."""
        try:
            if data:
                self.sent += len(data)
                if not self.status:
                    self.status = self._said
                    if self._exchanges.times_headers:
                        self.started = perf_counter() - self.begun
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._exchanges.on_error("chunk", failure)

    def complete(self) -> None:
        """Take note that the server has got all of it."""
        if self.ended is None:
            self.ended = perf_counter()
            self.status = self.status or self._said

    def end(self, error: BaseException | None = None) -> None:
        """Count it, once, as what it has come to; *error* is what the application raised."""
        if not self.counted:
            self.counted = True
            self._exchanges.finish(self, self.ending(error))
            self.request.pop(EXCHANGE, None)  # a circle that only the garbage collector would undo

    def leave(self) -> None:
        """Count it as one whose client has left, unless it was complete."""
        if self.ended is None and not self.counted:
            length = self.length()
            # A server may stop reading where Content-Length says that it is all.
            if length is not None and 0 < length <= self.sent:
                self.complete()
            else:
                self.left = True
        self.end()

    def length(self) -> int | None:
        """Return what the response says its length is, None where it does not."""
        found = self.response()
        with suppress(TypeError, ValueError):
            return int((found and found.get("content-length")) or "")
        return None

    def header(self, name: str) -> str | None:
        """Return a header of the request, None where it is missing."""
        key = CONTENT.get(name) or "HTTP_" + name.upper().replace("-", "_")
        value: str | None = self.request.get(key)
        return value

    def response(self) -> Headers | None:
        """Return the response's headers, None before."""
        return Headers({name.lower(): value for name, value in self.fields}) if self._said else None

    def scheme(self) -> str:
        """Return the URL's scheme."""
        scheme: str = self.request.get("wsgi.url_scheme", "http")
        return scheme


class _Body:
    """What the application returned, chunk by chunk."""

    def __init__(
        self, chunks: Iterable[bytes], exchange: WsgiExchange, dropped: Callable[[Any], None]
    ) -> None:
        self._chunks = chunks
        self._iterator: Iterator[bytes] | None = None
        self._exchange = exchange
        self._dropped = dropped

    def __iter__(self) -> "_Body":
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        try:
            if self._iterator is None:
                self._iterator = iter(self._chunks)
            chunk = next(self._iterator)
        except StopIteration:
            exchange.complete()
            exchange.end()
            raise
        except BaseException as error:
            exchange.end(error)
            raise
        if not exchange.counted:
            exchange.gave(chunk)
        return chunk

    def close(self) -> None:
        """Close what the application returned; what was not read by then, nobody wanted."""
        close = getattr(self._chunks, "close", None)
        try:
            if close is not None:
                close()
        except BaseException as error:
            self._exchange.end(error)
            raise
        self._exchange.leave()

    def __del__(self) -> None:
        if not self._exchange.counted:
            self._dropped(self._exchange)


class _SizedBody(_Body):
    """A body whose number of chunks is known; servers derive Content-Length from it."""

    def __len__(self) -> int:
        return len(self._chunks)  # type: ignore[arg-type]  # made of what has a length only


def measured_body(
    result: Any, exchange: WsgiExchange, dropped: Callable[[Any], None]
) -> Iterable[bytes]:
    """Return what the server is to get for *result*, which the application returned."""
    wrapper = exchange.request.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(result, wrapper) and _note_file(result, exchange):
        file: Any = result
        return file  # type: ignore[no-any-return]  # the server sends it by itself
    sized = hasattr(type(result), "__len__")
    return (_SizedBody if sized else _Body)(result, exchange, dropped)


def _note_file(result: Any, exchange: WsgiExchange) -> bool:
    """Have the end of a file that the server sends by itself noted; False where that can't be."""
    close = getattr(result, "close", None)
    file = getattr(result, "filelike", None)
    begin = _position(file)

    def noted() -> None:
        # A server that could not send it closes while it handles the error.
        failed = sys.exc_info()[1] is not None
        end = _position(file)
        if end is not None and begin is not None and end > begin:
            exchange.sent += end - begin
        elif not failed:
            exchange.sent += exchange.length() or 0
        if not failed:
            exchange.complete()
        try:
            if close is not None:
                close()
        finally:
            exchange.leave()

    try:
        result.close = noted
    except AttributeError:
        return False
    return True


def _position(file: Any) -> int | None:
    try:
        position: int = file.tell()
    except (AttributeError, OSError, ValueError):
        return None
    return position


class _Input:
    """wsgi.input, with a count of the bytes that were read."""

    def __init__(self, stream: Any, exchange: WsgiExchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def read(self, *args: Any) -> bytes:
        return self._count(self._stream.read(*args))

    def readline(self, *args: Any) -> bytes:
        return self._count(self._stream.readline(*args))

    def readlines(self, *args: Any) -> list[bytes]:
        return [self._count(line) for line in self._stream.readlines(*args)]

    def __iter__(self) -> Iterator[bytes]:
        return map(self._count, self._stream)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        if name in ("readinto", "readinto1"):
            return lambda buffer: self._count_number(found(buffer))
        return (lambda *args: self._count(found(*args))) if name == "read1" else found

    def _count(self, data: bytes) -> bytes:
        self._exchange.received += len(data)
        return data

    def _count_number(self, number: int) -> int:
        self._exchange.received += number
        return number


def measured_input(stream: Any, exchange: WsgiExchange) -> Any:
    """Return *stream*, wsgi.input of a request with a body, with its bytes counted."""
    return _Input(stream, exchange)
