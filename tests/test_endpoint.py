"""The metrics endpoint on the application's own port, and clients that mean it harm."""

import asyncio
import gzip
import random
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from hostile import CORPUS, SURROGATES
from processes import DEADLINE, until
from prometheus_client import CollectorRegistry, Counter

import aiosvc

#: Accept headers that are odd, broken or hostile.
ACCEPT = [
    "", " ", ",", ";", ";;;,,,===", "*", "*/*;q=0", "text/plain;q=-1", "text/plain;q=1e9", "q=1",
    "application/openmetrics-text;version=x", "application/openmetrics-text;version=99.9",
    'application/openmetrics-text;version="1.0.0"', 'application/openmetrics-text;version="1.0.0',
    "application/openmetrics-text;version=1.0.0;escaping=\u00e9", "text/html,*/*;q=0.8",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
    "a" * 8000, "text/plain," * 700, "text/plain;" * 700, '"' * 8000, "\\" * 8000, ";q=" * 2000,
]  # fmt: skip

#: Everything that an answer may say that it is.
KINDS = (
    "text/plain; version=0.0.4; charset=utf-8",
    "text/plain; version=1.0.0; charset=utf-8; escaping=",
    "application/openmetrics-text; version=0.0.1; charset=utf-8",
    "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=",
)


@asynccontextmanager
async def served(lines: int = 10, **options: Any) -> AsyncIterator[tuple[TestServer, Any]]:
    """Serve an application with many series, and give the server and its observer."""
    registry = CollectorRegistry()
    counter = Counter("many", "Many.", ["number"], registry=registry)
    for number in range(lines):
        counter.labels(str(number)).inc()
    app = web.Application()
    observer = aiosvc.setup(app, registry=registry, **options)
    server = TestServer(app)
    async with server:
        yield server, observer


def said(url: str, request: bytes) -> bytes:
    """Send a request as it is, and return the answer: of a GET all of it, of others its head."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    found = bytearray()
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as sock:
        sock.sendall(request)
        while part := sock.recv(65536):
            found += part
            heads = 2 if found.startswith(b"HTTP/1.1 100") else 1
            if not request.startswith(b"GET") and found.count(b"\r\n\r\n") >= heads:
                break
    return bytes(found)


@pytest.fixture(params=["its own port", "the admin port"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Give where /metrics is, on either port."""
    admin = aiosvc.AdminOptions(admin_port=0)
    async with served(admin=admin) as (server, observer):
        own = request.param == "its own port"
        yield str(server.make_url("/")) if own else f"{observer.admin_url}/"


async def test_accept(url: str) -> None:
    """Whatever is accepted, and however often it is said, the answer is 200 and of our own kinds."""
    chance = random.Random(1)
    letters = 'application/openmetrics-text plain*;,=.q"\\version10escaping\xff\t'
    headers = ACCEPT + ["".join(chance.choices(letters, k=60)) for _ in range(300)]
    async with ClientSession() as session:
        for number, header in enumerate(headers):
            accept = [("Accept", header)] * (1 + number % 3 if len(header) < 1000 else 1)
            async with session.get(f"{url}metrics", headers=accept) as answer:
                assert answer.status == 200, header
                assert answer.headers["Content-Type"].startswith(KINDS), header
                assert b"many_total" in await answer.read()


async def test_names(url: str) -> None:
    """Names that nobody has, of any characters and in any number, give less and never an error."""
    chance = random.Random(2)
    every = [chr(code) for code in (*range(1, 256), 0x20AC, 0x1F600)]
    some = ["", "many", "many_total", "*", ".*", "a" * 1000, "many_total{", "__name__"]
    async with ClientSession() as session:
        for number in range(100):
            names = [*chance.sample(some, 3), "".join(chance.choices(every, k=8))]
            query = [("name[]", name) for name in names * (1 + number % 5)]
            async with session.get(f"{url}metrics", params=query) as answer:
                assert answer.status == 200, names
                text = await answer.text()
                assert ("\nmany_total{" in text) == ("many_total" in names)
                assert "active_connections" not in text
        async with session.get(f"{url}metrics?name[]&name[=x&name[]=%ff%00&&=") as answer:
            assert answer.status == 200


#: Where a scraper may put a text; what ends a line is left out of it.
PLACES: list[Callable[[str], tuple[str, ...]]] = [
    lambda text: ("/metrics", f"Accept: {text}"),
    lambda text: ("/metrics", f"Accept: text/plain;version={text};q={text};escaping={text}"),
    lambda text: ("/metrics", f"Accept-Encoding: {text}, gzip;q={text}"),
    lambda text: ("/metrics", f"X-Prometheus-Scrape-Timeout-Seconds: {text}"),
    lambda text: ("/metrics", f"Authorization: {text}", f"Cookie: {text}"),
    lambda text: ("/metrics", f"Authorization: Basic {text}"),
    lambda text: (f"/metrics?name[]={quote(text.encode('utf-8', 'surrogatepass'))}&{text}",),
    lambda text: (f"/metrics/{text}",),
    lambda text: (f"/readyz?{text}", f"Host: {text}"),
]


