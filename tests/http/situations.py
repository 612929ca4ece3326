"""
One application that offers every situation that a request can get into, and a server to put it on.

Rule: a test says what clients do, and then with `Service.says` everything that the metrics must say
of it, not only what the test is about. Rule: handlers wait at gates, never for a time.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from aiohttp import web
from prometheus_client import CollectorRegistry
from wire import DEADLINE, Answer, Wire

import aiosvc

__all__ = [
    "BODY",
    "CHUNK",
    "GATES",
    "Gate",
    "Gates",
    "Samples",
    "Seen",
    "Service",
    "make_app",
    "samples_of",
    "seen_in",
    "serving",
    "until",
    "write_files",
]

#: What a stream writes before its gate, and once more after it.
CHUNK = b"0123456789"
#: The body of `/ok`.
BODY = b"all is well"

_PAUSE = 0.002  # seconds between two looks at what is waited for


class Gate:
    """Where a handler waits until it is let on."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = False

    async def wait(self) -> None:
        """Be in the gate until it is opened; called by handlers."""
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class Gates(defaultdict[str, Gate]):
    """The gates of one application, by the name that a request gives in its query."""

    def __init__(self) -> None:
        super().__init__(Gate)


GATES = web.AppKey("gates", Gates)


async def until(condition: Callable[[], bool], what: object, *, deadline: float = DEADLINE) -> None:
    """Let the loop turn until the condition holds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
        await asyncio.sleep(_PAUSE)


# -- The application -------------------------------------------------------------------------------


def _gate(request: web.Request) -> Gate:
    return request.config_dict[GATES][request.query.get("gate", "")]


async def _ok(_request: web.Request) -> web.Response:
    return web.Response(body=BODY)


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def _unread(_request: web.Request) -> web.Response:
    return web.Response(body=BODY)


async def _raise(request: web.Request) -> NoReturn:
    error = getattr(web, request.match_info["name"])
    if issubclass(error, web.HTTPMove):
        raise error(location="/ok")
    if issubclass(error, web.HTTPMethodNotAllowed):
        raise error("GET", ["POST"])
    if issubclass(error, web.HTTPRequestEntityTooLarge):
        raise error(max_size=1, actual_size=2)
    if issubclass(error, web.HTTPUnavailableForLegalReasons):
        raise error(link="https://law.test/")
    raise error


async def _return(request: web.Request) -> web.Response:
    error: web.Response = getattr(web, request.match_info["name"])()
    return error


_ERRORS: dict[str, type[BaseException]] = {
    "value": ValueError,
    "timeout": TimeoutError,
    "connection": ConnectionResetError,
    "cancelled": asyncio.CancelledError,
    "forbidden": web.HTTPForbidden,
}


async def _fail(request: web.Request) -> NoReturn:
    raise _ERRORS[request.match_info["how"]]


async def _wrong(request: web.Request) -> Any:
    return {"none": None, "text": "a text"}[request.match_info["what"]]


async def _wait(request: web.Request) -> web.Response:
    await _gate(request).wait()
    return web.Response(body=BODY)


async def _stubborn(request: web.Request) -> web.Response:
    # Goes on when it is cancelled, and answers when it is let on.
    gate = _gate(request)
    while not gate.opened.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await gate.wait()
    return web.Response(body=BODY)


async def _stream(request: web.Request) -> Any:
    """Write, wait at the gate, and then do what the path says."""
    response = web.StreamResponse()
    if "declared" in request.query:
        response.content_length = int(request.query["declared"])
    await response.prepare(request)
    await response.write(CHUNK)
    await _gate(request).wait()
    then = request.match_info["then"]
    if then == "end":
        await response.write(CHUNK)
    elif then == "swallow":
        with contextlib.suppress(ConnectionError):
            await response.write(CHUNK)
    elif then == "on":
        while True:
            await response.write(CHUNK)
            await asyncio.sleep(0)
    elif then == "none":
        return None
    elif then == "another":
        return web.Response(body=BODY)
    elif then == "abort":
        assert request.transport is not None
        request.transport.abort()
    elif then in _ERRORS:
        raise _ERRORS[then]
    return response


async def _ws(request: web.Request) -> web.WebSocketResponse:
    """Send texts back; of some, do what they say."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is web.WSMsgType.ERROR:
            break
        verb, _, argument = str(message.data).partition(" ")
        if verb == "raise":
            raise ValueError(argument)
        if verb == "close":
            await socket.close(code=int(argument))
        elif verb == "leave":
            break
        else:
            await socket.send_str(str(message.data))
    return socket


