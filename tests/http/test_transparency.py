"""The application behaves, to its users and to its own code, as it does without aiosvc."""

import asyncio
import contextlib
import contextvars
import gc
import importlib.util
import logging
import os
import re
import sys
import threading
import traceback
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.test_utils import TestClient, TestServer
from processes import Process, Program, free_port, poll, until
from prometheus_client import CollectorRegistry, generate_latest
from situations import (
    BODY,
    CHUNK,
    GATES,
    Gates,
    Samples,
    make_app,
    samples_of,
    seen_in,
    serving,
    write_files,
)
from wire import Wire, chunked, request

import aiosvc

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def bare(app: web.Application, **server: Any) -> AsyncIterator[int]:
    """Serve an application without aiosvc and give the port."""
    runner = web.AppRunner(app, shutdown_timeout=1.0, **server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


# -- What clients see ------------------------------------------------------------------------------

GZIP = {"Accept-Encoding": "gzip"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}

CONVERSATIONS = {
    "answer": request("GET", "/ok"),
    "head": request("HEAD", "/ok"),
    "1.0": request("GET", "/ok", version="1.0"),
    "1.0 kept": request("GET", "/ok", version="1.0", headers={"Connection": "keep-alive"}),
    "closed": request("GET", "/ok", headers={"Connection": "close"}),
    "two": request("GET", "/ok") + request("GET", "/users/7"),
    "echo": request("POST", "/echo", body=CHUNK),
    "chunks": request(
        "POST", "/echo", headers={"Transfer-Encoding": "chunked"}, body=chunked(CHUNK, CHUNK)
    ),
    "unread": request("PUT", "/unread", body=bytes(200_000)) + request("GET", "/ok"),
    "too large": request("POST", "/echo", body=bytes(1_100_000)) + request("GET", "/ok"),
    "continue": request("POST", "/echo", headers={"Expect": "100-continue"}, body=CHUNK),
    "expectation": request("POST", "/echo", headers={"Expect": "miracles"}),
    "no route": request("GET", "/nothing"),
    "method": request("DELETE", "/ok"),
    "redirect": request("GET", "/raise/HTTPFound"),
    "error": request("GET", "/fail/value", headers={"Accept": "text/html"}),
    "timeout": request("GET", "/fail/timeout"),
    "cancelled": request("GET", "/fail/cancelled"),
    "none": request("GET", "/wrong/none"),
    "stream": request("GET", "/stream/end"),
    "declared stream": request("GET", "/stream/end?declared=20"),
    "1.0 stream": request("GET", "/stream/end", version="1.0"),
    "short stream": request("GET", "/stream/return?declared=20"),
    "broken stream": request("GET", "/stream/value"),
    "forbidden stream": request("GET", "/stream/forbidden"),
    "second answer": request("GET", "/stream/another"),
    "aborted": request("GET", "/stream/value") + request("GET", "/ok"),
    "malformed": b"rubbish\r\n\r\n",
    "good, malformed": request("GET", "/ok") + b"rubbish\r\n\r\n",
    "upgrade": request("GET", "/ws", headers=UPGRADE)
    + b"\x81\x81\0\0\0\0a\x88\x82\0\0\0\0\x03\xe8",
    "no upgrade": request("GET", "/ws"),
    "declined": request("GET", "/ok", headers=UPGRADE) + request("GET", "/ok"),
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    "file": request("GET", "/files/big.bin"),
    "range": request("GET", "/files/big.bin", headers={"Range": "bytes=5-9"}),
    "no range": request("GET", "/files/big.bin", headers={"Range": "bytes=999999-"}),
    "file head": request("HEAD", "/files/page.txt"),
    "no file": request("GET", "/files/nothing"),
}


async def conversation(port: int, data: bytes, silence: float) -> bytes:
    """Return all that a server says to these bytes, until it has said nothing for *silence* seconds."""
    wire = await Wire.connect(port)
    try:
        await wire.send(data)
        # What it says at its leisure, first: FIN would cut it short.
        said = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                async with asyncio.timeout(silence):
                    said += await wire.some()
        with contextlib.suppress(OSError):
            wire.finish()
        said += await wire.rest()
    finally:
        wire.close()
    # Files get their time of change as a tag; what goes by the clock is no difference.
    said = re.sub(rb"\r\n(Date|Last-Modified): [^\r]+", rb"\r\n\1: then", said)
    said = re.sub(rb"actual body size \d+", b"actual body size: what came in one piece", said)
    return re.sub(rb'Etag: "[^"]+"', b'Etag: "tag"', said)


@pytest.mark.parametrize("kind", CONVERSATIONS)
async def test_bytes_on_the_wire(kind: str, tmp_path: Path) -> None:
    """A client receives the same bytes from a server with aiosvc as from one without."""
    write_files(tmp_path)

    def app() -> web.Application:
        made = make_app(web.static("/files", tmp_path))
        made[GATES][""].opened.set()
        return made

    data = CONVERSATIONS[kind]
    async with bare(app()) as port, serving(app=app()) as service:
        # A machine that has much to do may have a server pause in the midst of an answer.
        for silence in (0.05, 0.5, 5.0):
            expected = await conversation(port, data, silence)
            given = await conversation(service.port, data, silence)
            if given == expected:
                break
        assert given[:1000] == expected[:1000]
        same = given == expected  # apart, lest a failure shows all of a file
        assert same, "they differ further on"
        await service.quiet()


# -- What the application sees ---------------------------------------------------------------------


async def test_exceptions_keep_their_identity() -> None:
    """The user's outermost middleware gets the very exception, its cause and its traceback."""
    seen: list[BaseException] = []
    cause = KeyError("the cause")
    error = ValueError("the error")

    async def handler(_request: web.Request) -> web.Response:
        raise error from cause

    @web.middleware
    async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except BaseException as caught:
            seen.append(caught)
            raise

    async with serving(web.get("/error", handler), middlewares=[outermost]) as service:
        assert (await service.ask(request("GET", "/error"))).status == 500
    (caught,) = seen
    assert caught is error
    assert caught.__cause__ is cause
    frames = [frame.name for frame in traceback.extract_tb(caught.__traceback__)]
    assert frames[-1] == "handler"
    assert not [
        frame for frame in traceback.extract_tb(caught.__traceback__) if "aiosvc/" in frame.filename
    ] or set(frames) >= {"outermost", "handler"}


async def test_http_exceptions_keep_their_identity() -> None:
    """An HTTPException, with its headers and cookies, is the same object everywhere."""
    seen: list[object] = []
    error = web.HTTPForbidden(headers={"X-Mark": "1"})
    error.set_cookie("a", "b")

    async def handler(_request: web.Request) -> web.Response:
        raise error

    @web.middleware
    async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as caught:
            seen.append(caught)
            raise

    async def prepare(_request: web.Request, response: web.StreamResponse) -> None:
        seen.append(response)

    app = make_app(web.get("/error", handler), middlewares=[outermost])
    app.on_response_prepare.append(prepare)
    async with serving(app=app) as service:
        answer = await service.ask(request("GET", "/error"))
        assert (answer.status, answer.headers["x-mark"]) == (403, "1")
        assert answer.headers["set-cookie"].startswith("a=b")
    assert seen == [error, error]


async def test_requests_and_responses_are_the_applications_own() -> None:
    """Requests and responses are of aiohttp's classes and the same objects all the way."""
    seen: list[tuple[object, ...]] = []
    answer = web.Response(body=BODY)

    async def handler(request: web.Request) -> web.Response:
        seen.append((request, request.task, asyncio.current_task(), request.transport))
        return answer

    @web.middleware
    async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        seen.append((request, request.task, asyncio.current_task(), request.transport))
        assert response is answer
        assert type(request) is web.Request
        assert type(request.writer).__module__.startswith("aiohttp")
        assert request.task is request.protocol._task_handler
        return response

    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        assert response is answer
        seen.append((request, request.task, asyncio.current_task(), request.transport))

    app = make_app(web.get("/own", handler), middlewares=[outermost])
    app.on_response_prepare.append(prepare)
    async with serving(app=app) as service:
        assert (await service.ask(request("GET", "/own"))).body == BODY
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]


