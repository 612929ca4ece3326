"""What `aiosvc.asgi.setup` does, and what it says of requests that no server is needed for."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from litestar import Litestar, get
from prometheus_client import CollectorRegistry, Counter, generate_latest, make_asgi_app
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

import aiosvc
import aiosvc.asgi
from aiosvc.errors import BindError, ConfigError

Message = MutableMapping[str, Any]

#: What keeps Litestar from taking the root logger over, and from routes of its own.
QUIET: dict[str, Any] = {"openapi_config": None, "logging_config": None}


@pytest.fixture
def registry() -> CollectorRegistry:
    """Give a registry of its own to each test."""
    return CollectorRegistry()


def http(path: str, method: str = "GET", **more: Any) -> dict[str, Any]:
    """Return the scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"service.test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        **more,
    }


class Conversation:
    """What a server says to an application, one message after the other, and what it hears."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.heard: list[Message] = []
        self.hears: Callable[[Message], Awaitable[None]] | None = None

    async def receive(self) -> Message:
        """Give the next message; when there is none left, wait for ever."""
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)

    async def send(self, message: Message) -> None:
        """Take a message."""
        self.heard.append(dict(message))
        if self.hears is not None:
            await self.hears(message)

    @property
    def status(self) -> int:
        """The status that was sent."""
        status: int = self.heard[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        """The body that was sent."""
        return b"".join(m.get("body", b"") for m in self.heard)

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers that were sent."""
        return dict(self.heard[0]["headers"])


EMPTY = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}


async def ask(app: Any, path: str, method: str = "GET", **more: Any) -> Conversation:
    """Return what the application says to one request."""
    conversation = Conversation(dict(EMPTY))
    await app(http(path, method, **more), conversation.receive, conversation.send)
    return conversation


