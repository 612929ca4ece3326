"""
What every adapter must say: situations, what clients do in each, and the samples that follow.

Rule: one table for aiohttp, ASGI and WSGI; an adapter that can't get into a situation says why, and
no situation is left out without a reason. Rule: everything that the metrics say of a situation is
compared, by the difference between two scrapes.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from processes import DEADLINE, Process, free_port
from prometheus_client.parser import text_string_to_metric_families
from situations import until
from wire import Answer, Wire, chunked, request

__all__ = ["DRIVERS", "SITUATIONS", "Driver", "Served", "Situation", "serving_apps"]

APPS = Path(__file__).parent / "apps"
BODY = b"all is well"
CHUNK = b"0123456789"

#: The families whose series a situation moves, and the labels that it is told by.
FAMILIES = {
    "http_requests_total": ("method", "endpoint", "status"),
    "http_request_duration_seconds_count": ("method", "endpoint"),
    "http_request_size_bytes_sum": ("method", "endpoint"),
    "http_response_size_bytes_sum": ("method", "endpoint"),
    "http_request_failures_total": ("method", "endpoint", "reason"),
    "http_exceptions_total": ("endpoint", "exception"),
    "http_requests_in_progress": ("method", "endpoint"),
    "websocket_connections": ("endpoint",),
    "websocket_connections_total": ("endpoint",),
    "websocket_closes_total": ("endpoint", "code"),
    "aiosvc_instrumentation_errors_total": ("where",),
}
REQUESTS = "http_requests_total"
DURATIONS = "http_request_duration_seconds_count"
RECEIVED = "http_request_size_bytes_sum"
SENT = "http_response_size_bytes_sum"
FAILURES = "http_request_failures_total"
EXCEPTIONS = "http_exceptions_total"

#: Counted by family and labels, these joined by blanks.
Numbers = dict[str, float]


@dataclass(frozen=True)
class Driver:
    """One adapter with one framework under one server, and what it can't do, each with why."""

    server: str
    app: str
    cannot: Mapping[str, str] = field(default_factory=dict)
    #: What becomes of a TimeoutError.
    timeout_status: int = 500
    #: Whether a failure is answered by the server itself, whose bytes nobody sees.
    server_answers: bool = False
    #: What becomes of a ValueError in a stream.
    stream_error: str = "ValueError"
    #: The close code that the server tells of a client's 1000, and the one after an exception.
    told_code: str = "1000"
    error_code: str = "1006"

    def __str__(self) -> str:
        return f"{self.app.removesuffix('_app')}-{self.server}"


class Served:
    """An application in a process of its own."""

    def __init__(self, driver: Driver, process: Process, port: int, gates: Path) -> None:
        self.driver = driver
        self.process = process
        self.port = port
        self._gates = gates
        self._names = count()
        self._wires: list[Wire] = []

    async def connect(self) -> Wire:
        """Return a new connection, closed by `release` at the latest."""
        wire = await Wire.connect(self.port)
        self._wires.append(wire)
        return wire

    def release(self) -> None:
        """Close every connection."""
        while self._wires:
            self._wires.pop().close()

    async def ask(self, data: bytes, *, to: str = "GET") -> Answer:
        """Return the answer to one request on a connection of its own."""
        wire = await self.connect()
        try:
            return await wire.ask(data, to=to)
        finally:
            wire.close()

    def gate(self) -> str:
        """Return the name of a new gate."""
        return f"gate{next(self._names)}"

    async def entered(self, gate: str) -> None:
        """Wait until a handler waits in the gate."""
        await until((self._gates / f"{gate}.entered").exists, gate)

    def open(self, gate: str) -> None:
        """Let the handler on."""
        (self._gates / f"{gate}.open").touch()

    async def numbers(self) -> Numbers:
        """Return what a scrape says now."""
        data = request("GET", "/metrics", headers={"Connection": "close"})
        answer = await self.ask(data)
        assert answer.status == 200
        return {
            f"{sample.name} {' '.join(sample.labels[label] for label in FAMILIES[sample.name])}": (
                sample.value
            )
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
            if sample.name in FAMILIES
        }

    async def moved(self, before: Numbers, expected: Numbers, *, deadline: float = 5.0) -> None:
        """Wait until the numbers have moved by exactly so much since *before*."""
        expected = {key: value for key, value in expected.items() if value}
        end = time.monotonic() + deadline
        while (found := difference(before, await self.numbers())) != expected:
            if time.monotonic() > end:
                break
            await asyncio.sleep(0.01)
        assert found == expected, f"{self.driver}: {found}, expected {expected}"


