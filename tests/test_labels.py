"""Extra labels, exclusions, objectives, exemplars and names: the options of the request metrics."""

import asyncio
import re
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import aiosvc
from aiosvc.config import Settings
from aiosvc.errors import ConfigError
from aiosvc.labels import LabelPolicy
from aiosvc.requests import RequestMetrics

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


async def answer(request: web.Request) -> web.Response:
    """Answer as the query wants it."""
    if "fail" in request.query:
        raise ValueError("asked for")
    headers = {"X-Cache": request.query["cache"]} if "cache" in request.query else None
    return web.Response(text="hello", headers=headers, status=int(request.query.get("status", 200)))


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until *condition* holds."""
    while not condition():  # noqa: ASYNC110 - nobody tells of what is waited for
        await asyncio.sleep(0.001)


async def scrape(app: web.Application, *paths: str, **headers: str) -> str:
    """Return /metrics after a GET of each path."""
    async with TestClient(TestServer(app)) as client:
        for path in paths:
            await (await client.get(path, headers=headers)).read()
        return await (await client.get("/metrics")).text()


def make_app(**options: Any) -> web.Application:
    """Return an application that is measured with these options."""
    app = web.Application()
    app.router.add_get("/shop/{item}", answer)
    app.router.add_get("/health", answer)
    app.router.add_get("/internal/{name}", answer)
    aiosvc.setup(app, registry=CollectorRegistry(), **options)
    return app


def openmetrics(registry: CollectorRegistry) -> str:
    """Return the registry in OpenMetrics."""
    body: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return body.decode()


def line(text: str, start: str) -> str:
    """Return the one line that begins so."""
    [found] = [each for each in text.splitlines() if each.startswith(start)]
    return found


async def test_static_labels_are_on_every_request_metric() -> None:
    """A label with a fixed value is on all of them, from the start."""
    text = await scrape(make_app(labels={"region": "eu"}), "/shop/1")
    for name in (
        "http_requests_total", "http_request_duration_seconds_count", "http_requests_in_progress",
        "http_request_size_bytes_count", "http_response_size_bytes_sum",
        "http_request_failures_total",
    ):  # fmt: skip
        lines = [each for each in text.splitlines() if each.startswith(f"{name}{{")]
        assert lines
        assert all('region="eu"' in each for each in lines), name
    assert 'http_requests_in_progress{endpoint="/health",method="GET",region="eu"} 0.0' in text


async def test_a_label_of_the_request() -> None:
    """A function of the request gives the value, where it is on the list, and `_other` else."""
    tenant = aiosvc.FromRequest(lambda request: request.headers.get("X-Tenant"), ["a", "b"])
    app = make_app(labels={"tenant": tenant})
    async with TestClient(TestServer(app)) as client:
        for value in ("a", "a", "b", "x1", "x2", "x3"):
            await client.get("/shop/1", headers={"X-Tenant": value})
        await client.get("/shop/1")
        text = await (await client.get("/metrics")).text()
    counts = dict(re.findall(r'http_requests_total{.*tenant="(.*?)"} (\S+)', text))
    assert counts == {"a": "2.0", "b": "1.0", "_other": "3.0", "": "1.0"}


async def test_a_label_of_the_response() -> None:
    """A response header gives the value, where it is on the list."""
    cache = aiosvc.FromResponseHeader("X-Cache", ("hit", "miss"))
    paths = ("/shop/1?cache=hit", "/shop/1?cache=miss", "/shop/1?cache=what", "/shop/1")
    text = await scrape(make_app(labels={"cache": cache}), *paths)
    counts = dict(
        re.findall(r'http_requests_total{cache="(.*?)"', text)
        and re.findall(r'http_requests_total{cache="(.*?)".*} (\S+)', text)
    )
    assert counts == {"hit": "1.0", "miss": "1.0", "_other": "1.0", "": "1.0"}


async def test_a_label_function_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, logged once, its label is `_other`, and the request is answered."""

    def broken(_request: object) -> str:
        raise KeyError("tenant")

    app = make_app(labels={"tenant": aiosvc.FromRequest(broken, ["a"])})
    text = await scrape(app, "/shop/1", "/shop/2")
    assert 'status="200",tenant="_other"} 2.0' in text
    assert 'aiosvc_instrumentation_errors_total{where="label tenant"} 2.0' in text
    assert [r.getMessage() for r in caplog.records if "label tenant" in r.getMessage()] != []
    assert len([r for r in caplog.records if "label tenant" in r.getMessage()]) == 1


