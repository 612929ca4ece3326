"""WebSockets and connections: what stays open, and what it ends with."""

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web
from situations import BODY, Service, make_app, serving, until
from wire import request


async def gone(service: Service) -> None:
    """Wait until the server knows that its clients are gone."""
    await until(lambda: service.value("active_connections") == 0, "no connection is open")


# -- WebSockets ------------------------------------------------------------------------------------


async def test_open_websocket() -> None:
    """An open WebSocket is counted as 101 at once, and is no request in progress."""
    async with serving() as service:
        wires = [await service.connect() for _ in range(3)]
        for number, wire in enumerate(wires, start=1):
            await wire.upgrade()
            await service.says(
                {"GET /ws 101": number}, sockets={"/ws": number}, open_sockets={"/ws": number}
            )
        assert service.value("http_request_oldest_in_progress_seconds") == 0
        assert service.value("active_connections") == 3
        for wire in wires:
            await wire.send_frame("hello")
            assert (await wire.frame()).payload == b"hello"
            await wire.send_close(1000)
        await service.says({"GET /ws 101": 3}, sockets={"/ws": 3}, closes={"/ws 1000": 3})


@pytest.mark.parametrize(
    ("code", "label"),
    [(1000, "1000"), (1001, "1001"), (1011, "1011"), (3000, "_other"), (4321, "_other")],
)
@pytest.mark.parametrize("who", ["client", "server"])
async def test_close_code(who: str, code: int, label: str) -> None:
    """A WebSocket ends under its close code, whoever chose it; those of the peers are `_other`."""
    async with serving() as service:
        wire = await service.connect()
        await wire.upgrade()
        if who == "client":
            await wire.send_close(code)
            assert (await wire.frame()).opcode == 8
        else:
            await wire.send_frame(f"close {code}")
            assert (await wire.frame()).code == code
            await wire.send_close(code)
        await service.says({"GET /ws 101": 1}, sockets={"/ws": 1}, closes={f"/ws {label}": 1})


@pytest.mark.parametrize("code", [0, 999, 1004, 1016, 2999, 5000, 65535])
async def test_close_codes_make_no_series(code: int) -> None:
    """A close code that has no name, or may not be sent at all, makes no series of its own."""
    async with serving() as service:
        wire = await service.connect()
        await wire.upgrade()
        await wire.send_close(code)
        await wire.rest()
        await service.quiet()
        (label,) = service.seen().closes
        assert label in ("/ws _other", "/ws 1002", "/ws 1006")


async def test_close_without_a_code() -> None:
    """A close frame without a code is no error: 1005 says that there was none, or 1000."""
    async with serving() as service:
        wire = await service.connect()
        await wire.upgrade()
        await wire.send_frame(b"", opcode=8)
        await wire.rest()
        await service.quiet()
        (label,) = service.seen().closes
        assert label in ("/ws 1000", "/ws 1005", "/ws _other")


@pytest.mark.parametrize("handler_cancellation", [False, True])
@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_websocket_without_a_close(way: str, handler_cancellation: bool) -> None:
    """A WebSocket whose client vanished ends with 1006."""
    async with serving(handler_cancellation=handler_cancellation) as service:
        wire = await service.connect()
        await wire.upgrade()
        if way == "FIN":
            wire.finish()
        else:
            wire.reset()
        await gone(service)
        await service.quiet()
        seen = service.seen()
        assert seen.requests == {"GET /ws 101": 1}
        assert seen.closes == {"/ws 1006": 1}
        assert seen.exceptions == {}
        # A vanished client may be called a disconnection: with cancellation the handler was cut.
        assert seen.failures in ({}, {"GET /ws client_disconnected": 1})


async def test_protocol_error() -> None:
    """A client that breaks the WebSocket protocol is refused with 1002."""
    async with serving() as service:
        wire = await service.connect()
        await wire.upgrade()
        await wire.send_frame(b"\xff", opcode=5)
        assert (await wire.frame()).code == 1002
        await wire.send_close(1002)
        await service.says({"GET /ws 101": 1}, sockets={"/ws": 1}, closes={"/ws 1002": 1})


