"""Taking an address, serving on it, and stopping in order."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from processes import DEADLINE, until

from aiosvc.config import ServeOptions
from aiosvc.errors import BindError
from aiosvc.runner import bind, serve, url_of


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Return a stack that closes the sockets put on it."""
    with ExitStack() as stack:
        yield stack


def bound(closing: ExitStack, host: str = "127.0.0.1", port: int = 0) -> list[socket.socket]:
    """Return what bind gives, to be closed with the test."""
    return [closing.enter_context(sock) for sock in bind(host, port)]


def has_ipv6() -> bool:
    """Say whether this machine has the address ::1."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


def test_free_port(closing: ExitStack) -> None:
    """Port 0 takes a free one, on the address that was asked for and nowhere else."""
    (sock,) = bound(closing)
    host, port = sock.getsockname()
    assert host == "127.0.0.1"
    assert port > 0
    assert url_of(sock) == f"http://127.0.0.1:{port}"


def test_name_with_several_addresses(closing: ExitStack) -> None:
    """Each address of a name gets a socket, all with the same port."""
    sockets = bound(closing, "localhost")
    assert len({sock.getsockname()[1] for sock in sockets}) == 1


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_ipv6(closing: ExitStack) -> None:
    """An IPv6 address is in brackets in the URL."""
    (sock,) = bound(closing, "::1")
    assert url_of(sock) == f"http://[::1]:{sock.getsockname()[1]}"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_same_port_on_both_families(closing: ExitStack) -> None:
    """All IPv6 addresses do not take the port of the IPv4 ones with them."""
    (six,) = bound(closing, "::")
    assert len(bound(closing, "0.0.0.0", six.getsockname()[1])) == 1


def test_port_of_a_server_that_just_ended(closing: ExitStack) -> None:
    """A restart gets its port back at once, connections in TIME_WAIT notwithstanding."""
    first = socket.create_server(("127.0.0.1", 0))
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        accepted, _ = first.accept()
        accepted.close()  # the server closes first, so TIME_WAIT is on its side
    first.close()
    assert bound(closing, port=port)[0].getsockname()[1] == port


def test_port_of_a_server(closing: ExitStack) -> None:
    """A port on which somebody listens is taken, and the message says what to do."""
    server = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = server.getsockname()[1]
    with pytest.raises(BindError) as caught:
        bind("127.0.0.1", port)
    assert str(caught.value) == f"port {port} is taken (127.0.0.1); choose another with --port"


def test_port_of_a_server_that_is_still_starting(closing: ExitStack) -> None:
    """A port that another service has taken, and does not listen on yet, is taken too."""
    (first,) = bound(closing)
    with pytest.raises(BindError, match=r"is taken \(127\.0\.0\.1\)"):
        bound(closing, port=first.getsockname()[1])


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EADDRINUSE, "port 80 is taken (127.0.0.1); choose another with --port"),
        (errno.EACCES, "port 80 is for privileged users; choose one from 1024 with --port"),
        (errno.EPERM, "port 80 is for privileged users; choose one from 1024 with --port"),
        (
            errno.EADDRNOTAVAIL,
            "'127.0.0.1' is no address of this machine; choose one with --host",
        ),
        (errno.ENOBUFS, "can't listen on 127.0.0.1, port 80: told so"),
    ],
)
def test_refused_by_the_system(monkeypatch: pytest.MonkeyPatch, number: int, message: str) -> None:
    """Each refusal of the system becomes one line that says what to do."""

    def refuse(_sock: socket.socket, _address: object) -> None:
        raise OSError(number, "told so")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(BindError) as caught:
        bind("127.0.0.1", 80)
    assert str(caught.value) == message


def test_address_of_another_machine() -> None:
    """An address that this machine does not have can't be listened on."""
    with pytest.raises(BindError, match=r"^'203\.0\.113\.1' is no address of this machine"):
        bind("203.0.113.1", 0)


def test_name_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads nowhere is one line that says so."""

    def unknown(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(BindError) as caught:
        bind("nowhere.example", 0)
    assert str(caught.value) == (
        "'nowhere.example' is no address: Name or service not known; choose one with --host"
    )


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_name_that_can_be_no_name(host: str) -> None:
    """A host that can't even be looked up is the same clear mistake."""
    with pytest.raises(BindError, match="is no address"):
        bind(host, 0)


def test_nothing_stays_open_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """When one of several addresses is refused, the others are given back."""
    made: list[socket.socket] = []
    real = socket.socket.bind

    def refuse_second(sock: socket.socket, address: tuple[str, int]) -> None:
        made.append(sock)
        if len(made) > 1:
            raise OSError(errno.EADDRINUSE, "taken")
        real(sock, address)

    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", 0)) for n in (1, 2)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: both)
    monkeypatch.setattr(socket.socket, "bind", refuse_second)
    with pytest.raises(BindError):
        bind("two.example", 0)
    assert [sock.fileno() for sock in made] == [-1, -1]