def cancelled(_request: object) -> str:
    """Ask a task of the application's for its result, which it has none of."""
    raise asyncio.CancelledError


@pytest.mark.parametrize("function", [cancelled, lambda _: ["a"], lambda _: 7, lambda _: b"a"])
@pytest.mark.parametrize("preset", ["classic", "otel"])
async def test_a_label_function_that_gives_no_text(function: Any, preset: str) -> None:
    """Whatever it does, the request is answered and counted once, and the error is counted."""
    app = make_app(labels={"tenant": aiosvc.FromRequest(function, ["a"])}, preset=preset)
    text = await scrape(app, "/shop/1")
    counted = "http_requests_total{" if preset == "classic" else "_request_duration_seconds_count{"
    [found] = [each for each in text.splitlines() if counted in each]
    assert 'tenant="_other"' in found
    assert found.endswith(" 1.0")
    assert 'aiosvc_instrumentation_errors_total{where="label tenant"} 1.0' in text


class Colour(str, Enum):  # noqa: UP042 - a StrEnum is shown as it is
    """An enumeration whose members are strings, and are shown otherwise."""

    RED = "red"


@pytest.mark.parametrize(
    "source",
    [
        aiosvc.FromRequest(lambda _: Colour.RED, ["red"]),
        aiosvc.FromRequest(lambda _: "red", Colour),
        aiosvc.FromRequest(lambda _: "red", (name for name in ("red", "green"))),
        aiosvc.FromRequest(lambda _: "red", {"red": 1}),
        Colour.RED,
    ],
)
async def test_label_values_of_any_kind(source: Any) -> None:
    """A value is written as the text that it is, and a list may be anything that gives one."""
    text = await scrape(make_app(labels={"colour": source}), "/shop/1")
    assert line(text, 'http_requests_total{colour="red"').endswith(" 1.0")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("region", "expected a mapping"),
        ({"a b": "x"}, "is no label name"),
        ({"__x": "x"}, "is no label name"),
        ({"method": "x"}, "'method' is taken"),
        ({"le": "x"}, "'le' is taken"),
        ({"region": 1}, "expected a string, aiosvc.FromRequest or"),
        ({"x": aiosvc.FromResponseHeader("X", "abc")}, "allowed must be a collection"),
        ({"x": aiosvc.FromRequest("f", ["a"])}, "is no function"),  # type: ignore[arg-type]
        ({"x": aiosvc.FromRequest(answer, ["a"])}, "is async"),  # type: ignore[arg-type]
        ({"x": aiosvc.FromRequest(str, 5)}, "allowed must be a"),  # type: ignore[arg-type]
        ({"x": aiosvc.FromRequest(str, [b"a"])}, "allowed must be a"),  # type: ignore[list-item]
        ({"x": aiosvc.FromRequest(str, ["\ud800"])}, "that UTF-8 can say"),
        ({"x": "\udc80"}, "that UTF-8 can say"),
        ({"x": aiosvc.FromResponseHeader(5, ["a"])}, "no name of a"),  # type: ignore[arg-type]
    ],
)
def test_labels_that_will_not_do(labels: object, message: str) -> None:
    """A label that can't work is refused at once."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_app(labels=labels)


async def test_excluded_routes_are_in_no_request_metric() -> None:
    """Neither counted, nor timed, nor exported as zeros: by template, or by its beginning."""
    app = make_app(exclude=["/health", "/internal/*"])
    text = await scrape(app, "/health", "/internal/x", "/shop/1", "/health?fail=1")
    assert set(re.findall(r'endpoint="(.*?)"', text)) == {"/shop/{item}"}


async def test_objectives_become_exact_buckets() -> None:
    """An objective that is no bucket yet is one afterwards, in its place."""
    text = await scrape(make_app(slo=[0.3, 0.25]), "/shop/1")
    bounds = re.findall(r'duration_seconds_bucket{endpoint="/shop/{item}",le="(.*?)"', text)
    assert "0.3" in bounds
    assert bounds.count("0.25") == 1
    assert bounds.index("0.3") == bounds.index("0.25") + 1


async def test_time_to_headers_on_request() -> None:
    """The histogram of times to headers is there when asked for, and not otherwise."""
    assert "http_response_start_seconds" not in await scrape(make_app(), "/shop/1")
    options = {"response_start": True, "response_start_buckets": (0.5, 1), "slo": [0.7]}
    text = await scrape(make_app(**options), "/shop/1")
    bounds = re.findall(r'start_seconds_bucket{endpoint="/shop/{item}",le="(.*?)"', text)
    assert bounds == ["0.5", "0.7", "1.0", "+Inf"]
    assert line(text, 'http_response_start_seconds_count{endpoint="/shop/{item}"').endswith(" 1.0")


async def exemplars(traceparent: str | None, *paths: str, **options: Any) -> list[str]:
    """Return the trace ids among the exemplars of an OpenMetrics scrape."""
    app = web.Application()
    app.router.add_get("/shop/{item}", answer)
    registry = CollectorRegistry()
    aiosvc.setup(app, registry=registry, **options)
    headers = {} if traceparent is None else {"traceparent": traceparent}
    async with TestClient(TestServer(app)) as client:
        for path in paths:
            await (await client.get(path, headers=headers)).read()
        text = openmetrics(registry)
    return [
        sample.exemplar.labels["trace_id"]
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    ]


async def test_exemplars_of_the_header() -> None:
    """The trace id of a valid traceparent header is the exemplar of the duration's bucket."""
    assert await exemplars(TRACEPARENT, "/shop/1", exemplars="all") == [TRACE]
    assert await exemplars(TRACEPARENT, "/shop/1") == []


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "x" * 5000,
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01-extra",
        f"00-{TRACE[:-1]}-00f067aa0ba902b7-01",
    ],
)
async def test_a_header_that_is_no_trace(header: str | None) -> None:
    """A header that is missing or not valid makes no exemplar."""
    assert await exemplars(header, "/shop/1", exemplars="all") == []


