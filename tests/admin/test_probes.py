"""The handlers of /livez and /readyz on an application's own port."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from aiosvc.admin import livez, readyz
from aiosvc.health import Health


def fails() -> None:
    """Fail, saying what is nobody's business."""
    raise ConnectionError("postgres://shop:hush@db/shop")


@pytest.mark.parametrize("reasons", [True, False])
async def test_probes(reasons: bool) -> None:
    """200 or 503, with the checks by name; why one failed is told only where that is wanted."""
    health = Health()
    app = web.Application()
    app.router.add_get("/livez", livez(health))
    app.router.add_get("/readyz", readyz(health, reasons=reasons))
    async with TestClient(TestServer(app)) as client:

        async def ask(path: str) -> tuple[int, str]:
            async with client.get(path) as reply:
                assert reply.headers["Cache-Control"] == "no-store"
                assert reply.content_type == "text/plain"
                return reply.status, await reply.text()

        assert await ask("/livez") == (200, "live\n")
        assert await ask("/readyz") == (503, "the service is starting\n")
        health.set_ready()
        assert await ask("/readyz") == (200, "ready\n")
        health.add_check("cache", lambda: None)
        health.add_check("db", fails)
        why = ": ConnectionError: postgres://shop:hush@db/shop" if reasons else ""
        expected = f"not passed: db\n[+] cache\n[-] db{why}\n"
        assert await ask("/readyz") == (503, expected)
        health.set_draining()
        assert await ask("/readyz") == (503, "the service is draining\n")
        assert await ask("/livez") == (200, "live\n")


async def test_loop_that_is_watched_from_within() -> None:
    """On the application's own loop a check of the application runs where it belongs."""
    health = Health()
    health.watch_loop(asyncio.get_running_loop())
    health.set_ready()
    seen = []

    async def check() -> None:
        seen.append(asyncio.get_running_loop())

    health.add_check("db", check)
    health.beat()
    app = web.Application()
    app.router.add_get("/readyz", readyz(health))
    async with TestClient(TestServer(app)) as client, client.get("/readyz") as reply:
        assert (reply.status, await reply.text()) == (200, "ready\n[+] db\n")
    assert seen == [asyncio.get_running_loop()]
