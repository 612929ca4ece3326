"""
For WSGI: `setup(app)` measures an application of Flask, Django, or of no framework.

What `setup` returns is the observer, and the measured application too:

    Flask      observer = aiosvc.wsgi.setup(app); serve app as ever, or observer: it is the same
    Django     application = aiosvc.wsgi.setup(get_wsgi_application()), in wsgi.py
    others     app = aiosvc.wsgi.setup(app); serve what came back

Rule: what passes is passed on unchanged, exceptions included. Rule: threads count under one lock,
held for microseconds and never while the application runs. Rule: a thread and an event loop of our
own sample and render; they begin with the first request of each process, so after every fork.

Each process has its own numbers. With several workers a scrape reaches any one of them, and counters
seem to jump: give each worker a port of its own (`admin`), or run one process with threads.
"""

import atexit
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, Unpack
from weakref import WeakSet

from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc import frameworks
from aiosvc.admin import AdminBeside, AdminOptions
from aiosvc.background import BackgroundLoop
from aiosvc.config import Options, Settings, settings_of
from aiosvc.errors import BindError, ConfigError
from aiosvc.exchange import Exchange, Exchanges
from aiosvc.frameworks import EXCHANGE
from aiosvc.gateway import OBSERVER, known_observer, refuse_own_route, remember
from aiosvc.health import Health
from aiosvc.own import OwnEndpoints
from aiosvc.readings import Labels
from aiosvc.series import Ending
from aiosvc.service import Observer
from aiosvc.wsgiexchange import (
    Environ,
    StartResponse,
    WsgiExchange,
    measured_body,
    measured_input,
)

__all__ = ["ObservedApp", "setup"]

log = logging.getLogger("aiosvc")

REASONS: Final = {200: "OK", 204: "No Content", 405: "Method Not Allowed", 500: "Server Error"}
UNAVAILABLE: Final = "Service Unavailable"

#: Seconds that the sampler gets to end.
STOP: Final = 5.0


def setup(
    app: Any,
    *,
    registry: CollectorRegistry = REGISTRY,
    settings: Settings | None = None,
    admin: AdminOptions | None = None,
    **options: Unpack[Options],
) -> "ObservedApp":
    """
    Measure *app*, a WSGI application, and serve its metrics.

    The result is an observer and a WSGI application. An application of Flask is measured in place;
    of any other one, the result is what is measured and to be served. *registry*, *settings*,
    *admin* and the options are those of `aiosvc.setup`. Numbers are those of one process.

    A second call for the same application returns what the first one did, its options unread.

    Raises ConfigError for a wrong option, an application that has a route at *path*, or a registry
    with metrics of the same names.
    """
    known = known_observer(app, ObservedApp)
    if known is not None:
        return known
    if not callable(app):
        raise ConfigError(f"setup: {app!r} given; expected a WSGI application")
    settings = settings_of(settings, options)
    refuse_own_route(app, settings.path)
    observed = ObservedApp(app, registry, settings, AdminOptions() if admin is None else admin)
    remember(app, observed)
    return observed


class ObservedApp(Observer):
    """What `setup` returns: an `aiosvc.Observer` that is a WSGI application."""

    def __init__(
        self, app: Any, registry: CollectorRegistry, settings: Settings, admin: AdminOptions
    ) -> None:
        health = Health(live_timeout=admin.live_timeout)
        super().__init__(registry, settings, health, of_loop=False)
        self.requests.sees_connections = False
        self.exchanges = _SharedExchanges(
            self.requests, settings, self.collector.error, frameworks.template_of_environ
        )
        self.own = OwnEndpoints(settings.path, self.scraper, self.collector.refresh, self.health)
        #: The event loop that samples, None before the first request of this process.
        self.background: BackgroundLoop | None = None
        self._application = app
        self._beside = AdminBeside(self, admin)
        self._starting = threading.Lock()
        inner = getattr(app, "wsgi_app", None)
        if inner is None:
            self._served: Any = _Measured(self, app)
        else:
            app.wsgi_app = _Measured(self, inner)
            self._served = app
        frameworks.listen(app)
        _observed.add(self)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve; what a WSGI server calls."""
        found: Iterable[bytes] = self._served(environ, start_response)
        return found

    def enter(self) -> BackgroundLoop:
        """Begin in this process, if that has not been done; return the event loop."""
        with self._starting:
            if self.background is None:
                background = BackgroundLoop("aiosvc")
                self.own.leave(frameworks.served_paths(self._application))
                self.exchanges.expect(frameworks.known_routes(self._application))
                try:
                    background.call(self.start())
                    self._beside.start()
                except BindError as error:
                    log.warning("this process (%d) has no admin server: %s", os.getpid(), error)
                except Exception as error:  # noqa: BLE001 - requests go on without
                    self.collector.error("start", error)
                self.health.set_ready()
                self.background = background
            return self.background

    def close(self) -> None:
        """End sampling and its thread; the next request begins anew."""
        with self._starting:
            background, self.background = self.background, None
        if background is not None:
            self.health.set_draining()
            with contextlib.suppress(TimeoutError):
                background.call(self.stop(), timeout=STOP)
            background.stop()
            self.exchanges.forget()
            self._beside.stop()

    def forked(self) -> None:
        """Forget the threads that a fork has left in the parent; called in the child."""
        self._starting = threading.Lock()
        self.background = None
        self.exchanges.forked()
        self._beside.abandon()
        self.abandon()


class _SharedExchanges(Exchanges):
    """The requests of an application that runs in several threads."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: Requests whose server forgot to close them; added to without a lock, from `__del__`.
        self.dropped: deque[Exchange] = deque()
        # One that a thread may take twice: what the garbage collector closes, it closes anywhere.
        self._lock = threading.RLock()

    def finish(self, exchange: Exchange, ending: Ending) -> None:
        """Count a request that ended so."""
        with self._lock:
            super().finish(exchange, ending)
        if self.dropped:
            self.sweep()

    def expect(self, routes: Iterable[tuple[str, str]]) -> None:
        """Export series of (method, template) that nobody has asked for yet, as zeros."""
        with self._lock:
            super().expect(routes)

    def begun(self, *, otel: bool) -> Iterator[tuple[Labels, float]]:
        """Give the labels and the begin of each request in progress that is counted."""
        self.sweep()
        with self._lock:
            found = list(super().begun(otel=otel))
        return iter(found)

    def sweep(self) -> None:
        """Count the requests that were dropped."""
        while self.dropped:
            exchange = self.dropped.popleft()
            if isinstance(exchange, WsgiExchange):
                exchange.leave()

    def forked(self) -> None:
        """Begin with nothing in progress and a lock that nobody holds."""
        self._lock = threading.RLock()
        self.open.clear()
        self.dropped.clear()


