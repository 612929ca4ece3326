"""
For ASGI: `setup(app)` measures an application of FastAPI, Starlette, Litestar, Quart, or of none.

What `setup` returns is the observer, and the measured application too:

    FastAPI, Starlette, Quart, Litestar   observer = aiosvc.asgi.setup(app); serve app as ever,
                                          or observer: it is the same
    a bare application                    app = aiosvc.asgi.setup(app); serve what came back
    Django                                application = aiosvc.asgi.setup(get_asgi_application())

Rule: what passes is passed on unchanged, exceptions included. Rule: what is wrong is said by
`setup`, or when the application starts; never while it serves. Rule: the sampler runs on the loop
that serves; where nobody tells of a start (no lifespan), it starts with the first request.
"""

import asyncio
import logging
import os
from contextlib import aclosing
from typing import Any, Final, Unpack

from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc import frameworks
from aiosvc.admin import AdminBeside, AdminOptions
from aiosvc.asgiexchange import (
    AsgiApp,
    HttpExchange,
    Message,
    Receive,
    Scope,
    Send,
    SocketExchange,
)
from aiosvc.config import Options, Settings, settings_of
from aiosvc.errors import AiosvcError, BindError, ConfigError
from aiosvc.exchange import Exchanges
from aiosvc.frameworks import EXCHANGE
from aiosvc.gateway import (
    LAYERS,
    OBSERVER,
    known_observer,
    refuse_own_route,
    remember,
)
from aiosvc.health import Health
from aiosvc.own import OwnEndpoints
from aiosvc.service import Observer

__all__ = ["ObservedApp", "setup"]

log = logging.getLogger("aiosvc")

#: The method of Starlette's and FastAPI's application that puts its layers together.
BUILDER: Final = "build_middleware_stack"


def setup(
    app: Any,
    *,
    registry: CollectorRegistry = REGISTRY,
    settings: Settings | None = None,
    admin: AdminOptions | None = None,
    **options: Unpack[Options],
) -> "ObservedApp":
    """
    Measure *app*, an ASGI application, and serve its metrics, from its start to its end.

    The result is an observer and an ASGI application. An application of Starlette, FastAPI, Quart
    or Litestar is measured in place, below nothing but the server; of any other one, the result is
    what is measured and to be served. Mounted applications are measured with the one that they are
    in. *registry*, *settings*, *admin* and the options are those of `aiosvc.setup`.

    A second call for the same application returns what the first one did, its options unread.

    Raises ConfigError for a wrong option, an application that has started or has a route at *path*,
    or a registry with metrics of the same names.
    """
    known = known_observer(app, ObservedApp)
    if known is not None:
        return known
    if not callable(app):
        raise ConfigError(f"setup: {app!r} given; expected an ASGI application")
    if getattr(app, "middleware_stack", None) is not None and hasattr(app, BUILDER):
        raise ConfigError(
            "setup: the application has started; call aiosvc.asgi.setup(app) before it is served"
        )
    settings = settings_of(settings, options)
    refuse_own_route(app, settings.path)
    observed = ObservedApp(app, registry, settings, AdminOptions() if admin is None else admin)
    remember(app, observed)
    return observed


