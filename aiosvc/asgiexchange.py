"""
One request or WebSocket of ASGI, seen through the messages that pass.

Rule: every message is passed on unchanged and in order, and so is every exception. Rule: nothing is
received or sent that the application did not ask for.

Theory of operation. An application is told that its client left only if it asks, by `receive`; most
never do, and servers take what is sent to a client that is gone without a word. What the server
knows is looked at instead (`departure`), before each message is sent: in uvicorn the request's
`disconnected`, in hypercorn the disconnect that waits in the queue. From other servers it is known
where they tell: by an OSError of `send`, by a cancellation, or by `http.disconnect`.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any, Final

from aiosvc.exchange import SWITCHING, Exchange, Exchanges, Headers, is_consequence
from aiosvc.exemplars import current_trace_id
from aiosvc.series import ABORTED, CANCELLED, SERVER_ERROR, Ending

__all__ = ["AsgiApp", "HttpExchange", "Message", "Receive", "Scope", "Send", "SocketExchange"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

FORBIDDEN: Final = 403
NORMAL_CLOSE: Final = 1000
NO_CODE: Final = 1005


def _attribute(cycle: Any) -> bool:
    return bool(cycle.disconnected)


def _queued(queue: Any) -> bool:
    return any(message["type"] == "http.disconnect" for message in queue._queue)  # noqa: SLF001


class _Departures(dict[type, Callable[[Any], bool] | None]):
    """How an object, whose method `receive` is, says that the client left; by its class."""

    def __missing__(self, kind: type) -> Callable[[Any], bool] | None:
        found: Callable[[Any], bool] | None = None
        if kind.__module__.startswith("uvicorn.") and kind.__name__ == "RequestResponseCycle":
            found = _attribute
        elif issubclass(kind, asyncio.Queue):
            found = _queued
        self[kind] = found
        return found


DEPARTURES: Final = _Departures()


class _AsgiExchange(Exchange):
    __slots__ = ("_receive", "_send", "fields")

    def __init__(self, method: str, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(method, scope)
        self.fields: Any = ()
        self._receive = receive
        self._send = send

    def header(self, name: str) -> str | None:
        """Return a header of the request, None where it is missing."""
        wanted = name.encode("latin-1")
        for key, value in self.request.get("headers", ()):
            if key == wanted:
                text: str = value.decode("latin-1")
                return text
        return None

    def response(self) -> Headers | None:
        """Return the response's headers, None before."""
        if not self.status:
            return None
        return Headers({k.decode("latin-1").lower(): v.decode("latin-1") for k, v in self.fields})

    def scheme(self) -> str:
        """Return the URL's scheme."""
        scheme: str = self.request.get("scheme", "http")
        return scheme