class _Measured:
    """The layer between the server, or the framework's own entry, and the application."""

    def __init__(self, observed: ObservedApp, app: Any) -> None:
        self._observed = observed
        self._app = app
        setattr(self, OBSERVER, observed)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if EXCHANGE in environ:
            nested: Iterable[bytes] = self._app(environ, start_response)
            return nested
        observed = self._observed
        if observed.background is None:
            self._begin(environ)
        template = observed.own.templates.get(environ.get("PATH_INFO", ""))
        if template is not None and not observed.settings.count_own:
            return self._answer(environ, start_response)
        app = self._app if template is None else self._answer
        exchange = WsgiExchange(environ, start_response, observed.exchanges)
        exchange.template = template
        environ[EXCHANGE] = exchange
        if environ.get("CONTENT_LENGTH", "") not in ("", "0") or (
            "HTTP_TRANSFER_ENCODING" in environ and "wsgi.input" in environ
        ):
            environ["wsgi.input"] = measured_input(environ["wsgi.input"], exchange)
        try:
            result = app(environ, exchange.start)
        except BaseException as error:
            exchange.end(error)
            raise
        return measured_body(result, exchange, observed.exchanges.dropped.append)

    def _begin(self, environ: Environ) -> None:
        if environ.get("wsgi.multiprocess"):
            log.warning(
                "the server runs several processes, and each has its own numbers: a scrape shows "
                "those of process %d or of another one; run one process with threads, or give each "
                "its own port with admin=aiosvc.AdminOptions(admin_port=0)",
                os.getpid(),
            )
        try:
            self._observed.enter()
        except Exception as error:  # noqa: BLE001 - no more threads; requests go on without
            self._observed.collector.error("start", error)

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        observed = self._observed
        background = observed.enter()
        method: str = environ["REQUEST_METHOD"]
        answer = background.call(
            observed.own.answer(method, environ["PATH_INFO"], _headers(environ), _query(environ))
        )
        headers = list(answer.headers.items())
        reason = REASONS.get(answer.status, UNAVAILABLE)
        chunks = background.iterate(answer.body, answer.seconds)
        first = next(chunks, b"")
        second = next(chunks, None)
        if second is None:
            if method != "HEAD" and answer.status != 204:  # noqa: PLR2004
                headers.append(("Content-Length", str(len(first))))
            start_response(f"{answer.status} {reason}", headers)
            return [first] if first else []
        start_response(f"{answer.status} {reason}", headers)
        return _rest(first, second, chunks)


def _rest(first: bytes, second: bytes, chunks: Any) -> Iterable[bytes]:
    try:
        yield first
        yield second
        yield from chunks
    finally:
        chunks.close()


def _headers(environ: Environ) -> list[tuple[str, str]]:
    return [
        (key[5:].replace("_", "-"), value)
        for key, value in environ.items()
        if key.startswith("HTTP_") and isinstance(value, str)
    ]


def _query(environ: Environ) -> str:
    text: str = environ.get("QUERY_STRING", "")
    return text


_observed: WeakSet[ObservedApp] = WeakSet()


def _forked() -> None:
    for each in list(_observed):
        each.forked()


def _ended() -> None:
    for each in list(_observed):
        each.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
atexit.register(_ended)
