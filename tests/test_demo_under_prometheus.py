"""The demo as a process, under a real Prometheus, driven by real clients that count for themselves."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
import pytest_asyncio
from aiohttp import ClientSession, TCPConnector, TraceConfig
from processes import REPOSITORY, Program, Prometheus, Sample, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

CAPACITY = 20
TASKS = 300
ORDER = b'{"user_id": 1, "item": "book", "quantity": 1}'


class Planned(NamedTuple):
    """One request, and the endpoint that it must be counted under."""

    method: str
    path: str
    endpoint: str
    body: bytes | None = None


#: What each of the concurrent clients picks from.
MIX = (
    Planned("GET", "/health", "/health"),
    Planned("GET", "/api/users", "/api/users"),
    Planned("HEAD", "/api/users", "/api/users"),
    Planned("GET", "/api/users/3", "/api/users/{id}"),
    Planned("GET", "/api/users/999", "/api/users/{id}"),
    Planned("GET", "/api/users/abc", "/api/users/{id}"),
    Planned("GET", "/api/users/7?verbose=1", "/api/users/{id}"),
    Planned("GET", "/api/orders/1", "/api/orders/{id}"),
    Planned("GET", "/api/orders/1000000", "/api/orders/{id}"),
    Planned("POST", "/api/orders", "/api/orders", b'{"user_id": 1, "item": "book"}'),
    Planned("POST", "/api/orders", "/api/orders", b"no json"),
    Planned("POST", "/api/orders", "/api/orders", ORDER),
    Planned("PUT", "/api/orders", "/api/orders"),
    Planned("PROPFIND", "/api/users", "/api/users"),
    Planned("DELETE", "/wp-login.php", "_unmatched"),
)
HEALTH = MIX[0]
HEALTHY = 'http_requests_total{endpoint="/health", status="200"}'
STANDARD_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE"}


@dataclass
class Tally:
    """What the clients sent and got, counted by themselves."""

    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    received: Counter[tuple[str, str]] = field(default_factory=Counter)
    retry_after: list[str | None] = field(default_factory=list)
    connections: int = 0

    def add(self, planned: Planned, status: int, retry_after: str | None) -> None:
        """Count one answer."""
        method = planned.method if planned.method in STANDARD_METHODS else "_other"
        self.requests[method, planned.endpoint, str(status)] += 1
        self.received[method, planned.endpoint] += len(planned.body or b"")
        if status == 503:
            self.retry_after.append(retry_after)

    async def add_connection(self, *_: object) -> None:
        """Count a connection that a client opened; a hook of aiohttp's client."""
        self.connections += 1

    def by_route(self) -> dict[tuple[str, str], int]:
        """Return the requests by method and endpoint."""
        routes: Counter[tuple[str, str]] = Counter()
        for (method, endpoint, _), number in self.requests.items():
            routes[method, endpoint] += number
        return dict(routes)

    def orders(self, status: int) -> int:
        """Return how many orders were answered with *status*."""
        return self.requests["POST", "/api/orders", str(status)]


class Clients:
    """Two kinds of clients of one service, and their tally."""

    def __init__(self, url: str) -> None:
        self.tally = Tally()
        trace = TraceConfig()
        trace.on_connection_create_end.append(self.tally.add_connection)
        kept_alive, one_each = TCPConnector(limit=100), TCPConnector(limit=100, force_close=True)
        self._sessions = [
            ClientSession(url, connector=connector, trace_configs=[trace])
            for connector in (kept_alive, one_each)
        ]

    async def close(self) -> None:
        """Close the connections that were kept."""
        for session in self._sessions:
            await session.close()

    async def send(self, planned: Planned, number: int = 0) -> None:
        """Send one request, over a kept or a new connection by the parity of *number*."""
        session = self._sessions[number % 2]
        async with session.request(
            planned.method, planned.path, data=planned.body, allow_redirects=False
        ) as response:
            await response.read()
            self.tally.add(planned, response.status, response.headers.get("Retry-After"))

    async def mixed(self, number: int) -> None:
        """Send a few requests of the mix, one after the other, as one client does."""
        rng = Random(number)
        for planned in rng.choices(MIX, k=4):
            await self.send(planned, number)
        # Everybody has a path that nobody else has.
        await self.send(Planned("GET", f"/scan/{number}.php", "_unmatched"), number)

    async def order(self, number: int) -> None:
        """Order one book."""
        await self.send(Planned("POST", "/api/orders", "/api/orders", ORDER), number)

    async def order_until(self, enough: asyncio.Event) -> None:
        """Keep ordering, more than the workers can send, until there is enough."""
        for number in count():
            if enough.is_set():
                return
            await self.order(number)


