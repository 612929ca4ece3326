"""What a request passes: users and tokens, limits, methods, and what every answer has."""

import asyncio
import gzip
import io
import logging
import socket
from pathlib import Path
from typing import Any

import bcrypt
import psutil
import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from processes import DEADLINE

from aiosvc.admin import AdminOptions, AdminServer, Page
from aiosvc.health import Health

from .servers import BODY, ask, ask_raw, basic, connect, drained, running, wait_for
from .test_passwords import hashed
from .test_webconfig import HASH

USERS = f"basic_auth_users:\n  dave: {HASH}\n"
DAVE = basic("dave", "dave123")


@pytest.fixture
def web_yml(tmp_path: Path) -> Path:
    """Return a file with a user."""
    path = tmp_path / "web.yml"
    path.write_text(USERS)
    return path


# -- Users and tokens ------------------------------------------------------------------------------


def test_without_protection() -> None:
    """Where nothing is asked for, everybody is served."""
    with running() as server:
        assert ask(server).status == 200
        assert ask(server, headers=DAVE).status == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/metrics/", "/livez", "/readyz", "/nowhere"])
def test_every_path_needs_the_user(web_yml: Path, path: str) -> None:
    """Without a user there is no path, not even one that does not exist, and it is said what is."""
    with running(web_config=str(web_yml)) as server:
        reply = ask(server, path)
        assert (reply.status, reply.text) == (401, "unauthorized\n")
        assert reply.headers["WWW-Authenticate"] == 'Basic realm="aiosvc", charset="UTF-8"'
        assert ask(server, path, headers=DAVE).status == (404 if path == "/nowhere" else 200)


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "DELETE"])
def test_every_method_needs_the_user(web_yml: Path, method: str) -> None:
    """There is no way around by another method."""
    with running(web_config=str(web_yml)) as server:
        assert ask(server, method=method).status == 401


def test_both_ways_in(web_yml: Path) -> None:
    """Where there are users and a token, either will do, and both are said."""
    with running(web_config=str(web_yml), bearer_token="t0ken") as server:
        assert ask(server, headers={"Authorization": "Bearer t0ken"}).status == 200
        assert ask(server, headers=DAVE).status == 200
        reply = ask(server, headers={"Authorization": "Bearer other"})
        assert reply.status == 401
        assert reply.headers.get_all("WWW-Authenticate") == [
            'Basic realm="aiosvc", charset="UTF-8"',
            'Bearer realm="aiosvc"',
        ]


def test_exempt_paths(web_yml: Path) -> None:
    """Paths that are exempt need no user, with a slash at the end too; no other spelling helps."""
    options: dict[str, Any] = {"web_config": str(web_yml), "auth_exempt": ("/livez", "/readyz")}
    with running(**options) as server:
        for path in ("/livez", "/livez/", "/readyz", "/%6civez"):
            assert ask(server, path).status == 200
        for path in (
            "/livez/../metrics",
            "//livez",
            "/livez;/metrics",
            "/metrics?/livez",
            "/LIVEZ",
        ):
            assert ask(server, path).status == 401


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Authorization:\r\n",
        b"Authorization: Basic\r\n",
        b"Authorization: Basic !!!\r\n",
        b"Authorization: Basic bm9jb2xvbg==\r\n",
        b"Authorization: Basic \xff\xfe\r\n",
        b"Authorization: \xff\xfe\r\n",
        b"Authorization: Basic ZGF2ZTpkYXZlMTIz\r\nAuthorization: Basic ZGF2ZTpkYXZlMTIz\r\n",
        b"Authorization: Bearer ZGF2ZTpkYXZlMTIz\r\n",
        b"X-Authorization: Basic ZGF2ZTpkYXZlMTIz\r\n",
        b"Proxy-Authorization: Basic ZGF2ZTpkYXZlMTIz\r\n",
    ],
)
def test_headers_that_make_no_sense(web_yml: Path, header: bytes) -> None:
    """Whatever stands in the header, or does not, the answer is 401."""
    with running(web_config=str(web_yml)) as server:
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n"
        answer = ask_raw(server, request)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"WWW-Authenticate: Basic" in answer