async def test_a_later_version_of_the_header() -> None:
    """A later version may have more fields, and its trace id is where it was."""
    later = f"01-{TRACE}-00f067aa0ba902b7-01-more"
    assert await exemplars(later, "/shop/1", exemplars="all") == [TRACE]


async def test_exemplars_of_slow_or_failed_requests_only() -> None:
    """Slow means from the threshold on; failed means a failure or a 5xx, and slow ones too."""
    ok, failed = "/shop/1", "/shop/1?fail=1"
    assert await exemplars(TRACEPARENT, ok, exemplars="slow", slow=60) == []
    assert await exemplars(TRACEPARENT, failed, exemplars="slow", slow=60) == []
    assert await exemplars(TRACEPARENT, ok, exemplars="slow", slow=0) == [TRACE]
    assert await exemplars(TRACEPARENT, ok, exemplars="failed", slow=60) == []
    assert await exemplars(TRACEPARENT, failed, exemplars="failed", slow=60) == [TRACE]
    assert await exemplars(TRACEPARENT, "/shop/1?status=503", exemplars="failed", slow=60)


async def test_exemplars_of_the_current_span() -> None:
    """OpenTelemetry's current span, where there is one, goes before the header."""
    trace = pytest.importorskip("opentelemetry.trace", reason="opentelemetry-api is not installed")
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False)

    @web.middleware
    async def traced(request: web.Request, handler: Any) -> web.StreamResponse:
        with trace.use_span(trace.NonRecordingSpan(context)):
            response: web.StreamResponse = await handler(request)
            return response

    app = web.Application(middlewares=[traced])
    app.router.add_get("/shop/{item}", answer)
    registry = CollectorRegistry()
    aiosvc.setup(app, registry=registry, exemplars="all")
    async with TestClient(TestServer(app)) as client:
        await (await client.get("/shop/1", headers={"traceparent": TRACEPARENT})).read()
        text = openmetrics(registry)
    assert set(re.findall('trace_id="(.*?)"', text)) == {f"{0xABC:032x}"}