async def test_context_variables() -> None:
    """Context variables pass from middleware to handler, and not from request to request."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    found: list[str] = []

    async def handler(_request: web.Request) -> web.Response:
        found.append(variable.get())
        variable.set("by the handler")
        return web.Response()

    @web.middleware
    async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
        found.append(variable.get())
        variable.set("by the middleware")
        response = await handler(request)
        found.append(variable.get())
        return response

    async def prepare(_request: web.Request, _response: web.StreamResponse) -> None:
        found.append(variable.get())

    app = make_app(web.get("/vars", handler), middlewares=[outermost])
    app.on_response_prepare.append(prepare)
    async with serving(app=app) as service:
        wire = await service.connect()
        await wire.ask(request("GET", "/vars"))
        await wire.ask(request("GET", "/vars"))
    once = ["unset", "by the middleware", "by the handler", "by the handler"]
    assert found == once * 2


@pytest.mark.parametrize("handler_cancellation", [False, True])
async def test_handler_cancellation(handler_cancellation: bool) -> None:
    """A handler is cancelled by its client's leaving exactly where the user asked for that."""
    async with serving(handler_cancellation=handler_cancellation) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/wait"))
        gate = await service.entered()
        wire.reset()
        await until(lambda: service.value("active_connections") == 0, "the end of it")
        if handler_cancellation:
            await until(lambda: gate.cancelled, "the cancellation")
        else:
            gate.opened.set()
        await service.quiet()
        assert gate.cancelled == handler_cancellation


