"""Every outbound request is counted once, whatever becomes of it, and leaves the gauges at 0."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from processes import until
from prometheus_client import CollectorRegistry, Counter
from yarl import URL

import aiosvc
from aiosvc import client
from aiosvc.outbound import Hosts, Outbound

DURATION = "http_client_request_duration_seconds_count"
LOCAL = "127.0.0.1"

Ask = Callable[[ClientSession, Any, CollectorRegistry], Awaitable[None]]


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return an empty registry."""
    return CollectorRegistry()


@pytest.fixture
async def session(registry: CollectorRegistry) -> AsyncIterator[ClientSession]:
    """Return a session that is measured."""
    config = client.trace_config(registry=registry, hosts=[LOCAL, "*.example.test"])
    async with ClientSession(trace_configs=[config]) as session:
        yield session


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:  # noqa: C901 - one handler for each answer
    """Return a server with an answer of each kind."""
    big = b"x" * 3_000_000
    forever = asyncio.Event()

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=big)

    async def hang(_request: web.Request) -> web.Response:
        await forever.wait()
        return web.Response()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await forever.wait()
        return response

    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"first")
        assert request.transport is not None
        request.transport.close()
        return response

    async def again(request: web.Request) -> web.Response:
        left = int(request.match_info["n"])
        raise web.HTTPFound(f"/again/{left - 1}" if left else "/")

    async def circle(_request: web.Request) -> web.Response:
        raise web.HTTPFound("/circle")

    async def missing(_request: web.Request) -> web.Response:
        raise web.HTTPNotFound

    async def chat(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_post("/", hello)
    app.router.add_get("/large", large)
    app.router.add_get("/hang", hang)
    app.router.add_get("/drip", drip)
    app.router.add_get("/break", break_off)
    app.router.add_get("/again/{n}", again)
    app.router.add_get("/circle", circle)
    app.router.add_get("/missing", missing)
    app.router.add_get("/ws", chat)
    server = TestServer(app, shutdown_timeout=0.01)
    await server.start_server()
    yield server
    forever.set()
    await server.close()


def ended(registry: CollectorRegistry) -> dict[tuple[str, str, str, str], float]:
    """Return how many requests ended, by method, host, status and error."""
    return {
        (s.labels["method"], s.labels["host"], s.labels["status"], s.labels["error"]): s.value
        for family in registry.collect()
        for s in family.samples
        if s.name == DURATION
    }


def gauge(registry: CollectorRegistry, name: str) -> float:
    """Return the sum of a family's series."""
    return sum(s.value for f in registry.collect() for s in f.samples if s.name == name)


def in_progress(registry: CollectorRegistry) -> float:
    """Return how many requests are in progress."""
    return gauge(registry, "http_client_requests_in_progress")


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """Return the value of a series."""
    return registry.get_sample_value(name, labels)


async def test_requests(
    registry: CollectorRegistry, session: ClientSession, server: TestServer
) -> None:
    """Requests count by method, host and status; a kept connection is found again."""
    for _ in range(3):
        async with session.get(server.make_url("/")) as response:
            await response.read()
    async with session.post(server.make_url("/"), data=b"x") as response:
        await response.read()
    async with session.get(server.make_url("/missing")) as response:
        await response.read()
    assert ended(registry) == {
        ("GET", LOCAL, "200", ""): 3,
        ("POST", LOCAL, "200", ""): 1,
        ("GET", LOCAL, "404", ""): 1,
    }
    assert in_progress(registry) == 0
    assert value(registry, "http_client_connect_seconds_count", host=LOCAL) == 1
    assert value(registry, "http_client_connections_reused_total", host=LOCAL) == 4
    assert (
        value(registry, "http_client_response_start_seconds_count", method="GET", host=LOCAL) == 4
    )
    assert gauge(registry, "http_client_pool_limit") == 100
    assert gauge(registry, "http_client_pool_connections") == 0


async def test_the_duration_ends_with_the_body(
    registry: CollectorRegistry, session: ClientSession, server: TestServer
) -> None:
    """A request is in progress, and has its connection, until its body has been read."""
    async with session.get(server.make_url("/large")) as response:
        assert in_progress(registry) == 1
        assert gauge(registry, "http_client_pool_connections") == 1
        assert ended(registry) == {}
        assert gauge(registry, "http_client_response_start_seconds_count") == 1
        await response.content.readexactly(1_000_000)
        assert in_progress(registry) == 1
        await response.read()
        assert in_progress(registry) == 0
    assert ended(registry) == {("GET", LOCAL, "200", ""): 1}


async def test_a_body_that_is_never_read(
    registry: CollectorRegistry, session: ClientSession, server: TestServer
) -> None:
    """Leaving the block without reading is no error, also where it leaves in an error's stead."""
    async with session.get(server.make_url("/large")) as response:
        assert response.status == 200
    with pytest.raises(KeyError):
        async with session.get(server.make_url("/large")):
            raise KeyError
    try:
        raise TimeoutError  # noqa: TRY301 - what a caller with a fallback sees
    except TimeoutError:
        async with session.get(server.make_url("/large")):
            pass
    assert ended(registry) == {("GET", LOCAL, "200", ""): 3}
    assert in_progress(registry) == 0


@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
async def test_a_response_that_is_dropped(registry: CollectorRegistry, server: TestServer) -> None:
    """One that nobody reads or closes leaves the gauge when aiohttp lets it go."""
    session = client.setup(ClientSession(), registry=registry)
    response = await session.get(server.make_url("/large"))
    assert in_progress(registry) == 1
    await session.close()
    del response, session
    for _ in range(3):
        await asyncio.sleep(0)
        gc.collect()
    assert in_progress(registry) == 0


async def test_redirects(
    registry: CollectorRegistry, session: ClientSession, server: TestServer
) -> None:
    """A chain of redirects is one request with the last status; a circle is an error."""
    async with session.get(server.make_url("/again/3")) as response:
        await response.read()
    assert ended(registry) == {("GET", LOCAL, "200", ""): 1}
    assert value(registry, "http_client_redirects_total", method="GET", host=LOCAL) == 4
    with pytest.raises(aiohttp.TooManyRedirects):
        await session.get(server.make_url("/circle"))
    assert ended(registry)["GET", LOCAL, "302", "redirects"] == 1
    async with session.get(server.make_url("/circle"), allow_redirects=False) as response:
        await response.read()
    assert ended(registry)["GET", LOCAL, "302", ""] == 1
    assert in_progress(registry) == 0


async def test_raised_for_status(registry: CollectorRegistry, server: TestServer) -> None:
    """A status that the caller wants raised is an answer like any other."""
    config = client.trace_config(registry=registry, hosts=[LOCAL])
    async with ClientSession(raise_for_status=True, trace_configs=[config]) as session:
        with pytest.raises(aiohttp.ClientResponseError):
            await session.get(server.make_url("/missing"))
    assert ended(registry) == {("GET", LOCAL, "404", ""): 1}
    assert in_progress(registry) == 0


def headers_seen(registry: CollectorRegistry) -> float:
    """Return how many responses' headers have come."""
    return gauge(registry, "http_client_response_start_seconds_count")


async def read_all(session: ClientSession, url: Any) -> None:
    """Read all of a response."""
    async with session.get(url) as response:
        await response.read()


async def cancelled(session: ClientSession, url: Any, registry: CollectorRegistry) -> None:
    """Cancel a request while it waits for headers."""
    task = asyncio.create_task(read_all(session, url))
    await until(lambda: in_progress(registry) == 1, "a request")
    task.cancel()
    await task


async def cancelled_in_body(session: ClientSession, url: Any, registry: CollectorRegistry) -> None:
    """Cancel a request while its body is read."""
    task = asyncio.create_task(read_all(session, url))
    await until(lambda: headers_seen(registry) == 1, "headers")
    task.cancel()
    await task


def within(**timeout: float) -> Ask:
    """Return what asks with a timeout of aiohttp's."""

    async def ask(session: ClientSession, url: Any, _registry: CollectorRegistry) -> None:
        async with session.get(url, timeout=ClientTimeout(**timeout)) as response:
            await response.read()

    return ask


async def outer_timeout(session: ClientSession, url: Any, _registry: CollectorRegistry) -> None:
    """Ask within a timeout of the caller's."""
    async with asyncio.timeout(0.05):
        await read_all(session, url)


async def outer_timeout_in_body(
    session: ClientSession, url: Any, _registry: CollectorRegistry
) -> None:
    """Read within a timeout of the caller's."""
    async with session.get(url) as response, asyncio.timeout(0.05):
        await response.read()


async def plainly(session: ClientSession, url: Any, _registry: CollectorRegistry) -> None:
    """Ask."""
    await read_all(session, url)


@pytest.mark.parametrize(
    ("ask", "path", "raised", "status", "error"),
    [
        (cancelled, "/hang", asyncio.CancelledError, "", "cancelled"),
        (cancelled_in_body, "/drip", asyncio.CancelledError, "200", "cancelled"),
        (within(total=0.05), "/hang", TimeoutError, "", "timeout"),
        (within(total=3), "/drip", TimeoutError, "200", "timeout"),
        (within(sock_read=0.05), "/hang", TimeoutError, "", "timeout"),
        (within(sock_read=1), "/drip", TimeoutError, "200", "timeout"),
        (outer_timeout, "/hang", TimeoutError, "", "cancelled"),
        (outer_timeout_in_body, "/drip", TimeoutError, "200", "cancelled"),
        (plainly, "/break", aiohttp.ClientPayloadError, "200", "response"),
    ],
)
async def test_failures(
    registry: CollectorRegistry,
    session: ClientSession,
    server: TestServer,
    ask: Ask,
    path: str,
    raised: type[BaseException],
    status: str,
    error: str,
) -> None:
    """Each failure has its name, with the status if there was one, and nothing stays open."""
    with pytest.raises(raised):
        await ask(session, server.make_url(path), registry)
    assert ended(registry) == {("GET", LOCAL, status, error): 1}
    assert in_progress(registry) == 0
    assert gauge(registry, "http_client_pool_connections") == 0


class Resolver(AbstractResolver):
    """Finds nothing, or what it was told."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve."""
        if self.port is None:
            raise OSError(None, "no such name")
        return [
            ResolveResult(
                hostname=host, host=LOCAL, port=self.port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Close nothing."""


async def test_dns(registry: CollectorRegistry, server: TestServer) -> None:
    """A name that can't be resolved is an error of its own; one that can is timed."""
    config = client.trace_config(registry=registry, hosts=["*.example.test"])
    connector = TCPConnector(resolver=Resolver())
    async with ClientSession(connector=connector, trace_configs=[config]) as session:
        with pytest.raises(aiohttp.ClientConnectorDNSError):
            await session.get("http://api.example.test/")
    assert ended(registry) == {("GET", "*.example.test", "", "dns"): 1}
    assert in_progress(registry) == 0
    connector = TCPConnector(resolver=Resolver(server.port))
    async with ClientSession(connector=connector, trace_configs=[config]) as session:
        await read_all(session, "http://API.example.test/")
    assert ended(registry)["GET", "*.example.test", "200", ""] == 1
    assert value(registry, "http_client_dns_seconds_count", host="*.example.test") == 1


async def test_connection_refused(registry: CollectorRegistry, session: ClientSession) -> None:
    """Nobody listens: no status, and the error says so."""
    with socket.socket() as sock:
        sock.bind((LOCAL, 0))
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://{LOCAL}:{sock.getsockname()[1]}/")
    assert ended(registry) == {("GET", LOCAL, "", "connect"): 1}
    assert in_progress(registry) == 0


async def test_tls(registry: CollectorRegistry, session: ClientSession, server: TestServer) -> None:
    """A peer that speaks no TLS is an error of its own."""
    with pytest.raises(aiohttp.ClientSSLError):
        await session.get(
            str(server.make_url("/")).replace("http:", "https:"),
            ssl=ssl.create_default_context(),
        )
    assert ended(registry) == {("GET", LOCAL, "", "tls"): 1}


@contextlib.asynccontextmanager
async def raw(answer: bytes) -> AsyncIterator[str]:
    """Serve bytes, and close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, LOCAL, 0)
    async with server:
        yield f"http://{LOCAL}:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (b"", "", "disconnected"),
        (b"no HTTP at all\r\n\r\n", "", "response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "200", "response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "", "response"),
        (b"HTTP/1.1 799 What\r\nContent-Length: 0\r\n\r\n", "_other", ""),
        (b"HTTP/1.1 522 Timed Out\r\nContent-Length: 0\r\n\r\n", "522", ""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "200", ""),
    ],
)
async def test_strange_servers(
    registry: CollectorRegistry, session: ClientSession, answer: bytes, status: str, error: str
) -> None:
    """Whatever a server sends, the request counts once, under labels of a closed set."""
    async with raw(answer) as url:
        with contextlib.suppress(aiohttp.ClientError):
            await read_all(session, url)
    [(key, count)] = ended(registry).items()
    assert (key[0], key[1], key[3], count) == ("GET", LOCAL, error, 1)
    assert key[2] == status or (status == "" and key[2] == "200")
    assert in_progress(registry) == 0


async def test_a_session_closed_in_mid_request(
    registry: CollectorRegistry, server: TestServer
) -> None:
    """Requests whose session is closed under them end, those in the body when they are given up."""
    session = client.setup(ClientSession(), registry=registry, hosts=[LOCAL])
    tasks = [
        asyncio.create_task(read_all(session, server.make_url(path))) for path in ("/hang", "/drip")
    ]
    await until(lambda: headers_seen(registry) == 1 and in_progress(registry) == 2, "two requests")
    await session.close()
    with pytest.raises(aiohttp.ClientConnectionError):
        await tasks[0]
    tasks[1].cancel()  # aiohttp lets it wait for ever
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert in_progress(registry) == 0
    assert ended(registry) == {
        ("GET", LOCAL, "", "disconnected"): 1,
        ("GET", LOCAL, "200", "cancelled"): 1,
    }


async def test_websocket(
    registry: CollectorRegistry, session: ClientSession, server: TestServer
) -> None:
    """A WebSocket counts to its handshake, not for as long as it is open."""
    async with session.ws_connect(server.make_url("/ws")) as ws:
        assert ended(registry) == {("GET", LOCAL, "101", ""): 1}
        await ws.send_str("x")
        assert await ws.receive_str() == "x"
        assert in_progress(registry) == 0


async def test_attempts_of_a_middleware(registry: CollectorRegistry, server: TestServer) -> None:
    """A client middleware that tries again makes no second request of it."""

    async def retry(request: Any, handler: Any) -> Any:
        for _ in range(2):
            response = await handler(request)
            await response.read()
        return await handler(request)

    config = client.trace_config(registry=registry, hosts=[LOCAL])
    async with ClientSession(middlewares=(retry,), trace_configs=[config]) as session:
        await read_all(session, server.make_url("/"))
    assert ended(registry) == {("GET", LOCAL, "200", ""): 1}
    assert in_progress(registry) == 0


async def test_waiting_for_the_pool(registry: CollectorRegistry, server: TestServer) -> None:
    """Requests beyond the pool's limit are seen to wait, and how long they did."""
    config = client.trace_config(registry=registry, name="shop")
    connector = TCPConnector(limit=1)

    def waiting() -> float | None:
        return value(registry, "http_client_pool_waiting", client="shop")

    async with ClientSession(connector=connector, trace_configs=[config]) as session:
        async with session.get(server.make_url("/large")):
            second = asyncio.create_task(read_all(session, server.make_url("/")))
            third = asyncio.create_task(read_all(session, server.make_url("/")))
            await until(lambda: waiting() == 2, "two that wait")
            assert value(registry, "http_client_pool_connections", client="shop") == 1
            assert value(registry, "http_client_pool_limit", client="shop") == 1
            third.cancel()
            await until(lambda: waiting() == 1, "one that waits")
        await second
    assert waiting() == 0
    assert value(registry, "http_client_connection_wait_seconds_count", client="shop") == 1
    assert value(registry, "http_client_pool_limit", client="shop") is None


async def test_an_unlimited_pool_has_no_limit(
    registry: CollectorRegistry, server: TestServer
) -> None:
    """A pool without a limit does not show one."""
    config = client.trace_config(registry=registry)
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, trace_configs=[config]) as session:
        await read_all(session, server.make_url("/"))
        assert value(registry, "http_client_pool_limit", client="default") is None


async def test_a_trace_of_others_that_fails(
    registry: CollectorRegistry, server: TestServer
) -> None:
    """Where another TraceConfig raises and ours is never told of the end, nothing stays open."""
    broken = aiohttp.TraceConfig()

    async def fail(*_: object) -> None:
        raise RuntimeError("theirs")

    broken.on_request_end.append(fail)
    broken.on_request_exception.append(fail)
    ours = client.trace_config(registry=registry)
    async with ClientSession(trace_configs=[broken, ours]) as session:
        with pytest.raises(RuntimeError, match="theirs"):
            await session.get(server.make_url("/"))
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()
        assert in_progress(registry) == 0


async def test_an_error_of_ours_stays_here(
    registry: CollectorRegistry,
    session: ClientSession,
    server: TestServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mistake in the measuring is counted, and the request does not notice."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    for name in ("begin", "headers", "end"):
        monkeypatch.setattr(Outbound, name, fail)
    async with session.get(server.make_url("/")) as response:
        assert await response.text() == "hello"
    errors = value(registry, "aiosvc_instrumentation_errors_total", where="client")
    assert errors is not None
    assert errors >= 1


async def test_hosts_are_bounded(registry: CollectorRegistry, server: TestServer) -> None:
    """A thousand hosts that are not on the list are one series, and a thousand of a group too."""
    config = client.trace_config(registry=registry, hosts=["*.example.test"])
    connector = TCPConnector(resolver=Resolver(server.port))
    async with ClientSession(connector=connector, trace_configs=[config]) as session:
        for number in range(30):
            await read_all(session, f"http://h{number}.example.test/")
            await read_all(session, f"http://h{number}.other.test/")
        async with session.request("BREW", "http://x.other.test/") as response:
            await response.read()
    found = ended(registry)
    assert {(method, host) for method, host, *_ in found} == {
        ("GET", "*.example.test"),
        ("GET", "_other"),
        ("_other", "_other"),
    }
    assert found["GET", "_other", "200", ""] == 30


def test_host_labels() -> None:
    """Exact names come before groups, longer groups before shorter, however they are written."""
    hosts = Hosts(
        [
            "Api.example.com",
            "*.example.com",
            "*.eu.example.com",
            "::1",
            "xn--bcher-kva.de",
            "a.org.",
        ]
    )
    for host, label in (
        ("api.example.com", "Api.example.com"),
        ("API.EXAMPLE.COM", "Api.example.com"),
        ("x.example.com", "*.example.com"),
        ("x.eu.example.com", "*.eu.example.com"),
        ("example.com", "_other"),
        ("badexample.com", "_other"),
        ("::1", "::1"),
        ("api.example.com.", "Api.example.com"),
        (URL("https://bücher.de/").host, "xn--bcher-kva.de"),
        (URL("https://xn--bcher-kva.de/").host, "xn--bcher-kva.de"),
        ("a.org", "a.org."),
        ("", "_other"),
        (None, "_other"),
    ):
        assert hosts.label(host) == label
    for number in range(3000):
        assert hosts.label(f"h{number}.org") == "_other"
    assert len(hosts._known) <= 1000


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "*",
        "*.",
        "https://x.org",
        "x.org/a",
        "a*.org",
        "x.*.org",
        ".org",
        "u@x.org",
        "x.org:443",
        "*.x.org:443",
        "[::1]",
        "x.org?a",
        "a b",
        3,
    ],
)
def test_wrong_hosts(registry: CollectorRegistry, host: Any) -> None:
    """What is no host's name is a ConfigError."""
    with pytest.raises(aiosvc.ConfigError, match=r"hosts: .* given; expected a host"):
        client.trace_config(registry=registry, hosts=[host])


async def test_names_of_others(server: TestServer, registry: CollectorRegistry) -> None:
    """A program's own metrics may be called as aiosvc's of a server; a server's setup refuses that."""
    Counter("http_requests", "Mine.", registry=registry).inc()
    config = client.trace_config(registry=registry)
    async with ClientSession(trace_configs=[config]) as session:
        await read_all(session, server.make_url("/"))
        with pytest.raises(aiosvc.ConfigError, match="http_requests_total"):
            aiosvc.setup(web.Application(), registry=registry)
        await read_all(session, server.make_url("/"))
    assert ended(registry) == {("GET", "_other", "200", ""): 2}
    other = CollectorRegistry()
    client.trace_config(registry=other)
    aiosvc.setup(web.Application(), registry=other)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Counter("http_requests", "Mine.", registry=other)


async def test_options(registry: CollectorRegistry) -> None:
    """The same options give the same; other ones under the same name, or no session, are errors."""
    first = client.trace_config(registry=registry, hosts=["a.org"])
    assert client.trace_config(registry=registry, hosts=["a.org"]) is first
    wrong: list[Callable[[], object]] = [
        lambda: client.trace_config(registry=registry, hosts=["b.org"]),
        lambda: client.trace_config(registry=registry, hosts=["a.org"], buckets=[1, 2]),
        lambda: client.trace_config(registry=registry, name="x", buckets=[1, 2]),
        lambda: client.trace_config(registry=registry, buckets=[2, 1]),
        lambda: client.trace_config(registry=registry, name=""),
        lambda: client.trace_config(registry=registry, hosts="a.org"),
        lambda: client.setup(first, registry=registry),  # type: ignore[arg-type]
    ]
    for call in wrong:
        with pytest.raises(aiosvc.ConfigError):
            call()
    async with ClientSession() as session:
        assert client.setup(session, registry=registry, hosts=["a.org"]) is session
        client.setup(session, registry=registry, hosts=["a.org"])
        assert session.trace_configs == [first]