def difference(before: Numbers, after: Numbers) -> Numbers:
    """Return what moved, and by how much."""
    moved = {key: value - before.get(key, 0.0) for key, value in after.items()}
    # The table asks for the failures only; what frameworks raise there is no lie as a class either.
    aside = (f"{EXCEPTIONS} /fail/{{how}} TimeoutError", f"{EXCEPTIONS} /wrong ")
    return {key: value for key, value in moved.items() if value and not key.startswith(aside)}


def answered(key: str, status: int, *, sent: int, received: int = 0, times: int = 1) -> Numbers:
    """Return what *times* requests to *key*, "GET /ok", move that were answered so."""
    moved = {
        f"{REQUESTS} {key} {status}": times,
        f"{DURATIONS} {key}": times,
        f"{RECEIVED} {key}": received,
        f"{SENT} {key}": sent,
    }
    return {name: float(value) for name, value in moved.items() if value}


@dataclass(frozen=True)
class Situation:
    """What clients do, and what the metrics must say then."""

    name: str
    act: Callable[[Served], Awaitable[Numbers]]
    #: What an adapter must be able to do for it.
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


SITUATIONS: list[Situation] = []


def situation(*needs: str) -> Callable[[Callable[[Served], Awaitable[Numbers]]], Any]:
    """Put a situation on the table."""

    def add(act: Callable[[Served], Awaitable[Numbers]]) -> Any:
        SITUATIONS.append(Situation(act.__name__, act, needs))
        return act

    return add


# -- Answers ---------------------------------------------------------------------------------------


def plain(method: str, target: str, template: str, sent: int = len(BODY)) -> None:
    """Put an answer with a body on the table."""

    async def act(served: Served) -> Numbers:
        answer = await served.ask(request(method, target), to=method)
        assert answer.status == 200
        return answered(f"{method} {template}", 200, sent=sent)

    SITUATIONS.append(Situation(f"{method} {target}", act))


plain("GET", "/ok", "/ok")
plain("HEAD", "/ok", "/ok", sent=0)
plain("GET", "/ok?user=7", "/ok")
plain("GET", "/users/7", "/users/{id}")
plain("GET", "/users/a%20b", "/users/{id}")
plain("GET", "/numbers/42", "/numbers/{number}")
plain("GET", "/sub/leaf/7", "/sub/leaf/{id}")


@situation()
async def body_is_received(served: Served) -> Numbers:
    """A body with a length counts in both directions."""
    answer = await served.ask(request("POST", "/echo", body=CHUNK))
    assert answer.body == CHUNK
    return answered("POST /echo", 200, sent=10, received=10)


@situation("chunked bodies")
async def chunked_body_is_received(served: Served) -> Numbers:
    """A chunked body counts without its framing."""
    data = request("POST", "/echo", headers={"Transfer-Encoding": "chunked"})
    answer = await served.ask(data + chunked(CHUNK, CHUNK))
    assert answer.body == CHUNK * 2
    return answered("POST /echo", 200, sent=20, received=20)


@situation("keep-alive")
async def keep_alive(served: Served) -> Numbers:
    """Requests on one connection count each."""
    wire = await served.connect()
    for _ in range(3):
        assert (await wire.ask(request("GET", "/ok"))).status == 200
    wire.close()
    return answered("GET /ok", 200, sent=3 * len(BODY), times=3)