class Served:
    """An application that is served in a task, and what happened to it."""

    def __init__(self, app: web.Application, **options: float) -> None:
        self.app = app
        self.options = ServeOptions(**options)  # type: ignore[arg-type]  # numbers only
        self.sockets = bind("127.0.0.1", 0)
        self.url: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve it until a signal comes."""

        async def started(url: str) -> None:
            self.url.set_result(url)

        await serve(self.app, self.sockets, self.options, started=started)

    async def refuses(self) -> bool:
        """Say whether new connections are refused."""
        try:
            _, writer = await asyncio.open_connection(*self.sockets[0].getsockname())
        except OSError:
            return True
        writer.close()
        return False


@asynccontextmanager
async def serving(app: web.Application, **options: float) -> AsyncIterator[tuple[Served, str]]:
    """Serve *app* while the block runs, then send SIGTERM (once more) and wait until it stopped."""
    served = Served(app, **options)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(served.run())
        yield served, await served.url
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)


async def hello(_: web.Request) -> web.Response:
    """Say hello."""
    return web.Response(text="hello")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_stops_it_in_order(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """On SIGTERM and SIGINT the running request is finished, then the application is shut down."""
    caplog.set_level(logging.INFO, "aiosvc")
    happened: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        begun.set()
        await go_on.wait()
        happened.append("answered")
        return web.Response(text="finished")

    async def shut_down(_: web.Application) -> None:
        happened.append("shut down")

    async def clean_up(_: web.Application) -> None:
        happened.append("cleaned up")

    app = web.Application()
    app.router.add_get("/slow", slow)
    app.on_shutdown.append(shut_down)
    app.on_cleanup.append(clean_up)

    async def ask(url: str) -> str:
        async with ClientSession() as session, session.get(f"{url}/slow") as response:
            return await response.text()

    async with serving(app) as (served, url):
        asking = asyncio.create_task(ask(url))
        await begun.wait()
        os.kill(os.getpid(), number)
        await until(lambda: bool(happened), "the shutdown")
        assert await served.refuses()
        assert happened == ["shut down"]
        go_on.set()
        assert await asking == "finished"
    assert happened == ["shut down", "answered", "cleaned up"]
    assert "stopping: no new connections, running requests finish" in caplog.text


async def test_request_that_takes_too_long() -> None:
    """A request that outlasts the shutdown timeout is cancelled, and the stop goes on."""
    outcome: list[str] = []
    begun = asyncio.Event()

    async def stuck(_: web.Request) -> web.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        return web.Response()

    app = web.Application()
    app.router.add_get("/", stuck)
    async with ClientSession() as session:
        async with serving(app, shutdown_timeout=0.05) as (_, url):
            asking = asyncio.ensure_future(session.get(url))
            await begun.wait()
        assert outcome == ["cancelled"]
        with contextlib.suppress(OSError):
            (await asking).close()


async def test_answers_once_it_has_started() -> None:
    """When `started` is awaited, requests are answered at the URL that it was given."""
    app = web.Application()
    app.router.add_get("/", hello)
    async with serving(app) as (_, url), ClientSession() as session, session.get(url) as response:
        assert await response.text() == "hello"


async def test_who_connects_before_the_start_waits() -> None:
    """A client that comes while the application still starts is answered once it has started."""
    asking: list[asyncio.Task[str]] = []

    async def ask(url: str) -> str:
        async with ClientSession() as session, session.get(url) as response:
            return await response.text()

    sockets = bind("127.0.0.1", 0)

    async def connected(_app: web.Application) -> None:
        asking.append(asyncio.create_task(ask(url_of(sockets[0]))))
        _, writer = await asyncio.open_connection(*sockets[0].getsockname())
        writer.close()
        assert not asking[0].done()

    async def started(_: str) -> None:
        assert await asking[0] == "hello"
        os.kill(os.getpid(), signal.SIGTERM)

    app = web.Application()
    app.router.add_get("/", hello)
    app.on_startup.append(connected)
    async with asyncio.timeout(DEADLINE):
        await serve(app, sockets, ServeOptions(), started=started)
    assert asking[0].done()


async def test_start_that_fails() -> None:
    """An error at the application's start goes through, and the address is given back."""

    async def fail(_: web.Application) -> None:
        raise RuntimeError("no database")

    app = web.Application()
    app.on_startup.append(fail)
    sockets = bind("127.0.0.1", 0)
    with pytest.raises(RuntimeError, match="no database"):
        await serve(app, sockets, ServeOptions())
    assert [sock.fileno() for sock in sockets] == [-1]


async def test_stop_during_the_start() -> None:
    """A signal that comes while the application starts is not lost: it stops once started."""
    happened: list[str] = []

    async def signalled(_: web.Application) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
        happened.append("started")

    async def clean_up(_: web.Application) -> None:
        happened.append("cleaned up")

    app = web.Application()
    app.on_startup.append(signalled)
    app.on_cleanup.append(clean_up)
    async with asyncio.timeout(DEADLINE):
        await serve(app, bind("127.0.0.1", 0), ServeOptions())
    assert happened == ["started", "cleaned up"]