async def test_message_that_is_no_text() -> None:
    """A text frame that is no UTF-8 is refused with 1007."""
    async with serving() as service:
        wire = await service.connect()
        await wire.upgrade()
        await wire.send_frame(b"\xff\xfe", opcode=1)
        assert (await wire.frame()).code == 1007
        await wire.send_close(1007)
        await service.says({"GET /ws 101": 1}, sockets={"/ws": 1}, closes={"/ws 1007": 1})


async def test_handler_of_a_websocket_raises() -> None:
    """An exception in a WebSocket's handler is `aborted`, and ends it without a close: 1006."""
    async with serving() as service:
        wire = await service.connect()
        await wire.upgrade()
        await wire.send_frame("raise something")
        assert await wire.rest() == b""
        await service.says(
            {"GET /ws 101": 1},
            failures={"GET /ws aborted": 1},
            exceptions={"/ws ValueError": 1},
            sockets={"/ws": 1},
            closes={"/ws 1006": 1},
        )


async def test_handler_of_a_websocket_raises_after_the_close() -> None:
    """The close code is the one that was sent, though the handler failed afterwards."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=1001)
        raise ValueError("too late")

    async with serving(web.get("/late", handler)) as service:
        wire = await service.connect()
        await wire.upgrade("/late")
        assert (await wire.frame()).code == 1001
        await wire.send_close(1001)
        await service.says(
            {"GET /late 101": 1},
            failures={"GET /late aborted": 1},
            exceptions={"/late ValueError": 1},
            sockets={"/late": 1},
            closes={"/late 1001": 1},
        )


async def test_handler_leaves_its_websocket() -> None:
    """A handler that returns an open WebSocket has aiohttp close it, with 1000."""
    async with serving() as service:
        wire = await service.connect()
        await wire.upgrade()
        await wire.send_frame("leave")
        assert (await wire.frame()).code == 1000
        await wire.send_close(1000)
        await service.says({"GET /ws 101": 1}, sockets={"/ws": 1}, closes={"/ws 1000": 1})


@pytest.mark.parametrize("what", ["none", "another"])
async def test_handler_of_a_websocket_returns_something_else(what: str) -> None:
    """What a WebSocket's handler returns in its place changes neither its status nor its end."""

    async def handler(request: web.Request) -> Any:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _message in socket:
            pass
        return web.Response(body=BODY) if what == "another" else None

    async with serving(web.get("/odd", handler)) as service:
        wire = await service.connect()
        await wire.upgrade("/odd")
        await wire.send_close(1000)
        await wire.rest()
        await service.quiet()
        seen = service.seen()
        assert seen.requests == {"GET /odd 101": 1}
        assert seen.sockets == {"/odd": 1}
        assert seen.closes == {"/odd 1000": 1}


async def test_websocket_at_a_shutdown() -> None:
    """A WebSocket that a shutdown cuts is `cancelled`, and ends without a close: 1006."""
    async with serving(shutdown_timeout=0.05) as service:
        wire = await service.connect()
        await wire.upgrade()
        await service.says({"GET /ws 101": 1}, sockets={"/ws": 1}, open_sockets={"/ws": 1})
        await service.stop()
        assert await wire.rest() == b""
        await service.says(
            {"GET /ws 101": 1},
            failures={"GET /ws cancelled": 1},
            sockets={"/ws": 1},
            closes={"/ws 1006": 1},
        )


async def test_websocket_that_the_application_closes() -> None:
    """
    A WebSocket that another task closes, as in on_shutdown, ends with the code that was sent.

    aiohttp itself says 1000 then, whatever was sent, if the handler was receiving.
    """
    sockets: list[web.WebSocketResponse] = []

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sockets.append(socket)
        async for _message in socket:
            pass
        return socket

    async def close(_app: web.Application) -> None:
        for socket in sockets:
            await socket.close(code=1001)

    app = make_app(web.get("/kept", handler))
    app.on_shutdown.append(close)
    async with serving(app=app) as service:
        wire = await service.connect()
        await wire.upgrade("/kept")
        stopping = asyncio.create_task(service.stop())
        assert (await wire.frame()).code == 1001
        await wire.send_close(1001)
        await stopping
        await service.says({"GET /kept 101": 1}, sockets={"/kept": 1}, closes={"/kept 1001": 1})


