"""The built-in client: its mix, its open loop, and that failing answers don't stop it."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer, unused_port

from aiosvc.demo.load import MAX_CONCURRENT, Load, Planned, run_load
from aiosvc.demo.orders import InvalidOrderError, parse_order
from aiosvc.errors import ConfigError

from .waiting import until

FAST = 2000.0  # requests per second


class Target:
    """A server that answers every request with `status` and remembers what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.location: str | None = None
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.open = asyncio.Event()
        self.open.set()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        self.server = TestServer(app)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer as told, once open."""
        self.asked.append((request.method, request.path))
        self.bodies.append(await request.read())
        await self.open.wait()
        headers = {"Location": self.location} if self.location else None
        return web.Response(status=self.status, headers=headers)

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.server.make_url("/"))


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    """Serve a target for as long as the test lasts."""
    target = Target()
    async with target.server:
        yield target
        target.open.set()


async def load_until(url: str, condition: Callable[[Load], bool]) -> Load:
    """Run the load until the condition holds, and return what it counted."""
    stop = asyncio.Event()
    async with ClientSession() as session:
        load = Load(session, url, FAST, seed=1)
        task = asyncio.create_task(load.run(stop))
        await until(lambda: condition(load), pause=0.001)
        stop.set()
        await task
    return load


async def planned(count: int, *, seed: int) -> list[Planned]:
    """Return the first requests of a load."""
    async with ClientSession() as session:
        load = Load(session, "http://127.0.0.1", FAST, seed=seed)
        return [load.plan() for _ in range(count)]


async def test_mix() -> None:
    """The mix lists and gets users, some unknown, posts orders, few invalid, and strays."""
    paths: Counter[str] = Counter()
    invalid = 0
    for method, path, body in await planned(2000, seed=1):
        paths["/wp" if path.startswith("/wp-") else path] += 1
        assert method == ("POST" if path == "/api/orders" else "GET")
        if body is not None:
            try:
                parse_order(body)
            except InvalidOrderError:
                invalid += 1
    assert 500 < paths["/api/users"] < 700  # a follow-up before any order lists users instead
    assert paths["/api/users/1"]
    assert paths["/api/users/9"]  # nobody
    assert 50 < paths["/wp"] < 150
    assert 600 < paths["/api/orders"] < 800
    assert 0 < invalid < 0.1 * paths["/api/orders"]


async def test_seed_decides() -> None:
    """The same seed plans the same requests, another one does not."""
    assert await planned(50, seed=3) == await planned(50, seed=3)
    assert await planned(50, seed=3) != await planned(50, seed=4)


async def test_follows_orders_up(target: Target) -> None:
    """An order that was accepted is asked for later at its Location."""
    target.status, target.location = 202, "/api/orders/17"
    load = await load_until(target.url, lambda _: ("GET", "/api/orders/17") in target.asked)
    assert set(load.answers) == {202}


async def test_location_elsewhere_is_not_followed(target: Target) -> None:
    """A Location that is no path of the service is left alone, and redirects too."""
    target.status, target.location = 302, "http://127.0.0.1:1/"
    load = await load_until(target.url, lambda _: len(target.asked) > 100)
    assert load.errors == 0


async def test_errors_do_not_stop_it(target: Target) -> None:
    """A service that answers everything with 500 goes on being asked."""
    target.status = 500
    load = await load_until(target.url, lambda _: len(target.asked) > 50)
    assert set(load.answers) == {500}
    assert load.errors == 0


async def test_no_service_does_not_stop_it(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody listens requests fail, are counted, and warned about once."""
    url = f"http://127.0.0.1:{unused_port()}"
    load = await load_until(url, lambda load: load.errors > 10)
    assert not load.answers
    assert len(caplog.records) == 1


async def test_run_reports_and_ends(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    """The load runs until it is stopped and then says in one line what came of it."""
    caplog.set_level(logging.INFO, "aiosvc.demo")
    stop = asyncio.Event()
    task = asyncio.create_task(run_load(target.url, FAST, seed=1, stop=stop))
    await until(lambda: len(target.asked) > 10, pause=0.001)
    stop.set()
    await task
    (record,) = caplog.records
    assert record.getMessage() == f"load: {len(target.asked)} answers, 0 errors, 0 dropped"


async def test_slow_service_is_asked_no_more_than_at_once(target: Target) -> None:
    """Requests beyond 200 under way are dropped, not delayed."""
    target.open.clear()
    stop = asyncio.Event()
    async with ClientSession() as session:
        load = Load(session, target.url, FAST, seed=1)
        task = asyncio.create_task(load.run(stop))
        await until(lambda: load.dropped > 10, pause=0.001)
        assert len(target.asked) <= MAX_CONCURRENT
        target.open.set()
        stop.set()
        await task
    assert load.answers.total() + load.errors <= MAX_CONCURRENT + 10


async def test_cancelling_closes_everything(target: Target) -> None:
    """Cancelling the load cancels what is under way and leaves no task."""
    target.open.clear()
    task = asyncio.create_task(run_load(target.url, FAST, seed=1, stop=asyncio.Event()))
    await until(lambda: len(target.asked) > 3, pause=0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [t for t in asyncio.all_tasks() if t.get_name() == "demo-load"]


async def test_stop_before_start_sends_nothing(target: Target) -> None:
    """A load that is stopped before it starts sends nothing."""
    stop = asyncio.Event()
    stop.set()
    await run_load(target.url, FAST, seed=1, stop=stop)
    assert not target.asked


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
async def test_wrong_rate(rate: float) -> None:
    """A rate that is no positive number is refused."""
    with pytest.raises(ConfigError, match="expected requests per second, above 0"):
        await run_load("http://127.0.0.1", rate, seed=1, stop=asyncio.Event())
