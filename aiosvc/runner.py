"""
Serves one application until it is told to stop.

Rule: the address is taken before the application starts, so a port that is not to be had costs
nobody a half-started service; who connects meanwhile waits in the backlog. Rule: SIGTERM and SIGINT
stop it in order: no new connections, running requests finish, the application shuts down, exit
code 0.
"""

import errno
import logging
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

from aiosvc.config import ServeOptions
from aiosvc.errors import BindError
from aiosvc.signals import told_to_stop

__all__ = ["bind", "serve", "url_of"]

log = logging.getLogger("aiosvc")

#: Connections that may wait to be accepted; the kernel's own limit applies too.
BACKLOG = 1024


def bind(host: str, port: int) -> list[socket.socket]:
    """
    Return sockets that listen on every address of *host*; *port* 0 takes a free one.

    Raises BindError, which says what to do.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a host name"
        raise BindError(f"{host!r} is no address: {why}; choose one with --host") from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # The addresses of one name get the same port, also when it was left to the system.
            taken = sockets[0].getsockname()[1] if len(sockets) > 1 else port
            sock.bind((address[0], taken, *address[2:]))
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise BindError(_why(error, host, port)) from None
    return sockets


def url_of(sock: socket.socket) -> str:
    """Return the http URL of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"


async def serve(
    app: web.Application,
    sockets: list[socket.socket],
    options: ServeOptions,
    *,
    access_log: logging.Logger | None = None,
    started: Callable[[str], Awaitable[None]] | None = None,
) -> None:
    """
    Serve *app* on *sockets* from `bind` until SIGTERM or SIGINT, then stop it in order.

    *started* is awaited with the first socket's URL once requests are answered.
    """
    runner = web.AppRunner(app, access_log=access_log, shutdown_timeout=options.shutdown_timeout)
    # Also while it cleans up: a second signal is not to cut that short.
    with told_to_stop() as stop:
        try:
            await runner.setup()
            for sock in sockets:
                await web.SockSite(runner, sock, backlog=BACKLOG).start()
            if started is not None:
                await started(url_of(sockets[0]))
            await stop.wait()
            log.info("stopping: no new connections, running requests finish")
        finally:
            await runner.cleanup()
            for sock in sockets:
                sock.close()


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken ({host}); choose another with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} is for privileged users; choose one from 1024 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host!r} is no address of this machine; choose one with --host"
    return f"can't listen on {host}, port {port}: {error.strerror}"