async def test_nothing_is_put_between() -> None:
    """No middleware and no on_response_prepare of ours is there for the application to meet."""
    app = make_app()
    plain = make_app()
    aiosvc.setup(app, registry=CollectorRegistry())
    assert list(app.middlewares) == list(plain.middlewares)
    assert len(app.on_response_prepare) == len(plain.on_response_prepare)
    assert set(app.router.named_resources()) == set(plain.router.named_resources())


# -- Access logs -----------------------------------------------------------------------------------


class Remembering(AbstractAccessLogger):
    """The user's own access logger."""

    lines: list[tuple[str, int, int]]

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Remember a line."""
        assert time >= 0
        self.lines.append((request.path, response.status, response.body_length))


async def test_access_logger_of_the_user() -> None:
    """The user's own access logger gets every request that it gets without aiosvc."""

    class Bare(Remembering):
        lines = []  # noqa: RUF012 - the test's own

    class Observed(Remembering):
        lines = []  # noqa: RUF012 - the test's own

    targets = ["/ok", "/nothing", "/fail/value", "/raise/HTTPFound", "/stream/end", "/wrong/none"]

    def app() -> web.Application:
        made = make_app()
        made[GATES][""].opened.set()
        return made

    async def talk(port: int) -> None:
        for target in targets:
            wire = await Wire.connect(port)
            await wire.ask(request("GET", target, headers={"Connection": "close"}))
            assert await wire.rest() == b""
            wire.close()

    async with bare(app(), access_log_class=Bare) as port:
        await talk(port)
    async with serving(app=app(), access_log_class=Observed) as service:
        await talk(service.port)
    assert Observed.lines == Bare.lines
    assert len(Observed.lines) == len(targets)


async def test_access_log_with_a_format(caplog: pytest.LogCaptureFixture) -> None:
    """The user's own format for the access log stays in force."""
    caplog.set_level(logging.INFO, "aiohttp.access")
    async with serving(access_log_format="%s %r %{X-Mark}i") as service:
        await service.ask(request("GET", "/ok", headers={"X-Mark": "m"}))
    lines = [r.getMessage() for r in caplog.records if r.name == "aiohttp.access"]
    assert lines == ["200 GET /ok HTTP/1.1 m"]


async def test_no_access_log(caplog: pytest.LogCaptureFixture) -> None:
    """Without an access log there is none, and everything is counted."""
    caplog.set_level(logging.DEBUG)
    async with serving(access_log=None) as service:
        await service.ask(request("GET", "/ok"))
        await service.says({"GET /ok 200": 1})
    assert [r for r in caplog.records if r.name == "aiohttp.access"] == []


async def test_access_logger_that_fails() -> None:
    """An access logger that raises does what it does without aiosvc; the request is counted."""

    class Broken(AbstractAccessLogger):
        def log(self, *_: object) -> None:
            raise OSError("disk full")

    async with serving(access_log_class=Broken) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/ok"))
        assert (await wire.answer()).body == BODY
        await wire.rest()
        await service.quiet()
        assert service.seen().requests == {"GET /ok 200": 1}