@asynccontextmanager
async def clients_of(url: str) -> AsyncIterator[Clients]:
    """Open both kinds of clients for as long as the block lasts."""
    clients = Clients(url)
    try:
        yield clients
    finally:
        await clients.close()


def demo(directory: Path, *, port: int = 0) -> Program:
    """Return a demo whose queue is soon full."""
    return Program(
        "demo", f"--port={port}", f"--queue-size={CAPACITY}", "--workers=2", "--send-seconds=0.02",
        directory=directory,
    )  # fmt: skip


@dataclass
class Season:
    """One demo after it was driven, its Prometheus, and what the clients know."""

    program: Program
    prometheus: Prometheus
    tally: Tally


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def season(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Season]:
    """Drive a demo under Prometheus until its queue was full, and wait until it is empty again."""
    directory = tmp_path_factory.mktemp("season")
    async with AsyncExitStack() as stack:
        program = await stack.enter_async_context(demo(directory))
        prometheus = Prometheus(directory, target_port=program.port)
        await stack.enter_async_context(prometheus)
        await prometheus.wait_for_value("up", lambda up: up == 1)
        async with clients_of(program.url) as clients:
            await asyncio.gather(*(clients.mixed(number) for number in range(TASKS)))
            await asyncio.gather(*(clients.order(number) for number in range(TASKS)))
            enough = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for _ in range(4):
                    tasks.create_task(clients.order_until(enough))
                await prometheus.wait_for_value(
                    'max_over_time(queue_depth{queue_name="email"}[5m])',
                    lambda depth: depth >= CAPACITY - 2,
                )
                enough.set()
        await prometheus.wait_for_value(
            "orders_accepted_total - emails_sent_total - emails_failed_total",
            lambda pending: pending == 0,
        )
        await prometheus.wait_for_value("active_connections", lambda open_now: open_now == 1)
        await prometheus.next_scrape()
        yield Season(program, prometheus, clients.tally)


def by_labels(samples: list[Sample], *labels: str) -> dict[tuple[str, ...], float]:
    """Return the values by these labels, without the zeros."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for sample in samples
        if sample.value
    }


async def test_service_is_up(season: Season) -> None:
    """The repository's own configuration finds the demo and nothing else."""
    assert await season.prometheus.query("up") == [
        Sample(
            {
                "__name__": "up",
                "job": "aiosvc",
                "instance": f"localhost:{season.program.port}",
            },
            1.0,
        )
    ]


async def test_every_request_is_counted_once(season: Season) -> None:
    """Prometheus knows exactly the requests that the clients counted, by each label."""
    counted = await season.prometheus.query("http_requests_total")
    assert by_labels(counted, "method", "endpoint", "status") == season.tally.requests
    assert season.tally.requests.total() > 5 * TASKS + TASKS


