"""
Takes in the admin server's connections, and speaks TLS with those that should.

Rule: nothing that a client does holds up the next one; each handshake is a task of its own. Rule:
the TLS context is asked for anew for each connection, so a replaced certificate is used at once.
"""

import asyncio
import contextlib
import errno
import functools
import logging
import math
import socket
from collections.abc import Callable

from aiosvc.admin.connections import Connection, Connections
from aiosvc.admin.tls import is_allowed_client
from aiosvc.admin.webfile import InForce

__all__ = ["Listener"]

log = logging.getLogger("aiosvc.admin")

#: What accept says when the process or the machine has no room for one more.
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Seconds to wait then.
PAUSE = 0.2

#: Seconds after which that is said again.
SAY_AGAIN = 60.0

#: Seconds for the end of a TLS connection.
SHUTDOWN_TIMEOUT = 1.0

NOT_TLS = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\nThis port speaks HTTPS; the request came in plain HTTP.\n"
)


class Listener:
    """Accepts on *sockets*; *in_force* gives what protects them at the moment."""

    def __init__(
        self,
        sockets: list[socket.socket],
        connections: Connections,
        in_force: Callable[[], InForce],
    ) -> None:
        self._sockets = sockets
        self._connections = connections
        self._in_force = in_force
        self._accepting: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to accept."""
        for sock in self._sockets:
            sock.setblocking(False)
            self._accepting.append(asyncio.create_task(self._accept(sock)))

    async def stop(self) -> None:
        """Accept no more, and close the sockets."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        said = -math.inf
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue  # it was gone before it was accepted
                if loop.time() - said > SAY_AGAIN:
                    said = loop.time()
                    log.error("no connection can be accepted: %s", error.strerror)  # noqa: TRY400
                if error.errno in NO_ROOM:
                    # What is given up the application may take, so a scraper keeps what it has.
                    self._connections.displace(proven=False)
                await asyncio.sleep(PAUSE)
                continue
            if self._connections.make_room():
                self._begin(sock)
            else:
                sock.close()
            # Those that were accepted have their turn before the next one may displace them.
            await asyncio.sleep(0)

    def _begin(self, sock: socket.socket) -> None:
        connection = self._connections.add()

        def begun(task: asyncio.Task[None]) -> None:
            # In a callback, because a task that is cancelled early does not run at all.
            connection.task = None
            if connection.raw is None:
                sock.close()
            if connection.transport is None:
                self._connections.discard(connection)
            if not task.cancelled() and task.exception() is not None:
                log.error("a connection could not be begun", exc_info=task.exception())

        connection.task = asyncio.create_task(self._shake_hands(sock, connection))
        connection.task.add_done_callback(begun)

    async def _shake_hands(self, sock: socket.socket, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        rules = self._in_force()
        # A client that leaves, or has no certificate that will do, is no error.
        with contextlib.suppress(OSError):
            if rules.context is None:
                await loop.connect_accepted_socket(lambda: connection, sock)
                return
            if await _is_plain_http(sock):
                _say_not_tls(sock)
                return
            # First the transport of the socket, which then is at hand whatever TLS does with it.
            connection.raw, _ = await loop.connect_accepted_socket(_Waiting, sock)
            sans = None if rules.config.tls is None else rules.config.tls.allowed_sans
            if sans is not None:
                connection.is_welcome = functools.partial(self._is_welcome, sans)
            transport = await loop.start_tls(
                connection.raw,
                connection,
                rules.context,
                server_side=True,
                ssl_handshake_timeout=self._connections.limits.header_timeout,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
            if transport is not None:
                connection.connection_made(transport)

    def _is_welcome(self, sans: tuple[str, ...], transport: asyncio.BaseTransport) -> bool:
        welcome = is_allowed_client(transport.get_extra_info("peercert"), sans)
        if not welcome and not self._connections.unwelcome:
            log.warning(
                "a client's certificate has none of client_allowed_sans; further ones are only "
                "counted"
            )
        return welcome


class _Waiting(asyncio.Protocol):
    """Leaves everything unread until TLS begins."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()


async def _is_plain_http(sock: socket.socket) -> bool:
    """Wait for the first byte and say whether it begins an HTTP request; leave it unread."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    descriptor = sock.fileno()
    loop.add_reader(descriptor, _set, readable)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)
    return sock.recv(1, socket.MSG_PEEK).isalpha()


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _say_not_tls(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.send(NOT_TLS)
        sock.shutdown(socket.SHUT_WR)
        # What was sent must not be unread when the socket is closed, or the answer is lost.
        sock.recv(1 << 16)
