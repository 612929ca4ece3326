"""The demo on a shared queue: what it knows of an order, its ids, and its options."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request
from brokers.servers import Redis
from processes import poll
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis as RedisClient

from aiosvc import ConfigError
from aiosvc.demo.service import DemoOptions, make_app

VALID = {"user_id": 1, "item": "book", "quantity": 1}
Client = TestClient[Request, Application]


@asynccontextmanager
async def replica(url: str, workers: int, outbox: Path | None = None) -> AsyncIterator[Client]:
    """Serve a demo on a shared queue."""
    options = DemoOptions(
        queue=url,
        workers=workers,
        send_seconds=0.0,
        failure_rate=0.0,
        outbox=None if outbox is None else f"{outbox}",
    )
    app = make_app(options, registry=CollectorRegistry())
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
async def url(redis_server: Redis) -> AsyncIterator[str]:
    """Return the address of a broker that has none of the demo's orders."""
    async with RedisClient.from_url(redis_server.url) as client:
        await client.delete("email", "email:dead")
        yield redis_server.url
        await client.delete("email", "email:dead")


async def test_an_order_that_is_sent_elsewhere(url: str, tmp_path: Path) -> None:
    """Who took it knows that it is queued and no more; who sent it knows that it was sent."""
    outbox = tmp_path / "outbox"
    async with replica(url, 0) as web:
        answer = await web.post("/api/orders", json=VALID)
        assert answer.status == 202
        order = await answer.json()
        assert order["status"] == "queued"
        assert 0 <= order["id"] < 2**53
        async with replica(url, 2, outbox) as worker:

            async def known() -> str:
                found = await worker.get(f"/api/orders/{order['id']}")
                return str((await found.json()).get("status"))

            await poll(known, lambda status: status == "sent", "the order sent")
        found = await web.get(f"/api/orders/{order['id']}")
        assert (await found.json())["status"] == "queued"
    [line] = outbox.read_text(encoding="utf-8").splitlines()
    assert {**VALID, "id": order["id"]}.items() <= json.loads(line).items()


async def test_an_order_that_is_sent_here(url: str) -> None:
    """Who takes an order and sends it knows all of it."""
    async with replica(url, 1) as client:
        order = await (await client.post("/api/orders", json=VALID)).json()

        async def known() -> object:
            return await (await client.get(f"/api/orders/{order['id']}")).json()

        sent = {**VALID, "id": order["id"], "status": "sent", "attempts": 1}
        await poll(known, lambda found: found == sent, "the order sent")


async def test_memory_says_what_a_crash_loses(caplog: pytest.LogCaptureFixture) -> None:
    """One line at the start says it; the stop says how much was left."""
    caplog.set_level(logging.INFO)
    async with TestClient(TestServer(make_app(DemoOptions(), registry=CollectorRegistry()))):
        pass
    lines = [each for each in caplog.messages if "a crash loses what the queue holds" in each]
    assert len(lines) == 1
    assert "queue email drained: 0 processed, 0 left" in caplog.messages


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"queue": 7}, "queue: 7 given; expected a text"),
        ({"outbox": 7}, "outbox: 7 given; expected a text"),
        ({"queue": "redis://h", "workers": -1}, "workers: -1 given; expected a whole number, 0 to"),
        ({"queue": "memory://", "workers": 0}, "workers: 0 given; expected a whole number, 1 to"),
    ],
)
def test_wrong_options(given: dict[str, object], message: str) -> None:
    """A wrong option says what was expected; without workers there must be a broker."""
    with pytest.raises(ConfigError, match=message):
        DemoOptions(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DemoOptions(queue="rediss"), "queue URL 'rediss': expected one that begins with"),
        (DemoOptions(outbox="/nowhere/at/all"), "outbox: '/nowhere/at/all' given, which can't be"),
    ],
)
async def test_what_can_not_be_used(options: DemoOptions, message: str) -> None:
    """A URL of no queue and a file that can't be written are refused before anything is served."""
    with pytest.raises(ConfigError, match=message):
        make_app(options, registry=CollectorRegistry())
