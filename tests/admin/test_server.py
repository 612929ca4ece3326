"""The admin server as a whole: where it listens, how it starts and stops, and when it answers."""

import asyncio
import errno
import http.client
import logging
import socket
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSMsgType, web
from processes import DEADLINE, free_port

from aiosvc.admin import AdminOptions, AdminServer, Page
from aiosvc.admin.server import GRACE
from aiosvc.errors import BindError, ConfigError
from aiosvc.health import Health

from .servers import BODY, Loop, ask, connect, drained, metrics, running, wait_for
from .test_webconfig import HASH, TLS


def has_ipv6() -> bool:
    """Say whether this machine has the address ::1."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def server_for(**options: object) -> AdminServer:
    """Return a server that was not started."""
    given = {"admin_port": 0, **options}
    return AdminServer(metrics, Health(), AdminOptions(**given))  # type: ignore[arg-type]


# -- Start -----------------------------------------------------------------------------------------


def test_start_returns_when_it_listens() -> None:
    """After `start` the next line may scrape; the address is for this machine only."""
    for _ in range(20):
        with running() as server:
            assert server.url == f"http://127.0.0.1:{server.port}"
            with urllib.request.urlopen(f"{server.url}/metrics", timeout=DEADLINE) as reply:
                assert reply.read().decode() == BODY


def test_port_that_was_asked_for() -> None:
    """A port other than 0 is the one that is taken."""
    port = free_port()
    with running(admin_port=port) as server:
        assert server.port == port
        assert ask(server).status == 200


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_ipv6_only() -> None:
    """A server on an IPv6 address alone says so in its URL."""
    with running(admin_host="::1") as server:
        assert server.url == f"http://[::1]:{server.port}"
        assert ask(server).status == 200


def test_name_with_several_addresses() -> None:
    """A name may have several addresses; all get the same port."""
    with running(admin_host="localhost") as server:
        assert ask(server).status == 200


def test_port_taken() -> None:
    """A port that somebody else has is an error at once, which says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BindError) as caught:
            server_for(admin_port=port).start()
    message = f"port {port} is taken (127.0.0.1); choose another with admin_port"
    assert str(caught.value) == message


def test_port_of_another_admin_server() -> None:
    """Two servers never share a port."""
    with running() as server:
        with pytest.raises(BindError, match="choose another with admin_port"):
            server_for(admin_port=server.port).start()
        assert ask(server).status == 200


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "port 80 is for privileged users; choose one from 1024 with admin_port"),
        (errno.EADDRNOTAVAIL, "'127.0.0.1' is no address of this machine; choose one with admin_h"),
        (errno.ENOBUFS, "can't listen on 127.0.0.1, port 80: told so"),
    ],
)
def test_refused_by_the_system(monkeypatch: pytest.MonkeyPatch, number: int, message: str) -> None:
    """Whatever the system says, the message names the option that changes it."""

    def refuse(_sock: socket.socket, _address: object) -> None:
        raise OSError(number, "told so")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(BindError) as caught:
        server_for(admin_port=80).start()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "\udcff"])
def test_address_that_is_none(host: str) -> None:
    """An address that is not of this machine, or none at all, is an error at once."""
    with pytest.raises(BindError, match="choose one with admin_host"):
        server_for(admin_host=host).start()


def test_no_port() -> None:
    """A server without a port is a mistake."""
    with pytest.raises(ConfigError) as caught:
        server_for(admin_port=None).start()
    assert str(caught.value) == "admin_port: none given; expected a port, 0 for a free one"


def test_exempt_path_that_is_not_served() -> None:
    """A path that is exempt and mistyped is said to be, rather than protected by mistake."""
    with pytest.raises(ConfigError) as caught:
        server_for(auth_exempt=("/livz",)).start()
    assert str(caught.value).startswith(
        "auth_exempt: '/livz' is not served here; did you mean '/livez'?; known: /, /metrics, "
    )


def test_failed_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails in the server's own thread is raised, and gives the port back."""
    port = free_port()
    threads = threading.active_count()

    async def fail(_self: web.AppRunner) -> None:
        raise MemoryError("none left")

    with monkeypatch.context() as patched:
        patched.setattr(web.AppRunner, "setup", fail)
        server = server_for(admin_port=port)
        with pytest.raises(MemoryError, match="none left"):
            server.start()
    wait_for(lambda: threading.active_count() <= threads, "the thread has ended")
    with running(admin_port=port) as server:
        assert ask(server).status == 200


def test_started_once() -> None:
    """A server is started once; one that never was can be stopped and not asked."""
    server = server_for()
    server.stop()
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="has not been started"):
        server.call(coroutine)
    server.start()
    with pytest.raises(RuntimeError, match="make another one"):
        server.start()
    server.stop()
    server.stop()


async def test_start_on_a_running_loop() -> None:
    """The server can be started from within an event loop, and answers while that is blocked."""
    server = server_for()
    server.start()
    answer: list[str] = []
    client = threading.Thread(target=lambda: answer.append(ask(server).text))
    client.start()
    client.join(DEADLINE)  # which holds this loop
    assert answer == [BODY]
    await asyncio.to_thread(server.stop)


