"""The demo over HTTP: contract, refusals, shutdown, options."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request
from prometheus_client import CollectorRegistry, generate_latest

from aiosvc.demo.orders import USERS
from aiosvc.demo.service import MAILER, DemoOptions, make_app
from aiosvc.errors import ConfigError

from .waiting import until

VALID = {"user_id": 1, "item": "book", "quantity": 1}
STUCK = DemoOptions(send_seconds=3600.0, workers=1, queue_size=2, drain_timeout=0.01)
PROMPT = DemoOptions(send_seconds=0.0, failure_rate=0.0)
Client = TestClient[Request, Application]


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry of the test's own."""
    return CollectorRegistry()


@asynccontextmanager
async def serving(options: DemoOptions, registry: CollectorRegistry) -> AsyncIterator[Client]:
    """Serve the demo on a free port for as long as the block lasts."""
    async with TestClient(TestServer(make_app(options, registry=registry))) as client:
        yield client


@pytest.fixture
async def client(registry: CollectorRegistry) -> AsyncIterator[Client]:
    """Serve a demo that sends at once and never fails."""
    async with serving(PROMPT, registry) as client:
        yield client


def mailer_is_idle(client: Client) -> bool:
    """Say whether every order is settled."""
    return client.app is not None and client.app[MAILER].pending == 0


async def fill(client: Client) -> None:
    """Fill the STUCK queue: one order with the worker, two waiting."""
    for number in range(3):
        response = await client.post("/api/orders", json=VALID)
        assert response.status == 202, number
        await asyncio.sleep(0)


async def error_of(response: ClientResponse) -> dict[str, str]:
    """Return the body of an error, which must be JSON with a message."""
    assert response.content_type == "application/json"
    body: dict[str, str] = await response.json()
    assert body["error"]
    return body


async def test_health(client: Client) -> None:
    """A running demo is healthy."""
    response = await client.get("/health")
    assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_users(client: Client) -> None:
    """All users are listed with id, name and e-mail address."""
    response = await client.get("/api/users")
    users = (await response.json())["users"]
    assert len(users) == len(USERS)
    assert users[0] == {"id": 1, "name": "Ada", "email": "ada@example.com"}


async def test_user(client: Client) -> None:
    """One user is found by id."""
    response = await client.get("/api/users/2")
    assert response.status == 200
    assert (await response.json())["name"] == "Barbara"


@pytest.mark.parametrize("kind", ["users", "orders"])
@pytest.mark.parametrize("given", ["0", "999", "-1", "9" * 18])
async def test_unknown_id(client: Client, kind: str, given: str) -> None:
    """An integer that is nobody's id is a 404 that repeats it."""
    response = await client.get(f"/api/{kind}/{given}")
    assert response.status == 404
    assert given in (await error_of(response))["error"]


@pytest.mark.parametrize("kind", ["users", "orders"])
@pytest.mark.parametrize("given", ["abc", "1.5", "1_0", "+1", "%D9%A1", "%20", "9" * 5000])
async def test_id_that_is_no_integer(client: Client, kind: str, given: str) -> None:
    """An id that is no integer is a 400 that says so."""
    response = await client.get(f"/api/{kind}/{given}")
    assert response.status == 400
    assert "expected an integer" in (await error_of(response))["error"]


async def test_order_is_accepted_and_sent(client: Client, registry: CollectorRegistry) -> None:
    """A valid order is accepted with its place, sent, and counted as both."""
    response = await client.post("/api/orders", json={**VALID, "gift": True})
    assert response.status == 202
    order = await response.json()
    assert order == {**VALID, "id": 1, "status": "accepted", "attempts": 0}
    assert response.headers["Location"] == "/api/orders/1"
    await until(lambda: mailer_is_idle(client))
    found = await client.get(response.headers["Location"])
    assert await found.json() == {**order, "status": "sent", "attempts": 1}
    assert registry.get_sample_value("orders_accepted_total") == 1
    assert registry.get_sample_value("emails_sent_total") == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"[1]", 400, None),
        (b'{"item": "book", "quantity": 1}', 422, "user_id"),
        (b'{"user_id": 77, "item": "book", "quantity": 1}', 422, "user_id"),
        (b'{"user_id": 1, "item": "", "quantity": 1}', 422, "item"),
        (b'{"user_id": 1, "item": "book", "quantity": true}', 422, "quantity"),
        (b'{"user_id": 1, "item": "book", "quantity": 1001}', 422, "quantity"),
    ],
)
async def test_invalid_order(
    client: Client, registry: CollectorRegistry, body: bytes, status: int, field: str | None
) -> None:
    """An invalid order is refused with the field to blame, counted, and not stored."""
    response = await client.post("/api/orders", data=body)
    assert response.status == status
    assert (await error_of(response)).get("field") == field
    assert registry.get_sample_value("orders_rejected_total", {"reason": "invalid"}) == 1
    assert (await client.get("/api/orders/1")).status == 404


async def test_body_too_large(client: Client, registry: CollectorRegistry) -> None:
    """A body beyond the limit is a 413 in JSON and counts as invalid."""
    response = await client.post("/api/orders", data=b" " * 100_000)
    assert response.status == 413
    await error_of(response)
    assert registry.get_sample_value("orders_rejected_total", {"reason": "invalid"}) == 1