# -- An error of ours ------------------------------------------------------------------------------


async def test_error_in_the_instrumentation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error while counting is counted itself, logged once, and no request notices."""
    async with serving() as service:
        wire = await service.connect()
        await wire.ask(request("GET", "/ok"))

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("in the instrumentation")

        (series,) = [s for s in vars_named(service.observer, "/ok") if s.method == "GET"]
        monkeypatch.setattr(type(series), "finish", fail)
        for _ in range(3):
            assert (await wire.ask(request("GET", "/ok"))).body == BODY
        await until(lambda: errors(service.observer) == 3, "the errors")
        assert service.seen().in_progress == {}
        logged = [r for r in caplog.records if r.name == "aiosvc" and r.levelno == logging.ERROR]
        assert len(logged) == 1


def vars_named(observer: aiosvc.Observer, endpoint: str) -> list[Any]:
    """Return the series of an endpoint."""
    routes = observer.requests._routes
    return [series for series in routes.values() if series.endpoint == endpoint]


def errors(observer: aiosvc.Observer) -> float:
    """Return how many errors of aiosvc are counted."""
    samples = samples_of(observer.registry)
    return sum(value for _, value in samples["aiosvc_instrumentation_errors_total"])


# -- Several applications --------------------------------------------------------------------------


async def test_two_applications_on_one_registry() -> None:
    """What two applications count adds up where they share a registry."""
    registry = CollectorRegistry()
    options = {"registry": registry}
    async with serving(options=options) as first, serving(options=options) as second:
        await first.ask(request("GET", "/ok"))
        await second.ask(request("GET", "/ok"))
        await second.ask(request("GET", "/nothing"))
        await until(lambda: sum(first.seen().requests.values()) == 3, "all three")
        assert first.seen().requests == {"GET /ok 200": 2, "GET _unmatched 404": 1}
        wires = [await first.connect(), await second.connect()]
        for wire in wires:
            await wire.ask(request("GET", "/ok"))
        second.observer.sampler.refresh()
        assert first.value("active_connections") == 2
        for wire in wires:
            wire.reset()
        assert generate_latest(registry).count(b"# TYPE http_requests_total") == 1


async def test_two_applications_on_two_registries() -> None:
    """Applications on registries of their own know nothing of each other."""
    async with serving() as first, serving() as second:
        await first.ask(request("GET", "/ok"))
        await second.ask(request("GET", "/nothing"))
        await first.says({"GET /ok 200": 1})
        await second.says({"GET _unmatched 404": 1})


def test_applications_in_threads() -> None:
    """Two applications, each on a thread and an event loop of its own, share a registry."""
    registry = CollectorRegistry()
    count = 300
    barrier = threading.Barrier(3)

    async def serve() -> None:
        async with serving(options={"registry": registry}) as service:
            barrier.wait(10)
            wire = await service.connect()
            for _ in range(count):
                assert (await wire.ask(request("GET", "/ok"))).status == 200
            await service.ask(request("GET", "/fail/value"))
            await service.quiet()
            service.forget()

    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait(10)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        while any(thread.is_alive() for thread in threads):
            check_whole(samples_of(registry))  # from a third thread, all the while
    finally:
        sys.setswitchinterval(interval)
    for thread in threads:
        thread.join()
    assert failures == []
    seen = seen_in(samples_of(registry))
    assert seen.requests == {"GET /ok 200": 2 * count, "GET /fail/{how} 500": 2}
    assert seen.failures == {"GET /fail/{how} exception": 2}


def check_whole(samples: Samples) -> None:
    """Assert that no request is in one metric of an endpoint and not in another."""
    requests: dict[tuple[str, str], float] = defaultdict(float)
    for labels, value in samples["http_requests_total"]:
        requests[labels["method"], labels["endpoint"]] += value
    for name in ("request_duration_seconds", "request_size_bytes", "response_size_bytes"):
        for labels, value in samples[f"http_{name}_count"]:
            assert value == requests[labels["method"], labels["endpoint"]], name
    for labels, value in samples["http_response_size_bytes_sum"]:
        key = labels["method"], labels["endpoint"]
        if labels["endpoint"] == "/ok":
            assert value == len(BODY) * requests[key]


async def test_nested_setup() -> None:
    """A sub-application with a setup of its own is counted once, by the application it is in."""
    registry = CollectorRegistry()

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=BODY)

    sub = web.Application()
    sub.router.add_get("/leaf/{id}", handler)
    aiosvc.setup(sub, registry=registry)
    app = web.Application()
    app[GATES] = Gates()
    app.router.add_get("/ok", handler)
    app.add_subapp("/sub", sub)
    async with serving(app=app, options={"registry": registry}) as service:
        await service.ask(request("GET", "/sub/leaf/7"))
        await service.ask(request("GET", "/ok"))
        await service.says({"GET /sub/leaf/{id} 200": 1, "GET /ok 200": 1})
        endpoints = {
            labels["endpoint"]
            for labels, _ in service.samples()["http_request_duration_seconds_count"]
        }
        assert endpoints - {"_unmatched", "_other"} == {"/sub/leaf/{id}", "/ok"}


async def test_scrape_of_a_nested_setup() -> None:
    """The metrics endpoint of a sub-application's own setup is no request either."""
    registry = CollectorRegistry()
    sub = web.Application()
    aiosvc.setup(sub, registry=registry)
    app = web.Application()
    app[GATES] = Gates()
    app.add_subapp("/sub", sub)
    async with serving(app=app, options={"registry": registry}) as service:
        assert (await service.ask(request("GET", "/sub/metrics"))).status == 200
        await service.quiet()
        await service.says({})