def test_call() -> None:
    """A coroutine can be run on the server's loop from another thread, errors and all."""

    async def where() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise ValueError("so it goes")

    with running() as server:
        assert server.call(where()) == "aiosvc admin"
        with pytest.raises(ValueError, match="so it goes"):
            server.call(fail())
    again = where()
    with pytest.raises(RuntimeError, match="has ended"):
        server.call(again)


def test_call_from_within() -> None:
    """The server's own thread can't wait for itself, and is told so."""

    async def call(_request: web.Request) -> web.StreamResponse:
        coroutine = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="await"):
            server.call(coroutine)
        return web.Response(text="told")

    server = server_for()
    server.add_page(Page(path="/call", handler=call))
    server.start()
    assert ask(server, "/call").text == "told"
    server.stop()


# -- The warning -----------------------------------------------------------------------------------


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about authentication."""
    return [r.getMessage() for r in caplog.records if "without authentication" in r.getMessage()]


def test_open_to_the_network(caplog: pytest.LogCaptureFixture) -> None:
    """An address that others reach, without authentication, is worth one warning that helps."""
    with running(admin_host="0.0.0.0") as server:
        ask(server)
    (warning,) = warnings_of(caplog)
    assert warning == (
        f"the admin server listens on 0.0.0.0, port {server.port}, without authentication: whoever "
        "reaches it can read all metrics; give admin_host='127.0.0.1', or a web_config with "
        "basic_auth_users or client certificates, or a bearer_token_file"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost"])
def test_not_open(caplog: pytest.LogCaptureFixture, host: str) -> None:
    """An address of this machine alone needs no authentication."""
    with running(admin_host=host):
        pass
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    "content",
    [
        f"basic_auth_users: {{dave: {HASH}}}",
        "bearer_token: hush",
        TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n",
    ],
)
def test_open_and_protected(pems: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    """Who asks for a user, a token or a certificate is not warned."""
    path = pems / "web.yml"
    path.write_text(content)
    with running(admin_host="0.0.0.0", web_config=str(path)):
        pass
    assert warnings_of(caplog) == []


def test_encrypted_is_not_protected(pems: Path, caplog: pytest.LogCaptureFixture) -> None:
    """TLS alone tells nobody who asks."""
    path = pems / "web.yml"
    path.write_text(TLS)
    with running(admin_host="0.0.0.0", web_config=str(path)):
        pass
    assert len(warnings_of(caplog)) == 1


# -- Probes ----------------------------------------------------------------------------------------


def test_probes() -> None:
    """/livez and /readyz follow the service, and say why; the metrics are served in any case."""
    health = Health()
    with running(health=health) as server:

        def probe(path: str) -> tuple[int, str]:
            reply = ask(server, path)
            return reply.status, reply.text

        assert probe("/livez") == (200, "live\n")
        assert probe("/readyz") == (503, "the service is starting\n")
        health.set_ready()
        assert probe("/readyz") == (200, "ready\n")
        health.add_check("db", lambda: False)
        assert probe("/readyz") == (503, "not passed: db\n[-] db: failed\n")
        health.set_draining()
        assert probe("/readyz") == (503, "the service is draining\n")
        assert probe("/livez") == (200, "live\n")
        assert ask(server).status == 200


def test_blocked_application() -> None:
    """While the application stands still, metrics come at once, and /livez says for how long."""
    blocked = threading.Event()
    release = threading.Event()

    async def block(_request: web.Request) -> web.Response:
        blocked.set()
        release.wait(DEADLINE)
        return web.Response(text="done")

    async def serve(app: web.Application) -> web.AppRunner:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    app = web.Application()
    app.router.add_get("/block", block)
    health = Health(live_timeout=0.5)
    with Loop() as application, running(health=health) as server:
        health.watch_loop(application.loop)
        health.set_ready()
        runner = asyncio.run_coroutine_threadsafe(serve(app), application.loop).result(DEADLINE)
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/block"
        wait_for(lambda: ask(server, "/livez").status == 200, "/livez is well")
        client = threading.Thread(
            target=lambda: urllib.request.urlopen(url, timeout=DEADLINE).close()
        )
        client.start()
        assert blocked.wait(DEADLINE)
        begun = time.monotonic()
        wait_for(lambda: ask(server, "/livez").status == 503, "/livez says so")
        time.sleep(0.5)
        live, ready = ask(server, "/livez"), ask(server, "/readyz")
        for reply in (live, ready):
            assert reply.status == 503
            text = reply.text.removeprefix("the event loop has been blocked for ")
            seconds = float(text.removesuffix(" s\n"))
            assert seconds > 0.8
            assert seconds <= time.monotonic() - begun + 0.1
        asked = time.monotonic()
        assert ask(server).text == BODY
        assert time.monotonic() - asked < 5
        release.set()
        wait_for(lambda: ask(server, "/livez").status == 200, "/livez is well again")
        client.join(DEADLINE)
        asyncio.run_coroutine_threadsafe(runner.cleanup(), application.loop).result(DEADLINE)


def test_busy_application() -> None:
    """An application that computes without end is blocked as well, and the server answers."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(1000))

    health = Health(live_timeout=0.3)
    with Loop() as application, running(health=health) as server:
        health.watch_loop(application.loop)
        application.loop.call_soon_threadsafe(compute)
        wait_for(lambda: ask(server, "/livez").status == 503, "/livez says so")
        assert ask(server).text == BODY
        stop.set()
        wait_for(lambda: ask(server, "/livez").status == 200, "/livez is well again")


