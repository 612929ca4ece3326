"""Clients that are silent, slow or many; on real sockets."""

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from aiohttp import web
from processes import DEADLINE, REPOSITORY

from aiosvc.admin import AdminServer
from aiosvc.admin.connections import Connections

from .certificates import Authority, client_context
from .servers import BODY, ask, basic, connect, drained, running, wait_for
from .test_webconfig import HASH, TLS

HALF = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Half"


@pytest.fixture
def crowd() -> Iterator[ExitStack]:
    """Return what keeps many connections open, of which there may be thousands."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this machine lets nobody open thousands of connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    with ExitStack() as stack:
        yield stack
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connections(server: AdminServer) -> Connections:
    """Return the server's connections."""
    assert server.connections is not None
    return server.connections


def is_closed(sock: socket.socket) -> bool:
    """Wait for the server's end of the connection, and say that it came."""
    drained(sock)
    return True


@pytest.mark.parametrize("tls", [False, True])
def test_crowd_of_silent_and_half_open(
    crowd: ExitStack, pems: Path, authority: Authority, tls: bool
) -> None:
    """500 silent and 500 half-sent connections hold 512 places, and a scrape is answered at once."""
    context = client_context(authority) if tls else None
    (pems / "web.yml").write_text(TLS)
    options: dict[str, Any] = {"web_config": str(pems / "web.yml")} if tls else {}
    with running(**options) as server:
        for number in range(1000):
            sock = crowd.enter_context(connect(server))
            if number % 2:
                sock.sendall(b"\x16\x03\x01" if tls else HALF)
        begun = time.monotonic()
        for _ in range(3):
            assert ask(server, context=context).text == BODY
        assert time.monotonic() - begun < 5
        assert len(connections(server)) <= 512
        assert connections(server).displaced >= 488
        assert connections(server).turned_away == 0


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("sent", [b"", HALF, b"\x16\x03\x01"])
def test_silent_connection_is_closed(pems: Path, sent: bytes, tls: bool) -> None:
    """Whatever it waits for, a connection is closed within the header timeout."""
    (pems / "web.yml").write_text(TLS)
    options: dict[str, Any] = {"web_config": str(pems / "web.yml")} if tls else {}
    with running(admin_header_timeout=0.3, **options) as server, connect(server) as sock:
        if sent:
            sock.sendall(sent)
        assert is_closed(sock)
        wait_for(lambda: len(connections(server)) == 0, "it is forgotten too")


def test_dribbled_header_is_closed() -> None:
    """A byte now and then does not prolong it."""
    with running(admin_header_timeout=0.4) as server, connect(server) as sock:
        end = time.monotonic() + DEADLINE
        with contextlib.suppress(ConnectionError):
            sock.sendall(HALF)
            while time.monotonic() < end:
                sock.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < end
        assert connections(server).overdue == 1


def test_idle_connection_is_closed() -> None:
    """After an answer a connection may be idle for the keep-alive timeout, and is closed then."""
    options: dict[str, Any] = {"admin_header_timeout": DEADLINE, "admin_keepalive_timeout": 0.5}
    with running(**options) as server, connect(server) as sock:
        for _ in range(3):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")
            time.sleep(0.1)
        assert is_closed(sock)


