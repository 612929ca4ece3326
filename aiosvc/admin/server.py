"""
The admin server: metrics, probes and a page that lists them, on a port, thread and loop of its own.

Rule: nothing of it needs the application's event loop to turn; whatever that does, it answers. Rule:
`start` returns when it listens, or raises at once. Rule: no client can take it over, see
`connections` for the limits and `gate` for what a request passes.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler

from aiosvc import catalogue
from aiosvc.admin.connections import Connections, Limits
from aiosvc.admin.gate import Gate, Page
from aiosvc.admin.landing import POLICY, landing_page
from aiosvc.admin.listener import Listener
from aiosvc.admin.options import AdminOptions
from aiosvc.admin.passwords import PasswordChecker
from aiosvc.admin.probes import livez, readyz
from aiosvc.admin.webfile import WebFile
from aiosvc.errors import BindError, ConfigError, did_you_mean
from aiosvc.health import Health
from aiosvc.readings import Readings
from aiosvc.runner import bind, url_of
from aiosvc.version import __version__

__all__ = ["AdminServer"]

log = logging.getLogger("aiosvc.admin")

#: Seconds that answers under way get to finish at a stop.
GRACE = 5.0

#: Seconds for which the rest of a request that is not read is taken in, so that its sender gets to
#: read the answer instead of a reset.
LINGER = 0.5

#: Seconds between two looks at the connections, at most.
TICK = 1.0

#: Connections that the system's `select` can watch; elsewhere there is no such limit.
MOST_CONNECTIONS = 400 if sys.platform == "win32" else sys.maxsize

T = TypeVar("T")


class AdminServer:
    """
    Serves *metrics*, an aiohttp handler, and what *health* says, as *options* ask.

    *title* heads the landing page. *on_error* is told where a handler raised what; without, that is
    logged. *names* are those of the options for host and port, for the message about a port that
    can't be had. One object starts once.
    """

    def __init__(
        self,
        metrics: Handler,
        health: Health,
        options: AdminOptions,
        *,
        title: str = "aiosvc",
        on_error: Callable[[str, BaseException], None] | None = None,
        names: tuple[str, str] = ("admin_host", "admin_port"),
    ) -> None:
        self.health = health
        self.options = options
        self.url = ""
        self.port = 0
        self.connections: Connections | None = None
        self.web_file: WebFile | None = None
        self.thread: threading.Thread | None = None
        self._title = title
        self._names = names
        self._on_error = _log_error if on_error is None else on_error
        self._begun = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._pages: list[Page] = []
        self.add_page(Page(path="/", handler=self._landing))
        self.add_page(
            Page(path="/metrics", handler=metrics, says="metrics for Prometheus", methods=None)
        )
        self.add_page(
            Page(path="/livez", handler=livez(health), says="is it alive?", limited=False)
        )
        ready = readyz(health, reasons=True)
        self.add_page(Page(path="/readyz", handler=ready, says="is it ready?", limited=False))

    def add_page(self, page: Page) -> None:
        """Serve a further page, at its path with and without a slash at the end."""
        self._pages.append(page)

    def start(self) -> Self:
        """
        Listen, and return when requests are answered.

        Raises BindError where the address is not to be had, and ConfigError where the files that
        the options name are wrong.
        """
        if self.thread is not None:
            raise RuntimeError("this admin server was started before; make another one")
        self.web_file = web_file = WebFile(self.options)
        self._check_exempt(web_file)
        sockets = self._bind()
        self.port = sockets[0].getsockname()[1]
        is_tls = web_file.current().context is not None
        self.url = url_of(sockets[0]).replace("http:", "https:" if is_tls else "http:", 1)
        self._warn_if_open(sockets, web_file)
        listening: Future[None] = Future()
        try:
            self.thread = threading.Thread(
                target=self._run,
                args=(sockets, web_file, listening),
                name="aiosvc admin",
                daemon=True,
            )
            self.thread.start()
            listening.result()
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return self

    def stop(self) -> None:
        """Let answers under way finish, close everything and end the thread; once is enough."""
        thread, loop, stop = self.thread, self._loop, self._stop
        if thread is None or loop is None or stop is None:
            return
        with contextlib.suppress(RuntimeError):  # it ended by itself
            loop.call_soon_threadsafe(stop.set)
        if thread is not threading.current_thread():
            thread.join(GRACE * 3)
            if thread.is_alive():
                log.warning("the admin server does not end; it is left behind")

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* on the server's event loop and return its result, from another thread."""
        why = None
        if self._loop is None:
            why = "the admin server has not been started"
        elif self._loop.is_closed():
            why = "the admin server has ended"
        elif self.thread is threading.current_thread():
            why = "this is the admin server's own thread; await the coroutine"
        if why is not None or self._loop is None:
            coroutine.close()
            raise RuntimeError(why)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _run(
        self, sockets: list[socket.socket], web_file: WebFile, listening: Future[None]
    ) -> None:
        try:
            # Not whatever loop the application has chosen: this one can say when a socket is read.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve(sockets, web_file, listening))
        except BaseException as error:
            if not listening.done():
                listening.set_exception(error)
                return
            log.exception("the admin server has ended")

    def report(self, readings: Readings) -> None:
        """Add what its connections and configuration came to; a reporter for the collector."""
        connections, web_file = self.connections, self.web_file
        if connections is not None:
            for reason, count in connections.dropped.items():
                readings.number(catalogue.ADMIN_CONNECTIONS_DROPPED, count, (reason,))
        if web_file is not None:
            readings.number(catalogue.ADMIN_RELOAD_FAILURES, web_file.failures)
            readings.number(catalogue.ADMIN_RELOAD_SUCCESSFUL, int(not web_file.is_broken))

    async def _serve(
        self, sockets: list[socket.socket], web_file: WebFile, listening: Future[None]
    ) -> None:
        options = self.options
        passwords = PasswordChecker()
        gate = Gate(web_file.current, passwords, self._on_error)
        runner = web.AppRunner(
            self._app(gate),
            access_log=None,
            auto_decompress=False,
            handler_cancellation=True,
            keepalive_timeout=options.admin_keepalive_timeout,
            lingering_time=LINGER,
            logger=_http_log(),
            shutdown_timeout=1.0,
        )
        await runner.setup()
        assert runner.server is not None
        limits = Limits(
            connections=min(options.admin_connections, MOST_CONNECTIONS),
            header_timeout=options.admin_header_timeout,
            keepalive_timeout=options.admin_keepalive_timeout,
            write_timeout=options.admin_write_timeout,
        )
        self.connections = connections = Connections(limits, runner.server)
        listener = Listener(sockets, connections, web_file.current)
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        ticking = asyncio.create_task(self._tick(connections))
        listener.start()
        listening.set_result(None)
        try:
            await self._stop.wait()
        finally:
            await listener.stop()
            connections.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    while len(connections):  # noqa: ASYNC110 - a stop may take a few milliseconds
                        await asyncio.sleep(0.01)
            connections.cut_all()
            ticking.cancel()
            await runner.cleanup()
            passwords.close()

    async def _tick(self, connections: Connections) -> None:
        limits = connections.limits
        pause = min(TICK, self.health.beat_interval, limits.header_timeout / 4)
        pause = max(0.02, min(pause, limits.keepalive_timeout / 4, limits.write_timeout / 4))
        while True:
            try:
                self.health.beat()
                connections.cut_overdue()
            except Exception as error:  # noqa: BLE001 - told, and the next one may do better
                self._on_error("admin server", error)
            await asyncio.sleep(pause)

    def _app(self, gate: Gate) -> web.Application:
        app = web.Application()
        app.on_response_prepare.append(gate.add_headers)
        everything = Page(path="", handler=_not_found, methods=None)
        for page in (*self._pages, everything):
            guarded = gate.guard(page)
            paths = [page.path] if page.path.endswith("/") else [page.path, f"{page.path}/"]
            for path in paths if page is not everything else ["/{tail:.*}"]:
                app.router.add_route("*", path, guarded, expect_handler=_ask_for_nothing)
        return app

    async def _landing(self, _request: web.Request) -> web.StreamResponse:
        links = [(page.path, page.says) for page in self._pages if page.says]
        uptime = time.monotonic() - self._begun
        return web.Response(
            text=landing_page(self._title, __version__, uptime, links),
            content_type="text/html",
            headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"},
        )

    def _bind(self) -> list[socket.socket]:
        port = self.options.admin_port
        host_name, port_name = self._names
        if port is None:
            raise ConfigError(f"{port_name}: none given; expected a port, 0 for a free one")
        try:
            return bind(self.options.admin_host, port)
        except BindError as error:
            message = str(error).replace("--port", port_name).replace("--host", host_name)
            raise BindError(message) from None

    def _check_exempt(self, web_file: WebFile) -> None:
        paths = [page.path for page in self._pages]
        for path in web_file.current().exempt:
            if path not in paths:
                raise ConfigError(
                    f"auth_exempt: {path!r} is not served here{did_you_mean(path, paths)}; "
                    f"known: {', '.join(paths)}"
                )

    def _warn_if_open(self, sockets: list[socket.socket], web_file: WebFile) -> None:
        hosts = [sock.getsockname()[0] for sock in sockets]
        remote = [host for host in hosts if not ipaddress.ip_address(host).is_loopback]
        if remote and not web_file.current().knows_clients:
            log.warning(
                "the admin server listens on %s, port %d, without authentication: whoever reaches "
                "it can read all metrics; give %s='127.0.0.1', or a web_config with "
                "basic_auth_users or client certificates, or a bearer_token_file",
                " and ".join(remote),
                self.port,
                self._names[0],
            )


async def _ask_for_nothing(_request: web.Request) -> None:
    """Answer `Expect: 100-continue` with the answer itself: no body is wanted."""


async def _not_found(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=404, text="not found; / lists what is here\n")


def _log_error(where: str, error: BaseException) -> None:
    log.error("an error in the %s", where, exc_info=error)


def _http_log() -> logging.Logger:
    """Return a log for aiohttp without what it says of malformed requests, which quotes them."""
    http_log = logging.getLogger("aiosvc.admin.http")
    if not any(isinstance(each, _NotOfClients) for each in http_log.filters):
        http_log.addFilter(_NotOfClients())
    return http_log


class _NotOfClients(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Error handling request")