async def test_broken_encoding(client: Client) -> None:
    """A body that is not in the encoding it claims is a 400, not a 500."""
    headers = {"Content-Encoding": "gzip"}
    good = gzip.compress(json.dumps(VALID).encode())
    assert (await client.post("/api/orders", data=good, headers=headers)).status == 202
    response = await client.post("/api/orders", data=b"\x1f\x8bnonsense", headers=headers)
    assert response.status == 400
    await error_of(response)


async def test_aiohttps_own_errors_are_json(client: Client) -> None:
    """No such path is a 404 and a wrong method a 405 with Allow, both in JSON."""
    response = await client.get("/nothing")
    assert response.status == 404
    assert await error_of(response) == {"error": "GET /nothing: Not Found"}
    response = await client.put("/api/orders")
    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert await error_of(response) == {"error": "PUT /api/orders: Method Not Allowed"}


async def test_full_queue(registry: CollectorRegistry) -> None:
    """When the queue is full an order is refused with Retry-After and not stored."""
    async with serving(STUCK, registry) as client:
        await fill(client)
        response = await client.post("/api/orders", json=VALID)
        assert response.status == 503
        assert "full" in (await error_of(response))["error"]
        assert response.headers["Retry-After"] == "60"
        assert (await client.get("/api/orders/4")).status == 404
        assert registry.get_sample_value("orders_accepted_total") == 3
        assert registry.get_sample_value("orders_rejected_total", {"reason": "queue_full"}) == 1


async def test_stopping(registry: CollectorRegistry, caplog: pytest.LogCaptureFixture) -> None:
    """While draining, health is 503 and orders are refused; what is left is counted and logged."""
    async with serving(STUCK, registry) as client:
        await fill(client)
        assert client.app is not None
        await client.app.shutdown()
        response = await client.get("/health")
        assert (response.status, await response.json()) == (503, {"status": "stopping"})
        response = await client.post("/api/orders", json=VALID)
        assert response.status == 503
        assert "stopping" in (await error_of(response))["error"]
        assert response.headers["Retry-After"] == "1"
        assert registry.get_sample_value("orders_rejected_total", {"reason": "stopping"}) == 1
        assert client.app[MAILER].pending == 3
    logged = [r.getMessage() for r in caplog.records if r.name == "aiosvc.queues"]
    assert len(logged) == 1
    assert "0 processed, 3 left, dropped" in logged[0]


async def test_shutdown_drains(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopping the server finishes what is queued, failed attempts too, within the deadline."""
    caplog.set_level(logging.INFO, "aiosvc.queues")
    options = DemoOptions(send_seconds=0.01, failure_rate=0.3, max_attempts=4, workers=2)
    async with serving(options, registry) as client:
        for _ in range(30):
            assert (await client.post("/api/orders", json=VALID)).status == 202
    sent = registry.get_sample_value("emails_sent_total") or 0
    failed = registry.get_sample_value("emails_failed_total") or 0
    assert sent + failed == 30
    assert client.app is not None
    assert client.app[MAILER].pending == 0
    assert "processed, 0 left" in caplog.text


async def test_stop_leaves_no_task(registry: CollectorRegistry) -> None:
    """After a stop with work left, no worker or retry runs any more."""
    before = asyncio.all_tasks()
    async with serving(STUCK, registry) as client:
        await fill(client)
    left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not {name for name in left if name.startswith("email-")}


async def test_two_apps_share_a_registry(registry: CollectorRegistry) -> None:
    """A second demo on the same registry starts, and both are counted in the same series."""
    async with serving(PROMPT, registry) as first, serving(PROMPT, registry) as second:
        for client in (first, second):
            assert (await client.post("/api/orders", json=VALID)).status == 202
        assert b"\norders_accepted_total 2.0\n" in generate_latest(registry)


def test_options_have_help() -> None:
    """Every option has a default and a help text, which flags and docs are made from."""
    for option in fields(DemoOptions):
        assert option.metadata["help"]
    assert DemoOptions() == DemoOptions(
        workers=4,
        queue_size=100,
        send_seconds=0.05,
        failure_rate=0.05,
        max_attempts=3,
        drain_timeout=10.0,
        seed=1,
        load=0.0,
    )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("workers", 0, "workers: 0 given; expected a whole number, 1 to 1000"),
        ("workers", True, "workers: True given; expected a whole number, 1 to 1000"),
        ("workers", 1.0, "workers: 1.0 given; expected a whole number, 1 to 1000"),
        ("queue_size", 0, "queue_size: 0 given; expected a whole number, 1 to 1000000"),
        ("send_seconds", -1, "send_seconds: -1 given; expected a number, 0 to 3600"),
        ("failure_rate", 1.1, "failure_rate: 1.1 given; expected a number, 0 to 1"),
        ("failure_rate", float("nan"), "failure_rate: nan given; expected a number, 0 to 1"),
        ("max_attempts", "3", "max_attempts: '3' given; expected a whole number, 1 to 1000"),
        ("drain_timeout", None, "drain_timeout: None given; expected a number, 0 to 3600"),
        ("seed", 1.5, "seed: 1.5 given; expected a whole number"),
        ("load", float("inf"), "load: inf given; expected a number, 0 to 100000"),
    ],
)
def test_wrong_option(option: str, value: object, message: str) -> None:
    """A wrong option is refused with its name, what was given and what is expected."""
    with pytest.raises(ConfigError) as caught:
        DemoOptions(**{option: value})  # type: ignore[arg-type]
    assert str(caught.value) == message