async def _refused(served: Served, data: bytes, key: str, status: int) -> Numbers:
    answer = await served.ask(data)
    assert answer.status == status
    return answered(key, status, sent=len(answer.body))


@situation()
async def unmatched(served: Served) -> Numbers:
    """A hundred paths that no route has make one series."""
    sent = 0
    for number in range(100):
        answer = await served.ask(request("GET", f"/wp-admin/{number}.php"))
        assert answer.status == 404
        sent += len(answer.body)
    return answered("GET _unmatched", 404, sent=sent, times=100)


@situation()
async def unmatched_below_a_prefix(served: Served) -> Numbers:
    """A path that a part of the application does not have is unmatched."""
    return await _refused(served, request("GET", "/sub/nothing"), "GET _unmatched", 404)


@situation("odd methods")
async def method_of_the_clients_own(served: Served) -> Numbers:
    """A method that is no standard one is `_other`."""
    return await _refused(served, request("PROPFIND", "/nothing"), "_other _unmatched", 404)


@situation("the template of a 405")
async def wrong_method(served: Served) -> Numbers:
    """A method that a known path does not have keeps that path's template."""
    return await _refused(served, request("DELETE", "/users/7"), "DELETE /users/{id}", 405)


@situation()
async def http_exception(served: Served) -> Numbers:
    """The framework's own exception is an answer: neither a failure nor an exception."""
    return await _refused(served, request("GET", "/forbidden"), "GET /forbidden", 403)


@situation()
async def redirect(served: Served) -> Numbers:
    """A redirect is an answer."""
    return await _refused(served, request("GET", "/moved"), "GET /moved", 302)


@situation("scrapes while a handler works")
async def stream(served: Served) -> Numbers:
    """A stream counts all its chunks, and is in progress until the last."""
    before, gate = await served.numbers(), served.gate()
    wire = await served.connect()
    await wire.send(request("GET", f"/stream/end?gate={gate}"))
    await served.entered(gate)
    await served.moved(before, {"http_requests_in_progress GET /stream/{then}": 1.0})
    served.open(gate)
    assert (await wire.answer()).body == CHUNK * 2
    wire.close()
    return answered("GET /stream/{then}", 200, sent=20)


@situation("background tasks")
async def background_task(served: Served) -> Numbers:
    """A request with work left to do afterwards is over when it has been answered."""
    before, gate = await served.numbers(), served.gate()
    assert (await served.ask(request("GET", f"/background?gate={gate}"))).status == 200
    await served.entered(gate)
    expected = answered("GET /background", 200, sent=len(BODY))
    await served.moved(before, expected)
    served.open(gate)
    return expected


# -- Failures --------------------------------------------------------------------------------------


async def _failed(served: Served, target: str, key: str, status: int, reason: str) -> Numbers:
    answer = await served.ask(request("GET", target, headers={"Connection": "close"}))
    assert answer.status == status
    found = answered(key, status, sent=0)
    sent = 0 if served.driver.server_answers else len(answer.body)
    return {**found, f"{FAILURES} {key} {reason}": 1.0, f"{SENT} {key}": float(sent)}


@situation()
async def handler_raises(served: Served) -> Numbers:
    """An exception that nothing caught is a 500, a failure and one of its class."""
    moved = await _failed(served, "/fail/value", "GET /fail/{how}", 500, "exception")
    return {**moved, f"{EXCEPTIONS} /fail/{{how}} ValueError": 1.0}


@situation()
async def handler_times_out(served: Served) -> Numbers:
    """A TimeoutError is the failure `timeout`, under what the framework makes of it."""
    status = served.driver.timeout_status
    return await _failed(served, "/fail/timeout", "GET /fail/{how}", status, "timeout")


@situation("an answer that is none")
async def handler_returns_no_response(served: Served) -> Numbers:
    """What is returned and is no response is a 500 and the failure `exception`."""
    return await _failed(served, "/wrong", "GET /wrong", 500, "exception")