@asynccontextmanager
async def living(app: Any) -> AsyncIterator[list[Message]]:
    """Run the application's lifespan around a block; give what it said."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    heard: list[Message] = []
    said = asyncio.Event()

    async def send(message: Message) -> None:
        heard.append(message)
        said.set()

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, inbox.get, send))
    inbox.put_nowait({"type": "lifespan.startup"})
    waiting = asyncio.create_task(said.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        await task
    yield heard
    inbox.put_nowait({"type": "lifespan.shutdown"})
    await task


def requests_of(registry: CollectorRegistry) -> dict[str, int]:
    """Return the requests counted, as "GET /users/{id} 200"."""
    return {
        f"{s.labels['method']} {s.labels['endpoint']} {s.labels['status']}": int(s.value)
        for family in registry.collect()
        for s in family.samples
        if s.name == "http_requests_total" and s.value
    }


def in_progress(registry: CollectorRegistry) -> dict[str, float]:
    """Return what is in progress, zeros left out."""
    return {
        s.labels["endpoint"]: s.value
        for family in registry.collect()
        for s in family.samples
        if s.name == "http_requests_in_progress" and s.value
    }


def failures_of(registry: CollectorRegistry) -> dict[str, float]:
    """Return the failures by reason."""
    return {
        s.labels["reason"]: s.value
        for family in registry.collect()
        for s in family.samples
        if s.name == "http_request_failures_total" and s.value
    }


def errors_of(registry: CollectorRegistry) -> dict[str, float]:
    """Return the errors of the instrumentation."""
    return {
        s.labels["where"]: s.value
        for family in registry.collect()
        for s in family.samples
        if s.name == "aiosvc_instrumentation_errors_total"
    }


async def hello(_request: Request) -> Response:
    """Answer."""
    return PlainTextResponse("hello")


# -- Setup -----------------------------------------------------------------------------------------


def make_bare() -> Any:
    """Return an application of no framework, and of no lifespan."""

    async def bare(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        scope["aiosvc.endpoint"] = "/things/{id}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    return bare


def make_patient() -> Any:
    """Return an application of no framework that has a lifespan."""

    async def patient(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    return patient


@pytest.mark.parametrize(
    "make",
    [
        lambda: Starlette(routes=[Route("/things/{id}", hello)]),
        FastAPI,
        lambda: Quart(__name__),
        lambda: Litestar(**QUIET),
    ],
    ids=["Starlette", "FastAPI", "Quart", "Litestar"],
)
async def test_setup_measures_in_place(
    make: Callable[[], Any], registry: CollectorRegistry
) -> None:
    """The application itself is measured, and what setup returned is the same to a server."""
    app = make()
    observed = aiosvc.asgi.setup(app, registry=registry)
    await ask(app, "/nothing")
    await ask(observed, "/nothing")
    assert requests_of(registry) == {"GET _unmatched 404": 2}
    await observed.finish()


async def test_setup_of_a_bare_application(registry: CollectorRegistry) -> None:
    """Of an application of no framework the result is to be served; it is an observer too."""
    app = aiosvc.asgi.setup(make_bare(), registry=registry)
    queue = app.watch_queue(asyncio.Queue[int](5), name="jobs")
    assert (await ask(app, "/things/7")).body == b"hello"
    assert requests_of(registry) == {"GET /things/{id} 200": 1}
    assert queue.maxsize == 5
    assert b'queue_capacity{queue_name="jobs"} 5.0' in (await ask(app, "/metrics")).body
    await app.finish()


@pytest.mark.parametrize("app", [Starlette(), make_bare(), Litestar(**QUIET)], ids=type)
def test_a_second_call_returns_the_first_result(app: Any, registry: CollectorRegistry) -> None:
    """A second setup of the same application, or of the result, gives the same object."""
    first = aiosvc.asgi.setup(app, registry=registry)
    assert aiosvc.asgi.setup(app, registry=CollectorRegistry()) is first
    assert aiosvc.asgi.setup(first) is first


async def test_what_setup_refuses(registry: CollectorRegistry) -> None:
    """A wrong option, no application, one that has started or has our route: each is told."""
    with pytest.raises(ConfigError, match="expected an ASGI application"):
        aiosvc.asgi.setup(object(), registry=registry)
    with pytest.raises(ConfigError, match="did you mean 'path'"):
        aiosvc.asgi.setup(Starlette(), registry=registry, pth="/m")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="give one or the other"):
        aiosvc.asgi.setup(Starlette(), settings=aiosvc.Settings(), path="/m")
    taken = FastAPI()
    taken.mount("/metrics", make_asgi_app(registry))
    with pytest.raises(ConfigError, match="has a route at '/metrics'"):
        aiosvc.asgi.setup(taken, registry=registry)
    started = Starlette()
    await ask(started, "/")
    with pytest.raises(ConfigError, match="has started"):
        aiosvc.asgi.setup(started, registry=registry)


async def test_nested_setup_counts_once(registry: CollectorRegistry) -> None:
    """A measured application within a measured one leaves counting to the outer one."""
    inner = Starlette(routes=[Route("/leaf/{id}", hello)])
    outer = Starlette(routes=[Mount("/sub", inner)])
    observers = [aiosvc.asgi.setup(each, registry=registry) for each in (inner, outer)]
    await ask(outer, "/sub/leaf/1")
    assert requests_of(registry) == {"GET /sub/leaf/{id} 200": 1}
    for each in observers:
        await each.finish()


# -- Templates -------------------------------------------------------------------------------------


class Copying:
    """A middleware that passes a copy of the scope on."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass it on."""
        await self.app(dict(scope), receive, send)


def make_nested() -> Starlette:
    """Return an application with mounts of every kind."""
    leaf = [Route("/leaf/{id:int}", hello), Route("/", hello)]
    return Starlette(
        routes=[
            Route("/users/{id:int}", hello, methods=["GET"]),
            Mount("/a", routes=[Mount("/b", routes=leaf)]),
            Mount("/t/{tenant}", routes=leaf),
            Mount("/number/{number:int}", routes=leaf),
            Mount("/app", Starlette(routes=leaf)),
        ]
    )


@pytest.mark.parametrize("root", ["", "/proxy"])
@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/users/7", "GET", "GET /users/{id} 200"),
        ("/users/7", "DELETE", "DELETE /users/{id} 405"),
        ("/users/x", "GET", "GET _unmatched 404"),
        ("/a/b/leaf/7", "GET", "GET /a/b/leaf/{id} 200"),
        ("/a/b/leaf/7", "PUT", "PUT /a/b/leaf/{id} 405"),
        ("/a/b/nothing", "GET", "GET _unmatched 404"),
        ("/t/acme/leaf/7", "GET", "GET /t/{tenant}/leaf/{id} 200"),
        ("/number/007/leaf/7", "GET", "GET /leaf/{id} 200"),
        ("/app/leaf/7", "GET", "GET /app/leaf/{id} 200"),
        ("/app/nothing", "GET", "GET _unmatched 404"),
        ("/nothing", "GET", "GET _unmatched 404"),
    ],
)
async def test_template_of_starlette(
    path: str, method: str, expected: str, root: str, registry: CollectorRegistry
) -> None:
    """A template has its mounts once, no root path, and nothing of what was asked for."""
    app = make_nested()
    observed = aiosvc.asgi.setup(app, registry=registry)
    await ask(app, root + path, method, root_path=root)
    assert requests_of(registry) == {expected: 1}
    assert errors_of(registry) == {}
    await observed.finish()