async def test_setup_twice() -> None:
    """A second setup of an application changes nothing, and its requests are counted once."""
    app = make_app()
    async with serving(app=app) as service:
        assert aiosvc.setup(app) is service.observer
        await service.ask(request("GET", "/ok"))
        await service.says({"GET /ok 200": 1})


async def test_one_application_on_two_runners() -> None:
    """An application on several sites, and under two runners, is counted in one place."""
    async with serving() as service:
        site = web.TCPSite(service.runner, "127.0.0.1", 0)
        await site.start()
        second = await service.connect(port=service.runner.addresses[1][1])
        first = await service.connect()
        for wire in (first, second):
            await wire.ask(request("GET", "/ok"))
        await service.says({"GET /ok 200": 2})
        assert service.value("active_connections") == 2


# -- Test clients ----------------------------------------------------------------------------------


async def test_test_client() -> None:
    """Under aiohttp's own test client and server requests are counted, WebSockets too."""
    app = make_app()
    observer = aiosvc.setup(app, registry=CollectorRegistry())
    async with TestClient(TestServer(app)) as client:
        async with client.get("/users/7") as response:
            assert await response.read() == BODY
        async with client.post("/echo", data=CHUNK, expect100=True, compress="gzip") as response:
            assert await response.read() == CHUNK
        async with client.ws_connect("/ws") as socket:
            await socket.send_str("hello")
            assert (await socket.receive()).data == "hello"
            await socket.close(code=1001)
            assert (await socket.receive()).type is WSMsgType.CLOSED
    seen = seen_in(samples_of(observer.registry))
    assert seen.requests == {"GET /users/{id} 200": 1, "POST /echo 200": 1, "GET /ws 101": 1}
    assert seen.closes == {"/ws 1001": 1}


async def test_fifty_cycles() -> None:
    """Starting and stopping fifty times leaves no task, thread, application or series behind."""
    registry = CollectorRegistry()
    apps: list[weakref.ref[web.Application]] = []

    async def cycle() -> None:
        app = make_app()
        apps.append(weakref.ref(app))
        async with serving(app=app, options={"registry": registry}) as service:
            wire = await service.connect()
            for target in ("/ok", "/nothing", "/raise/HTTPGone"):
                await wire.ask(request("GET", target))
            await service.quiet()

    await cycle()
    lines = generate_latest(registry).count(b"\n")
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    for _ in range(49):
        await cycle()
    assert len(asyncio.all_tasks()) == tasks
    # The event loop's executor may have grown by a thread or two.
    assert threading.active_count() < threads + 10
    assert generate_latest(registry).count(b"\n") == lines
    assert seen_in(samples_of(registry)).requests == {
        "GET /ok 200": 50,
        "GET _unmatched 404": 50,
        "GET /raise/{name} 410": 50,
    }
    gc.collect()
    alive = [ref for ref in apps[:-1] if ref() is not None]
    assert alive == []