def make_app(*routes: web.AbstractRouteDef, **options: Any) -> web.Application:
    """Return a new application with every situation, and with *routes*."""
    app = web.Application(**options)
    app[GATES] = Gates()
    app.add_routes(
        [
            web.get("/ok", _ok),
            web.post("/echo", _echo),
            web.put("/unread", _unread),
            web.get("/users/{id}", _ok),
            web.get(r"/numbers/{number:\d+}", _ok),
            web.route("*", "/any", _ok),
            web.get("/raise/{name}", _raise),
            web.get("/return/{name}", _return),
            web.get("/fail/{how}", _fail),
            web.get("/wrong/{what}", _wrong),
            web.get("/wait", _wait),
            web.get("/stubborn", _stubborn),
            web.get("/stream/{then}", _stream),
            web.get("/ws", _ws),
            *routes,
        ]
    )
    leaves = web.Application()
    leaves.add_routes([web.get("/leaf/{id}", _ok), web.get("/fail/{how}", _fail)])
    branch = web.Application()
    branch.add_routes([web.get("/twig", _ok), web.get("/wait", _wait)])
    branch.add_subapp("/deep", leaves)
    app.add_subapp("/sub", branch)
    domain = web.Application()
    domain.add_routes([web.get("/at/{place}", _ok)])
    app.add_domain("inner.test", domain)
    return app


# -- What the metrics say --------------------------------------------------------------------------


class Seen(NamedTuple):
    """
    What a registry says of requests, zeros left out.

    The keys are labels joined by blanks: `GET /users/{id} 200`, `GET /wait cancelled`.
    """

    requests: dict[str, int]
    failures: dict[str, int]
    exceptions: dict[str, int]
    bad_requests: int
    sockets: dict[str, int]
    closes: dict[str, int]
    in_progress: dict[str, int]
    open_sockets: dict[str, int]


_FAMILIES = {
    "requests": ("http_requests_total", ("method", "endpoint", "status")),
    "failures": ("http_request_failures_total", ("method", "endpoint", "reason")),
    "exceptions": ("http_exceptions_total", ("endpoint", "exception")),
    "sockets": ("websocket_connections_total", ("endpoint",)),
    "closes": ("websocket_closes_total", ("endpoint", "code")),
    "in_progress": ("http_requests_in_progress", ("method", "endpoint")),
    "open_sockets": ("websocket_connections", ("endpoint",)),
}

Samples = dict[str, list[tuple[dict[str, str], float]]]


def samples_of(registry: CollectorRegistry) -> Samples:
    """Return every sample of the registry, by name."""
    samples: Samples = defaultdict(list)
    for family in registry.collect():
        for sample in family.samples:
            samples[sample.name].append((dict(sample.labels), sample.value))
    return samples


def seen_in(samples: Samples) -> Seen:
    """Return what the samples say of requests."""
    seen: dict[str, Any] = {"bad_requests": int(samples["http_bad_requests_total"][0][1])}
    for field, (name, labels) in _FAMILIES.items():
        seen[field] = {
            " ".join(found[label] for label in labels): int(value)
            for found, value in samples[name]
            if value
        }
    # The table asks for the failure `timeout` only; counted as a class as well it is no lie.
    seen["exceptions"] = {
        key: value for key, value in seen["exceptions"].items() if not key.endswith(" TimeoutError")
    }
    return Seen(**seen)


def _difference(seen: Seen, expected: Seen) -> str:
    lines = [
        f"{field}: {found}, expected {wanted}"
        for field, found, wanted in zip(Seen._fields, seen, expected, strict=True)
        if found != wanted
    ]
    return "the metrics say\n" + "\n".join(lines)


def check_sums(samples: Samples) -> None:
    """Assert what holds between the metrics whenever nothing is in progress."""
    requests: dict[tuple[str, str], float] = defaultdict(float)
    for labels, value in samples["http_requests_total"]:
        requests[labels["method"], labels["endpoint"]] += value
    for labels, value in samples["websocket_connections_total"]:
        requests["GET", labels["endpoint"]] -= value
    counted = {
        name: {(labels["method"], labels["endpoint"]): value for labels, value in samples[name]}
        for name in (
            "http_request_duration_seconds_count",
            "http_request_size_bytes_count",
            "http_response_size_bytes_count",
        )
    }
    for name, counts in counted.items():
        expected = {key: requests.get(key, 0) for key in counts.keys() | requests.keys()}
        assert counts == expected, name
    for labels, value in samples["http_request_duration_seconds_bucket"]:
        if labels["le"] == "+Inf":
            key = labels["method"], labels["endpoint"]
            assert value == counted["http_request_duration_seconds_count"][key]
    assert all(value >= 0 for values in samples.values() for _, value in values)
    assert not samples["aiosvc_instrumentation_errors_total"]


# -- The server ------------------------------------------------------------------------------------