async def test_every_situation_occurred(season: Season) -> None:
    """The tally that Prometheus was compared with holds each answer that the demo can give."""
    seen = set(season.tally.requests)
    assert {
        ("GET", "/health", "200"),
        ("HEAD", "/api/users", "200"),
        ("GET", "/api/users/{id}", "200"),
        ("GET", "/api/users/{id}", "400"),
        ("GET", "/api/users/{id}", "404"),
        ("GET", "/api/orders/{id}", "404"),
        ("POST", "/api/orders", "202"),
        ("POST", "/api/orders", "400"),
        ("POST", "/api/orders", "422"),
        ("POST", "/api/orders", "503"),
        ("PUT", "/api/orders", "405"),
        ("_other", "/api/users", "405"),
        ("DELETE", "_unmatched", "404"),
        ("GET", "_unmatched", "404"),
    } <= seen


async def test_every_request_has_a_duration(season: Season) -> None:
    """The duration histogram holds each request once, in its count and in its last bucket."""
    for name in ("count", 'bucket{le="+Inf"}'):
        counted = await season.prometheus.query(f"http_request_duration_seconds_{name}")
        assert by_labels(counted, "method", "endpoint") == season.tally.by_route()


async def test_durations_make_sense(season: Season) -> None:
    """No bucket holds less than the one before it, and the sum is what the buckets allow."""
    buckets = await season.prometheus.query(
        'http_request_duration_seconds_bucket{method="POST", endpoint="/api/orders"}'
    )
    rising = sorted((float(s.labels["le"]), s.value) for s in buckets)
    assert [value for _, value in rising] == sorted(value for _, value in rising)
    seconds = await season.prometheus.value("sum(http_request_duration_seconds_sum)")
    assert 0 < seconds < season.tally.requests.total() * 10


async def test_request_bodies_are_counted(season: Season) -> None:
    """The bytes that the clients sent are the bytes that Prometheus knows."""
    counted = await season.prometheus.query("http_request_size_bytes_sum")
    sent = {route: number for route, number in season.tally.received.items() if number}
    assert by_labels(counted, "method", "endpoint") == sent


async def test_no_client_chooses_a_label(season: Season) -> None:
    """Hundreds of different paths and a method out of the way make no series of their own."""
    series = await season.prometheus.series("http_requests_total")
    assert {each["endpoint"] for each in series} <= {
        "/health", "/api/users", "/api/users/{id}", "/api/orders", "/api/orders/{id}", "_unmatched",
    }  # fmt: skip
    assert {each["method"] for each in series} <= STANDARD_METHODS | {"_other"}


async def test_nothing_stays_in_progress(season: Season) -> None:
    """After the last answer no request is in progress anywhere."""
    in_progress = await season.prometheus.query("http_requests_in_progress")
    assert in_progress
    assert {sample.value for sample in in_progress} == {0.0}
    assert await season.prometheus.value("http_request_oldest_in_progress_seconds") == 0


async def test_connections_are_closed_again(season: Season) -> None:
    """Only the connection of Prometheus is left; all that there were have been counted."""
    assert await season.prometheus.value("active_connections") == 1
    ours = season.tally.connections
    accepted = await season.prometheus.value("connections_total")
    assert ours + 1 <= accepted <= ours + 5  # Prometheus connects anew when a scrape took too long
    assert ours > season.tally.requests.total() / 3


async def test_queue_rose_and_fell(season: Season) -> None:
    """Prometheus saw the queue full, never above its capacity, and empty at the end."""
    deepest = await season.prometheus.value('max_over_time(queue_depth{queue_name="email"}[5m])')
    assert CAPACITY - 2 <= deepest <= CAPACITY
    assert await season.prometheus.value('queue_capacity{queue_name="email"}') == CAPACITY
    assert await season.prometheus.value('queue_depth{queue_name="email"}') == 0


async def test_every_order_is_accounted_for(season: Season) -> None:
    """Each accepted order became one e-mail, sent or given up, and each refused one has a reason."""
    value = season.prometheus.value
    tally = season.tally
    accepted = await value("orders_accepted_total")
    assert accepted == tally.orders(202)
    assert await value("emails_sent_total + emails_failed_total") == accepted
    rejected = by_labels(await season.prometheus.query("orders_rejected_total"), "reason")
    invalid = tally.orders(400) + tally.orders(422)
    assert rejected == {("queue_full",): tally.orders(503), ("invalid",): invalid}