async def test_counters_never_fall() -> None:
    """A scrape from another thread, while applications come and go, never sees a counter fall."""
    registry = CollectorRegistry()
    fell: list[tuple[float, float]] = []
    stop = threading.Event()
    highest = 0.0

    def scrape() -> None:
        nonlocal highest
        while not stop.is_set():
            samples = samples_of(registry)
            now = sum(value for _, value in samples["http_requests_total"])
            if now < highest:
                fell.append((highest, now))
            highest = now

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=scrape)
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for _ in range(25):
            async with serving(options={"registry": registry}) as service:
                await service.ask(request("GET", "/ok"))
                await service.quiet()
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert fell == []
    assert seen_in(samples_of(registry)).requests == {"GET /ok 200": 25}


# -- Other servers, in processes of their own ------------------------------------------------------

SHOP = """
import sys
from aiohttp import web

async def item(request):
    return web.Response(text=request.match_info["id"])

async def fail(request):
    raise ValueError

def make(observed):
    app = web.Application()
    app.router.add_get("/items/{id}", item)
    app.router.add_get("/fail", fail)
    if observed:
        import aiosvc
        aiosvc.setup(app)
    return app

app = make(observed=True)
plain = make(observed=False)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a directory with a module that has an application."""
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    return tmp_path


async def check_shop(url: str) -> None:
    """Assert that requests to the shop at *url* are counted."""
    async with ClientSession(url) as session:

        async def answers() -> bool:
            with contextlib.suppress(OSError):
                async with session.get("/items/0"):
                    return True
            return False

        async def text() -> str:
            async with session.get("/metrics") as response:
                return await response.text()

        await poll(answers, bool, f"an answer from {url}")
        for target, status in (("/items/1", 200), ("/fail", 500), ("/nothing/1", 404)):
            async with session.get(target) as response:
                assert response.status == status
        wanted = [
            'http_requests_total{endpoint="/items/{id}",method="GET",status="200"} 2.0',
            'http_requests_total{endpoint="/fail",method="GET",status="500"} 1.0',
            'http_requests_total{endpoint="_unmatched",method="GET",status="404"} 1.0',
            'http_exceptions_total{endpoint="/fail",exception="ValueError"} 1.0',
        ]
        exposition = await poll(text, lambda text: all(w in text for w in wanted), "the counts")
        assert "http_requests_in_progress" in exposition


@pytest.mark.parametrize("uvloop", [False, True])
async def test_gunicorn(shop: Path, uvloop: bool) -> None:
    """The aiohttp workers of gunicorn serve an observed application, and stop in order."""
    if importlib.util.find_spec("gunicorn") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("gunicorn is not installed; CI must have it")
        pytest.skip("gunicorn is not installed")
    if uvloop:
        pytest.importorskip("uvloop")
        if aiohttp.__version__.startswith(("3.12.", "3.13.0")):
            pytest.skip("the worker of this aiohttp does not start with today's uvloop")
    port = free_port()
    worker = "aiohttp.GunicornUVLoopWebWorker" if uvloop else "aiohttp.GunicornWebWorker"
    command = [
        *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"),
        *("--worker-class", worker, "--graceful-timeout", "5", "shop:app"),
    ]
    # It keeps a socket in the home directory.
    async with Process(command, shop, {"HOME": str(shop)}) as process:
        await check_shop(f"http://127.0.0.1:{port}")
        assert await process.stop() == 0


async def test_run_app(shop: Path) -> None:
    """web.run_app serves an observed application, and stops in order."""
    port = free_port()
    async with Process([sys.executable, "shop.py", str(port)], shop) as process:
        await check_shop(f"http://127.0.0.1:{port}")
        assert await process.stop() == 0


async def test_aiosvc_run(shop: Path) -> None:
    """`aiosvc run` counts for an application that knows nothing of it."""
    async with Program("run", "shop:plain", "--port", "0", directory=shop) as program:
        await check_shop(program.url)
        assert await program.stop() == 0
