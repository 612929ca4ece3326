"""
For aiohttp's client: `setup(session)`, or `trace_config()` for a session yet to be made.

    session = aiohttp.ClientSession()
    aiosvc.client.setup(session, hosts=["api.example.com", "*.cdn.example.com"])

Rule: an error in here is counted and goes no further; the request goes on. Rule: a request counts
from its start to where its response has been read, or its connection was let go of, whatever became
of it; with redirects and repeated attempts it is one request, of the host first asked. A WebSocket
counts to its handshake.

The label `error` is empty where the request ended well, whatever its status, or where the caller let
go of the response. Else it is `dns`, `connect`, `tls`, `timeout`, `cancelled`, `disconnected`,
`redirects` (too many), `response` (no HTTP, or one that breaks off) or `other`.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from threading import Lock
from time import perf_counter
from types import NoneType
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

from aiohttp import (
    ClientConnectionError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientPayloadError,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    ClientSSLError,
    TooManyRedirects,
    TraceConfig,
)
from aiohttp.http import HttpProcessingError
from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc.catalogue import CLIENTS
from aiosvc.collector import collector_of
from aiosvc.config import Settings
from aiosvc.errors import ConfigError
from aiosvc.outbound import Call, Hosts, Outbound

__all__ = ["setup", "trace_config"]

SWITCHING_PROTOCOLS: Final = 101
OTHER_ERROR: Final = "other"

#: What an error is called; the first that fits.
ERRORS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]] = (
    (asyncio.CancelledError, "cancelled"),
    (ClientSSLError, "tls"),
    (ClientConnectorDNSError, "dns"),
    (TimeoutError, "timeout"),
    (ClientConnectorError, "connect"),
    (TooManyRedirects, "redirects"),
    ((ClientPayloadError, ClientResponseError), "response"),
    ((ClientConnectionError, ConnectionError), "disconnected"),
)

_configs: WeakKeyDictionary[CollectorRegistry, dict[str, "_Tracing"]] = WeakKeyDictionary()
_lock = Lock()


def trace_config(
    *,
    registry: CollectorRegistry = REGISTRY,
    hosts: Iterable[str] = (),
    name: str = "default",
    buckets: Iterable[float] = (),
) -> TraceConfig:
    """
    Return what measures the requests of an `aiohttp.ClientSession`, for its *trace_configs*.

    *hosts* are the values that the label `host` may have: names, and groups like '*.example.com';
    all other hosts are `_other`. *name* is the label `client` of the metrics of the connection pool;
    sessions of one *name* are measured as one, so a second call with that name and the same options
    returns the same. *buckets* are upper bounds of durations in seconds, none means 0.005 to 10.

    Raises ConfigError for a wrong option, or one that another call on the registry gave differently.
    """
    return _tracing(registry, hosts, name, buckets).config


def setup(
    session: ClientSession,
    *,
    registry: CollectorRegistry = REGISTRY,
    hosts: Iterable[str] = (),
    name: str = "default",
    buckets: Iterable[float] = (),
) -> ClientSession:
    """
    Measure the requests of *session* from now on, and return it; a second time changes nothing.

    The options, and what is raised, are those of `trace_config`.
    """
    if not isinstance(session, ClientSession):
        raise ConfigError(f"setup: {session!r} given; expected an aiohttp.ClientSession")
    config = _tracing(registry, hosts, name, buckets).config
    if not any(isinstance(each, _Config) for each in session.trace_configs):
        config.freeze()
        session.trace_configs.append(config)
    return session


class _Config(TraceConfig):
    """A TraceConfig of ours."""


class _Tracing:
    """Tells the numbers what aiohttp says of a request."""

    def __init__(self, outbound: Outbound, on_error: Callable[[str, BaseException], None]) -> None:
        self._outbound = outbound
        self._on_error = on_error
        self.config = config = _Config(trace_config_ctx_factory=_Context)  # type: ignore[arg-type]  # any callable will do
        for signal, tell in (
            (config.on_request_start, self._start),
            (config.on_request_end, self._headers),
            (config.on_request_exception, self._exception),
            (config.on_request_redirect, self._redirect),
            (config.on_connection_queued_start, self._queued),
            (config.on_connection_queued_end, self._dequeued),
            (config.on_connection_create_start, self._connecting),
            (config.on_connection_create_end, self._connected),
            (config.on_connection_reuseconn, self._reused),
            (config.on_dns_resolvehost_start, self._resolving),
            (config.on_dns_resolvehost_end, self._resolved),
        ):
            signals: Any = signal
            signals.append(self._guarded(tell))

    def same(self, hosts: Hosts, bounds: tuple[float, ...]) -> bool:
        """Whether it was made with these options."""
        return self._outbound.hosts.allowed == hosts.allowed and self._outbound.bounds == bounds

    def _guarded(
        self, tell: Callable[[ClientSession, "_Context", Any], None]
    ) -> Callable[[ClientSession, "_Context", Any], Awaitable[None]]:
        async def told(session: ClientSession, context: "_Context", params: Any) -> None:
            try:
                tell(session, context, params)
            except Exception as error:  # noqa: BLE001 - ours, and not the request's
                self._on_error("client", error)

        return told

    def _start(self, _session: ClientSession, context: "_Context", params: Any) -> None:
        context.handled = id(sys.exc_info()[1])
        self._outbound.begin(context, params.method, params.url.host, perf_counter())

    def _headers(self, _session: ClientSession, context: "_Context", params: Any) -> None:
        now = perf_counter()
        response: ClientResponse = params.response
        self._outbound.headers(context, now)
        connection = response.connection
        if connection is None or response.status == SWITCHING_PROTOCOLS:
            self._outbound.end(context, response.status, "", now)
        else:
            # By a weak reference, so that a response that is dropped is dropped at once.
            released = partial(self._released, context, response.status, ref(response))
            connection.add_callback(released)

    def _released(
        self, context: "_Context", status: int, response: Callable[[], ClientResponse | None]
    ) -> None:
        found = response()
        error = None
        if found is not None and not found.content.is_eof():
            error = found.content.exception()
            if type(error) in (NoneType, ClientConnectionError):
                # The caller let go of it; perhaps since this ends what the caller does.
                error = sys.exc_info()[1]
        failure = "" if error is None or id(error) == context.handled else _name_of(error)
        if failure == OTHER_ERROR:
            failure = ""  # the caller's own
        self._outbound.end(context, status, failure, perf_counter())

    def _exception(self, _session: ClientSession, context: "_Context", params: Any) -> None:
        error = params.exception
        status = None
        failure = _name_of(error)
        if isinstance(error, ClientResponseError) and not isinstance(
            error.__cause__, HttpProcessingError
        ):
            # A response that the caller wants raised is a response all the same.
            status, failure = error.status, ""
            if isinstance(error, TooManyRedirects):
                status, failure = error.history[-1].status, _name_of(error)
        self._outbound.end(context, status, failure, perf_counter())

    def _redirect(self, _session: ClientSession, context: "_Context", _params: Any) -> None:
        self._outbound.redirected(context)

    def _queued(self, _session: ClientSession, context: "_Context", _params: Any) -> None:
        self._outbound.waiting(context, perf_counter())

    def _dequeued(self, _session: ClientSession, context: "_Context", _params: Any) -> None:
        self._outbound.waited(context, perf_counter())

    def _connecting(self, session: ClientSession, context: "_Context", _params: Any) -> None:
        self._outbound.connecting(context, session.connector, perf_counter())

    def _connected(self, _session: ClientSession, context: "_Context", _params: Any) -> None:
        self._outbound.connected(context, perf_counter())

    def _reused(self, _session: ClientSession, context: "_Context", _params: Any) -> None:
        self._outbound.reused(context)

    def _resolving(self, _session: ClientSession, context: "_Context", _params: Any) -> None:
        context.resolving = perf_counter()

    def _resolved(self, _session: ClientSession, context: "_Context", _params: Any) -> None:
        self._outbound.resolved(context, perf_counter() - context.resolving)


class _Context(Call):
    """What aiohttp keeps for us with each request."""

    __slots__ = ("given", "handled", "resolving")

    def __init__(self, trace_request_ctx: object = None) -> None:
        super().__init__()
        self.given = trace_request_ctx
        self.resolving = 0.0
        #: Which exception the caller was handling when it began.
        self.handled = 0


def _tracing(
    registry: CollectorRegistry, hosts: Iterable[str], name: str, buckets: Iterable[float]
) -> _Tracing:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"name: {name!r} given; expected what the label 'client' is to say")
    allowed = Hosts(hosts)
    bounds = Settings(buckets=tuple(buckets)).duration_bounds
    collector = collector_of(registry, CLIENTS)
    with _lock:
        known = _configs.setdefault(registry, {})
        tracing = known.get(name)
        if tracing is None:
            collector.claim("client request duration buckets", bounds)
            outbound = Outbound(name, allowed, bounds)
            collector.attach(outbound)
            tracing = known[name] = _Tracing(outbound, collector.error)
        elif not tracing.same(allowed, bounds):
            raise ConfigError(
                f"name: {name!r} is in use with other hosts or buckets; give the same ones, or "
                "another name"
            )
    return tracing


def _name_of(error: BaseException) -> str:
    """Return what *error* is called in the label."""
    return next((name for kinds, name in ERRORS if isinstance(error, kinds)), OTHER_ERROR)