def test_huge_header(web_yml: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A megabyte of Authorization is refused, and no word of it is logged."""
    caplog.set_level(logging.DEBUG)
    with running(web_config=str(web_yml)) as server:
        secret = b"c2VjcmV0OmhtbQ" * 75_000
        answer = ask_raw(
            server,
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic ",
            secret,
            b"\r\n\r\n",
        )
        assert answer == b"" or answer.startswith(b"HTTP/1.0 400 ")
        assert ask(server, headers=DAVE).status == 200
    assert "c2VjcmV0OmhtbQ" not in caplog.text


def test_no_password_is_logged(web_yml: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither right nor wrong passwords, nor tokens, are in the log."""
    caplog.set_level(logging.DEBUG)
    with running(web_config=str(web_yml), bearer_token="t0kensecret") as server:
        for user, password in (("dave", "dave123"), ("dave", "hush"), ("nobody", "hush")):
            ask(server, headers=basic(user, password))
        ask(server, headers={"Authorization": "Bearer hush"})
        ask(server, headers={"Authorization": "Bearer t0kensecret"})
    for secret in ("dave123", "hush", "t0kensecret", HASH):
        assert secret not in caplog.text


def test_poisoned_memory(web_yml: Path) -> None:
    """What CVE-2022-46146 did in two steps does not work."""
    web_yml.write_text(f"basic_auth_users:\n  alice: {hashed('alice123')}\n")
    fake = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
    stored = web_yml.read_text().split()[-1]
    with running(web_config=str(web_yml)) as server:
        assert ask(server, headers=basic(f"alice{stored}", "fakepassword")).status == 401
        assert ask(server, headers=basic("alice", f"{fake}fakepassword")).status == 401
        for _ in range(2):
            assert ask(server, headers=basic("fakeuser", "fakepassword")).status == 401


@pytest.fixture
def alice_yml(tmp_path: Path) -> Path:
    """Return a file with a user whose password takes as long as is usual."""
    path = tmp_path / "alice.yml"
    path.write_text(f"basic_auth_users:\n  alice: {hashed('alice123', 10)}\n")
    return path


async def test_crowd_of_good_and_bad(alice_yml: Path) -> None:
    """150 right and 150 wrong passwords at once are all told apart, by a server that goes on."""
    with running(web_config=str(alice_yml), auth_exempt=("/livez",)) as server:
        url = f"{server.url}/metrics"
        connector = TCPConnector(limit=0)
        timeout = ClientTimeout(DEADLINE)
        async with ClientSession(connector=connector, timeout=timeout) as session:

            async def login(password: str) -> int:
                async with session.get(url, headers=basic("alice", password)) as reply:
                    return reply.status

            given = ["alice123", "alice1234"] * 150
            found = asyncio.gather(*(login(password) for password in given))
            async with session.get(f"{server.url}/livez") as reply:
                assert reply.status == 200
            assert await found == [200, 401] * 150


async def test_slow_hash_does_not_hold_the_server(
    web_yml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While bcrypt takes its time, whoever is known already is served, and so are the probes."""
    with running(web_config=str(web_yml), auth_exempt=("/livez",)) as server:
        assert ask(server, headers=DAVE).status == 200
        begun, release = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(_password: bytes, _hashed: bytes) -> bool:
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(DEADLINE)
            return False

        monkeypatch.setattr(bcrypt, "checkpw", slow)
        headers = basic("dave", "wrong")
        waiting = asyncio.create_task(asyncio.to_thread(ask, server, headers=headers))
        await begun.wait()
        assert (await asyncio.to_thread(ask, server, headers=DAVE)).status == 200
        assert (await asyncio.to_thread(ask, server, "/livez")).status == 200
        release.set()
        assert (await waiting).status == 401


def test_users_that_change(web_yml: Path) -> None:
    """A new user is known with the next request, also on an old connection; an old one is not."""
    with running(web_config=str(web_yml)) as server, connect(server) as sock:
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n"
        right = request % DAVE["Authorization"].encode()
        sock.sendall(right)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        web_yml.write_text(f"basic_auth_users:\n  erin: {hashed('erin123')}\n")
        sock.sendall(right)
        assert sock.recv(4096).startswith(b"HTTP/1.1 401 ")
        assert ask(server, headers=basic("erin", "erin123")).status == 200


# -- The rate limit --------------------------------------------------------------------------------


def test_rate_limit(tmp_path: Path) -> None:
    """Beyond the burst the answer is 429 and says when; the probes are never limited."""
    path = tmp_path / "web.yml"
    path.write_text("rate_limit:\n  interval: 1h\n  burst: 3\n")
    with running(web_config=str(path)) as server:
        replies = [ask(server) for _ in range(5)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
        assert 3500 < int(replies[-1].headers["Retry-After"]) <= 3600
        assert ask(server, "/nowhere").status == 429
        assert ask(server, "/livez").status == 200
        assert ask(server, "/readyz").status == 200


def test_no_rate_limit(tmp_path: Path) -> None:
    """An interval of nothing is no limit."""
    path = tmp_path / "web.yml"
    path.write_text("rate_limit:\n  interval: 0\n  burst: 0\n")
    with running(web_config=str(path)) as server:
        assert {ask(server).status for _ in range(10)} == {200}


# -- Headers ---------------------------------------------------------------------------------------


def test_headers_of_every_answer(tmp_path: Path) -> None:
    """What the file sets is on every answer, and goes before what we set; refusals have it too."""
    path = tmp_path / "web.yml"
    path.write_text(
        USERS + "http_server_config:\n  headers:\n"
        "    X-Frame-Options: deny\n"
        "    Strict-Transport-Security: max-age=31536000; includeSubDomains\n"
        "    X-Content-Type-Options: nosniff\n"
        "    X-XSS-Protection: 1\n"
        "    Content-Security-Policy: \"default-src 'self' *.test.example.net\"\n"
    )
    with running(web_config=str(path)) as server:
        replies = [
            ask(server, "/", headers=DAVE),
            ask(server, "/metrics", headers=DAVE),
            ask(server, "/nowhere", headers=DAVE),
            ask(server, "/livez", method="POST", headers=DAVE),
            ask(server, "/metrics"),
        ]
    assert [reply.status for reply in replies] == [200, 200, 404, 405, 401]
    for reply in replies:
        assert reply.headers["X-Frame-Options"] == "deny"
        assert reply.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["X-XSS-Protection"] == "1"
        csp = reply.headers.get_all("Content-Security-Policy")
        assert csp == ["default-src 'self' *.test.example.net"]


def test_headers_by_default() -> None:
    """No answer can be framed, sniffed or run, and none tells which Python it comes from."""
    with running() as server:
        for path in ("/", "/metrics", "/livez", "/nowhere"):
            headers = ask(server, path).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert headers["Server"].startswith("aiosvc/")


# -- Methods and bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz"])
def test_methods(path: str) -> None:
    """Our pages are read with GET and HEAD; OPTIONS and 405 say so."""
    with running() as server:
        get, head = ask(server, path), ask(server, path, method="HEAD")
        assert (get.status, head.status, head.text) == (200, 200, "")
        assert head.headers["Content-Type"] == get.headers["Content-Type"]
        assert head.headers["Content-Length"] == get.headers["Content-Length"]
        options = ask(server, path, method="OPTIONS")
        assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
        for method in ("POST", "PUT", "DELETE", "PATCH", "PROPFIND"):
            reply = ask(server, path, method=method)
            assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_methods_of_metrics() -> None:
    """Which methods /metrics knows is for its own handler to say."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=request.method)

    with running(handler) as server:
        for method in ("GET", "POST", "OPTIONS", "DELETE"):
            assert ask(server, method=method).text == method


def test_slash_at_the_end() -> None:
    """Both spellings of a path are the same page."""
    with running() as server:
        assert ask(server, "/metrics/").text == ask(server, "/metrics").text == BODY
        assert ask(server, "/livez/").status == 200
        assert ask(server, "/metrics//").status == 404


def test_body_is_not_read() -> None:
    """Who sends a body without end gets an answer at once, and is hung up on; memory stays flat."""
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as packed:
        for _ in range(64):
            packed.write(bytes(1 << 20))
    process = psutil.Process()
    with running() as server:
        ask(server)
        before = process.memory_info().rss
        for method in (b"POST /livez", b"GET /livez", b"PUT /metrics", b"POST /nowhere"):
            head = method + (
                b" HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
                b"Content-Length: 10000000000\r\n\r\n"
            )
            answer = ask_raw(server, head, *[bomb.getvalue()] * 200)
            status = {b"POST /livez": 405, b"POST /nowhere": 404}.get(method, 200)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 %d " % status)
        assert process.memory_info().rss - before < 50_000_000
        assert ask(server).status == 200


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
def test_body_that_never_comes(framing: bytes) -> None:
    """A body that drips, or does not come, keeps no connection: the answer does not wait for it."""
    with running() as server:
        answer = ask_raw(server, b"POST /livez HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n1")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"Connection: close" in answer


def test_expect_continue() -> None:
    """Nobody is invited to send a body."""
    with running() as server:
        answer = ask_raw(
            server,
            b"POST /livez HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: 10\r\n\r\n",
        )
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"100 Continue" not in answer


def test_range_is_not_looked_at() -> None:
    """A range is answered with the whole."""
    with running() as server:
        assert ask(server, headers={"Range": "bytes=0-1"}).text == BODY


# -- Handlers that fail ----------------------------------------------------------------------------


def test_handler_that_raises() -> None:
    """An error of a handler is a 500 that does not say which, and is told to whom it concerns."""
    errors: list[tuple[str, BaseException]] = []

    async def handler(_request: web.Request) -> web.StreamResponse:
        raise ValueError("secret")

    health = Health()
    options = AdminOptions(admin_port=0)
    server = AdminServer(
        handler, health, options, on_error=lambda where, error: errors.append((where, error))
    )
    server.start()
    try:
        for _ in range(2):
            reply = ask(server)
            assert (reply.status, reply.text) == (500, "internal error\n")
    finally:
        server.stop()
    assert [(where, str(error)) for where, error in errors] == [
        ("admin server, /metrics", "secret")
    ] * 2


def test_handler_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody is to be told, it is logged."""

    async def handler(_request: web.Request) -> web.StreamResponse:
        raise ValueError("it broke")

    with running(handler) as server:
        ask(server)
    (record,) = caplog.records
    assert record.getMessage() == "an error in the admin server, /metrics"
    assert record.exc_info is not None


def test_handler_that_raises_a_response() -> None:
    """Exceptions of aiohttp are the answers that they stand for."""

    async def handler(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/livez", headers={"X-Why": "because"})

    with running(handler) as server:
        reply = ask(server)
    assert (reply.status, reply.headers["Location"]) == (302, "/livez")
    assert (reply.headers["X-Why"], reply.text) == ("because", "302: Found")
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError(), web.HTTPFound("/")])
def test_handler_that_fails_half_way(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Half an answer is cut off, so that nobody takes it for a whole one."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"# HELP a\n")
        raise error

    with running(handler) as server:
        answer = ask_raw(server, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not answer.endswith(b"0\r\n\r\n")
        assert ask(server, "/livez").status == 200
    assert caplog.records == []


def test_streams_and_pages_of_others() -> None:
    """A page that is added is served behind the same gate, listed with its words, and may stream."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(3):
            await response.write(b"%d\n" % number)
        await response.write_eof()
        return response

    async def nothing(_request: web.Request) -> web.StreamResponse:
        return web.Response()

    server = AdminServer(nothing, Health(), AdminOptions(admin_port=0))
    server.add_page(Page(path="/live", handler=handler, says="as it happens"))
    server.add_page(Page(path="/live/data", handler=nothing))
    server.start()
    try:
        reply = ask(server, "/live")
        assert (reply.status, reply.text) == (200, "0\n1\n2\n")
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        listed = ask(server, "/").text
        assert "as it happens" in listed
        assert "/live/data" not in listed
    finally:
        server.stop()


def test_client_that_leaves() -> None:
    """When its client leaves, a handler is not left behind."""
    seen: list[str] = []

    async def handler(_request: web.Request) -> web.StreamResponse:
        seen.append("begun")
        try:
            await asyncio.sleep(DEADLINE)
        except asyncio.CancelledError:
            seen.append("ended")
            raise
        return web.Response()

    with running(handler) as server:
        with connect(server) as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: seen == ["begun"], "the handler runs")
            sock.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: seen == ["begun", "ended"], "the handler is ended")
        assert server.connections is not None
        wait_for(lambda: server.connections is not None and len(server.connections) == 0, "gone")


# -- What is no request at all ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"GET /metrics HTTP/1.1\r\n\r\n\x00",
        b"FOO\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_no_request(request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What can't be parsed is answered 400 or not at all; a flood of it does not fill the log."""
    with running(admin_header_timeout=0.5) as server:
        for _ in range(3):
            answer = ask_raw(server, request_)
            assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert ask(server).status == 200
    assert caplog.records == []


def test_pipelined_requests() -> None:
    """Requests in one piece are answered in order."""
    with running() as server:
        one = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = ask_raw(server, one % b"livez" * 50 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 50
    assert answer.count(b"HTTP/1.1 404 Not Found") == 1


@pytest.mark.parametrize("target", [b"*", b"http://x/metrics", b"//x/metrics", b"/%00", b"/%zz"])
def test_odd_targets(web_yml: Path, target: bytes) -> None:
    """However a target is written, there is no way past the user."""
    with running(web_config=str(web_yml)) as server, connect(server) as sock:
        sock.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = drained(sock)
    assert answer.split(b" ")[1] in (b"400", b"401", b"404")
    assert BODY.encode() not in answer