class ObservedApp(Observer):
    """What `setup` returns: an `aiosvc.Observer` that is an ASGI application."""

    def __init__(
        self, app: Any, registry: CollectorRegistry, settings: Settings, admin: AdminOptions
    ) -> None:
        super().__init__(registry, settings, Health(live_timeout=admin.live_timeout))
        self.requests.sees_connections = False
        self.exchanges = Exchanges(
            self.requests, settings, self.collector.error, frameworks.template_of_scope
        )
        self.own = OwnEndpoints(settings.path, self.scraper, self.collector.refresh, self.health)
        #: The event loop that samples, None before the start.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._may_begin = True
        self._application = app
        self._beside = AdminBeside(self, admin)
        self._served = self._install(app)
        frameworks.listen(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; what an ASGI server calls."""
        await self._served(scope, receive, send)

    def is_asleep(self) -> bool:
        """Return whether nothing samples: nobody told of a start, or the loop ended since."""
        return self._may_begin and (self.loop is None or self.loop.is_closed())

    def enter(self) -> None:
        """Begin on the running loop; for servers that tell of no start."""
        try:
            loop = asyncio.get_running_loop()
            if self.loop is not None:
                self.abandon()
            self.loop = loop
            self._prepare(loop)
            self.begin()
            self._beside.start()
        except BindError as error:
            log.warning("this process (%d) has no admin server: %s", os.getpid(), error)
        except Exception as error:  # noqa: BLE001 - requests go on without, on trio for example
            self._may_begin = False
            self.collector.error("start", error)
        self.health.set_ready()

    async def serve(self) -> None:
        """Begin with the application; raises what keeps the admin server from listening."""
        loop = asyncio.get_running_loop()
        if self.loop is not None:
            self.abandon()
        self.loop = loop
        self._beside.start()
        self._prepare(loop)
        self.health.set_starting()
        await self.start()

    async def finish(self) -> None:
        """End with the application."""
        if self.loop is asyncio.get_running_loop():
            self.health.forget_loop()
            await self.stop()
            self.exchanges.forget()
            self.exchanges.late = self.collect_late
            await asyncio.to_thread(self._beside.stop)
            self.loop = None

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        self.exchanges.late = None
        self.own.leave(frameworks.served_paths(self._application))
        self.exchanges.expect(frameworks.known_routes(self._application))
        self.health.watch_loop(loop)

    def _install(self, app: Any) -> AsgiApp:
        """Measure *app* in place where it has a place for that; return what is to be served."""
        build = getattr(app, BUILDER, None)
        if build is not None:
            _note_scope(getattr(app, "router", None))
            app.build_middleware_stack = lambda: _Measured(self, build())
            return app  # type: ignore[no-any-return]
        for layer in LAYERS:
            inner = getattr(app, layer, None)
            if inner is not None:
                setattr(app, layer, _Measured(self, inner))
                if hasattr(app, "on_startup") and hasattr(app, "on_shutdown"):
                    # Litestar, which keeps its lifespan to itself.
                    app.on_startup.insert(0, self._on_startup)
                    app.on_shutdown.append(self._on_shutdown)
                return app  # type: ignore[no-any-return]
        return _Measured(self, app)

    async def _on_startup(self) -> None:
        await self.serve()
        self.health.set_ready()

    async def _on_shutdown(self) -> None:
        self.health.set_draining()
        await self.finish()


class _Measured:
    """The layer between the server, or the framework's own entry, and the application."""

    def __init__(self, observed: ObservedApp, app: AsgiApp) -> None:
        self._observed = observed
        self._app = app
        setattr(self, OBSERVER, observed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan."""
        kind = scope["type"]
        if EXCHANGE in scope or kind not in ("http", "websocket"):
            if kind == "lifespan":
                await _Lifespan(self._observed, receive, send).run(self._app, scope)
            else:
                await self._app(scope, receive, send)
            return
        observed = self._observed
        if observed.is_asleep():
            observed.enter()
        app = self._app
        exchange: HttpExchange | SocketExchange
        if kind == "http":
            template = self._own(scope)
            if template is not None:
                app = self._answer
                if not observed.settings.count_own:
                    await app(scope, receive, send)
                    return
            exchange = HttpExchange(scope, receive, send, observed.exchanges)
            exchange.template = template
        else:
            exchange = SocketExchange(scope, receive, send, observed.exchanges)
        scope[EXCHANGE] = exchange
        try:
            await app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.end(error)
            raise
        else:
            exchange.end(None)
        finally:
            # Circles, which only the garbage collector would undo.
            scope.pop(EXCHANGE, None)
            if exchange.request is not scope:
                exchange.request.pop(EXCHANGE, None)

    def _own(self, scope: Scope) -> str | None:
        """Return the template of the endpoint of ours that is asked for, None where none is."""
        return self._observed.own.templates.get(_path(scope))

    async def _answer(self, scope: Scope, _receive: Receive, send: Send) -> None:
        headers = ((k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"])
        query = scope.get("query_string", b"").decode("latin-1")
        answer = await self._observed.own.answer(scope["method"], _path(scope), headers, query)
        fields = [(k.lower().encode(), v.encode()) for k, v in answer.headers.items()]

        async def start() -> None:
            await send({"type": "http.response.start", "status": answer.status, "headers": fields})

        async def write(body: bytes, *, more: bool) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        async with aclosing(answer.body) as body, asyncio.timeout(answer.seconds):
            first = await anext(body, b"")
            second = await anext(body, None)
            if second is None:
                if scope["method"] != "HEAD" and answer.status != 204:  # noqa: PLR2004
                    fields.append((b"content-length", str(len(first)).encode()))
                await start()
                await write(first, more=False)
                return
            await start()
            await write(first, more=True)
            await write(second, more=True)
            async for chunk in body:
                await write(chunk, more=True)
            await write(b"", more=False)


class _Lifespan:
    """A lifespan, seen through the messages that pass."""

    def __init__(self, observed: ObservedApp, receive: Receive, send: Send) -> None:
        self._observed = observed
        self._receive = receive
        self._send = send
        #: Whether the server waits to be told how the start went.
        self._owed = False
        self._refusal: AiosvcError | None = None

    async def run(self, app: AsgiApp, scope: Scope) -> None:
        """Have *app* live, and the server told what it has to know."""
        try:
            await app(scope, self.receive, self.send)
        finally:
            if self._owed and self._refusal is not None:
                # What an application only raises is taken for one that has no lifespan.
                message = {"type": "lifespan.startup.failed", "message": str(self._refusal)}
                await self._send(message)
            elif self._owed:
                # It has none, and the server goes on.
                self._observed.health.set_ready()

    async def receive(self) -> Message:
        """Pass on a message of the server, having done what it asks for."""
        observed = self._observed
        message = await self._receive()
        if message["type"] == "lifespan.startup":
            self._owed = True
            try:
                await observed.serve()
            except AiosvcError as error:
                self._refusal = error
                raise
            except Exception as error:  # noqa: BLE001 - the service starts without
                observed.collector.error("start", error)
        elif message["type"] == "lifespan.shutdown":
            observed.health.set_draining()
        return message

    async def send(self, message: Message) -> None:
        """Pass on a message of the application, having done what follows from it."""
        observed = self._observed
        self._owed = False
        if message["type"] == "lifespan.startup.complete":
            observed.health.set_ready()
        else:
            try:
                await observed.finish()
            except Exception as error:  # noqa: BLE001 - the service ends all the same
                observed.collector.error("stop", error)
        await self._send(message)


def _note_scope(router: Any) -> None:
    """Have a request know the scope in which its route is found, be it a middleware's copy."""
    inner = getattr(router, "middleware_stack", None)
    if inner is None:
        return

    def noted(scope: Scope, receive: Receive, send: Send) -> Any:
        exchange = scope.get(EXCHANGE)
        if exchange is not None:
            exchange.request = scope
        return inner(scope, receive, send)

    router.middleware_stack = noted


def _path(scope: Scope) -> str:
    """Return the path without what the server or a proxy calls the application's root."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