@situation()
async def handler_fails_in_mid_stream(served: Served) -> Numbers:
    """What goes wrong once headers are sent is `aborted`, under the status that was sent."""
    gate = served.gate()
    wire = await served.connect()
    await wire.send(request("GET", f"/stream/fail?gate={gate}"))
    assert (await wire.head()).status == 200
    served.open(gate)
    await wire.rest()
    key = "GET /stream/{then}"
    return {
        **answered(key, 200, sent=10),
        f"{FAILURES} {key} aborted": 1.0,
        f"{EXCEPTIONS} /stream/{{then}} {served.driver.stream_error}": 1.0,
    }


@situation("departures while a handler works")
async def client_leaves_while_the_handler_works(served: Served) -> Numbers:
    """A client that left before an answer makes a 499."""
    before, gate = await served.numbers(), served.gate()
    wire = await served.connect()
    await wire.send(request("GET", f"/wait?gate={gate}"))
    await served.entered(gate)
    await served.moved(before, {"http_requests_in_progress GET /wait": 1.0})
    wire.reset()
    await asyncio.sleep(0.1)  # nothing says when a server has seen it
    served.open(gate)
    return {
        **answered("GET /wait", 499, sent=0),
        f"{FAILURES} GET /wait client_disconnected": 1.0,
    }


@situation("scrapes while a handler works", "departures in mid-stream")
async def client_leaves_in_mid_stream(served: Served) -> Numbers:
    """A client that leaves within a stream is a disconnection, under the status that was sent."""
    before, gate = await served.numbers(), served.gate()
    wire = await served.connect()
    await wire.send(request("GET", f"/stream/on?gate={gate}"))
    assert (await wire.head()).status == 200
    await served.entered(gate)
    wire.reset()
    await asyncio.sleep(0.1)
    served.open(gate)
    key = "GET /stream/{then}"
    expected = {
        **answered(key, 200, sent=0),
        f"{FAILURES} {key} client_disconnected": 1.0,
    }
    sent = f"{SENT} {key}"

    def settled(numbers: Numbers) -> bool:
        return difference(before, {**numbers, sent: before.get(sent, 0.0)}) == expected

    end = time.monotonic() + DEADLINE
    while not settled(numbers := await served.numbers()) and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.02)  # numbers set no event
    moved = difference(before, numbers)
    assert moved.get(sent, 0) >= len(CHUNK)
    return {**expected, sent: moved[sent]}


# -- WebSockets ------------------------------------------------------------------------------------


def _socket(code: str) -> Numbers:
    return {
        f"{REQUESTS} GET /ws 101": 1.0,
        "websocket_connections_total /ws": 1.0,
        f"websocket_closes_total /ws {code}": 1.0,
    }


@situation("WebSockets")
async def websocket_closed_by_the_client(served: Served) -> Numbers:
    """A WebSocket is counted apart, open while it is, and closed with the client's code."""
    before = await served.numbers()
    wire = await served.connect()
    await wire.upgrade("/ws")
    await wire.send_frame("hello")
    assert (await wire.frame()).payload == b"hello"
    opened = {
        f"{REQUESTS} GET /ws 101": 1.0,
        "websocket_connections /ws": 1.0,
        "websocket_connections_total /ws": 1.0,
    }
    await served.moved(before, opened)
    await wire.send_close(1000)
    await wire.rest()
    return _socket(served.driver.told_code)


@situation("WebSockets")
async def websocket_closed_by_the_server(served: Served) -> Numbers:
    """A WebSocket that the handler closes has the handler's code."""
    wire = await served.connect()
    await wire.upgrade("/ws")
    await wire.send_frame("close")
    assert (await wire.frame()).opcode == 8
    await wire.send_close(1001)
    wire.close()
    return _socket("1001")