async def test_websocket_duration() -> None:
    """A WebSocket's lifetime is in its own histogram, with buckets to hours, once it has ended."""
    async with serving() as service:
        wire = await service.connect()
        await wire.upgrade()
        name = "websocket_duration_seconds"
        assert service.value(f"{name}_count", endpoint="/ws") == 0
        started = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > started + 0.11, "a while")
        await wire.send_close(1000)
        await service.says({"GET /ws 101": 1}, sockets={"/ws": 1}, closes={"/ws 1000": 1})
        assert service.value(f"{name}_count", endpoint="/ws") == 1
        assert service.value(f"{name}_bucket", endpoint="/ws", le="0.1") == 0
        assert service.value(f"{name}_bucket", endpoint="/ws", le="43200.0") == 1
        seconds = service.value(f"{name}_sum", endpoint="/ws")
        assert seconds is not None
        assert seconds > 0.11
        labels = {"method": "GET", "endpoint": "/ws"}
        assert service.value("http_request_duration_seconds_count", **labels) == 0


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400),
        ({"Upgrade": "websocket", "Connection": "Upgrade"}, 400),
        ({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "99"}, 400),
        ({"Upgrade": "h2c", "Connection": "Upgrade", "HTTP2-Settings": "AAMAAABk"}, 400),
    ],
)
async def test_upgrade_refused(fields: dict[str, str], status: int) -> None:
    """A handshake that fails is an answer like any other, and no WebSocket."""
    async with serving() as service:
        assert (await service.ask(request("GET", "/ws", headers=fields))).status == status
        await service.says({f"GET /ws {status}": 1})


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_upgrade_declined(protocol: str) -> None:
    """An upgrade that the handler ignored is a request, and the connection goes on."""
    async with serving() as service:
        wire = await service.connect()
        fields = {"Upgrade": protocol, "Connection": "Upgrade"}
        assert (await wire.ask(request("GET", "/ok", headers=fields))).body == BODY
        wire.close()
        await service.says({"GET /ok 200": 1})


