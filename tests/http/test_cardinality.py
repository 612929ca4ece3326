"""No client can make series, and nothing of ours grows with what clients send."""

import gc
import logging
import random
import string
import tracemalloc
from collections.abc import Sized
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import generate_latest
from situations import Service, make_app, serving, until
from wire import Wire, request

import aiosvc

COUNT = 20_000
BATCH = 250

RANDOM = random.Random(8)
LETTERS = string.ascii_letters + string.digits


def word(size: int = 12) -> str:
    """Return a random word."""
    return "".join(RANDOM.choices(LETTERS, k=size))


async def flood(wire: Wire, requests: list[bytes]) -> None:
    """Send requests on one connection and take the answers, without a look at them."""
    for start in range(0, len(requests), BATCH):
        batch = requests[start : start + BATCH]
        await wire.send(b"".join(batch))
        received = b""
        while received.count(b"HTTP/1.1 ") < len(batch):
            received += await wire.some()


OURS = (b"http_", b"websocket_", b"connections_", b"active_", b"aiosvc_label_", b"aiosvc_instr")


def exposed(service: Service) -> tuple[int, int]:
    """
    Return lines and bytes of what an exposition says of HTTP.

    Digits are left out: numbers grow, and should.
    """
    text = generate_latest(service.observer.registry)
    lines = [line for line in text.splitlines() if line.startswith(OURS)]
    return len(lines), sum(len(line.translate(None, b"0123456789.e+-")) for line in lines)


async def sampled(service: Service) -> None:
    """Wait until every source has been sampled once: what they say is no growth."""
    sources = service.observer.sampler._sources
    await until(lambda: len(service.samples()["aiosvc_source_up"]) >= len(sources), "samples")
    exposed(service)


def containers(*roots: object) -> dict[str, int]:
    """Return the sizes of all containers that belong to the instrumentation, by where they are."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [(type(root).__name__, root) for root in roots]
    while waiting:
        path, found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, dict | set | list | tuple) and isinstance(found, Sized):
            sizes[path] = sizes.get(path, 0) + len(found)
            members = found.values() if isinstance(found, dict) else found
            waiting += [(f"{path}[]", member) for member in members]
        elif type(found).__module__.startswith("aiosvc."):
            names = list(getattr(found, "__dict__", ()))
            for base in type(found).__mro__:
                names += [name for name in getattr(base, "__slots__", ()) if hasattr(found, name)]
            waiting += [(f"{path}.{name}", getattr(found, name)) for name in set(names)]
    return sizes


def held(service: Service) -> dict[str, int]:
    """Return the sizes of what the instrumentation of a service holds."""
    gc.collect()
    server: Any = service.runner.server
    attached = [
        value for value in vars(server).values() if type(value).__module__.startswith("aiosvc.")
    ]
    assert attached, "the server has nothing of aiosvc"
    sizes = containers(*attached, service.observer.requests, service.observer.collector)
    # Samples come and go, which statuses there were is the clients' luck, and the last long pauses
    # are a bounded number of those that there were.
    fickle = ("readings", "statuses", "_samples", "._long", "._long[]")
    return {path: size for path, size in sizes.items() if not path.endswith(fickle)}


def changed(before: dict[str, int], after: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return the sizes that are not what they were."""
    both = {
        path: (before.get(path, 0), after.get(path, 0)) for path in before.keys() | after.keys()
    }
    return {path: sizes for path, sizes in both.items() if sizes[0] != sizes[1]}


def paths(count: int) -> list[bytes]:
    """Return requests for paths that nobody has, the usual scanners' and random ones."""
    odd = ("/.env", "/${jndi:ldap://x}", "/%2e%2e/%00", "/'||1=1--", "/<script>", "/%C3%A9")
    return [
        request("GET", f"/{word()}{odd[n % len(odd)]}/{word()}?{word()}={word()}")
        for n in range(count)
    ]


def identifiers(count: int) -> list[bytes]:
    """Return requests that differ in what a template leaves open, also with wrong methods."""
    return [request(("GET", "DELETE")[n % 2], f"/users/{word()}") for n in range(count)]