class HttpExchange(_AsgiExchange):
    """One request."""

    __slots__ = ("_asks", "_exchanges", "_last", "_server", "counted")

    def __init__(self, scope: Scope, receive: Receive, send: Send, exchanges: Exchanges) -> None:
        super().__init__(scope["method"], scope, receive, send)
        #: Whether it has been counted.
        self.counted = False
        self._exchanges = exchanges
        #: Whether the last message of the response was sent, or is being sent.
        self._last = False
        self._server = getattr(receive, "__self__", None)
        self._asks = DEPARTURES[type(self._server)]
        exchanges.open.add(self)

    async def receive(self) -> Message:
        """Pass on a message of the server, and note what it says."""
        message = await self._receive()
        try:
            if message["type"] == "http.request":
                self.received += len(message.get("body", b""))
            elif message["type"] == "http.disconnect" and not self._last:
                self.left = True
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._exchanges.on_error("message", failure)
        return message

    async def send(self, message: Message) -> None:
        """Pass on a message of the application, and note what it says."""
        kind = message["type"]
        if not self._last:
            if self._asks is not None:
                self._look()
            # What the server says from the last message on is said of every request.
            self._last = kind == "http.response.body" and not message.get("more_body")
        try:
            await self._send(message)
        except OSError:
            self.left = self.left or self.ended is None
            raise
        try:
            self._note(kind, message)
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._exchanges.on_error("message", failure)

    def end(self, error: BaseException | None) -> None:
        """Take note that the application returned, or raised *error*."""
        if not self.counted:
            self.counted = True
            if self.ended is None:
                self._look()
            self._exchanges.finish(self, self.ending(error))
        elif isinstance(error, Exception):
            self._exchanges.raised_late(self, error)

    def _note(self, kind: str, message: Message) -> None:
        if kind == "http.response.body":
            if not self.left:
                self.sent += len(message.get("body", b""))
            if not message.get("more_body"):
                self._complete()
        elif kind == "http.response.start":
            if not self.left:
                self._start(message)
        elif kind == "http.response.pathsend":
            self.sent += _length(self.fields)
            self._complete()

    def _start(self, message: Message) -> None:
        self.status = message["status"]
        self.fields = message.get("headers", ())
        exchanges = self._exchanges
        if exchanges.more:
            if exchanges.times_headers:
                self.started = perf_counter() - self.begun
            if exchanges.notes_traces:
                self.trace_id = current_trace_id()

    def _complete(self) -> None:
        if self.ended is not None:
            return
        self.ended = perf_counter()
        # The exception behind a 500 comes after it; whatever else comes is background.
        if self.status < SERVER_ERROR:
            self.counted = True
            self._exchanges.finish(self, self.ending(None))
        else:
            self._exchanges.open.discard(self)

    def _look(self) -> None:
        asks = self._asks
        if asks is None or self.left:
            return
        try:
            self.left = asks(self._server)
        except Exception:  # noqa: BLE001 - a server that changed is one that does not tell
            self._asks = DEPARTURES[type(self._server)] = None


class SocketExchange(_AsgiExchange):
    """One WebSocket; a request with an answer, where it is refused."""

    __slots__ = ("_exchanges", "closed", "code")

    def __init__(self, scope: Scope, receive: Receive, send: Send, exchanges: Exchanges) -> None:
        super().__init__("GET", scope, receive, send)
        #: The close code of whoever closed first, None before.
        self.code: int | None = None
        self.closed = False
        self._exchanges = exchanges
        exchanges.open.add(self)

    async def receive(self) -> Message:
        """Pass on a message of the server, and note what it says."""
        message = await self._receive()
        try:
            if message["type"] == "websocket.disconnect":
                self._close(message.get("code", NO_CODE))
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._exchanges.on_error("message", failure)
        return message

    async def send(self, message: Message) -> None:
        """Pass on a message of the application, and note what it says."""
        try:
            await self._send(message)
        except OSError:
            self._close(None)
            raise
        try:
            self._note(message["type"], message)
        except Exception as failure:  # noqa: BLE001 - the observer never breaks the observed
            self._exchanges.on_error("message", failure)

    def end(self, error: BaseException | None) -> None:
        """Take note that the application returned, or raised *error*."""
        if self.status != SWITCHING:
            self._exchanges.finish(self, self.ending(error))
            return
        seconds = (perf_counter() if self.ended is None else self.ended) - self.begun
        if self.socket is not None:
            self.socket.close(self.code, seconds)
        reason, raised = None, None
        error = self.raised if error is None else error
        if error is not None and not (self.left and is_consequence(error)):
            is_raised = isinstance(error, Exception)
            reason, raised = (ABORTED, error) if is_raised else (CANCELLED, None)
        self._exchanges.finish(self, Ending(seconds, SWITCHING, 0, reason, raised))

    def _note(self, kind: str, message: Message) -> None:
        if kind == "websocket.accept":
            self.status = SWITCHING
            self._exchanges.opened(self, SWITCHING)
        elif kind == "websocket.close":
            if self.status == SWITCHING:
                self._close(message.get("code", NORMAL_CLOSE))
            elif not self.status:
                self.status = FORBIDDEN
                self.ended = perf_counter()
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
            self.fields = message.get("headers", ())
        elif kind == "websocket.http.response.body":
            self.sent += len(message.get("body", b""))
            if not message.get("more_body"):
                self.ended = perf_counter()

    def _close(self, code: int | None) -> None:
        if not self.closed:
            self.closed = True
            self.code = code
            self.ended = perf_counter()
            self.left = True


def _length(fields: Any) -> int:
    for name, value in fields:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return 0