async def test_websocket_of_a_sub_application() -> None:
    """A WebSocket is counted under its template with the prefix of the sub-application."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    sub = web.Application()
    sub.router.add_get("/room/{id}", handler)
    app = web.Application()
    app.add_subapp("/chat", sub)
    async with serving(app=app) as service:
        wire = await service.connect()
        await wire.upgrade("/chat/room/7")
        await wire.send_close(1000)
        template = "/chat/room/{id}"
        await service.says(
            {f"GET {template} 101": 1}, sockets={template: 1}, closes={f"{template} 1000": 1}
        )


async def test_status_101_without_a_websocket() -> None:
    """A 101 that a handler answers by hand is a request, no WebSocket."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=101)

    async with serving(web.get("/by-hand", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/by-hand"))
        assert (await wire.head()).status == 101
        await service.says({"GET /by-hand 101": 1})


# -- Connections -----------------------------------------------------------------------------------


async def test_active_connections() -> None:
    """Connections count from their accept to their end: silent, idle, busy and upgraded ones."""
    async with serving() as service:
        silent, idle, busy, socket = [await service.connect() for _ in range(4)]
        await idle.ask(request("GET", "/ok"))
        await busy.send(request("GET", "/wait"))
        await service.entered()
        await socket.upgrade()
        assert service.value("active_connections") == 4
        for left, wire in ((3, silent), (2, idle), (1, socket), (0, busy)):
            wire.reset()
            await until(lambda left=left: service.value("active_connections") == left, left)  # type: ignore[misc]
        assert service.value("connections_total") == 4


async def test_connection_that_the_server_closes() -> None:
    """A connection that the server ended is open no more."""
    async with serving(keepalive_timeout=0.05) as service:
        wire = await service.connect()
        await wire.ask(request("GET", "/ok"))
        assert await wire.rest() == b""
        await gone(service)
        last = await service.connect()
        await last.ask(request("GET", "/ok", headers={"Connection": "close"}))
        assert await last.rest() == b""
        await gone(service)
        await service.says({"GET /ok 200": 2})
        assert service.value("connections_total") == 2


async def test_connections_of_a_stopped_server() -> None:
    """Counters outlive their server; gauges leave with it."""
    async with serving() as service:
        await service.ask(request("GET", "/ok"))
        await service.stop()
        assert service.value("connections_total") == 1
        assert service.value("active_connections") in (None, 0)
        labels = {"method": "GET", "endpoint": "/ok", "status": "200"}
        assert service.value("http_requests_total", **labels) == 1


# -- In progress -----------------------------------------------------------------------------------


async def test_in_progress() -> None:
    """Requests in progress count by method and template from their head to their end."""
    async with serving() as service:
        wires = [await service.connect() for _ in range(5)]
        for wire in wires[:3]:
            await wire.send(request("GET", "/wait?gate=a"))
        await wires[3].send(request("GET", "/stream/end?gate=b"))
        await wires[4].send(request("GET", "/sub/wait?gate=c"))
        await service.says(
            {}, in_progress={"GET /wait": 3, "GET /stream/{then}": 1, "GET /sub/wait": 1}
        )
        service.gate("a").opened.set()
        for wire in wires[:3]:
            await wire.answer()
        await service.says(
            {"GET /wait 200": 3}, in_progress={"GET /stream/{then}": 1, "GET /sub/wait": 1}
        )
        service.gate("b").opened.set()
        service.gate("c").opened.set()
        await service.says(
            {"GET /wait 200": 3, "GET /stream/{then} 200": 1, "GET /sub/wait 200": 1}
        )


async def test_oldest_in_progress() -> None:
    """The age is that of the oldest unfinished request, not of a finished or a younger one."""
    name = "http_request_oldest_in_progress_seconds"
    async with serving() as service:
        assert service.value(name) == 0
        first, second = await service.connect(), await service.connect()
        await first.send(request("GET", "/wait?gate=a"))
        await service.entered("a")
        await until(lambda: (service.value(name) or 0) > 0.2, "an age")
        await second.send(request("GET", "/wait?gate=b"))
        await service.entered("b")
        assert (service.value(name) or 0) > 0.2
        service.gate("a").opened.set()
        await first.answer()
        await service.says({"GET /wait 200": 1}, in_progress={"GET /wait": 1})
        age = service.value(name)
        assert age is not None
        assert 0 < age < 0.2
        service.gate("b").opened.set()
        await second.answer()
        await service.says({"GET /wait 200": 2})


# -- The metrics endpoint itself -------------------------------------------------------------------


async def test_scrapes_are_no_requests() -> None:
    """A scrape is in aiosvc_scrapes_total, and nowhere in http_*, also while it goes on."""
    async with serving() as service:
        await service.ask(request("GET", "/ok"))
        body = (await service.ask(request("GET", "/metrics"))).body.decode()
        assert 'http_requests_total{endpoint="/ok",method="GET",status="200"} 1.0' in body
        assert 'endpoint="/metrics"' not in body
        await until(lambda: service.value("aiosvc_scrapes_total", code="200") == 1, "a scrape")
        await service.says({"GET /ok 200": 1})
        assert service.value("connections_total") == 2


async def test_wrong_method_on_the_metrics_endpoint() -> None:
    """
    A refused method on /metrics makes no series of /metrics in http_*.

    The table says that /metrics itself is not in http_*; a 405 of it is no exception.
    """
    async with serving() as service:
        for method in ("POST", "PUT", "DELETE"):
            wire = await service.connect()
            answer = await wire.ask(request(method, "/metrics"), to=method)
            assert answer.status == 405
        await service.quiet()
        assert [key for key in service.seen().requests if "/metrics" in key] == []


async def test_scrape_while_requests_are_in_progress() -> None:
    """What a scrape over HTTP says of the others is what the registry says."""
    async with serving() as service:
        busy = await service.connect()
        await busy.send(request("GET", "/wait"))
        await service.entered()
        body = (await service.ask(request("GET", "/metrics"))).body.decode()
        assert 'http_requests_in_progress{endpoint="/wait",method="GET"} 1.0' in body
        assert "active_connections 2.0" in body
        service.gate().opened.set()
        await busy.answer()
        await service.says({"GET /wait 200": 1})


async def test_errors_are_logged_by_the_server_only(caplog: pytest.LogCaptureFixture) -> None:
    """None of all this makes aiosvc log anything."""
    async with serving() as service:
        await service.ask(request("GET", "/fail/value"))
        wire = await service.connect()
        await wire.upgrade()
        await wire.send_frame("raise x")
        await wire.rest()
        await service.quiet()
        assert [r for r in caplog.records if r.name.startswith("aiosvc")] == []
        assert [r for r in caplog.records if r.name == "aiohttp.server"]
        assert logging.getLogger("aiosvc").handlers == []