async def test_template_of_files(registry: CollectorRegistry, tmp_path: Any) -> None:
    """A mount of files is one endpoint; a file that is not there is unmatched."""
    (tmp_path / "page.txt").write_bytes(b"hello")
    app = Starlette(routes=[Mount("/files", StaticFiles(directory=tmp_path))])
    observed = aiosvc.asgi.setup(app, registry=registry)
    assert (await ask(app, "/files/page.txt")).body == b"hello"
    await ask(app, "/files/none.txt")
    assert requests_of(registry) == {"GET /files 200": 1, "GET _unmatched 404": 1}
    await observed.finish()


def make_fastapi() -> FastAPI:
    """Return an application with routers in routers."""
    app = FastAPI()
    router, inner = APIRouter(prefix="/in"), APIRouter(prefix="/deep")

    @router.get("/users/{id}")
    async def user(id: int) -> int:  # noqa: A002 - the template's name
        return id

    @inner.get("/files/{name:path}")
    async def file(name: str) -> str:
        return name

    router.include_router(inner, prefix="/more")
    app.include_router(router, prefix="/api")
    app.include_router(APIRouter(routes=[Route("/plain/{z}", hello)]), prefix="/st")
    sub = FastAPI()
    sub.add_api_route("/leaf/{id}", lambda id: id)  # noqa: A006 - the template's name
    app.mount("/sub", sub)
    return app


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/api/in/users/7", "GET", "GET /api/in/users/{id} 200"),
        ("/api/in/users/x", "GET", "GET /api/in/users/{id} 422"),
        ("/api/in/users/7", "POST", "POST /api/in/users/{id} 405"),
        ("/api/in/more/deep/files/a/b", "GET", "GET /api/in/more/deep/files/{name} 200"),
        ("/api/in/nothing", "GET", "GET _unmatched 404"),
        ("/st/plain/q", "GET", "GET /st/plain/{z} 200"),
        ("/sub/leaf/7", "GET", "GET /sub/leaf/{id} 200"),
        ("/sub/leaf/7", "DELETE", "DELETE /sub/leaf/{id} 405"),
        ("/sub/nothing", "GET", "GET _unmatched 404"),
        ("/openapi.json", "GET", "GET /openapi.json 200"),
    ],
)
async def test_template_of_fastapi(
    path: str, method: str, expected: str, registry: CollectorRegistry
) -> None:
    """Included routers and mounted applications give whole templates."""
    app = make_fastapi()
    observed = aiosvc.asgi.setup(app, registry=registry)
    await ask(app, path, method)
    assert requests_of(registry) == {expected: 1}
    assert errors_of(registry) == {}
    await observed.finish()


async def test_a_route_object_that_changed(registry: CollectorRegistry) -> None:
    """A framework whose routes are other than they were costs the template, and no request."""

    class Broken:
        @property
        def path(self) -> str:
            raise RuntimeError("there is no path any more")

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["route"] = Broken()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    observed = aiosvc.asgi.setup(app, registry=registry)
    assert (await ask(observed, "/")).status == 200
    assert requests_of(registry) == {"GET _unmatched 200": 1}
    assert errors_of(registry) == {"template": 1}
    await observed.finish()


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
async def test_root_path_of_fastapi_itself(registry: CollectorRegistry) -> None:
    """A root path that the application declares is not of the template."""
    app = FastAPI(root_path="/proxy")
    app.add_api_route("/users/{id}", lambda id: id)  # noqa: A006 - the template's name
    observed = aiosvc.asgi.setup(app, registry=registry)
    await ask(app, "/users/7")
    await ask(app, "/proxy/users/7")
    assert requests_of(registry) == {"GET /users/{id} 200": 2}
    assert (await ask(app, "/proxy/metrics")).status == 200
    await observed.finish()


