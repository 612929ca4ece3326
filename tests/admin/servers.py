"""A running admin server, and clients that ask it; imported by the tests beside it."""

import asyncio
import base64
import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web
from aiohttp.typedefs import Handler
from processes import DEADLINE

from aiosvc.admin import AdminOptions, AdminServer
from aiosvc.health import Health

__all__ = ["BODY", "Loop", "Reply", "ask", "ask_raw", "basic", "connect", "running", "wait_for"]

BODY = "# HELP answer What it is.\nanswer 42\n"


async def metrics(_request: web.Request) -> web.StreamResponse:
    """Answer like the handler of /metrics does."""
    return web.Response(text=BODY)


@contextlib.contextmanager
def running(
    handler: Handler = metrics, health: Health | None = None, **options: Any
) -> Iterator[AdminServer]:
    """Start an admin server on a free port, and stop it."""
    if health is None:
        health = Health()
        health.set_ready()
    server = AdminServer(handler, health, AdminOptions(**{"admin_port": 0, **options}))
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    text: str


def ask(
    server: AdminServer,
    path: str = "/metrics",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """Send one request on a connection of its own, by TLS where there is a context."""
    host = server.options.admin_host
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection(host, server.port, timeout=DEADLINE)
    else:
        connection = http.client.HTTPSConnection(
            host, server.port, timeout=DEADLINE, context=context
        )
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read().decode())
    finally:
        connection.close()


def connect(server: AdminServer) -> socket.socket:
    """Return a connection on which nothing was sent."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)


def ask_raw(server: AdminServer, *parts: bytes) -> bytes:
    """Send *parts* as they are, and return everything that comes until the server closes."""
    with connect(server) as sock:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
        return drained(sock)


def drained(sock: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    found = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            found += part
    return bytes(found)


def basic(user: str | bytes, password: str | bytes) -> dict[str, str]:
    """Return the header of a user with a password."""
    parts = [part.encode() if isinstance(part, str) else part for part in (user, password)]
    return {"Authorization": "Basic " + base64.b64encode(b":".join(parts)).decode()}


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until *condition* holds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


class Loop:
    """An event loop in another thread: the application's."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE)
        self.loop.close()
