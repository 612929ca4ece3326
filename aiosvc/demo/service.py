"""
The demo as an aiohttp application: routes, answers, options, start and stop.

Rule: HTTP stays in here. What an order is belongs to orders, what becomes of it to email.

All bodies are JSON, errors are {"error": "..."} with "field" where one field is to blame; only the
500 of a bug is aiohttp's own, because the exception must reach whoever counts it. When the server
stops, `on_shutdown` refuses new orders and drains the queue before the workers are cancelled.
"""

import asyncio
import logging
import math
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from random import Random

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc.admin import AdminOptions
from aiosvc.aiohttp import setup
from aiosvc.demo.email import Mailer
from aiosvc.demo.options import DemoOptions
from aiosvc.demo.orders import (
    USERS,
    BusinessMetrics,
    InvalidOrderError,
    Order,
    OrderStore,
    Rejection,
    parse_order,
)
from aiosvc.demo.outbox import transport_of
from aiosvc.demo.sharedemail import SharedMailer
from aiosvc.jobs import NotEnqueuedError
from aiosvc.queues import PoolClosedError
from aiosvc.service import Observer

__all__ = ["MAILER", "DemoOptions", "make_app"]

MAX_BODY = 64 * 1024  # bytes; no valid order comes near
_REMEMBERED_ORDERS = 10_000
_ID = re.compile(r"-?[0-9]{1,18}", re.ASCII)

log = logging.getLogger("aiosvc.demo")

MAILER = web.AppKey("MAILER", Mailer)


def make_app(
    options: DemoOptions | None = None,
    *,
    registry: CollectorRegistry = REGISTRY,
    admin: AdminOptions | None = None,
) -> web.Application:
    """
    Return the demo, instrumented, ready for any of aiohttp's runners.

    `options` are the defaults when None. `registry` gets all metrics, ours and the business's; apps
    on one registry share them. `options.load` is not acted on here: whoever listens knows the
    address to send it to, see aiosvc.demo.load. `admin` may add a port of its own for the metrics.
    """
    options = options or DemoOptions()
    app = web.Application(middlewares=[_errors_as_json], client_max_size=MAX_BODY)
    metrics = BusinessMetrics.of(registry)
    obs = setup(app, registry=registry, admin=admin)
    store = OrderStore(capacity=max(_REMEMBERED_ORDERS, 2 * options.queue_size))
    mailer: Mailer | SharedMailer
    if options.is_shared:
        mailer = SharedMailer(options, store, metrics)
        # Often, since it is a demo.
        obs.watch_queue(mailer.queue, interval=1.0)
    else:
        mailer = app[MAILER] = _mailer(options, obs, metrics)
    app.add_routes(_Shop(store, mailer, metrics, options.drain_timeout).routes())

    async def work(_: web.Application) -> AsyncIterator[None]:
        await mailer.begin()
        yield
        await mailer.stop()  # nothing is left to stop after a drain, but a failed start skips it

    async def drain(_: web.Application) -> None:
        await mailer.drain(options.drain_timeout)

    app.cleanup_ctx.append(work)
    app.on_shutdown.append(drain)
    return app


def _mailer(options: DemoOptions, obs: Observer, metrics: BusinessMetrics) -> Mailer:
    rng = Random(options.seed)  # noqa: S311 - a simulation, nothing secret
    return Mailer(
        obs,
        asyncio.Queue[Order](maxsize=options.queue_size),
        transport_of(options, rng),
        metrics,
        workers=options.workers,
        max_attempts=options.max_attempts,
        expected_seconds=options.send_seconds,
        rng=rng,
    )


class _Shop:
    """The handlers."""

    def __init__(
        self,
        store: OrderStore,
        mailer: Mailer | SharedMailer,
        metrics: BusinessMetrics,
        drain_timeout: float,
    ) -> None:
        self._store = store
        self._mailer = mailer
        self._metrics = metrics
        self._drain_timeout = drain_timeout

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.health),
            web.get("/api/users", self.users),
            web.get("/api/users/{id}", self.user),
            web.post("/api/orders", self.create_order),
            web.get("/api/orders/{id}", self.order),
        ]

    async def health(self, _: web.Request) -> web.Response:
        if self._mailer.draining:
            return web.json_response({"status": "stopping"}, status=503)
        return web.json_response({"status": "ok"})

    async def users(self, _: web.Request) -> web.Response:
        return web.json_response({"users": [asdict(user) for user in USERS.values()]})

    async def user(self, request: web.Request) -> web.Response:
        user_id = _id_in_path(request)
        if user_id not in USERS:
            return _error(404, f"no user has the id {user_id}; see /api/users")
        return web.json_response(asdict(USERS[user_id]))

    async def order(self, request: web.Request) -> web.Response:
        order_id = _id_in_path(request)
        order = self._store.get(order_id)
        if order is None:
            return _error(404, f"no order has the id {order_id}, or it is too long ago")
        return web.json_response(order.as_json())

    async def create_order(self, request: web.Request) -> web.Response:
        try:
            new = parse_order(await request.read())
        except InvalidOrderError as exc:
            self._reject(Rejection.INVALID)
            if exc.field is None:
                return _error(400, str(exc))
            return _error(422, str(exc), field=exc.field)
        except web.RequestPayloadError as exc:
            self._reject(Rejection.INVALID)
            return _error(400, f"body: its encoding is broken ({exc})")
        except web.HTTPRequestEntityTooLarge:
            self._reject(Rejection.INVALID)
            raise
        order = self._store.draft(new, self._mailer.new_id())
        try:
            await self._mailer.put(order)
        except (PoolClosedError, asyncio.QueueFull, NotEnqueuedError) as error:
            return self._refuse(error)
        self._store.add(order)
        self._metrics.accepted.inc()
        location = f"/api/orders/{order.id}"
        return web.json_response(order.as_json(), status=202, headers={"Location": location})

    def _refuse(self, error: Exception) -> web.Response:
        if isinstance(error, asyncio.QueueFull):
            self._reject(Rejection.QUEUE_FULL)
            return _unavailable("the e-mail queue is full", self._mailer.retry_after())
        if isinstance(error, NotEnqueuedError) and not self._mailer.draining:
            self._reject(Rejection.QUEUE_DOWN)
            log.warning("an order was refused: %s", error)
            return _unavailable("the e-mail queue does not answer", self._mailer.retry_after())
        self._reject(Rejection.STOPPING)
        return _unavailable("the service is stopping", math.ceil(self._drain_timeout))

    def _reject(self, reason: Rejection) -> None:
        self._metrics.rejected.labels(reason).inc()


def _id_in_path(request: web.Request) -> int:
    given = request.match_info["id"]
    if not _ID.fullmatch(given):
        raise web.HTTPBadRequest(text=f"id: {given[:60]!r} given; expected an integer")
    return int(given)


def _error(
    status: int, message: str, *, headers: dict[str, str] | None = None, **more: str
) -> web.Response:
    return web.json_response({"error": message, **more}, status=status, headers=headers)


def _unavailable(why: str, seconds: int) -> web.Response:
    wait = max(seconds, 1)
    return _error(503, f"{why}; try again in {wait} s", headers={"Retry-After": str(wait)})


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the errors that aiohttp raises (no such path, wrong method, too large) our body."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        if exc.status < 400:  # noqa: PLR2004 - where HTTP's errors begin
            raise
        # A bad request's text says more than its reason; the others' texts repeat the status.
        detail = exc.text if isinstance(exc, web.HTTPBadRequest) else None
        message = detail or f"{request.method} {request.path}: {exc.reason}"
        headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
        return _error(exc.status, message, headers=headers)