async def test_label_of_a_request(registry: CollectorRegistry) -> None:
    """A label's function gets the scope; a response header is found in any case."""
    app = Starlette(routes=[Route("/", lambda _: Response(headers={"X-Cache": "hit"}))])
    observed = aiosvc.asgi.setup(
        app,
        registry=registry,
        labels={
            "http": aiosvc.FromRequest(lambda scope: scope["http_version"], ("1.1", "2")),
            "cache": aiosvc.FromResponseHeader("X-Cache", ("hit", "miss")),
        },
    )
    await ask(app, "/")
    labels = {"method": "GET", "endpoint": "/", "status": "200", "http": "1.1", "cache": "hit"}
    assert registry.get_sample_value("http_requests_total", labels) == 1
    await observed.finish()


# -- Endings ---------------------------------------------------------------------------------------


async def test_cancelled_handler(registry: CollectorRegistry) -> None:
    """A request that is cancelled is 499 and `cancelled`, and no longer in progress."""
    entered = asyncio.Event()

    async def wait(_request: Request) -> Response:
        entered.set()
        await asyncio.Event().wait()
        return Response()

    app = Starlette(routes=[Route("/wait", wait)])
    observed = aiosvc.asgi.setup(app, registry=registry)
    task = asyncio.create_task(ask(app, "/wait"))
    await entered.wait()
    assert in_progress(registry) == {"/wait": 1}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert requests_of(registry) == {"GET /wait 499": 1}
    assert failures_of(registry) == {"cancelled": 1}
    assert in_progress(registry) == {}
    await observed.finish()