@pytest.mark.parametrize("place", range(len(PLACES)))
async def test_hostile_texts(url: str, place: int) -> None:
    """Whatever a scraper sends, it is refused or answered, and no answer is the server's fault."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    statuses = set()
    for text in [*CORPUS, *SURROGATES]:
        line = "".join(each for each in text if each not in "\r\n\0")
        target, *fields = PLACES[place](line)
        lines = [f"GET {target} HTTP/1.1", *fields, "Connection: close"]
        lines += [] if any(field.startswith("Host") for field in fields) else ["Host: x"]
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(DEADLINE):
            writer.write("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass"))
            status = (await reader.read()).split(b" ")[1]
            writer.close()
            await writer.wait_closed()
        assert status in (b"200", b"400", b"404"), (text, status)
        statuses.add(status)
    assert b"200" in statuses


BOMB = gzip.compress(b"\x00" * 10_000_000)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: %d\r\n" % (10 << 30), 405),
        (b"PUT /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", 405),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 99\r\nExpect: 100-continue\r\n", None),
        (b"GET /metrics HTTP/1.1\r\nRange: bytes=0-9\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nIf-None-Match: *\r\n", 200),
        (b"HEAD /metrics HTTP/1.1\r\nRange: bytes=0-9\r\n", 200),
        (b"OPTIONS /metrics HTTP/1.1\r\n", 204),
        (b"PROPFIND /metrics HTTP/1.1\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\nX: %s\r\n" % (b"x" * 9000), 400),
    ],
)
async def test_odd_requests(url: str, request_: bytes, status: int | None) -> None:
    """What is no plain scrape gets an answer, without a body being waited for."""
    whole = request_ + b"Host: x\r\nConnection: close\r\n\r\n"
    answer = await asyncio.to_thread(said, url, whole)
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    expected = 405 if status is None else status
    assert head.startswith(b"HTTP/1.%d %d" % (0 if status == 400 else 1, expected)), head
    assert (b"many_total" in body) == (request_.startswith(b"GET") and status == 200)
    if request_.startswith(b"HEAD"):
        assert body == b""


async def test_body_that_unpacks_to_much(url: str) -> None:
    """A body of 10 KB that unpacks to 10 MB is not unpacked, and costs no memory."""
    tracemalloc.start()
    try:
        async with ClientSession() as session:
            for _ in range(5):
                headers = {"Content-Encoding": "gzip"}
                async with session.post(f"{url}metrics", data=BOMB, headers=headers) as answer:
                    assert answer.status == 405
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


async def test_reader_that_stops() -> None:
    """Who stops reading is cut off at the deadline, and nothing of its scrape is left."""
    async with served(60_000, scrape_timeout=2.0) as (server, observer):
        with closing(socket.socket()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (server.host, server.port))
            await loop.sock_sendall(sock, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await loop.sock_recv(sock, 10)).startswith(b"HTTP/1.1 2")
            numbers = observer.scraper._numbers
            assert numbers.in_progress == 1
            await until(lambda: numbers.in_progress == 0, "it was cut off")
            assert numbers.codes[200] == 0
        # It was cancelled with the answer, and ends a few turns of the loop later.
        await until(
            lambda: "aiosvc scrape" not in {task.get_name() for task in asyncio.all_tasks()},
            "the end of its scrape",
        )
        async with ClientSession() as session, session.get(server.make_url("/metrics")) as answer:
            assert (await answer.text()).count("\nmany_total{") == 60_000


@pytest.fixture
def black_hole() -> Iterator[socket.socket]:
    """Give a socket that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


async def test_backend_that_never_answers(black_hole: socket.socket) -> None:
    """A source whose server says nothing is down, delays no scrape, and comes back by itself."""

    def ask() -> float:
        with socket.create_connection(black_hole.getsockname(), timeout=DEADLINE) as sock:
            return float(sock.recv(100))

    def answer_all() -> None:
        while True:
            try:
                sock, _ = black_hole.accept()
            except OSError:
                return
            with sock:
                sock.sendall(b"42")

    options: Any = {"sample_interval": 0.05, "sample_timeout": 0.1}
    async with served(**options) as (server, observer), ClientSession() as session:
        observer.sampler.add("broker_depth", ask)

        async def scrape() -> str:
            async with session.get(server.make_url("/metrics")) as answer:
                assert answer.status == 200
                return await answer.text()

        for _ in range(500):
            text = await scrape()
            assert "many_total{" in text
            assert "\nbroker_depth" not in text
            if 'aiosvc_source_up{source="broker_depth"} 0.0' in text:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("it is not said to be down")
        answering = threading.Thread(target=answer_all)
        answering.start()
        try:
            for _ in range(500):
                text = await scrape()
                if "\nbroker_depth 42.0" in text:
                    break
                await asyncio.sleep(0.01)
            assert 'aiosvc_source_up{source="broker_depth"} 1.0' in text
        finally:
            black_hole.shutdown(socket.SHUT_RDWR)
            black_hole.close()
            answering.join(DEADLINE)
