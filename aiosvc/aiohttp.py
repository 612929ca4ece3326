"""
For aiohttp: `setup(app)` before the application starts, and it is observed while it runs.

Rule: what is wrong is said by `setup`, or when the application starts; never while it serves.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final, Unpack
from weakref import WeakSet

from aiohttp import web
from aiohttp.abc import AbstractRouter
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc.admin import AdminBeside, AdminOptions, livez, readyz
from aiosvc.config import Options, Settings, settings_of
from aiosvc.endpoint import OWN_HANDLER, metrics_handler
from aiosvc.errors import ConfigError
from aiosvc.exemplars import current_trace_id
from aiosvc.health import Health
from aiosvc.protocol import MeasuredProtocol
from aiosvc.requests import is_excluded
from aiosvc.service import Observer
from aiosvc.tap import Tap
from aiosvc.templates import known_routes, sub_applications, templates_of

__all__ = ["setup"]

log = logging.getLogger("aiosvc")

#: Sub-applications whose requests are measured with the application that they are in.
_measured: WeakSet[web.Application] = WeakSet()

#: The attribute in which an application keeps its observer; its mapping is its own.
OBSERVER: Final = "_aiosvc_observer"


def setup(
    app: web.Application,
    *,
    registry: CollectorRegistry = REGISTRY,
    settings: Settings | None = None,
    admin: AdminOptions | None = None,
    **options: Unpack[Options],
) -> Observer:
    """
    Measure *app* and serve its metrics, from its start to its end.

    Call it before the application starts, or is added to another; sub-applications are measured
    with the application that they are in. *registry* is where the metrics go and what `/metrics`
    serves, your own metrics in it included. The options are the fields of `aiosvc.Settings`, given
    one by one or as *settings*. With *admin*, an `aiosvc.AdminOptions` that has a port, the metrics
    and probes are served by a thread of their own too, which answers whatever the application does.

    A second call for the same application returns what the first one did, its options unread.

    Raises ConfigError for a wrong option, an application that is frozen or has a route at *path*,
    or a registry with metrics of the same names.
    """
    if not isinstance(app, web.Application):
        raise ConfigError(f"setup: {app!r} given; expected an aiohttp.web.Application")
    known: Observer | None = getattr(app, OBSERVER, None)
    if known is not None:
        return known
    settings = settings_of(settings, options)
    admin = AdminOptions() if admin is None else admin
    _refuse_late(app)
    if settings.path is not None:
        _refuse_second_route(app, settings.path)
    observer = Observer(registry, settings, Health(live_timeout=admin.live_timeout))
    # A server is made once all that starts with the application has started.
    ready = observer.health.set_ready
    tap = Tap(app, observer.requests, settings, observer.collector.error, ready)
    observer.count_connections(lambda: tap.open_connections)
    if settings.path is not None:
        handler = metrics_handler(observer.scraper, observer.collector.refresh)
        for path in (settings.path, f"{settings.path}/"):
            app.router.add_route("*", path, handler)
    if settings.exemplars != "off":
        app.middlewares.append(_trace_noting(observer.collector.error))
    _Life(app, observer, tap, AdminBeside(observer, admin)).install()
    app.on_shutdown.insert(0, partial(_drain, observer))
    tap.install()
    # In development mode an Application warns about attributes that it does not know.
    object.__setattr__(app, OBSERVER, observer)
    return observer


class _Life:
    """
    What starts with an application and stops with it: its observer, and the server beside it.

    It is the first to start and the last to stop, so that the metrics outlive what they are about:
    an application's cleanup is its contexts, then its `on_cleanup`, some of which may fail.
    """

    def __init__(
        self, app: web.Application, observer: Observer, tap: Tap, beside: AdminBeside
    ) -> None:
        self._app = app
        self._cleanup = app.cleanup
        self._cleaning_up = False
        self._observer = observer
        self._tap = tap
        self._beside = beside
        self._running = False

    def install(self) -> None:
        """Be part of the application's start and cleanup."""
        self._app.cleanup_ctx.insert(0, self._run)
        # In development mode an Application warns about attributes that it does not know.
        object.__setattr__(self._app, "cleanup", self._clean_up)

    async def _run(self, _app: web.Application) -> AsyncIterator[None]:
        self._beside.start()
        self._running = True
        try:
            await self._observe()
        except BaseException:
            await self._stop()
            raise
        yield
        if not self._cleaning_up:  # an application in another one, whose cleanup is not called
            await self._stop()

    async def _clean_up(self) -> None:
        self._cleaning_up = True
        try:
            await self._cleanup()
        finally:
            self._cleaning_up = False
            await self._stop()

    async def _observe(self) -> None:
        app, observer, tap = self._app, self._observer, self._tap
        settings = observer.settings
        if settings.path is not None:
            _refuse_second_route(app, settings.path, expected=2)
        _measured.update(sub_applications(app))
        if app.pre_frozen and not tap.has_served and app not in _measured:
            log.warning(
                "aiosvc.setup was called for a sub-application only: its requests are not "
                "measured; call it for the application that is served"
            )
        _add_probes(app, observer)
        if not settings.count_own:
            tap.own |= templates_of(app, OWN_HANDLER)
        for method, template in known_routes(app):
            if template not in tap.own and not is_excluded(template, settings.exclude):
                observer.requests.expect(method, template)
        tap.start()
        await observer.start()
        observer.health.set_starting()
        observer.health.watch_loop(asyncio.get_running_loop())

    async def _stop(self) -> None:
        if not self._running:
            return
        self._running = False
        try:
            self._observer.health.forget_loop()
            await self._observer.stop()
            self._tap.stop(self._observer.collect_late)
        finally:
            await asyncio.to_thread(self._beside.stop)


async def _drain(observer: Observer, _app: web.Application) -> None:
    observer.health.set_draining()


def _add_probes(app: web.Application, observer: Observer) -> None:
    # Only now are all routes of the application known; one of its own is left in force.
    if app.pre_frozen or not isinstance(app.router, web.UrlDispatcher):
        return
    taken = {resource.canonical for resource in app.router.resources()}
    for path, handler in (
        ("/livez", livez(observer.health)),
        ("/readyz", readyz(observer.health)),
    ):
        setattr(handler, OWN_HANDLER, True)
        if path not in taken:
            app.router.add_get(path, handler)


def _trace_noting(on_error: Callable[[str, BaseException], None]) -> Middleware:
    @web.middleware
    async def note_trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        # The span of a request is current only while its handlers run.
        if isinstance(request.protocol, MeasuredProtocol):
            try:
                request.protocol.trace_id = current_trace_id()
            except Exception as error:  # noqa: BLE001 - the span's own, not the request's
                on_error("trace", error)
        return await handler(request)

    return note_trace


def _refuse_late(app: web.Application) -> None:
    if app.pre_frozen or app.frozen:
        raise ConfigError(
            "setup: the application has started, or was added to another; call aiosvc.setup(app) "
            "before web.run_app, AppRunner.setup and add_subapp"
        )


def _refuse_second_route(app: web.Application, path: str, *, expected: int = 0) -> None:
    router: AbstractRouter = app.router
    if not isinstance(router, web.UrlDispatcher):
        raise ConfigError(
            f"path: {router!r} is a router of your own, to which aiosvc can't add {path!r}; "
            "give path=None, and serve prometheus_client.generate_latest yourself"
        )
    at_path = [r for r in router.resources() if r.canonical in (path, f"{path}/")]
    if len(at_path) > expected:
        raise ConfigError(
            f"path: the application has a route at {path!r} of its own; remove it, or give aiosvc "
            "another path with path='/internal/metrics'"
        )