@situation("WebSockets")
async def websocket_handler_raises(served: Served) -> Numbers:
    """An exception in a WebSocket's handler is `aborted`, and closes without a code: 1006."""
    wire = await served.connect()
    await wire.upgrade("/ws")
    await wire.send_frame("raise")
    with contextlib.suppress(ConnectionError):
        await wire.some()  # the close, or the end
    wire.close()
    return {
        **_socket(served.driver.error_code),
        f"{FAILURES} GET /ws aborted": 1.0,
        f"{EXCEPTIONS} /ws ValueError": 1.0,
    }


# -- The adapters ----------------------------------------------------------------------------------

WSGI = {
    "WebSockets": "WSGI has no WebSockets",
    "background tasks": "WSGI has no work after the answer",
    "departures while a handler works": "a WSGI application is not told that its client left",
}
DJANGO_ASGI = {
    "WebSockets": "Django has none",
    "background tasks": "Django has none",
}
NO_TEMPLATE = {"the template of a 405": "the framework does not say which route it was"}
SYNC = {
    "scrapes while a handler works": "a sync worker does one thing at a time",
    "keep-alive": "a sync worker closes each connection",
}
DJANGO = {
    **WSGI,
    "chunked bodies": "Django reads no body without a length",
    "keep-alive": "Django says no length, so waitress closes the connection",
}
WSGIREF = {
    "chunked bodies": "wsgiref does not take them",
    "keep-alive": "wsgiref closes each connection",
}
AIOHTTP = {
    "background tasks": "aiohttp has none",
    "odd methods": "aiohttp's parser refuses them, or its router knows the path",
}

#: hypercorn tells an application 1006, whatever the client's code was.
HYPERCORN = "1006"

DRIVERS = (
    Driver("aiohttp", "aiohttp_app", AIOHTTP, timeout_status=504),
    Driver("uvicorn-h11", "starlette_app"),
    Driver("uvicorn-httptools", "fastapi_app"),
    Driver("uvicorn-uvloop", "fastapi_app"),
    Driver("hypercorn", "starlette_app", told_code=HYPERCORN),
    Driver(
        "uvicorn-httptools",
        "litestar_app",
        {**NO_TEMPLATE, "an answer that is none": "Litestar answers None"},
        stream_error="LitestarException",
        error_code="_other",  # 4500
    ),
    Driver("hypercorn", "quart_app", NO_TEMPLATE, told_code=HYPERCORN, error_code="1000"),
    Driver("uvicorn-h11", "django_asgi", DJANGO_ASGI),
    Driver("uvicorn-h11", "bare_asgi", NO_TEMPLATE, server_answers=True),
    Driver("hypercorn", "bare_asgi", NO_TEMPLATE, server_answers=True, told_code=HYPERCORN),
    Driver("gunicorn-sync", "flask_app", {**WSGI, **NO_TEMPLATE, **SYNC}),
    Driver("gunicorn-gthread", "flask_app", {**WSGI, **NO_TEMPLATE}),
    Driver("gunicorn-gthread", "django_app", DJANGO),
    Driver("waitress", "django_app", DJANGO),
    Driver("waitress", "bare_wsgi", {**WSGI, **NO_TEMPLATE}, server_answers=True),
    Driver("wsgiref", "bare_wsgi", {**WSGI, **NO_TEMPLATE, **WSGIREF}, server_answers=True),
)


@asynccontextmanager
async def serving_apps(driver: Driver, directory: Path) -> AsyncIterator[Served]:
    """Serve a driver's application, in a process of its own."""
    gates = directory / "gates"
    gates.mkdir()
    port = free_port()
    command = [sys.executable, str(APPS / "serve.py"), driver.server, driver.app, str(port)]
    environment = {"GATES": str(gates), "PYTHONWARNINGS": "default"}
    async with Process(command, directory, environment) as process:
        served = Served(driver, process, port, gates)

        async def answers() -> bool:
            if process.code is not None:
                pytest.fail(f"it ended: {process}")
            try:
                return (await served.ask(request("GET", "/livez"))).status == 200
            except OSError:
                return False

        end = time.monotonic() + DEADLINE
        while not await answers():
            assert time.monotonic() < end, f"no answer: {process}"
            await asyncio.sleep(0.05)
        yield served