class Service:
    """An observed application on a port of its own."""

    def __init__(
        self, app: web.Application, observer: aiosvc.Observer, runner: web.AppRunner, port: int
    ) -> None:
        self.app = app
        self.observer = observer
        self.runner = runner
        self.port = port
        self._wires: list[Wire] = []
        self._said: Seen | None = None

    async def connect(self, *, receive_buffer: int | None = None, port: int | None = None) -> Wire:
        """Return a new connection, closed with the service at the latest."""
        wire = await Wire.connect(port or self.port, receive_buffer=receive_buffer)
        self._wires.append(wire)
        return wire

    async def ask(self, data: bytes, *, to: str = "GET") -> Answer:
        """Return the answer to one request on a connection of its own."""
        wire = await self.connect()
        try:
            return await wire.ask(data, to=to)
        finally:
            wire.close()

    def gate(self, name: str = "") -> Gate:
        """Return the gate of requests with `?gate=name`."""
        return self.app[GATES][name]

    async def entered(self, name: str = "") -> Gate:
        """Return the gate once a handler waits in it."""
        gate = self.gate(name)
        async with asyncio.timeout(DEADLINE):
            await gate.entered.wait()
        return gate

    def samples(self) -> Samples:
        """Return what a scrape would say now."""
        self.observer.sampler.refresh()
        return samples_of(self.observer.registry)

    def value(self, name: str, **labels: str) -> float | None:
        """Return one sample, None where there is none."""
        self.observer.sampler.refresh()
        return self.observer.registry.get_sample_value(name, labels)

    def seen(self) -> Seen:
        """Return what a scrape would say of requests now."""
        return seen_in(self.samples())

    async def says(
        self,
        requests: Mapping[str, int],
        *,
        failures: Mapping[str, int] | None = None,
        exceptions: Mapping[str, int] | None = None,
        bad_requests: int = 0,
        sockets: Mapping[str, int] | None = None,
        closes: Mapping[str, int] | None = None,
        in_progress: Mapping[str, int] | None = None,
        open_sockets: Mapping[str, int] | None = None,
        deadline: float = 4.0,
    ) -> None:
        """Wait until the metrics say exactly this, and hold them to it until the server stops."""
        expected = Seen(
            dict(requests),
            dict(failures or {}),
            dict(exceptions or {}),
            bad_requests,
            dict(sockets or {}),
            dict(closes or {}),
            dict(in_progress or {}),
            dict(open_sockets or {}),
        )
        end = time.monotonic() + deadline
        while (seen := self.seen()) != expected and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(_PAUSE)  # numbers set no event
        assert seen == expected, _difference(seen, expected)
        if not in_progress and not open_sockets:
            samples = self.samples()
            check_sums(samples)
            assert self.value("http_request_oldest_in_progress_seconds") in (0, None)  # None: ended
            self._said = expected

    def forget(self) -> None:
        """Hold the metrics no longer to what they said: something is still to end."""
        self._said = None

    async def quiet(self) -> None:
        """Wait until no request is in progress and no WebSocket is open."""

        def is_quiet() -> bool:
            seen = self.seen()
            return not seen.in_progress and not seen.open_sockets

        await until(is_quiet, "no request in progress")

    async def stop(self) -> None:
        """Stop the server, whatever it is doing."""
        await self.runner.cleanup()

    async def end(self) -> None:
        """End what is open, stop, and check that nothing more was counted than was said."""
        for wire in self._wires:
            wire.close()
        for gate in self.app[GATES].values() if GATES in self.app else ():
            gate.opened.set()
        await self.runner.cleanup()
        if self._said is not None:
            after = seen_in(samples_of(self.observer.registry))
            assert after == self._said, f"after the stop: {_difference(after, self._said)}"


@asynccontextmanager
async def serving(
    *routes: web.AbstractRouteDef,
    app: web.Application | None = None,
    middlewares: Iterable[Any] = (),
    options: Mapping[str, Any] | None = None,
    shutdown_timeout: float = 1.0,
    **server: Any,
) -> AsyncIterator[Service]:
    """
    Serve the application with every situation on a free port of 127.0.0.1.

    *options* are those of `aiosvc.setup`, *server* those of `web.AppRunner`.
    """
    if app is None:
        app = make_app(*routes, middlewares=middlewares)
    observer = aiosvc.setup(app, **{"registry": CollectorRegistry(), **(options or {})})
    runner = web.AppRunner(app, shutdown_timeout=shutdown_timeout, **server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service = Service(app, observer, runner, runner.addresses[0][1])
    try:
        yield service
    except BaseException:
        service.forget()
        raise
    finally:
        await service.end()


def write_files(directory: Path) -> Path:
    """Write the files that static routes serve into *directory* and return it."""
    (directory / "page.txt").write_bytes(BODY)
    (directory / "big.bin").write_bytes(bytes(300_000))
    return directory