async def test_refused_orders_are_told_when_to_come_back(season: Season) -> None:
    """Each 503 carries Retry-After, in whole seconds from 1 to 60."""
    assert len(season.tally.retry_after) == season.tally.orders(503) > 0
    assert {after for after in season.tally.retry_after if after is None} == set()
    assert all(1 <= int(after or 0) <= 60 for after in season.tally.retry_after)


async def test_process_is_measured(season: Season) -> None:
    """Memory and threads of the demo are there, and its own sources are all up."""
    assert await season.prometheus.value("process_memory_rss_bytes") > 1_000_000
    assert await season.prometheus.value("process_threads") >= 1
    assert await season.prometheus.value("min(aiosvc_source_up)") == 1


async def test_instrumentation_is_undisturbed(season: Season) -> None:
    """Nothing went wrong inside aiosvc, and every scrape was answered with 200."""
    assert await season.prometheus.query("aiosvc_instrumentation_errors_total > 0") == []
    assert await season.prometheus.query("http_request_failures_total > 0") == []
    assert await season.prometheus.query("http_exceptions_total > 0") == []
    assert await season.prometheus.query('aiosvc_scrapes_total{code!="200"} > 0') == []
    assert await season.prometheus.value('aiosvc_scrapes_total{code="200"}') > 0


async def test_promtool_finds_nothing_to_say(season: Season, promtool: str) -> None:
    """The scrape of a demo that has seen everything passes promtool's lint in silence."""
    async with ClientSession() as session, session.get(f"{season.program.url}/metrics") as response:
        body = await response.read()
    checked = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=body, capture_output=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


async def test_promtool_accepts_the_configuration(promtool: str) -> None:
    """The prometheus.yml at the root of the repository is valid."""
    checked = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "config", str(REPOSITORY / "prometheus.yml")],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr
    assert "is valid prometheus config file syntax" in checked.stdout


async def send_until_scraped(prometheus: Prometheus, clients: Clients, total: int) -> None:
    """Send requests for HEALTH until it were *total*, and wait until Prometheus knows them."""
    missing = total - clients.tally.requests.total()
    await asyncio.gather(*(clients.send(HEALTH, number) for number in range(missing)))
    await prometheus.wait_for_value(HEALTHY, lambda value: value == total)


async def test_service_is_killed_and_comes_back(tmp_path: Path) -> None:
    """A killed service is down, one that comes back starts anew, and no rate is disturbed by it."""
    port = free_port()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(demo(tmp_path, port=port))
        prometheus = Prometheus(tmp_path, target_port=port)
        await stack.enter_async_context(prometheus)
        async with clients_of(first.url) as clients:
            await send_until_scraped(prometheus, clients, 10)
            await send_until_scraped(prometheus, clients, 100)

        await first.kill()
        await prometheus.wait_for_value("up", lambda up: up == 0)
        assert await prometheus.query(HEALTHY) == []

        second = await stack.enter_async_context(demo(tmp_path, port=port))
        await prometheus.wait_for_value("up", lambda up: up == 1)
        async with clients_of(second.url) as clients:
            await send_until_scraped(prometheus, clients, 3)
            await send_until_scraped(prometheus, clients, 7)

        assert await prometheus.value(f"resets({HEALTHY}[5m])") == 1
        # 107 were sent, of which the first sample's 10 at most are no increase to Prometheus. Few
        # samples are extrapolated to the edges of a window: to less than three times as much.
        assert 97 <= await prometheus.value(f"increase({HEALTHY}[5m])") <= 3 * 107
        rates = await prometheus.history("rate(http_requests_total[5s])", seconds=120, step=0.5)
        assert rates
        assert min(rates) >= 0
        assert max(rates) * 5 <= 4 * 107