def methods(count: int) -> list[bytes]:
    """Return requests with all methods that aiohttp's C parser knows, mixed with paths."""
    known = ["PROPFIND", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "SEARCH", "REPORT", "PURGE"]
    known += ["M-SEARCH", "NOTIFY", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"]
    return [request(known[n % len(known)], f"/users/{word()}") for n in range(count)]


def headers(count: int) -> list[bytes]:
    """Return requests that differ in every header that somebody has once made a label of."""
    return [
        request(
            "GET",
            "/ok",
            headers={
                "Host": f"{word()}.{word()}.test:{RANDOM.randrange(1, 65536)}",
                "User-Agent": word(),
                "X-Forwarded-For": word(),
                "X-Forwarded-Host": word(),
                "X-Forwarded-Proto": word(),
                "Forwarded": f"for={word()};proto={word()}",
                "Referer": f"http://{word()}/",
                "Accept": f"{word()}/{word()}",
                "Traceparent": f"00-{RANDOM.randbytes(16).hex()}-{RANDOM.randbytes(8).hex()}-01",
                word(): word(),
            },
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", [paths, identifiers, methods, headers])
async def test_nothing_grows(kind: Any) -> None:
    """Twenty thousand different values of anything add no series, no byte and no entry."""
    async with serving(access_log=None) as service:
        wire = await service.connect()
        await flood(wire, kind(BATCH))
        await service.quiet()
        await sampled(service)
        before, lines = held(service), exposed(service)
        await flood(wire, kind(COUNT - BATCH))
        await until(lambda: sum(service.seen().requests.values()) == COUNT, "all are counted")
        assert exposed(service) == lines
        grown = changed(before, held(service))
        assert grown == {}, grown
        assert all(not key.startswith("_other _other") for key in service.seen().requests)


async def test_memory_is_flat() -> None:
    """Nothing that our own code allocated for a request outlives it."""
    async with serving(access_log=None) as service:
        wire = await service.connect()
        await flood(wire, paths(BATCH) + methods(BATCH))
        await service.quiet()
        tracemalloc.start()
        try:
            package = Path(aiosvc.__file__).parent
            ours = tracemalloc.Filter(inclusive=True, filename_pattern=f"{package}/*")
            await flood(wire, paths(BATCH) + methods(BATCH))
            gc.collect()
            before = tracemalloc.take_snapshot().filter_traces([ours])
            await flood(wire, paths(2000) + methods(2000))
            await service.quiet()
            gc.collect()
            after = tracemalloc.take_snapshot().filter_traces([ours])
        finally:
            tracemalloc.stop()
        growth = sum(stat.size_diff for stat in after.compare_to(before, "lineno"))
        assert growth < 20_000, after.compare_to(before, "lineno")[:5]


async def test_connections_leave_nothing() -> None:
    """Connections that are gone are held nowhere, however they went."""
    async with serving(access_log=None) as service:

        async def come_and_go(count: int) -> None:
            for number in range(count):
                wire = await service.connect()
                if number % 3:
                    await wire.send(request("GET", "/wait" if number % 3 == 1 else "/ok"))
                wire.reset()
            await until(lambda: service.value("active_connections") == 0, "the end of them")
            service.gate().opened.set()
            await service.quiet()

        await come_and_go(30)
        await sampled(service)
        before = held(service)
        await come_and_go(300)
        grown = changed(before, held(service))
        assert grown == {}, grown


# -- The cap ---------------------------------------------------------------------------------------


def overflow(service: Service) -> float:
    """Return how often an endpoint was replaced."""
    labels = {"metric": "http_requests_total", "label": "endpoint"}
    return service.value("aiosvc_label_overflow_total", **labels) or 0


async def test_endpoint_cap(caplog: pytest.LogCaptureFixture) -> None:
    """Past the cap only the endpoint is replaced: method, status and reason stay true."""

    async def ok(_request: web.Request) -> web.Response:
        return web.Response(status=203)

    async def fail(_request: web.Request) -> web.Response:
        raise ValueError

    app = make_app()
    for number in range(10):
        app.router.add_put(f"/late/{number}", ok)
        app.router.add_post(f"/late/{number}", fail)
    plain = len({route.resource.canonical for route in app.router.routes() if route.resource})
    async with serving(app=app, options={"max_endpoints": plain - 10}) as service:
        for number in range(10):
            assert (await service.ask(request("PUT", f"/late/{number}"))).status == 203
            assert (await service.ask(request("POST", f"/late/{number}"))).status == 500
            assert (await service.ask(request("DELETE", f"/late/{number}"))).status == 405
        await service.ask(request("GET", "/ok"))
        await service.ask(request("GET", "/nothing"))
        await until(lambda: sum(service.seen().requests.values()) == 32, "all are counted")
        seen = service.seen()
        assert sum(count for key, count in seen.requests.items() if key.startswith("PUT ")) == 10
        assert all(
            key.split()[::2] in (["PUT", "203"], ["POST", "500"], ["DELETE", "405"])
            for key in seen.requests
            if not key.startswith("GET ")
        )
        assert seen.requests["PUT _other 203"] == seen.requests["POST _other 500"]
        assert seen.failures["POST _other exception"] == seen.requests["POST _other 500"]
        assert seen.exceptions["_other ValueError"] == seen.requests["POST _other 500"]
        assert seen.requests["GET _unmatched 404"] == 1
        endpoints = {key.split()[1] for key in seen.requests} - {"_other", "_unmatched"}
        assert len(endpoints) <= plain - 10
        assert overflow(service) > 0
        warnings = [r for r in caplog.records if r.name == "aiosvc"]
        assert len(warnings) == 1
        assert warnings[0].levelno == logging.WARNING
        assert "/late/" in warnings[0].getMessage()


async def test_websockets_past_the_cap() -> None:
    """A WebSocket whose endpoint is past the cap is counted as `_other`."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    async with serving(web.get("/zz", handler), options={"max_endpoints": 1}) as service:
        wire = await service.connect()
        await wire.upgrade("/zz")
        await wire.send_close(1000)
        await service.says({"GET _other 101": 1}, sockets={"_other": 1}, closes={"_other 1000": 1})


@pytest.mark.parametrize("method", ["GET", "PROPFIND"])
async def test_a_scrape_is_no_overflow(method: str) -> None:
    """What is only looked at, however often, overflows nothing."""

    async def handler(_request: web.Request) -> web.Response:
        await service.gate().wait()
        return web.Response()

    route = web.route("*", "/zz", handler)
    async with serving(route, options={"max_endpoints": 1}) as service:
        wire = await service.connect()
        await wire.send(request(method, "/zz"))
        await service.entered()
        shown = "_other" if method == "PROPFIND" else method
        assert service.seen().in_progress == {f"{shown} _other": 1}
        before = overflow(service)
        for _ in range(5):
            service.seen()
        assert overflow(service) == before
        service.gate().opened.set()
        await wire.answer()
        await service.says({f"{shown} _other 200": 1})


async def test_overflow_is_counted_alike() -> None:
    """
    A replaced endpoint is counted the same way, whatever the method and the status.

    The table leaves open whether that is each request or each series. A counter that rises with
    the requests of one method and stands still with those of another can't be read.
    """

    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    route = web.route("*", "/zz", handler)
    rises = []
    async with serving(route, web.get("/yy", handler), options={"max_endpoints": 1}) as service:
        wire = await service.connect()
        for method, path in (("GET", "/zz"), ("PROPFIND", "/zz"), ("POST", "/yy")):
            await wire.ask(request(method, path))
            await service.quiet()
            before = overflow(service)
            for _ in range(5):
                await wire.ask(request(method, path))
            await service.quiet()
            rises.append(overflow(service) - before)
    assert len(set(rises)) == 1, rises


async def test_default_cap() -> None:
    """An application with more routes than the cap starts, and keeps to it."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    routes = [web.get(f"/r{number}", handler) for number in range(700)]
    async with serving(*routes) as service:
        wire = await service.connect()
        await flood(wire, [request("GET", f"/r{number}") for number in range(700)])
        await until(lambda: sum(service.seen().requests.values()) == 700, "all are counted")
        endpoints = {
            labels["endpoint"]
            for labels, _ in service.samples()["http_request_duration_seconds_count"]
        }
        assert len(endpoints - {"_other", "_unmatched"}) == 500
