"""
The demo as an aiohttp application: routes, answers, options, start and stop.

Rule: HTTP stays in here. What an order is belongs to orders, what becomes of it to email.

All bodies are JSON, errors are {"error": "..."} with "field" where one field is to blame; only the
500 of a bug is aiohttp's own, because the exception must reach whoever counts it. When the server
stops, `on_shutdown` refuses new orders and drains the queue before the workers are cancelled.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, fields
from random import Random

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc.admin import AdminOptions
from aiosvc.aiohttp import setup
from aiosvc.demo.email import Mailer, SimulatedTransport
from aiosvc.demo.orders import (
    USERS,
    BusinessMetrics,
    InvalidOrderError,
    Order,
    OrderStore,
    Rejection,
    parse_order,
)
from aiosvc.errors import ConfigError
from aiosvc.queues import PoolClosedError

__all__ = ["MAILER", "DemoOptions", "make_app"]

MAX_BODY = 64 * 1024  # bytes; no valid order comes near
_REMEMBERED_ORDERS = 10_000
_ID = re.compile(r"-?[0-9]{1,18}", re.ASCII)

_LIMITS = {
    "workers": (1, 1000),
    "queue_size": (1, 1_000_000),
    "send_seconds": (0, 3600),
    "failure_rate": (0, 1),
    "max_attempts": (1, 1000),
    "drain_timeout": (0, 3600),
    "load": (0, 100_000),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoOptions:
    """The demo's options; a wrong one raises ConfigError when they are made."""

    workers: int = field(default=4, metadata={"help": "e-mail workers, 1 to 1000"})
    queue_size: int = field(
        default=100, metadata={"help": "e-mails that may wait; beyond it orders are refused"}
    )
    send_seconds: float = field(
        default=0.05, metadata={"help": "median seconds that sending an e-mail takes"}
    )
    failure_rate: float = field(
        default=0.05, metadata={"help": "share of attempts to send that fail, 0 to 1"}
    )
    max_attempts: int = field(
        default=3, metadata={"help": "attempts to send an e-mail before giving up"}
    )
    drain_timeout: float = field(
        default=10.0, metadata={"help": "seconds that stopping may spend on what is queued"}
    )
    seed: int = field(default=1, metadata={"help": "seed of everything that is random"})
    load: float = field(
        default=0.0, metadata={"help": "requests per second of the built-in client; 0: none"}
    )

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        for option in fields(self):
            value = getattr(self, option.name)
            whole = type(option.default) is int
            low, high = _LIMITS.get(option.name, (-math.inf, math.inf))
            right_type = type(value) is int or (type(value) is float and not whole)
            if not (right_type and low <= value <= high):
                kind = "a whole number" if whole else "a number"
                limits = f", {low} to {high}" if option.name in _LIMITS else ""
                raise ConfigError(f"{option.name}: {value!r} given; expected {kind}{limits}")


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
    queue = asyncio.Queue[Order](maxsize=options.queue_size)
    metrics = BusinessMetrics.of(registry)
    rng = Random(options.seed)  # noqa: S311 - a simulation, nothing secret
    obs = setup(app, registry=registry, admin=admin)
    mailer = Mailer(
        obs,
        queue,
        SimulatedTransport(median=options.send_seconds, failure_rate=options.failure_rate, rng=rng),
        metrics,
        workers=options.workers,
        max_attempts=options.max_attempts,
        expected_seconds=options.send_seconds,
        rng=rng,
    )
    store = OrderStore(capacity=max(_REMEMBERED_ORDERS, 2 * options.queue_size))
    app.add_routes(_Shop(store, mailer, metrics, options.drain_timeout).routes())

    async def work(_: web.Application) -> AsyncIterator[None]:
        mailer.start()
        yield
        await mailer.stop()  # nothing is left to stop after a drain, but a failed start skips it

    async def drain(_: web.Application) -> None:
        await mailer.drain(options.drain_timeout)

    app[MAILER] = mailer
    app.cleanup_ctx.append(work)
    app.on_shutdown.append(drain)
    return app


class _Shop:
    """The handlers."""

    def __init__(
        self, store: OrderStore, mailer: Mailer, metrics: BusinessMetrics, drain_timeout: float
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
        order = self._store.draft(new)
        try:
            self._mailer.enqueue(order)
        except PoolClosedError:
            self._reject(Rejection.STOPPING)
            return _unavailable("the service is stopping", math.ceil(self._drain_timeout))
        except asyncio.QueueFull:
            self._reject(Rejection.QUEUE_FULL)
            return _unavailable("the e-mail queue is full", self._mailer.retry_after())
        self._store.add(order)
        self._metrics.accepted.inc()
        location = f"/api/orders/{order.id}"
        return web.json_response(order.as_json(), status=202, headers={"Location": location})

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
