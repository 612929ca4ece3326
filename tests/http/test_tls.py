"""Over TLS requests, files, WebSockets and departures are counted as over plain TCP."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSMsgType, web
from processes import require
from situations import BODY, CHUNK, Service, serving, until, write_files
from wire import Wire, request


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a certificate for 127.0.0.1, signed by itself."""
    program = require("openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", "-"]
    run = subprocess.run(command, capture_output=True, check=True)
    with path.open("ab") as file:
        file.write(run.stdout)
    return path


@contextlib.asynccontextmanager
async def over_tls(
    certificate: Path, *routes: web.AbstractRouteDef
) -> AsyncIterator[tuple[Service, int, ssl.SSLContext]]:
    """Serve over TLS too; give the service, the port for TLS and the client's context."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=certificate)
    async with serving(*routes) as service:
        await web.TCPSite(service.runner, "127.0.0.1", 0, ssl_context=server).start()
        yield service, service.runner.addresses[1][1], client


async def test_requests(certificate: Path, tmp_path: Path) -> None:
    """Requests, files and WebSockets count with their bytes before encryption."""
    path = write_files(tmp_path) / "big.bin"

    async def file(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    async with over_tls(certificate, web.get("/file", file)) as (service, port, context):
        async with ClientSession(f"https://127.0.0.1:{port}") as session:
            async with session.get("/ok", ssl=context) as response:
                assert await response.read() == BODY
            async with session.post("/echo", data=CHUNK, ssl=context) as response:
                assert await response.read() == CHUNK
            async with session.get("/file", ssl=context) as response:
                assert len(await response.read()) == 300_000
            async with session.get("/fail/value", ssl=context) as response:
                assert response.status == 500
            async with session.ws_connect("/ws", ssl=context) as socket:
                await socket.send_str("hello")
                assert (await socket.receive()).data == "hello"
                await socket.close(code=1001)
                assert (await socket.receive()).type is WSMsgType.CLOSED
        await service.says(
            {
                "GET /ok 200": 1,
                "POST /echo 200": 1,
                "GET /file 200": 1,
                "GET /fail/{how} 500": 1,
                "GET /ws 101": 1,
            },
            failures={"GET /fail/{how} exception": 1},
            exceptions={"/fail/{how} ValueError": 1},
            sockets={"/ws": 1},
            closes={"/ws 1001": 1},
        )
        labels = {"method": "GET", "endpoint": "/file"}
        assert service.value("http_response_size_bytes_sum", **labels) == 300_000
        await until(lambda: service.value("active_connections") == 0, "no connection is open")


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_departures(certificate: Path, way: str) -> None:
    """A client that leaves before its answer, or within it, is a disconnection."""
    async with over_tls(certificate) as (service, port, context):
        for target in ("/wait?gate=a", "/stream/end?gate=b"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(request("GET", target))
            gate = await service.entered(target[-1])
            if "stream" in target:
                await reader.readuntil(CHUNK)
            if way == "close":
                writer.close()
            else:
                writer.transport.abort()
            await until(lambda: service.value("active_connections") == 0, "the end of it")
            gate.opened.set()
            await service.quiet()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await service.says(
            {"GET /wait 499": 1, "GET /stream/{then} 200": 1},
            failures={
                "GET /wait client_disconnected": 1,
                "GET /stream/{then} client_disconnected": 1,
            },
        )


async def test_plain_request_to_tls(certificate: Path) -> None:
    """A connection whose handshake fails brings no request, and is not open for ever."""
    async with over_tls(certificate) as (service, port, _context):
        wire = await service.connect(port=port)
        await wire.send(request("GET", "/ok"))
        await wire.rest()
        last = await Wire.connect(service.port)
        await last.ask(request("GET", "/ok"))
        last.close()
        await until(lambda: service.value("active_connections") == 0, "no connection is open")
        await service.says({"GET /ok 200": 1})