async def test_send_that_fails(registry: CollectorRegistry) -> None:
    """An OSError of send is a client that left, and reaches the application as it is."""
    seen: list[BaseException] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        except OSError as error:
            seen.append(error)
            raise

    async def refuse(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise error

    error = BrokenPipeError("gone")
    observed = aiosvc.asgi.setup(app, registry=registry)
    conversation = Conversation()
    conversation.hears = refuse
    with pytest.raises(BrokenPipeError) as raised:
        await observed(http("/"), conversation.receive, conversation.send)
    assert raised.value is error
    assert seen == [error]
    assert requests_of(registry) == {"GET _unmatched 200": 1}
    assert failures_of(registry) == {"client_disconnected": 1}
    await observed.finish()


async def test_disconnect_that_the_application_was_told(registry: CollectorRegistry) -> None:
    """An application that is told of a disconnect, and gives up, leaves a 499."""

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    observed = aiosvc.asgi.setup(app, registry=registry)
    conversation = Conversation({**EMPTY, "body": b"abc"}, dict(GONE))
    await observed(http("/", "POST"), conversation.receive, conversation.send)
    assert requests_of(registry) == {"POST _unmatched 499": 1}
    assert failures_of(registry) == {"client_disconnected": 1}
    labels = {"method": "POST", "endpoint": "_unmatched"}
    assert registry.get_sample_value("http_request_size_bytes_sum", labels) == 3
    await observed.finish()


async def test_exception_after_the_answer(registry: CollectorRegistry) -> None:
    """What a background task raises is an exception, and no failure of its request."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
        raise KeyError("in the background")

    observed = aiosvc.asgi.setup(app, registry=registry)
    with pytest.raises(KeyError):
        await ask(observed, "/")
    assert requests_of(registry) == {"GET _unmatched 200": 1}
    assert failures_of(registry) == {}
    labels = {"endpoint": "_unmatched", "exception": "KeyError"}
    assert registry.get_sample_value("http_exceptions_total", labels) == 1
    await observed.finish()


async def test_a_message_that_is_odd(registry: CollectorRegistry) -> None:
    """What a server takes and we don't understand is an error of ours, and passes."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": None})

    observed = aiosvc.asgi.setup(app, registry=registry)
    conversation = Conversation()
    await observed(http("/"), conversation.receive, conversation.send)
    assert [message["type"] for message in conversation.heard] == [
        "http.response.start",
        "http.response.body",
    ]
    assert errors_of(registry) == {"message": 1}
    assert sum(requests_of(registry).values()) == 1
    await observed.finish()


async def test_errors_of_ours_are_counted(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while counting is counted itself, and the request goes on."""
    app = Starlette(routes=[Route("/", hello)])
    observed = aiosvc.asgi.setup(app, registry=registry)

    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(observed.requests, "route", broken)
    assert (await ask(app, "/")).body == b"hello"
    assert errors_of(registry) == {"request": 1}
    assert not observed.exchanges.open
    await observed.finish()


async def test_websocket(registry: CollectorRegistry) -> None:
    """WebSockets are counted apart; one that is refused is a request with its status."""
    app = FastAPI()
    opened: list[float | None] = []

    @app.websocket("/rooms/{name}")
    async def room(websocket: WebSocket, name: str) -> None:
        if name == "closed":
            await websocket.close(1008)
            return
        await websocket.accept()
        labels = {"endpoint": "/rooms/{name}"}
        opened.append(registry.get_sample_value("websocket_connections", labels))
        await websocket.send_text(await websocket.receive_text())
        await websocket.close(1001)

    observed = aiosvc.asgi.setup(app, registry=registry)
    for name in ("a", "closed"):
        conversation = Conversation(
            {"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hi"}
        )
        scope = http(f"/rooms/{name}", type="websocket", subprotocols=[])
        await app(scope, conversation.receive, conversation.send)
    assert opened == [1.0]
    assert requests_of(registry) == {
        "GET /rooms/{name} 101": 1,
        "GET /rooms/{name} 403": 1,
    }
    labels = {"endpoint": "/rooms/{name}"}
    assert registry.get_sample_value("websocket_connections", labels) == 0
    assert registry.get_sample_value("websocket_closes_total", {**labels, "code": "1001"}) == 1
    assert registry.get_sample_value("websocket_duration_seconds_count", labels) == 1
    labels = {"method": "GET", "endpoint": "/rooms/{name}"}
    assert registry.get_sample_value("http_request_duration_seconds_count", labels) == 1
    await observed.finish()


async def test_a_websocket_whose_client_is_found_gone(registry: CollectorRegistry) -> None:
    """An OSError of send is a client that left; what the application makes of it is no exception."""
    app = FastAPI()

    @app.websocket("/news")
    async def news(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("news")

    observed = aiosvc.asgi.setup(app, registry=registry)
    for taken in (1, 5):  # messages that the server takes: the handshake's only, or some more
        conversation = Conversation({"type": "websocket.connect"})

        async def send(
            message: Message, said: Conversation = conversation, limit: int = taken
        ) -> None:
            if len(said.heard) == limit:
                raise ConnectionResetError
            await said.send(message)

        scope = http("/news", type="websocket", subprotocols=[])
        with pytest.raises(WebSocketDisconnect):
            await app(scope, conversation.receive, send)
    labels = {"endpoint": "/news"}
    assert registry.get_sample_value("websocket_connections", labels) == 0
    assert registry.get_sample_value("websocket_closes_total", {**labels, "code": "1006"}) == 2
    assert failures_of(registry) == {}
    assert b"WebSocketDisconnect" not in generate_latest(registry)

    async def refused(_message: Message) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await app(scope, Conversation({"type": "websocket.connect"}).receive, refused)
    assert requests_of(registry) == {"GET /news 101": 2, "GET /news 499": 1}
    assert failures_of(registry) == {"client_disconnected": 1}
    await observed.finish()


# -- Our own endpoints -----------------------------------------------------------------------------


async def test_the_metrics_endpoint(registry: CollectorRegistry) -> None:
    """/metrics negotiates, compresses, filters and refuses as it does for aiohttp."""
    Counter("mine", "Mine.", registry=registry).inc()
    app = Starlette()
    observed = aiosvc.asgi.setup(app, registry=registry)
    text = await ask(app, "/metrics")
    assert text.headers[b"content-type"].startswith(b"text/plain; version=0.0.4")
    assert b"mine_total 1.0" in text.body
    only = await ask(app, "/metrics/", query_string=b"name[]=mine_total")
    assert only.body == b"# HELP mine_total Mine.\n# TYPE mine_total counter\nmine_total 1.0\n"
    wanted = [(b"accept", b"application/openmetrics-text;version=1.0.0"),
              (b"accept-encoding", b"gzip")]  # fmt: skip
    packed = await ask(app, "/metrics", headers=wanted)
    assert packed.headers[b"content-encoding"] == b"gzip"
    assert packed.body.startswith(b"\x1f\x8b")
    head = await ask(app, "/metrics", "HEAD")
    assert (head.status, head.body) == (200, b"")
    refused = await ask(app, "/metrics", "POST")
    assert (refused.status, refused.headers[b"allow"]) == (405, b"GET, HEAD, OPTIONS")
    assert requests_of(registry) == {}
    await observed.finish()


async def test_a_big_scrape_lets_the_loop_turn(registry: CollectorRegistry) -> None:
    """A scrape of many series comes in pieces, and other callbacks have their turns between."""
    counter = Counter("many", "Many.", ["n"], registry=registry)
    for number in range(20_000):
        counter.labels(str(number))
    app = Starlette()
    observed = aiosvc.asgi.setup(app, registry=registry)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    answer = await ask(app, "/metrics")
    task.cancel()
    assert answer.body.count(b"\nmany_total{") == 20_000
    assert len(answer.heard) > 5
    assert turns > 5
    await observed.finish()


async def test_count_own(registry: CollectorRegistry) -> None:
    """Our own endpoints are requests only where that is asked for."""
    app = Starlette()
    observed = aiosvc.asgi.setup(app, registry=registry, count_own=True)
    for path in ("/metrics", "/metrics/", "/livez"):
        assert (await ask(app, path)).status == 200
    assert requests_of(registry) == {"GET /metrics 200": 2, "GET /livez 200": 1}
    await observed.finish()


async def test_a_probe_of_the_applications_own(registry: CollectorRegistry) -> None:
    """A probe that the application has is left to it."""
    app = Starlette(routes=[Route("/livez", hello)])
    observed = aiosvc.asgi.setup(app, registry=registry)
    assert (await ask(app, "/livez")).body == b"hello"
    assert (await ask(app, "/readyz")).body == b"ready\n"
    await observed.finish()


async def test_own_probes_of_an_included_router(registry: CollectorRegistry) -> None:
    """So is one in a router of FastAPI; a route at our path there is refused as any other."""
    app, router = FastAPI(), APIRouter()

    @router.get("/readyz")
    async def ready() -> str:
        return "the application's"

    observed = aiosvc.asgi.setup(app, registry=registry)
    app.include_router(router)
    assert (await ask(app, "/readyz")).body == b'"the application\'s"'
    assert requests_of(registry) == {"GET /readyz 200": 1}
    await observed.finish()
    other = FastAPI()
    router.get("/metrics")(ready)
    other.include_router(router)
    with pytest.raises(ConfigError, match="has a route at '/metrics' of its own"):
        aiosvc.asgi.setup(other, registry=CollectorRegistry())


# -- Life ------------------------------------------------------------------------------------------


async def test_lifespan(registry: CollectorRegistry) -> None:
    """Sampling begins before the application starts, and ends after it; counts remain."""
    order: list[str] = []
    callbacks = len(gc.callbacks)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        order.append(str(observed.loop is not None))
        yield
        order.append(str(observed.health.phase))

    app = Starlette(routes=[Route("/", hello)], lifespan=lifespan)
    observed = aiosvc.asgi.setup(app, registry=registry)
    async with living(app) as heard:
        assert heard == [{"type": "lifespan.startup.complete"}]
        assert observed.health.phase == "ready"
        assert registry.get_sample_value("process_memory_rss_bytes") is not None
        labels = {"method": "GET", "endpoint": "/"}  # a route that nobody has asked for yet
        assert registry.get_sample_value("http_request_duration_seconds_count", labels) == 0
        await ask(app, "/")
    assert order == ["True", "draining"]
    assert heard[-1] == {"type": "lifespan.shutdown.complete"}
    assert requests_of(registry) == {"GET / 200": 1}
    assert registry.get_sample_value("process_memory_rss_bytes") is None
    assert len(gc.callbacks) == callbacks


async def test_lifespan_of_litestar(registry: CollectorRegistry) -> None:
    """Litestar, which keeps its lifespan to itself, starts and stops the sampling too."""

    @get("/")
    async def index() -> str:
        return "hello"

    app = Litestar([index], **QUIET)
    observed = aiosvc.asgi.setup(app, registry=registry)
    async with living(app):
        assert not observed.is_asleep()
        assert (await ask(app, "/readyz")).body == b"ready\n"
        assert (await ask(app, "/")).status == 200
    assert observed.is_asleep()
    assert requests_of(registry) == {"GET / 200": 1}


@pytest.mark.parametrize(
    "make",
    [Starlette, FastAPI, lambda: Quart(__name__), make_patient],
    ids=["Starlette", "FastAPI", "Quart", "bare"],
)
async def test_a_port_that_is_taken_is_told_at_the_start(
    make: Callable[[], Any], registry: CollectorRegistry
) -> None:
    """An admin port that can't be had keeps the application from starting, and says why."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    admin = aiosvc.AdminOptions(admin_port=port)
    observed = aiosvc.asgi.setup(make(), registry=registry, admin=admin)
    conversation = Conversation({"type": "lifespan.startup"})
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    with pytest.raises(BindError):
        await observed(scope, conversation.receive, conversation.send)
    # A server that is told nothing goes on as if there were no lifespan.
    (message,) = conversation.heard
    assert message["type"] == "lifespan.startup.failed"
    assert f"port {port} is taken" in message["message"]
    server.close()
    await server.wait_closed()


async def test_a_port_that_is_taken_without_a_start(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody can be told at a start, a line is logged and requests go on."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    admin = aiosvc.AdminOptions(admin_port=port)
    observed = aiosvc.asgi.setup(make_bare(), registry=registry, admin=admin)
    with caplog.at_level("WARNING", "aiosvc"):
        await ask(observed, "/")
        await ask(observed, "/")
    (record,) = [each for each in caplog.records if each.name == "aiosvc"]
    assert f"port {port} is taken" in record.getMessage()
    assert record.exc_info is None
    assert requests_of(registry) == {"GET /things/{id} 200": 2}
    assert errors_of(registry) == {}
    await observed.finish()
    server.close()
    await server.wait_closed()


async def test_admin_server(registry: CollectorRegistry) -> None:
    """An admin server is there while the application runs."""
    app = Starlette()
    admin = aiosvc.AdminOptions(admin_port=0)
    observed = aiosvc.asgi.setup(app, registry=registry, admin=admin)
    async with living(app):
        assert observed.admin_url is not None
        host, port = observed.admin_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert observed.admin_url is None


def test_one_event_loop_after_another(registry: CollectorRegistry) -> None:
    """An application that is run on several loops, without a lifespan, is sampled on each."""
    app = Starlette(routes=[Route("/", hello)])
    observed = aiosvc.asgi.setup(app, registry=registry)
    for number in range(1, 4):

        async def run(number: int) -> None:
            await ask(app, "/")
            text = (await ask(app, "/metrics")).body
            assert b'aiosvc_source_up{source="asyncio_tasks"} 1.0' in text
            assert f'status="200"}} {number}.0'.encode() in text
            if number == 3:
                await observed.finish()

        asyncio.run(run(number))
    assert errors_of(registry) == {}


async def test_lifespan_that_is_not_supported(registry: CollectorRegistry) -> None:
    """An application without lifespan raises what it raises, and is sampled from its first request."""
    observed = aiosvc.asgi.setup(make_bare(), registry=registry)
    with pytest.raises(AssertionError):
        async with living(observed):
            pass
    await ask(observed, "/")
    assert observed.loop is asyncio.get_running_loop()
    await observed.finish()


@pytest.mark.parametrize("fails", [True, False])
async def test_lifespan_that_ends_without_a_word(fails: bool, registry: CollectorRegistry) -> None:
    """An application that gives up its lifespan after the start is ready: its server goes on."""

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            if fails:
                raise RuntimeError("no lifespan")
            return
        await PlainTextResponse("hello")(scope, receive, send)

    observed = aiosvc.asgi.setup(silent, registry=registry)
    with pytest.raises(RuntimeError) if fails else nullcontext():
        async with living(observed):
            pass
    assert (await ask(observed, "/readyz")).body == b"ready\n"
    await ask(observed, "/")
    assert requests_of(registry) == {"GET _unmatched 200": 1}
    assert registry.get_sample_value("process_memory_rss_bytes") is not None
    await observed.finish()


async def test_what_is_in_the_registry(registry: CollectorRegistry) -> None:
    """What no adapter of ASGI can know is absent; the endpoint serves what generate_latest does."""
    app = Starlette(middleware=[Middleware(Copying)], routes=[Route("/users/{id}", hello)])
    observed = aiosvc.asgi.setup(app, registry=registry)
    async with living(app):
        await ask(app, "/users/7")
        await ask(app, "/metrics")
        text = (await ask(app, "/metrics")).body.decode()
        latest = generate_latest(registry).decode()

    def names(exposition: str) -> list[str]:
        return [line for line in exposition.splitlines() if line.startswith("#")]

    assert names(text) == names(latest)
    assert "http_bad_requests_total" not in text
    assert "connections_total" not in text.replace("websocket_connections_total", "")
    assert requests_of(registry) == {"GET /users/{id} 200": 1}  # behind a copy of the scope
    assert observed.loop is None