async def test_a_span_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, logged once, and the requests are answered; the header's trace is shown."""
    trace = pytest.importorskip("opentelemetry.trace", reason="opentelemetry-api is not installed")

    class Broken(trace.NonRecordingSpan):  # type: ignore[misc,name-defined]
        def get_span_context(self) -> Any:
            raise RuntimeError("no context")

    @web.middleware
    async def traced(request: web.Request, handler: Any) -> web.StreamResponse:
        with trace.use_span(Broken(None)):
            response: web.StreamResponse = await handler(request)
            return response

    app = web.Application(middlewares=[traced])
    app.router.add_get("/shop/{item}", answer)
    registry = CollectorRegistry()
    aiosvc.setup(app, registry=registry, exemplars="all")
    async with TestClient(TestServer(app)) as client:
        for _ in range(2):
            found = await client.get("/shop/1", headers={"traceparent": TRACEPARENT})
            assert (found.status, await found.text()) == (200, "hello")
        text = openmetrics(registry)
    assert set(re.findall('trace_id="(.*?)"', text)) == {TRACE}
    assert 'aiosvc_instrumentation_errors_total{where="trace"} 2.0' in text
    assert len([r for r in caplog.records if "an error in trace" in r.getMessage()]) == 1


async def test_a_trace_belongs_to_one_request() -> None:
    """The span of a request that is not counted is not the next one's on its connection."""
    trace = pytest.importorskip("opentelemetry.trace", reason="opentelemetry-api is not installed")
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False)

    @web.middleware
    async def traced(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/shop/early":
            return web.Response()
        with trace.use_span(trace.NonRecordingSpan(context)):
            response: web.StreamResponse = await handler(request)
            return response

    app = web.Application(middlewares=[traced])
    app.router.add_get("/shop/{item}", answer)
    app.router.add_get("/health", answer)
    registry = CollectorRegistry()
    aiosvc.setup(app, registry=registry, exemplars="all", exclude=["/health"])
    async with TestClient(TestServer(app)) as client:
        await (await client.get("/health")).read()
        await (await client.get("/shop/early")).read()
        assert "trace_id" not in openmetrics(registry)


async def test_no_time_to_headers_that_were_not_sent() -> None:
    """A request whose client left before its headers is in no histogram of times to headers."""
    began, left = asyncio.Event(), asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        began.set()
        await left.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/shop", wait)
    app.router.add_get("/health", answer)
    registry = CollectorRegistry()
    aiosvc.setup(app, registry=registry, response_start=True, exclude=["/health"])
    async with TestServer(app) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n")
        await reader.readuntil(b"hello")
        writer.write(b"GET /shop HTTP/1.1\r\nHost: shop\r\n\r\n")
        await began.wait()
        writer.transport.abort()
        await until(lambda: server.handler is not None and not server.handler.connections)
        left.set()
        await until(lambda: 'status="499"' in openmetrics(registry))
    name = 'http_response_start_seconds_count{endpoint="/shop",method="GET"}'
    assert line(openmetrics(registry), name).endswith(" 0.0")


async def test_opentelemetrys_names() -> None:
    """With the preset otel, the HTTP metrics have the names and labels of its conventions."""
    app = make_app(preset="otel")
    text = await scrape(app, "/shop/1", "/shop/1?status=503", "/shop/1?fail=1", "/nowhere")
    name = "http_server_request_duration_seconds_count"
    got = {
        (route, status, error): count
        for error, method, status, route, scheme, count in re.findall(
            name + r'{error_type="(.*?)",http_request_method="(.*?)",http_response_status_code='
            r'"(.*?)",http_route="(.*?)",url_scheme="(.*?)"} (\S+)',
            text,
        )
        if (method, scheme) == ("GET", "http")
    }
    assert got == {
        ("/shop/{item}", "200", ""): "1.0",
        ("/shop/{item}", "503", "503"): "1.0",
        ("/shop/{item}", "500", "ValueError"): "1.0",
        ("", "404", ""): "1.0",
    }
    assert "http_requests_total" not in text.replace('metric="http_requests_total"', "")
    assert "# TYPE http_server_active_requests gauge" in text
    sizes = re.findall(r"http_server_response_body_size_bytes_count{.*} (\S+)", text)
    assert sizes == ["1.0"] * 4


async def test_a_scheme_that_a_client_made_up() -> None:
    """The URL's scheme is that of the connection, whatever the request's target begins with."""
    registry = CollectorRegistry()
    app = web.Application()
    app.router.add_get("/shop", answer)
    aiosvc.setup(app, registry=registry, preset="otel")
    async with TestServer(app) as server:
        for scheme in ("evil", "https", "ftp"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            head = f"GET {scheme}://shop/shop HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            assert b" 200 OK" in await reader.read()
            writer.close()
            await writer.wait_closed()
    assert set(re.findall('url_scheme="(.*?)"', openmetrics(registry))) == {"http"}


@pytest.mark.parametrize("scheme", ["x", "HTTP", "http\n", "h" * 1000])
def test_a_scheme_that_is_none(scheme: str) -> None:
    """A scheme that an adapter was told, and that is none of HTTP's, is `_other`."""
    metrics = RequestMetrics(Settings(preset="otel"), LabelPolicy({}, lambda _, error: None))
    series = metrics.refine(metrics.route("GET", "/"), None, None, (200, scheme, ""))
    assert series.extra == ("200", "_other", "")


async def test_opentelemetrys_requests_in_progress() -> None:
    """They have the same method and scheme as finished ones, and return to 0."""
    registry = CollectorRegistry()
    app = web.Application()
    during: list[str] = []

    async def look(_request: web.Request) -> web.Response:
        during.append(line(openmetrics(registry), "http_server_active_requests{"))
        return web.Response()

    app.router.add_route("PROPFIND", "/shop", look)
    aiosvc.setup(app, registry=registry, preset="otel")
    async with TestClient(TestServer(app)) as client:
        await client.request("PROPFIND", "/shop")
        after = line(openmetrics(registry), "http_server_active_requests{")
    name = 'http_server_active_requests{http_request_method="_OTHER",url_scheme="http"}'
    assert (during, after) == ([f"{name} 1.0"], f"{name} 0.0")


@pytest.mark.parametrize("preset", ["classic", "otel"])
async def test_all_options_together(preset: str) -> None:
    """Every option at once still gives a scrape that parses, with one line per series."""
    app = make_app(
        preset=preset,
        labels={"region": "eu", "cache": aiosvc.FromResponseHeader("X-Cache", ["hit"])},
        slo=[0.3],
        response_start=True,
        exemplars="all",
        exclude=["/health"],
    )
    text = await scrape(app, "/shop/1", "/shop/2?cache=hit", "/nowhere", traceparent=TRACEPARENT)
    lines = [each.rsplit(" ", 1)[0] for each in text.splitlines() if not each.startswith("#")]
    assert len(lines) == len(set(lines))
    assert "instrumentation_errors_total{" not in text