def test_tick_that_fails() -> None:
    """An error in what is done regularly is told, and does not end it."""
    told: list[str] = []

    class Failing(Health):
        def beat(self) -> None:
            raise ValueError("x")

    options = AdminOptions(admin_port=0, live_timeout=0.1)
    server = AdminServer(
        metrics,
        Failing(live_timeout=0.1),
        options,
        on_error=lambda where, _error: told.append(where),
    )
    server.start()
    wait_for(lambda: len(told) >= 3, "it goes on")
    server.stop()
    assert set(told) == {"admin server"}


# -- Stop ------------------------------------------------------------------------------------------


def test_stop_leaves_nothing() -> None:
    """After a stop there is no thread and no socket, however often and whatever was open."""
    threads = set(threading.enumerate())
    for _ in range(30):
        with running() as server:
            idle = connect(server)
            kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
            kept.request("GET", "/metrics")
            assert kept.getresponse().read().decode() == BODY
        assert drained(idle) == b""
        idle.close()
        kept.close()
        with pytest.raises(ConnectionError):
            connect(server)
    assert set(threading.enumerate()) == threads


def test_last_scrape() -> None:
    """A scrape that is being answered when the server is stopped is answered to its end."""
    begun, release = threading.Event(), threading.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun\n")
        begun.set()
        await asyncio.to_thread(release.wait, DEADLINE)
        await response.write(b"x" * 3_000_000)
        await response.write_eof()
        return response

    with running(handler) as server:
        answers: list[str] = []
        client = threading.Thread(target=lambda: answers.append(ask(server).text))
        client.start()
        assert begun.wait(DEADLINE)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.1)
        release.set()
        for thread in (client, stopping):
            thread.join(DEADLINE)
    assert answers == ["begun\n" + "x" * 3_000_000]


def test_stop_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that does not end, and a client that does not read, are ended with the server."""
    monkeypatch.setattr("aiosvc.admin.server.GRACE", 0.3)
    ended = threading.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        if "big" in request.query:
            return web.Response(body=bytes(20_000_000))
        try:
            await asyncio.sleep(DEADLINE)
        finally:
            ended.set()
        return web.Response()

    with running(handler) as server, connect(server) as waiting, connect(server) as slow:
        waiting.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        slow.sendall(b"GET /metrics?big HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: server.connections is not None and server.connections.busy > 0, "begun")
        time.sleep(0.1)
        server.stop()
        assert server.thread is not None
        assert not server.thread.is_alive()
        assert ended.is_set()
        assert drained(waiting) == b""


def test_stop_with_a_lasting_page_open() -> None:
    """A page that stays connected holds up no stop, and its handler is ended."""
    ended = threading.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            async for message in socket:
                await socket.send_str(message.data[::-1])
        finally:
            ended.set()
        return socket

    async def use(url: str, server: AdminServer) -> None:
        async with ClientSession() as session, session.ws_connect(url) as socket:
            await socket.send_str("abc")
            assert await socket.receive_str() == "cba"
            begun = time.monotonic()
            await asyncio.to_thread(server.stop)
            assert time.monotonic() - begun < GRACE
            assert (await socket.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)

    server = server_for()
    server.add_page(Page(path="/live", handler=handler, lasting=True))
    server.start()
    asyncio.run(use(f"{server.url}/live", server))
    assert ended.wait(DEADLINE)


def test_stop_from_within() -> None:
    """A handler may stop the server that it is in; that does not wait for itself."""

    async def stop(_request: web.Request) -> web.StreamResponse:
        server.stop()
        return web.Response(text="good bye")

    server = server_for()
    server.add_page(Page(path="/stop", handler=stop))
    server.start()
    assert ask(server, "/stop").text == "good bye"
    assert server.thread is not None
    server.thread.join(DEADLINE)
    assert not server.thread.is_alive()


def test_server_that_dies_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Should the server end by itself, it says so."""

    async def fail(_self: web.AppRunner) -> None:
        raise MemoryError("none left")

    caplog.set_level(logging.ERROR, "aiosvc.admin")
    with monkeypatch.context() as patched:
        patched.setattr(web.AppRunner, "cleanup", fail)
        server = server_for()
        server.start()
        server.stop()
    assert [record.getMessage() for record in caplog.records] == ["the admin server has ended"]
    server.stop()
