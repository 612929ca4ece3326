"""What the parser refuses, and methods that nobody has."""

import asyncio
import contextlib
import itertools

import pytest
from aiohttp.helpers import NO_EXTENSIONS
from situations import BODY, Service, serving, until
from wire import chunked, request

TLS_HELLO = bytes.fromhex(
    "16030100c8010000c40303" + "00" * 32 + "20" + "11" * 32 + "0006130213031301010000750000"
)

MALFORMED = {
    "no request line": b"\x00\x01\x02\r\n\r\n",
    "words": b"hello there server\r\n\r\n",
    "one word": b"hello\r\n\r\n",
    "bad version": b"GET /ok HTTP/9.x\r\nHost: a\r\n\r\n",
    "bad header": b"GET /ok HTTP/1.1\r\nHost: a\r\nno colon here\r\n\r\n",
    "blank in a header's name": b"GET /ok HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n",
    "control byte in a header": b"GET /ok HTTP/1.1\r\nHost: a\r\nA: \x00\r\n\r\n",
    "two lengths": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "length and chunks": (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "bad length": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "length with a plus": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    "two codings": (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
    ),
    "TLS": TLS_HELLO + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "long line": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "long header": b"GET /ok HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
    "empty method": b" /ok HTTP/1.1\r\nHost: a\r\n\r\n",
    "bad method": b"G=T /ok HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_malformed_request(kind: str) -> None:
    """What the parser refuses is a bad request, and a 400 of no method and no endpoint."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(MALFORMED[kind])
        answer = await wire.answer()
        assert answer.status == 400
        assert await wire.rest() == b""
        await service.says({"_other _unmatched 400": 1}, bad_requests=1)


@pytest.mark.skipif(NO_EXTENSIONS, reason="the Python parser takes them for requests")
@pytest.mark.parametrize("method", ["get", "FOOBAR", "Get", "X"])
async def test_unknown_method(method: str) -> None:
    """A method that the C parser does not know is a bad request."""
    async with serving() as service:
        assert (await service.ask(request(method, "/any"))).status == 400
        await service.says({"_other _unmatched 400": 1}, bad_requests=1)


@pytest.mark.skipif(not NO_EXTENSIONS, reason="the C parser refuses them")
@pytest.mark.parametrize("method", ["FOOBAR", "X", "PROPFIND", "M-SEARCH"])
async def test_unknown_method_that_is_passed_on(method: str) -> None:
    """A method that only a client knows is `_other`, under the template that it asked for."""
    async with serving() as service:
        assert (await service.ask(request(method, "/any"))).status == 200
        assert (await service.ask(request(method, "/users/7"))).status == 405
        assert (await service.ask(request(method, "/nothing"))).status == 404
        await service.says(
            {"_other /any 200": 1, "_other /users/{id} 405": 1, "_other _unmatched 404": 1}
        )


@pytest.mark.parametrize("method", ["PROPFIND", "SEARCH", "MKCOL", "LOCK", "PURGE"])
async def test_method_of_another_standard(method: str) -> None:
    """A method that HTTP itself does not have is `_other`, its endpoint and status are true."""
    async with serving() as service:
        assert (await service.ask(request(method, "/any"))).status == 200
        assert (await service.ask(request(method, "/users/7"))).status == 405
        await service.says({"_other /any 200": 1, "_other /users/{id} 405": 1})


async def test_connect() -> None:
    """CONNECT to a server that is no proxy is one request without a route."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        status = (await wire.answer()).status
        wire.close()
        await service.quiet()
        (key,) = service.seen().requests
        assert key in (f"CONNECT _unmatched {status}", "_other _unmatched 400")


@pytest.mark.parametrize(
    ("line", "template"),
    [
        (b"OPTIONS * HTTP/1.1", "_unmatched"),
        (b"GET http://other.test/users/7 HTTP/1.1", "/users/{id}"),
        (b"GET //users/7 HTTP/1.1", "_unmatched"),
        (b"GET /users/7?%zz=%ff#x HTTP/1.1", "/users/{id}"),
        (b"GET /users/\xc3\xbc HTTP/1.1", "/users/{id}"),
        (b"GET /users/%C3%BC HTTP/1.1", "/users/{id}"),
        (b"GET /users/${jndi:ldap} HTTP/1.1", "/users/{id}"),
        (b"GET /%2fusers/7 HTTP/1.1", "_unmatched"),
        (b"GET /../../etc/passwd HTTP/1.1", "_unmatched"),
    ],
)
async def test_odd_targets(line: bytes, template: str) -> None:
    """A target that is odd is one request, or one bad request, as its answer says."""
    async with serving() as service:
        answer = await service.ask(line + b"\r\nHost: service.test\r\n\r\n")
        await service.quiet()
        await until(lambda: bool(service.seen().requests), "the request")
        seen = service.seen()
        if answer.status == 400:
            await service.says({"_other _unmatched 400": 1}, bad_requests=1)
        else:
            assert seen.bad_requests == 0
            (key,) = seen.requests
            assert key.endswith(f" {answer.status}")
            assert answer.status in (200, 404, 405)
            if answer.status == 200:
                assert key.split()[1] == template


async def test_http_0_9() -> None:
    """A line without a version is whatever aiohttp's parser takes it for, once."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(b"GET /ok\r\n\r\n")
        if (await wire.head()).status == 200:
            await service.says({"GET /ok 200": 1})
        else:
            await service.says({"_other _unmatched 400": 1}, bad_requests=1)


async def test_bad_request_after_good_ones() -> None:
    """A connection's good requests and the bad one that ends it are counted each as they were."""
    async with serving() as service:
        wire = await service.connect()
        for _ in range(2):
            await wire.ask(request("GET", "/ok"))
        await wire.send(b"rubbish\r\n\r\n")
        assert (await wire.answer()).status == 400
        assert await wire.rest() == b""
        await service.says({"GET /ok 200": 2, "_other _unmatched 400": 1}, bad_requests=1)


@pytest.mark.parametrize("late", [b"rubbish\r\n\r\n", b"G"])
async def test_bad_request_while_another_is_handled(late: bytes) -> None:
    """What comes in behind a request is judged only when that has its answer."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(request("GET", "/wait"))
        await service.entered()
        await wire.send(late)
        await service.says({}, in_progress={"GET /wait": 1})
        service.gate().opened.set()
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, BODY)
        if late == b"G":
            await service.says({"GET /wait 200": 1})
        else:
            assert (await wire.answer()).status == 400
            await service.says({"GET /wait 200": 1, "_other _unmatched 400": 1}, bad_requests=1)


async def test_good_and_bad_in_one_piece() -> None:
    """Of a good request and rubbish in one segment, each answer that was sent is counted."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(request("GET", "/ok") + b"rubbish\r\n\r\n")
        wire.finish()
        received = await wire.rest()
        await service.quiet()
        seen = service.seen()
        assert seen.bad_requests <= 1
        statuses = [key[-3:] for key, count in seen.requests.items() for _ in range(count)]
        for status in ("200", "400"):
            assert statuses.count(status) == received.count(b"HTTP/1.1 %s" % status.encode()) + (
                received.count(b"HTTP/1.0 %s" % status.encode())
            )


async def test_client_that_leaves_before_its_400() -> None:
    """A malformed request whose sender did not wait is still a bad request, once."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(b"rubbish\r\n\r\n")
        wire.reset()
        await until(lambda: service.value("connections_total") == 1, "the connection")
        await until(lambda: service.value("active_connections") == 0, "its end")
        await service.quiet()
        seen = service.seen()
        assert seen.requests in (
            {"_other _unmatched 400": 1},
            {"_other _unmatched 499": 1},
            {},  # RST overtook the bytes
        )
        assert seen.bad_requests == sum(seen.requests.values())
        assert seen.exceptions == {}


SMUGGLED = {
    "CL.TE": request(
        "POST",
        "/echo",
        headers={"Content-Length": "6", "Transfer-Encoding": "chunked"},
        body=b"0\r\n\r\nG",
    ),
    "TE.CL": request(
        "POST",
        "/echo",
        headers={"Transfer-Encoding": "chunked", "Content-Length": "4"},
        body=b"5c\r\nGET /ok HTTP/1.1\r\n\r\n0\r\n\r\n",
    ),
    "TE.TE": request(
        "POST",
        "/echo",
        headers={"Transfer-Encoding": "chunked", "Transfer-encoding": "cow"},
        body=chunked(b"x"),
    ),
    "obs-fold": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"GET /ok HTTP/1.1\nHost: a\n\n",
    "blank before the colon": (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"
    ),
    "chunk extension": request(
        "POST",
        "/echo",
        headers={"Transfer-Encoding": "chunked"},
        body=b"5;a=\n\r\nhello\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize("kind", SMUGGLED)
async def test_smuggling(kind: str) -> None:
    """Whatever aiohttp makes of a smuggling attempt, each answer that it sent is counted once."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(SMUGGLED[kind])
        answers = []
        with contextlib.suppress(TimeoutError):  # some parsers wait for more
            async with asyncio.timeout(1):
                answers.append(str((await wire.head()).status))
        wire.finish()
        lines = (await wire.rest()).split(b"\r\n")
        answers += [line[9:12].decode() for line in lines if line[:5] == b"HTTP/"]
        await service.quiet()
        seen = service.seen()
        counted = [
            key[-3:]
            for key, count in seen.requests.items()
            for _ in range(count)
            if not key.endswith("499")
        ]
        assert sorted(counted) == sorted(answers)
        assert seen.bad_requests == seen.requests.get("_other _unmatched 400", 0)


def series(service: Service) -> dict[str, int]:
    """Return how many series each HTTP metric has."""
    samples = service.samples().items()
    return {name: len(found) for name, found in samples if name.startswith("http_")}


async def test_many_malformed_requests_are_two_series() -> None:
    """However requests are malformed, they add to the same two series."""
    async with serving() as service:
        await service.ask(next(iter(MALFORMED.values())))
        await service.quiet()
        before = series(service)
        for data in itertools.chain(MALFORMED.values(), MALFORMED.values()):
            await service.ask(data)
        count = 2 * len(MALFORMED) + 1
        await service.says({"_other _unmatched 400": count}, bad_requests=count)
        assert series(service) == before