@pytest.mark.parametrize("pieces", [1, 200])
@pytest.mark.parametrize("drip", [False, True])
def test_slow_reader_is_cut(pieces: int, drip: bool) -> None:
    """Who does not read its answer, or reads a byte now and then, is cut; others are served."""
    big = 20_000_000

    async def handler(request: web.Request) -> web.StreamResponse:
        if "big" not in request.query:
            return web.Response(text=BODY)
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(pieces):
            await response.write(bytes(big // pieces))
        await response.write_eof()
        return response

    with running(handler, admin_write_timeout=0.5) as server, connect(server) as sock:
        sock.sendall(b"GET /metrics?big HTTP/1.1\r\nHost: x\r\n\r\n")
        end = time.monotonic() + DEADLINE
        while connections(server).overdue == 0:
            assert time.monotonic() < end
            if drip:
                sock.recv(1)
            assert ask(server).text == BODY
            time.sleep(0.02)
        wait_for(lambda: len(connections(server)) == 0, "nothing is left of it")
        assert len(drained(sock)) < big


def test_slow_reader_of_tls_is_cut(pems: Path, authority: Authority) -> None:
    """The same holds where the answer is encrypted."""

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(20_000_000))

    path = pems / "web.yml"
    path.write_text(TLS)
    with (
        running(handler, web_config=str(path), admin_write_timeout=0.5) as server,
        connect(server) as plain,
        client_context(authority).wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: connections(server).overdue == 1, "it is cut")
        wait_for(lambda: len(connections(server)) == 0, "nothing is left of it")


def test_patient_reader_is_not_cut() -> None:
    """Who takes its time but keeps up gets everything, however long it takes in all."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(30):
            await response.write(b"x" * 1000)
            await asyncio.sleep(0.03)
        await response.write_eof()
        return response

    with running(handler, admin_write_timeout=0.3, admin_header_timeout=0.2) as server:
        assert len(ask(server).text) == 30_000


def test_all_places_are_busy() -> None:
    """Where every place is taken by a request that is answered, one more is closed at once."""
    release = threading.Event()

    async def handler(_request: web.Request) -> web.StreamResponse:
        await asyncio.to_thread(release.wait, DEADLINE)
        return web.Response(text=BODY)

    with running(handler, admin_connections=2) as server, ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(2)]
        for sock in socks:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_for(lambda: connections(server).busy == 2, "both are being answered")
        with connect(server) as third:
            assert drained(third) == b""
        assert connections(server).turned_away == 1
        release.set()
        for sock in socks:
            assert drained(sock).startswith(b"HTTP/1.1 200 OK")
        wait_for(lambda: len(connections(server)) == 0, "there is room again")
        assert ask(server).text == BODY


def test_crowd_in_the_backlog() -> None:
    """Those who wait to be accepted do not all displace one another before they get to speak."""
    with running(admin_connections=50) as server, ExitStack() as stack:
        paused, resume = threading.Event(), threading.Event()

        async def pause() -> None:
            paused.set()
            resume.wait(DEADLINE)

        pausing = threading.Thread(target=lambda: server.call(pause()))
        pausing.start()
        assert paused.wait(DEADLINE)
        asking = stack.enter_context(connect(server))
        asking.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for _ in range(500):
            stack.enter_context(connect(server))
        resume.set()
        assert drained(asking).endswith(BODY.encode())
        pausing.join(DEADLINE)


def test_crowd_that_guesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While every place is taken by a guess that bcrypt has not got to, who is known gets in."""
    release = threading.Event()
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users:\n  dave: {HASH}\n")
    with running(web_config=str(path), admin_connections=20) as server, ExitStack() as stack:
        dave = basic("dave", "dave123")
        assert ask(server, headers=dave).status == 200
        monkeypatch.setattr(bcrypt, "checkpw", lambda *_: release.wait(DEADLINE) and False)
        for number in range(60):
            guess = basic("dave", f"guess{number}")["Authorization"].encode()
            sock = stack.enter_context(connect(server))
            sock.sendall(
                b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: " + guess + b"\r\n\r\n"
            )
        wait_for(lambda: connections(server).busy == 20, "all places are taken by guesses")
        assert ask(server, headers=dave).text == BODY
        assert connections(server).turned_away == 0
        release.set()


def test_displaced_handshake(pems: Path, authority: Authority) -> None:
    """A handshake that goes no further makes room as well."""
    path = pems / "web.yml"
    path.write_text(TLS)
    with running(web_config=str(path), admin_connections=2) as server, ExitStack() as stack:
        for sent in (b"", b"\x16\x03\x01\x02"):
            sock = stack.enter_context(connect(server))
            sock.sendall(sent) if sent else None
        wait_for(lambda: len(connections(server)) == 2, "both are there")
        assert ask(server, context=client_context(authority)).text == BODY
        assert connections(server).displaced == 1


def test_thousand_clients_one_after_the_other() -> None:
    """Nothing is left of clients that came and went, whatever they did."""
    with running() as server:
        ask(server)
        threads = threading.active_count()
        for number in range(1000):
            with connect(server) as sock:
                if number % 4 == 1:
                    sock.sendall(HALF)
                elif number % 4 == 2:
                    sock.sendall(b"junk\r\n\r\n")
                elif number % 4 == 3:
                    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: len(connections(server)) == 0, "all are forgotten")
        assert threading.active_count() <= threads
        assert ask(server).text == BODY


OUT_OF_DESCRIPTORS = """
import resource, socket, sys, time, urllib.request
from aiohttp import web
from aiosvc.admin import AdminOptions, AdminServer
from aiosvc.health import Health

async def metrics(request):
    return web.Response(text="served")

server = AdminServer(metrics, Health(), AdminOptions(admin_port=0)).start()
used = len(__import__("os").listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, used + 20))
socks = []
try:
    while True:
        socks.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
except OSError as error:
    print("full", len(socks), flush=True)
time.sleep(0.5)
for sock in socks:
    sock.close()
print(urllib.request.urlopen(server.url + "/metrics", timeout=20).read().decode(), flush=True)
server.stop()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_out_of_descriptors() -> None:
    """When descriptors run out it is said once; when there are some again, it is served again."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", OUT_OF_DESCRIPTORS],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
        cwd=REPOSITORY,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("full ")
    assert ended.stdout.endswith("\nserved\n")
    assert ended.stderr.count("no connection can be accepted: Too many open files") <= 1
    assert "Traceback" not in ended.stderr
