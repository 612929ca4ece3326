"""
A service to which everything happens that the dashboards show, as `aiosvc run` serves it.

Rule: what it does is asked for by a request, so whoever drives it decides when.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator

from aiohttp import web
from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector

import aiosvc


class Failing(Collector):
    """A collector of the user's that fails at each scrape."""

    def describe(self) -> Iterator[Metric]:
        """Describe nothing, so that it can be registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Fail."""
        raise RuntimeError("out of order")


def tenant(request: web.Request) -> str:
    """Return who asks, and fail for one of them."""
    if request.path == "/tenantless":
        raise LookupError("nobody")
    return "a"


async def quick(_: web.Request) -> web.Response:
    """Answer."""
    await asyncio.to_thread(time.sleep, 0.01)
    return web.Response(text="x" * 100)


async def hold(_: web.Request) -> web.Response:
    """Answer late."""
    await asyncio.sleep(2)
    return web.Response()


async def stall(_: web.Request) -> web.Response:
    """Hold the event loop up."""
    time.sleep(0.15)  # noqa: ASYNC251 - that is the point
    return web.Response()


async def fail(_: web.Request) -> web.Response:
    """Fail."""
    raise ValueError("on purpose")


async def socket(request: web.Request) -> web.WebSocketResponse:
    """Listen until the client has enough."""
    opened = web.WebSocketResponse()
    await opened.prepare(request)
    async for _ in opened:
        pass
    return opened


async def send(what: str) -> None:
    """Do a job, or fail at it."""
    await asyncio.sleep(0.05)
    if what == "never":
        raise OSError("unreachable")


async def consume() -> None:
    """Be a task of a group."""
    await asyncio.Event().wait()


def make_app() -> web.Application:
    """Return the service, with the metric names of the preset in SCENARIO_PRESET."""
    app = web.Application()
    REGISTRY.register(Failing())
    observer = aiosvc.setup(
        app,
        preset=os.environ["SCENARIO_PRESET"],
        labels={"tenant": aiosvc.FromRequest(tenant, ["a"])},
        task_groups={"consumers": "consume*"},
        max_endpoints=7,
    )
    queue = asyncio.Queue[str](maxsize=10)
    pool = observer.worker_pool(
        queue, send, name="email", concurrency=2, attempts=2, retry_on=OSError, backoff=0.1,
        dead_letters=100,
    )  # fmt: skip

    async def enqueue(request: web.Request) -> web.Response:
        try:
            pool.put_nowait(request.match_info["what"])
        except asyncio.QueueFull:
            raise web.HTTPServiceUnavailable from None
        return web.Response(status=202)

    async def work(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(consume())
        async with pool:
            yield
        task.cancel()

    app.cleanup_ctx.append(work)
    app.router.add_get("/quick/{id}", quick)
    app.router.add_get("/tenantless", quick)
    app.router.add_get("/hold", hold)
    app.router.add_get("/stall", stall)
    app.router.add_get("/fail", fail)
    app.router.add_get("/socket", socket)
    app.router.add_post("/jobs/{what}", enqueue)
    app.router.add_get("/past-the-cap", quick)
    return app
