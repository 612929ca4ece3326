"""JSON from a URL: real servers, and raw sockets for what no server should do."""

import asyncio
import gc
import json
import logging
import re
import ssl
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import aiohttp
import pytest
from admin.certificates import Authority, client_context
from aiohttp import web
from aiohttp.test_utils import TestServer
from processes import until
from prometheus_client import Metric

from aiosvc.errors import ConfigError
from aiosvc.sources import httpjson
from aiosvc.sources.httpjson import FromField, HttpJson, JsonMetric

from .sampled import Service, values

STATS = {"active_queries": 5, "pool": {"idle": 1, "active": 2, "waiting": 3}}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Remote:
    """A server whose answer a test may change; `requests` are those that came."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[web.Request] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as the test wants."""
        self.requests.append(request)
        return await self.handler(request)


def answering(body: object, status: int = 200, **headers: str) -> Handler:
    """Return a handler that answers so."""

    async def handler(_: web.Request) -> web.Response:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=text, status=status, headers=named)

    return handler


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    """Return a server that answers with the guide's document."""
    remote = Remote(answering(STATS))
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", remote.answer)
    async with TestServer(app) as server:
        remote.url = str(server.make_url("/stats"))
        yield remote


@asynccontextmanager
async def raw(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Give the URL of a server that does with a connection what it is told."""
    talking: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/stats"
    finally:
        server.close()
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)


def sending(*pieces: bytes, hang: bool = False) -> Any:
    """Return what sends these bytes and closes, or never closes."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if hang:
            await asyncio.Event().wait()

    return talk


@asynccontextmanager
async def source(url: str, gauges: Any = None, **options: Any) -> AsyncIterator[HttpJson]:
    """Give a source, closed at the end as the sampler closes it."""
    made = HttpJson(url, gauges or {"active_queries": "queries"}, **options)
    try:
        yield made
    finally:
        await made.close()


async def failure(url: str, **options: Any) -> str:
    """Return what the source says of its failure."""
    async with source(url, **options) as made:
        with pytest.raises((ConnectionError, ValueError, TimeoutError)) as caught:
            await made()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_the_guides_collector(remote: Remote) -> None:
    """The guide's document becomes the guide's metrics, beside the service and not in its scrape."""
    stats = HttpJson(
        remote.url,
        {
            "active_queries": JsonMetric("db_active_queries", "Active database queries"),
            "pool.{state}": JsonMetric("db_connection_pool_size", "Database connection pool"),
        },
        timeout=0.5,
    )
    async with Service(db_stats=stats) as service:
        await service.until_series("db_active_queries", {(): 5.0})
        assert await service.series("db_connection_pool_size") == {
            ("idle",): 1.0, ("active",): 2.0, ("waiting",): 3.0,
        }  # fmt: skip
        remote.handler = answering({**STATS, "active_queries": 6})
        await service.until_series("db_active_queries", {(): 6.0})
    await stats.close()


async def test_a_scrape_does_not_wait_for_a_remote_that_hangs(
    remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    """The source is down, its series go, it is logged once, and scrapes go on meanwhile."""
    hanging = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await hanging.wait()
        return web.json_response(STATS)

    async with (
        source(remote.url, timeout=0.2) as stats,
        Service(interval=0.4, db_stats=stats) as service,
    ):
        await service.until_series("queries", {(): 5.0})
        remote.handler = hang
        await service.until_up("db_stats", 0)
        await service.until_series("queries", None)
        hanging.set()
        remote.handler = answering(STATS)
        await service.until_series("queries", {(): 5.0})
    down = [r.getMessage() for r in caplog.records if "is down" in r.getMessage()]
    assert down == [
        f"source db_stats is down: TimeoutError: {remote.url}: no whole answer within 0.2 s"
    ]


async def test_a_scrape_asks_nobody(remote: Remote) -> None:
    """The remote is asked when its turn comes, however often somebody scrapes."""
    async with source(remote.url) as stats, Service(interval=3600, db_stats=stats) as service:
        await service.until_series("queries", {(): 5.0})
        for _ in range(20):
            assert await service.series("queries") == {(): 5.0}
    assert len(remote.requests) == 1


async def test_a_remote_that_is_gone_and_returns() -> None:
    """A server that is killed is seen, and so is its return, with the same source."""
    app = web.Application()
    app.router.add_get("/stats", answering(STATS))
    server = TestServer(app)
    await server.start_server()
    url, port = str(server.make_url("/stats")), server.port
    async with source(url, timeout=1.0) as stats, Service(db_stats=stats) as service:
        await service.until_up("db_stats", 1)
        await server.close()
        await service.until_up("db_stats", 0)
        await service.until_series("queries", None)
        again = web.Application()
        again.router.add_get("/stats", answering(STATS))
        async with TestServer(again, port=port):
            await service.until_up("db_stats", 1)
            await service.until_series("queries", {(): 5.0})


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (answering({}, 500), "answered 500; expected 200"),
        (answering(b"", 204), "answered 204; expected 200"),
        (answering(b""), "the answer is empty; expected JSON"),
        (answering(b"<html>no"), "the answer is not JSON: Expecting value at character 0"),
        (answering(b"\xff\xfe\xfd"), "the answer is not JSON that can be read: .*codec"),
        (answering(b"[" * 10_000), "the answer is not JSON that can be read: .*recursion"),
        (answering(b"[" * 100_000), "the answer is not JSON that can be read: .*recursion"),
        (answering(b"9" * 5_000), "the answer is not JSON that can be read: .*digits"),
        (answering({"other": 1}), "active_queries: missing, and queries needs it"),
        (answering({"active_queries": "x"}), "active_queries: 'x' is no number"),
        (answering({}, 302, Location="https://me:secret@b.test/login?token=secret"),
         "answered 302, a redirect to https://b.test/login; redirects are not followed"),
        (answering(b"x", Content_Encoding="br"), "answered with Content-Encoding br, which was not"),
        (answering([0] * 400_000), "the answer is larger than max_bytes, 1000000"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_none(remote: Remote, handler: Handler, message: str) -> None:
    """Whatever a server answers instead, the error says what, and where from."""
    remote.handler = handler
    with pytest.raises(ValueError, match=message):
        async with source(remote.url) as made:
            await made()
    assert (await failure(remote.url)).startswith(f"{remote.url}: ")


async def test_no_secret_is_in_an_error(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    """Neither user, password, query nor header is in messages, causes, logs or reprs."""
    caplog.set_level(logging.DEBUG, logger="aiosvc")
    url = remote.url.replace("http://", "http://alice:s3cret@") + "?token=s3cret#s3cret"
    remote.handler = answering({}, 401)
    said = [await failure(url, headers={"X-Key": "s3cret"})]
    said.append(await failure(url.replace(str(remote.url.split(":")[2].split("/")[0]), "1")))
    async with source(url) as made:
        said.append(repr(made))
    async with raw(sending(b"HTTP/9 what\r\n\r\n")) as broken:
        said.append(await failure(broken.replace("http://", "http://alice:s3cret@") + "?s3cret"))
    with pytest.raises(ConfigError) as caught:
        HttpJson(url.replace("http:", "ftp:"), {"a": "b"})
    said.append(str(caught.value))
    assert len(said) == 5
    assert not any("s3cret" in text or "alice" in text for text in (*said, caplog.text))
    assert remote.requests[0].headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("talk", "message"),
    [
        (sending(), "closed before the whole answer"),
        (sending(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), "closed before the whole answer"),
        (sending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), "closed before the"),
        (sending(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not HTTP: "),
        (sending(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\n"), "not HTTP: "),
        (sending(hang=True), "no whole answer within 0.2 s"),
        (sending(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", hang=True), "no whole answer within"),
        (sending(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", hang=True), "max_bytes"),
    ],
)  # fmt: skip
async def test_what_no_server_should_do(talk: Any, message: str) -> None:
    """Half answers, garbage and silence are told apart, in bounded time."""
    async with raw(talk) as url:
        said = await failure(url, timeout=0.2)
    assert said.startswith(f"{url}: ")
    assert message in said


async def test_an_endless_body_is_cut() -> None:
    """A body without end is given up at the limit, and its connection closed."""
    sent = 0

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n[")
        while True:
            writer.write(b"1," * 10_000)
            sent += 20_000
            await writer.drain()

    async with raw(talk) as url:
        said = await failure(url, max_bytes=100_000, timeout=10.0)
    assert said == f"{url}: the answer is larger than max_bytes, 100000"
    assert sent < 50_000_000


async def test_a_body_in_drops_is_cut_off_by_time() -> None:
    """The time is for the whole answer, not for each piece."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with raw(talk) as url:
        assert await failure(url, timeout=0.2) == f"{url}: no whole answer within 0.2 s"


async def test_nobody_listens(unused_tcp_port: int) -> None:
    """A refused connection and an unknown host say which."""
    url = f"http://127.0.0.1:{unused_tcp_port}/"
    assert "refused" in (await failure(url)).lower()
    assert "no address for the host" in await failure("http://nothing.invalid/stats", timeout=20.0)


async def test_tls(tmp_path: Path) -> None:
    """A certificate is checked, a context of the user's is used, and a failure says why."""
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*map(str, authority.issue("server")))
    app = web.Application()
    app.router.add_get("/stats", answering(STATS))
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    try:
        url = str(server.make_url("/stats"))
        assert "TLS: " in await failure(url)
        assert "certificate verify failed" in await failure(url)
        async with source(url, ssl=client_context(authority)) as made:
            assert values(await made(), "queries") == {(): 5.0}
        plain = await failure(url.replace("https", "http"))
        assert "closed before" in plain or "not HTTP" in plain or "400" in plain
    finally:
        await server.close()
    async with raw(sending(b"this is no TLS\r\n")) as url:
        said = await failure(url.replace("http:", "https:"), timeout=1.0)
        assert "TLS: " in said or "no whole answer" in said


async def test_what_is_sent(remote: Remote) -> None:
    """The request asks for plain JSON and carries the headers and credentials given."""
    auth = ("me", "pw:ß")
    async with source(
        remote.url + "?a=b", headers={"X-Key": "k", "Accept": "*/*"}, auth=auth
    ) as made:
        await made()
    [request] = remote.requests
    assert request.query_string == "a=b"
    assert request.headers["X-Key"] == "k"
    assert request.headers.getall("Accept") == ["*/*"]
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"].startswith("aiosvc/")
    assert request.headers["Authorization"] == "Basic bWU6cHc6w58="


async def test_its_own_session_comes_and_goes(remote: Remote) -> None:
    """A session is opened at the first sample, kept, closed, and opened again after a restart."""
    made = HttpJson(remote.url, {"active_queries": "queries"})
    await made.close()
    for _ in range(2):
        await made()
        await made()
        await made.close()
    assert len({id(request.transport) for request in remote.requests[:2]}) == 1
    del made
    gc.collect()  # an unclosed session would warn, and a warning is an error


async def test_a_sample_that_is_given_up_leaves_nothing(remote: Remote) -> None:
    """A sampler that stops cancels the sample and closes the source, whatever that is doing."""
    came = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        came.set()
        await asyncio.Event().wait()
        raise AssertionError

    before = asyncio.all_tasks()
    items = [{"name": str(i), "depth": i} for i in range(20_000)]
    for handler in (hang, answering({"active_queries": 1, "items": items})):
        remote.handler = handler
        made = HttpJson(remote.url, {"active_queries": "queries"})
        for pause in (0, 0.005, 0.02):
            sample = asyncio.create_task(made())
            await asyncio.sleep(pause)
            sample.cancel()
            await asyncio.gather(sample, return_exceptions=True)
            await made.close()
    assert came.is_set()
    await until(lambda: not asyncio.all_tasks() - before - _of_servers(), "the end of all tasks")


def _of_servers() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())}


def test_the_example_of_the_docstring() -> None:
    """What the module's docstring shows can be written so."""
    example = re.findall(r"(?m)^    .*\n", httpjson.__doc__ or "")
    observer = MagicMock()
    exec(textwrap.dedent("".join(example)), {**vars(httpjson), "obs": observer})
    [call] = observer.sampler.add.call_args_list
    assert call.args[0] == "db_stats"
    assert isinstance(call.args[1], HttpJson)


async def test_a_session_of_the_users_stays_the_users(remote: Remote) -> None:
    """A session that is handed over is used and not closed."""
    async with aiohttp.ClientSession(headers={"X-From": "session"}) as session:
        async with source(remote.url, session=session) as made:
            assert values(await made(), "queries") == {(): 5.0}
        assert not session.closed
    assert remote.requests[0].headers["X-From"] == "session"


async def test_a_large_answer_is_parsed_beside_the_loop(remote: Remote) -> None:
    """An answer of nearly a megabyte is read whole, while others have their turns."""
    items = [{"name": f"item-{i}", "depth": i, "more": {"x": 1.5}} for i in range(14_000)]
    remote.handler = answering({"items": items})
    gauges = {"items[*].depth": JsonMetric("depth", labels={"name": FromField("name")})}
    async with source(remote.url, gauges) as made:
        reading: asyncio.Task[list[Metric]] = asyncio.create_task(made())
        gaps, last = [], time.perf_counter()
        while not reading.done():
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - last)
            last = time.perf_counter()
        found = await reading
    assert len(values(found, "depth") or ()) == 500
    assert values(found, "aiosvc_label_overflow_total") == {("depth", "name"): 13_500.0}
    assert len(gaps) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "ftp://a/b"}, "url: ftp://a/b given; expected http://host:port/path"),
        ({"url": "/stats"}, "expected http://host:port/path"),
        ({"url": "http://a:b/"}, "url: not a URL"),
        ({"url": 7}, "url: 7 given"),
        ({"gauges": {}}, "gauges: {} given"),
        ({"timeout": 0}, "timeout: 0 given"),
        ({"timeout": float("nan")}, "timeout: nan given"),
        ({"max_bytes": -1}, "max_bytes: -1 given"),
        ({"max_series": 0}, "max_series: 0 given"),
        ({"headers": ["a"]}, "http://h/: headers: expected a mapping"),
        ({"headers": {"a": 1}}, "headers: 'a': expected a text"),
        ({"headers": {"a": "b\r\nc: d"}}, "headers: 'a': a header is one line"),
        ({"url": "http://u:p@h/", "auth": ("a", "b")}, "http://h/: .*given twice"),
        ({"headers": {"Authorization": "x"}, "auth": ("a", "b")}, "given twice"),
        ({"auth": ("a", None)}, "http://h/: auth: expected a user name and a password"),
    ],
)
def test_what_can_not_work_is_refused(arguments: dict[str, Any], message: str) -> None:
    """A mistake in the arguments is an error at once."""
    with pytest.raises(ConfigError, match=message):
        HttpJson(**{"url": "http://h/", "gauges": {"a": "b"}, **arguments})
