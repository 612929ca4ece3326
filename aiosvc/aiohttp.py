"""
For aiohttp: `setup(app)` before the application starts, and it is observed while it runs.

Rule: what is wrong is said by `setup`, or when the application starts; never while it serves.
"""

import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Final, Unpack

from aiohttp import web
from aiohttp.abc import AbstractRouter
from aiohttp.typedefs import Handler
from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc.config import Options, Settings, make
from aiosvc.endpoint import METRICS_HANDLER, metrics_handler
from aiosvc.errors import ConfigError
from aiosvc.exemplars import current_trace_id
from aiosvc.protocol import MeasuredProtocol
from aiosvc.service import Observer
from aiosvc.tap import Tap
from aiosvc.templates import is_excluded, known_routes, templates_of

__all__ = ["setup"]

log = logging.getLogger("aiosvc")

#: The attribute in which an application keeps its observer; its mapping is its own.
OBSERVER: Final = "_aiosvc_observer"


def setup(
    app: web.Application,
    *,
    registry: CollectorRegistry = REGISTRY,
    settings: Settings | None = None,
    **options: Unpack[Options],
) -> Observer:
    """
    Measure *app* and serve its metrics, from its start to its end.

    Call it before the application starts, or is added to another; sub-applications are measured
    with the application that they are in. *registry* is where the metrics go and what `/metrics`
    serves, your own metrics in it included. The options are the fields of `aiosvc.Settings`, given
    one by one or as *settings*.

    A second call for the same application returns what the first one did, its options unread.

    Raises ConfigError for a wrong option, an application that is frozen or has a route at *path*,
    or a registry with metrics of the same names.
    """
    if not isinstance(app, web.Application):
        raise ConfigError(f"setup: {app!r} given; expected an aiohttp.web.Application")
    known: Observer | None = getattr(app, OBSERVER, None)
    if known is not None:
        return known
    if settings is None:
        settings = make(Settings, options)
    elif options:
        raise ConfigError(f"setup: settings and {', '.join(options)} given; give one or the other")
    _refuse_late(app)
    if settings.path is not None:
        _refuse_second_route(app, settings.path)
    observer = Observer(registry, settings)
    tap = Tap(app, observer.requests, settings, observer.collector.error)
    observer.count_connections(lambda: tap.open_connections)
    if settings.path is not None:
        handler = metrics_handler(observer.scraper, observer.collector.refresh)
        for path in (settings.path, f"{settings.path}/"):
            app.router.add_route("*", path, handler)
    if settings.exemplars != "off":
        app.middlewares.append(_note_trace)
    app.cleanup_ctx.append(partial(_observe, observer, tap))
    tap.install()
    # In development mode an Application warns about attributes that it does not know.
    object.__setattr__(app, OBSERVER, observer)
    return observer


async def _observe(observer: Observer, tap: Tap, app: web.Application) -> AsyncIterator[None]:
    settings = observer.settings
    if settings.path is not None:
        _refuse_second_route(app, settings.path, expected=2)
    tap.own |= templates_of(app, METRICS_HANDLER)
    for method, template in known_routes(app):
        if not is_excluded(template, settings.exclude):
            observer.requests.expect(method, template)
    tap.start()
    await observer.start()
    yield
    await observer.stop()
    tap.stop(observer.collect_late)


@web.middleware
async def _note_trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    # The span of a request is current only while its handlers run.
    if isinstance(request.protocol, MeasuredProtocol):
        request.protocol.trace_id = current_trace_id()
    return await handler(request)


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
