"""What is counted when a request is cut short: by its client, by its server, by its own handler."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web
from situations import BODY, CHUNK, Service, make_app, serving, until, write_files
from wire import Wire, chunked, request

Way = Literal["FIN", "RST"]
WAYS: tuple[Way, ...] = ("FIN", "RST")


def leave(wire: Wire, way: Way) -> None:
    """End the connection from the client's side."""
    if way == "FIN":
        wire.finish()
    else:
        wire.reset()


async def gone(service: Service) -> None:
    """Wait until the server knows that its clients are gone."""
    await until(lambda: service.value("active_connections") == 0, "no connection is open")


# -- Before anything was sent ----------------------------------------------------------------------


@pytest.mark.parametrize("handler_cancellation", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_client_leaves_while_the_handler_works(
    way: Way,
    handler_cancellation: bool,
) -> None:
    """A client that left before an answer makes a 499, whether the handler is cancelled or not."""
    async with serving(handler_cancellation=handler_cancellation) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/wait"))
        gate = await service.entered()
        await service.says({}, in_progress={"GET /wait": 1})
        leave(wire, way)
        await gone(service)
        gate.opened.set()
        await service.says({"GET /wait 499": 1}, failures={"GET /wait client_disconnected": 1})
        assert gate.cancelled == handler_cancellation


@pytest.mark.parametrize("way", WAYS)
async def test_client_leaves_a_handler_that_can_not_be_cancelled(way: Way) -> None:
    """A handler that goes on when it is cancelled, and answers nobody, is a 499 at its end."""
    async with serving(handler_cancellation=True) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/stubborn"))
        gate = await service.entered()
        leave(wire, way)
        await until(lambda: gate.cancelled, "the cancellation")
        await service.says({}, in_progress={"GET /stubborn": 1})
        gate.opened.set()
        await service.says(
            {"GET /stubborn 499": 1}, failures={"GET /stubborn client_disconnected": 1}
        )


@pytest.mark.parametrize("way", WAYS)
async def test_client_leaves_and_the_handler_then_raises(way: Way) -> None:
    """An exception after the client left is still an exception; nobody got a 500 for it."""

    async def handler(request: web.Request) -> web.Response:
        with contextlib.suppress(KeyError):
            await service.gate().wait()
        raise ValueError("nobody is there to hear it")

    async with serving(web.get("/late", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/late"))
        gate = await service.entered()
        leave(wire, way)
        await gone(service)
        gate.opened.set()
        await service.says(
            {"GET /late 499": 1},
            failures={"GET /late exception": 1},
            exceptions={"/late ValueError": 1},
        )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["length", "chunks"])
async def test_client_leaves_in_the_middle_of_its_own_body(form: str, way: Way) -> None:
    """A client that leaves before its body is complete is a disconnection, not an exception."""
    async with serving() as service:
        wire = await service.connect()
        if form == "length":
            await wire.send(request("POST", "/echo", headers={"Content-Length": "100"}) + CHUNK)
        else:
            fields = {"Transfer-Encoding": "chunked"}
            await wire.send(request("POST", "/echo", headers=fields) + b"a\r\n" + CHUNK + b"\r\n")
        await service.says({}, in_progress={"POST /echo": 1})
        leave(wire, way)
        await service.says({"POST /echo 499": 1}, failures={"POST /echo client_disconnected": 1})
        labels = {"method": "POST", "endpoint": "/echo"}
        assert service.value("http_request_size_bytes_sum", **labels) == 10


async def test_client_leaves_before_its_request_is_complete() -> None:
    """A connection that ends within a request's head, or without a byte, was no request."""
    async with serving() as service:
        for data in (b"", b"GE", b"GET /ok HTTP/1.1\r\nHost: a\r\n"):
            for way in WAYS:
                wire = await service.connect()
                await wire.send(data)
                leave(wire, way)
        await gone(service)
        await service.says({})
        assert service.value("connections_total") == 6


async def test_client_leaves_between_requests() -> None:
    """A kept-alive connection that its client ends while it is idle changes no request."""
    async with serving() as service:
        for way in WAYS:
            wire = await service.connect()
            await wire.ask(request("GET", "/ok"))
            leave(wire, way)
        await gone(service)
        await service.says({"GET /ok 200": 2})


@pytest.mark.parametrize("target", ["/ok", "/stream/end", "/fail/value", "/nothing"])
async def test_client_finishes_at_once(target: str) -> None:
    """A client that sends its request and FIN together is counted by what it then received."""
    async with serving() as service:
        service.gate().opened.set()
        received: dict[str, int] = {}
        for _ in range(20):
            wire = await service.connect()
            await wire.send(request("GET", target))
            wire.finish()
            status = (await wire.rest())[9:12].decode() or "499"
            received[status] = received.get(status, 0) + 1
        await service.quiet()
        await until(lambda: sum(service.seen().requests.values()) == 20, "all counted")
        counted = {key[-3:]: number for key, number in service.seen().requests.items()}
        assert counted == received


# -- In mid-stream ---------------------------------------------------------------------------------


@pytest.mark.parametrize("handler_cancellation", [False, True])
@pytest.mark.parametrize("form", ["chunked", "declared", "HTTP/1.0"])
@pytest.mark.parametrize("then", ["end", "swallow", "return"])
@pytest.mark.parametrize("way", WAYS)
async def test_client_leaves_in_mid_stream(
    way: Way, then: str, form: str, handler_cancellation: bool
) -> None:
    """A client that leaves in mid-stream is noted under the status sent, handled or swallowed."""
    if form == "HTTP/1.0" and then == "return":
        pytest.skip("the end of such a body is the end of the connection: it was complete")
    async with serving(handler_cancellation=handler_cancellation) as service:
        wire = await service.connect()
        target = f"/stream/{then}" + ("?declared=20" if form == "declared" else "")
        await wire.send(request("GET", target, version="1.0" if form == "HTTP/1.0" else "1.1"))
        assert (await wire.head()).status == 200
        gate = await service.entered()
        leave(wire, way)
        await gone(service)
        gate.opened.set()
        await service.says(
            {"GET /stream/{then} 200": 1},
            failures={"GET /stream/{then} client_disconnected": 1},
        )
        labels = {"method": "GET", "endpoint": "/stream/{then}"}
        assert service.value("http_response_size_bytes_sum", **labels) == 10


@pytest.mark.parametrize("way", WAYS)
async def test_client_leaves_a_stream_without_end(way: Way) -> None:
    """A client that leaves while the handler writes and writes is a disconnection."""
    async with serving() as service:
        service.gate().opened.set()
        wire = await service.connect()
        await wire.send(request("GET", "/stream/on"))
        assert (await wire.head()).status == 200
        await wire.read(1000)
        leave(wire, way)
        await service.says(
            {"GET /stream/{then} 200": 1},
            failures={"GET /stream/{then} client_disconnected": 1},
        )


async def test_client_leaves_while_the_loop_is_busy() -> None:
    """
    A client is gone from the first write that the kernel refused, not from the loop's next turn.

    The transport is closing by then, but `connection_lost` has not been called yet.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await service.gate().wait()
        wire.reset()
        for _ in range(100):
            await response.write(CHUNK)
        return response

    async with serving(web.get("/busy", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/busy"))
        assert (await wire.head()).status == 200
        (await service.entered()).opened.set()
        await service.says({"GET /busy 200": 1}, failures={"GET /busy client_disconnected": 1})


async def test_application_ends_the_connection_and_writes_on() -> None:
    """A handler that aborts its connection and writes on is `aborted`, not left by its client."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(CHUNK)
        assert request.transport is not None
        request.transport.abort()
        await response.write(CHUNK)
        return response

    async with serving(web.get("/cut", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/cut"))
        await wire.rest()
        await service.quiet()
        await until(lambda: bool(service.seen().requests), "the request")
        assert service.seen().requests == {"GET /cut 200": 1}
        assert service.seen().failures in aborted("GET /cut")


@pytest.mark.parametrize("way", WAYS)
async def test_client_leaves_instead_of_going_on(way: Way) -> None:
    """A 100 was no answer: who leaves after it has got none."""
    async with serving() as service:
        wire = await service.connect()
        fields = {"Expect": "100-continue", "Content-Length": "10"}
        await wire.send(request("POST", "/echo", headers=fields))
        assert (await wire.head()).status == 100
        leave(wire, way)
        await service.says({"POST /echo 499": 1}, failures={"POST /echo client_disconnected": 1})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("handler_cancellation", [False, True])
async def test_client_leaves_while_a_response_is_prepared(
    handler_cancellation: bool, way: Way
) -> None:
    """A client that leaves while on_response_prepare takes its time has got no status."""

    async def slow(_request: web.Request, _response: web.StreamResponse) -> None:
        await service.gate().wait()

    app = make_app()
    app.on_response_prepare.append(slow)
    async with serving(app=app, handler_cancellation=handler_cancellation) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/ok"))
        gate = await service.entered()
        leave(wire, way)
        await gone(service)
        gate.opened.set()
        await service.says({"GET /ok 499": 1}, failures={"GET /ok client_disconnected": 1})


SIZE = 30_000_000


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("handler_cancellation", [False, True])
async def test_client_leaves_while_a_big_body_is_written(
    handler_cancellation: bool, way: Way
) -> None:
    """A client that leaves before all of a body was sent is a disconnection."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=203, body=bytes(SIZE))

    async with serving(
        web.get("/big", handler), handler_cancellation=handler_cancellation
    ) as service:
        wire = await service.connect(receive_buffer=4096)
        await wire.send(request("GET", "/big"))
        assert (await wire.head()).status == 203
        leave(wire, way)
        wire.close()
        await service.says({"GET /big 203": 1}, failures={"GET /big client_disconnected": 1})
        sent = service.value("http_response_size_bytes_sum", method="GET", endpoint="/big")
        assert sent is not None
        assert 0 < sent <= SIZE


@pytest.mark.parametrize("way", WAYS)
async def test_client_leaves_while_a_file_is_sent(tmp_path: Path, way: Way) -> None:
    """A client that leaves within a file is a disconnection, and what it got of it is counted."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(SIZE)

    async def handler(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    async with serving(web.get("/file", handler)) as service:
        wire = await service.connect(receive_buffer=4096)
        await wire.send(request("GET", "/file"))
        assert (await wire.head()).status == 200
        await wire.read(100_000)
        leave(wire, way)
        wire.close()
        await service.says({"GET /file 200": 1}, failures={"GET /file client_disconnected": 1})
        sent = service.value("http_response_size_bytes_sum", method="GET", endpoint="/file")
        assert sent is not None
        assert 100_000 <= sent < SIZE


@pytest.mark.parametrize("way", WAYS)
async def test_client_leaves_after_the_whole_response(way: Way) -> None:
    """A client that leaves with the whole response is no failure, though its handler goes on."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write_eof(CHUNK)
        await service.gate().wait()
        return response

    async with serving(web.get("/after", handler)) as service:
        wire = await service.connect()
        assert (await wire.ask(request("GET", "/after"))).body == CHUNK
        gate = await service.entered()
        leave(wire, way)
        await gone(service)
        gate.opened.set()
        await service.says({"GET /after 200": 1})


async def test_pipelined_request_after_the_client_left() -> None:
    """A request that waited behind another when its client left got no answer, whatever that got."""
    small = 4096

    async def first(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 60_000
        await response.prepare(request)
        await response.write(bytes(60_000))
        await service.gate().wait()
        return response

    # A transport that still has something to send is closed only once that is sent.
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, small)
    async with serving(web.get("/first", first)) as service:
        await web.SockSite(service.runner, sock).start()
        wire = await service.connect(port=sock.getsockname()[1], receive_buffer=small)
        await wire.send(request("GET", "/first") + request("GET", "/ok"))
        gate = await service.entered()
        assert (await wire.head()).status == 200
        wire.finish()
        connection = next(iter(service.runner.server.connections))  # type: ignore[union-attr]
        transport = connection.transport
        assert transport is not None
        await until(transport.is_closing, "the server's noticing")
        assert transport.get_write_buffer_size() > 0
        gate.opened.set()
        assert await wire.rest() == bytes(60_000)  # and nothing of a second answer
        await gone(service)
        await service.quiet()
        requests = service.seen().requests
        requests.pop("GET /ok 499", None)  # it may be begun, or not
        assert requests == {"GET /first 200": 1}


# -- The server stops ------------------------------------------------------------------------------


@pytest.mark.parametrize("handler_cancellation", [False, True])
async def test_shutdown_on_a_running_handler(handler_cancellation: bool) -> None:
    """A handler that a shutdown cancels is `cancelled`; no status was sent, so it is 499."""
    async with serving(shutdown_timeout=0.05, handler_cancellation=handler_cancellation) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/wait"))
        await service.entered()
        await service.stop()
        assert await wire.rest() == b""
        await service.says({"GET /wait 499": 1}, failures={"GET /wait cancelled": 1})


async def test_shutdown_in_mid_stream() -> None:
    """A stream that a shutdown cuts is `cancelled`, under the status that was sent."""
    async with serving(shutdown_timeout=0.05) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/stream/end"))
        await service.entered()
        await service.stop()
        assert CHUNK in await wire.rest()
        await service.says(
            {"GET /stream/{then} 200": 1}, failures={"GET /stream/{then} cancelled": 1}
        )


@pytest.mark.parametrize("then", ["answers", "streams"])
async def test_shutdown_on_a_handler_that_goes_on(then: str) -> None:
    """A handler that goes on when a shutdown cancels it is `cancelled` all the same."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if then == "streams":
            await response.prepare(request)
            await response.write(CHUNK)
        with contextlib.suppress(asyncio.CancelledError):
            await service.gate().wait()
        await asyncio.sleep(0)  # the server has given the connection up by now
        if then == "streams":
            await response.write(CHUNK)
        return response

    async with serving(web.get("/on", handler), shutdown_timeout=0.05) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/on"))
        await service.entered()
        await service.stop()
        await wire.rest()
        await service.quiet()
        status = "200" if then == "streams" else "499"
        await service.says({f"GET /on {status}": 1}, failures={"GET /on cancelled": 1})


async def test_handler_that_outlives_its_server() -> None:
    """A handler that goes on after the shutdown is over is counted when it ends."""
    async with serving(shutdown_timeout=0.05) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/stubborn"))
        gate = await service.entered()
        await service.stop()
        assert gate.cancelled
        assert await wire.rest() == b""
        gate.opened.set()
        await service.says({"GET /stubborn 499": 1}, failures={"GET /stubborn cancelled": 1})


async def test_shutdown_waits_for_a_handler() -> None:
    """A handler that finishes in the time that a shutdown gives it is an answer like any other."""
    async with serving(shutdown_timeout=10) as service:
        wire = await service.connect()
        idle = await service.connect()
        await idle.ask(request("GET", "/ok"))
        await wire.send(request("GET", "/wait"))
        gate = await service.entered()
        stopping = asyncio.create_task(service.stop())
        assert await idle.rest() == b""  # the shutdown has begun: idle connections are closed
        gate.opened.set()
        assert (await wire.answer()).status == 200
        await stopping
        await service.says({"GET /wait 200": 1, "GET /ok 200": 1})


async def test_client_leaves_during_a_shutdown() -> None:
    """A client that leaves while a shutdown waits for its handler is a disconnection."""
    async with serving(shutdown_timeout=10) as service:
        wire = await service.connect()
        idle = await service.connect()
        await idle.ask(request("GET", "/ok"))
        await wire.send(request("GET", "/wait"))
        gate = await service.entered()
        stopping = asyncio.create_task(service.stop())
        assert await idle.rest() == b""
        connections = service.runner.server.connections  # type: ignore[union-attr]
        wire.reset()
        await until(lambda: all(c.transport is None for c in connections), "the disconnection")
        gate.opened.set()
        await stopping
        await service.says(
            {"GET /wait 499": 1, "GET /ok 200": 1},
            failures={"GET /wait client_disconnected": 1},
        )


def aborted(endpoint: str) -> list[dict[str, int]]:
    """Return what may be counted where the application itself ended the connection."""
    reasons = ["aborted"]
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        reasons.append("client_disconnected")
    return [{f"{endpoint} {reason}": 1} for reason in reasons]


# -- The application ends the connection -----------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "close"])
@pytest.mark.parametrize("sent", [False, True])
async def test_application_ends_the_connection(sent: bool, how: str) -> None:
    """
    A connection that the application ended is `aborted`: its client did not leave.

    The table does not have this row. `client_disconnected` would blame the client for it, which can
    not be helped on uvloop: it tells a protocol nothing by which the two could be told apart.
    """

    async def handler(request: web.Request) -> Any:
        response = web.StreamResponse()
        if sent:
            await response.prepare(request)
            await response.write(CHUNK)
        getattr(request.transport, how)()
        await service.gate().wait()
        return response if sent else web.Response(body=BODY)

    async with serving(web.get("/cut", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/cut"))
        received = await wire.rest()
        assert (CHUNK in received) == (sent and how == "close") or how == "abort"
        await gone(service)
        service.gate().opened.set()
        await service.quiet()
        await until(lambda: bool(service.seen().requests), "the request")
        assert service.seen().failures in aborted("GET /cut")
        assert "GET /cut 200" not in service.seen().requests or sent


async def test_static_file_after_the_client_left(tmp_path: Path) -> None:
    """A file that nobody waits for any more is a 499."""

    @web.middleware
    async def slow(request: web.Request, handler: Any) -> web.StreamResponse:
        await service.gate().wait()
        response: web.StreamResponse = await handler(request)
        return response

    app = make_app(web.static("/files", write_files(tmp_path)), middlewares=[slow])
    async with serving(app=app) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/files/big.bin"))
        gate = await service.entered()
        wire.reset()
        await gone(service)
        gate.opened.set()
        await service.says({"GET /files 499": 1}, failures={"GET /files client_disconnected": 1})


async def test_upload_that_nobody_reads_and_that_does_not_end() -> None:
    """What came in of a body that its handler never read is counted, complete or not."""
    async with serving() as service:
        wire = await service.connect()
        size = 100_000
        fields = {"Content-Length": str(2 * size)}
        await wire.send(request("PUT", "/unread", headers=fields) + bytes(100))
        assert (await wire.answer()).status == 200
        await wire.send(bytes(size - 100))
        server = service.runner.server
        assert server is not None
        (connection,) = server.connections
        await until(lambda: size_received(connection) == size, "all that was sent")
        wire.reset()
        await gone(service)
        await service.says({"PUT /unread 200": 1})
        labels = {"method": "PUT", "endpoint": "/unread"}
        assert service.value("http_request_size_bytes_sum", **labels) == size


def size_received(connection: Any) -> int:
    """Return how much of the body of the connection's last request the parser has seen."""
    coroutine = connection._task_handler.get_coro()
    payload = coroutine.cr_frame.f_locals["payload"]
    return int(payload.total_bytes)


async def test_chunked_upload_that_breaks() -> None:
    """A body that stops being chunks is counted once, with the status that its sender received."""
    async with serving() as service:
        wire = await service.connect()
        fields = {"Transfer-Encoding": "chunked"}
        await wire.send(request("POST", "/echo", headers=fields) + chunked(CHUNK)[:15])
        await service.says({}, in_progress={"POST /echo": 1})
        await wire.send(b"not a chunk size\r\n")
        wire.finish()  # aiohttp's C parser leaves the handler waiting
        status = (await wire.rest())[9:12].decode() or "499"
        await service.quiet()
        assert service.seen().requests == {f"POST /echo {status}": 1}
