"""What `setup` does before and while an application runs."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from aiohttp import web
from aiohttp.abc import AbstractRouter
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web_urldispatcher import UrlMappingMatchInfo
from prometheus_client import CollectorRegistry, Counter, generate_latest

import aiosvc
from aiosvc.errors import ConfigError

Started = Callable[[web.Application], Awaitable[TestClient[web.Request, web.Application]]]


async def hello(_request: web.Request) -> web.Response:
    """Answer."""
    return web.Response(text="hello")


def make_app() -> web.Application:
    """Return an application with one route."""
    app = web.Application()
    app.router.add_get("/hello/{name}", hello)
    return app


@pytest.fixture
def registry() -> CollectorRegistry:
    """Give a registry of its own to each test."""
    return CollectorRegistry()


def client_of(app: web.Application) -> TestClient[web.Request, web.Application]:
    """Return a client of a server of *app*; use it with `async with`."""
    return TestClient(TestServer(app))


async def test_requests_are_served_at_metrics(registry: CollectorRegistry) -> None:
    """One call, and /metrics has the application's requests, by template and not by path."""
    app = make_app()
    aiosvc.setup(app, registry=registry)
    async with client_of(app) as client:
        for name in ("a", "b"):
            await client.get(f"/hello/{name}")
        answer = await client.get("/metrics")
        text = await answer.text()
    assert 'http_requests_total{endpoint="/hello/{name}",method="GET",status="200"} 2.0' in text
    assert answer.content_type == "text/plain"
    assert "/metrics" not in text.replace("# ", "")


async def test_what_generate_latest_returns(registry: CollectorRegistry) -> None:
    """The endpoint's families are those of generate_latest, the user's own among them."""
    Counter("mine", "Mine.", registry=registry).inc()
    app = make_app()
    aiosvc.setup(app, registry=registry)
    async with client_of(app) as client:
        await client.get("/metrics")  # the first finds nothing to say about scrapes before it
        text = await (await client.get("/metrics")).text()
        latest = generate_latest(registry).decode()

    def names(exposition: str) -> list[str]:
        return [line for line in exposition.splitlines() if line.startswith("#")]

    assert names(text) == names(latest)
    assert "mine_total 1.0" in text


def test_a_second_call_returns_the_first_result(registry: CollectorRegistry) -> None:
    """A second setup of the same application changes nothing and gives the same object."""
    app = make_app()
    first = aiosvc.setup(app, registry=registry)
    assert aiosvc.setup(app, registry=CollectorRegistry(), sample_interval=5) is first
    app.freeze()
    assert aiosvc.setup(app) is first


async def test_two_applications_on_one_registry(registry: CollectorRegistry) -> None:
    """Both are measured; what they have in common is added up, what is the process's is not."""
    apps = [make_app(), make_app()]
    observers = [aiosvc.setup(app, registry=registry) for app in apps]
    queues: list[asyncio.Queue[str]] = [
        observer.watch_queue(asyncio.Queue(10), name=f"queue{i}")
        for i, observer in enumerate(observers)
    ]
    queues[1].put_nowait("x")
    async with client_of(apps[0]) as one, client_of(apps[1]) as other:
        await one.get("/hello/a")
        await other.get("/hello/b")
        await other.get("/hello/c")
        text = await (await one.get("/metrics")).text()
        rss = registry.get_sample_value("process_memory_rss_bytes")
    assert 'http_requests_total{endpoint="/hello/{name}",method="GET",status="200"} 3.0' in text
    assert "active_connections 2.0" in text
    assert 'queue_depth{queue_name="queue0"} 0.0' in text
    assert 'queue_depth{queue_name="queue1"} 1.0' in text
    assert text.count("\nprocess_memory_rss_bytes ") == 1
    assert rss is not None
    assert rss < 2**34


async def test_counters_outlive_their_application(registry: CollectorRegistry) -> None:
    """When an application has stopped its counts stay in the registry, its gauges are gone."""
    for expected in (1, 2, 3):
        app = make_app()
        aiosvc.setup(app, registry=registry)
        async with client_of(app) as client:
            await client.get("/hello/a")
        labels = {"endpoint": "/hello/{name}", "method": "GET", "status": "200"}
        assert registry.get_sample_value("http_requests_total", labels) == expected
        assert registry.get_sample_value("active_connections") is None


async def test_an_application_served_twice(registry: CollectorRegistry) -> None:
    """An application that is served again goes on counting where it was."""
    app = make_app()
    aiosvc.setup(app, registry=registry)
    labels = {"endpoint": "/hello/{name}", "method": "GET", "status": "200"}
    for expected in (1, 2):
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with TestClient(TestServer(web.Application())) as client:
            await (await client.session.get(f"http://127.0.0.1:{site.port}/hello/a")).read()
        assert registry.get_sample_value("http_requests_total", labels) == expected
        await runner.cleanup()


async def test_nothing_is_left_after_many_starts(registry: CollectorRegistry) -> None:
    """Fifty starts and stops leave no task, and no more series than one."""
    sizes = set()
    before = asyncio.all_tasks()
    for _ in range(50):
        app = make_app()
        aiosvc.setup(app, registry=registry)
        runner = web.AppRunner(app)
        await runner.setup()
        await runner.cleanup()
        sizes.add(generate_latest(registry).count(b"\n"))
    assert asyncio.all_tasks() == before
    assert len(sizes) == 1


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_an_own_route_at_the_path(registry: CollectorRegistry, path: str) -> None:
    """An application with its own /metrics is told so at once, and what to do."""
    app = make_app()
    app.router.add_get(path, hello)
    with pytest.raises(ConfigError, match=r"path: .* has a route at '/metrics' of its own"):
        aiosvc.setup(app, registry=registry)
    aiosvc.setup(app, registry=registry, path="/internal/metrics")


async def test_an_own_route_that_comes_later(registry: CollectorRegistry) -> None:
    """A /metrics route added after setup is found at the start, not shadowed in silence."""
    app = make_app()
    aiosvc.setup(app, registry=registry)
    app.router.add_get("/other", hello)
    app.router.add_get("/metrics", hello)
    runner = web.AppRunner(app)
    with pytest.raises(ConfigError, match="has a route at"):
        await runner.setup()
    await runner.cleanup()


def test_a_frozen_application(registry: CollectorRegistry) -> None:
    """It is too late for an application that has started, and the error says what to do."""
    app = make_app()
    app.freeze()
    with pytest.raises(ConfigError, match="has started, or was added to another"):
        aiosvc.setup(app, registry=registry)


def test_a_sub_application_that_was_added(registry: CollectorRegistry) -> None:
    """It is too late for a sub-application that is in another one."""
    app, sub = web.Application(), make_app()
    app.add_subapp("/sub", sub)
    with pytest.raises(ConfigError, match="was added to another"):
        aiosvc.setup(sub, registry=registry)


@pytest.mark.parametrize("thing", [None, "app", 7, web.Application, hello])
def test_something_that_is_no_application(registry: CollectorRegistry, thing: object) -> None:
    """What is no application is refused, with what was given."""
    with pytest.raises(ConfigError, match=r"expected an aiohttp\.web\.Application"):
        aiosvc.setup(thing, registry=registry)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_intervall": 1}, "no option named 'sample_intervall'; did you mean"),
        ({"sample_interval": 0}, "sample_interval: 0 given; expected seconds"),
        ({"sample_interval": "1"}, "sample_interval: '1' given"),
        ({"sample_timeout": float("nan")}, "sample_timeout: nan given"),
        ({"path": "metrics"}, "path: 'metrics' given; expected a plain path"),
        ({"path": "/m/{x}"}, "path: '/m/{x}' given"),
        ({"path": 7}, "path: 7 given"),
        ({"max_endpoints": 0}, "max_endpoints: 0 given; expected a whole number, 1 or more"),
        ({"max_endpoints": 1.5}, "max_endpoints: 1.5 given"),
        ({"buckets": (1, 0.5)}, "buckets: .* expected rising numbers"),
        ({"buckets": "1,2"}, "buckets: '1,2' given"),
        ({"buckets": 3}, "buckets: 3 given"),
    ],
)
def test_wrong_options(
    registry: CollectorRegistry, options: dict[str, object], message: str
) -> None:
    """A wrong option is refused at once, by its name, and the application is as it was."""
    app = make_app()
    with pytest.raises(ConfigError, match=message):
        aiosvc.setup(app, registry=registry, **options)  # type: ignore[arg-type]
    aiosvc.setup(app, registry=registry)


def test_settings_or_options(registry: CollectorRegistry) -> None:
    """Options may be given as one object, but not both ways at once."""
    settings = aiosvc.Settings(sample_interval=2)
    with pytest.raises(ConfigError, match="settings and path given"):
        aiosvc.setup(make_app(), registry=registry, settings=settings, path="/m")
    observer = aiosvc.setup(make_app(), registry=registry, settings=settings)
    assert observer.settings is settings


def test_a_registry_with_metrics_of_the_same_name(registry: CollectorRegistry) -> None:
    """Whoever has such a metric already is told which, and what to do; nothing is half set up."""
    Counter("http_requests", "Mine.", registry=registry)
    app = make_app()
    with pytest.raises(ConfigError, match="http_requests_total") as caught:
        aiosvc.setup(app, registry=registry)
    assert "registry=prometheus_client.CollectorRegistry()" in str(caught.value)
    aiosvc.setup(app, registry=CollectorRegistry())


def test_one_registry_has_one_set_of_buckets(registry: CollectorRegistry) -> None:
    """Two applications that want different buckets on one registry can't both have them."""
    aiosvc.setup(make_app(), registry=registry, buckets=(0.1, 1))
    aiosvc.setup(make_app(), registry=registry, buckets=[0.1, 1.0, float("inf")])
    with pytest.raises(ConfigError, match="another application on the same registry uses"):
        aiosvc.setup(make_app(), registry=registry)


async def test_buckets_of_ones_own(registry: CollectorRegistry) -> None:
    """The buckets given are those exported."""
    app = make_app()
    aiosvc.setup(app, registry=registry, buckets=(0.1, 1))
    async with client_of(app) as client:
        await client.get("/hello/a")
        text = await (await client.get("/metrics")).text()
    bounds = [
        line.split('le="')[1].split('"')[0]
        for line in text.splitlines()
        if line.startswith("http_request_duration_seconds_bucket{")
    ]
    assert bounds == ["0.1", "1.0", "+Inf"]


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=x",
        'application/openmetrics-text;version="1.0.0"',
        "text/plain;version=x",
        ";;;,,,===",
        "*/*;q=abc",
        "a" * 8000,
        "application/openmetrics-text;version=1e9;escaping=nonsense",
    ],
)
async def test_no_header_makes_it_fail(registry: CollectorRegistry, accept: str) -> None:
    """Whatever Accept says, the answer is 200 and an exposition."""
    app = make_app()
    aiosvc.setup(app, registry=registry)
    async with client_of(app) as client:
        answer = await client.get("/metrics", headers={"Accept": accept})
        assert answer.status == 200
        assert "# TYPE http_requests" in await answer.text()


async def test_no_endpoint_on_the_application(registry: CollectorRegistry) -> None:
    """With path=None the application is measured and has no route of ours."""
    app = make_app()
    aiosvc.setup(app, registry=registry, path=None)
    assert [r.canonical for r in app.router.resources()] == ["/hello/{name}"]
    async with client_of(app) as client:
        await client.get("/hello/a")
        assert (await client.get("/metrics")).status == 404
        labels = {"endpoint": "/hello/{name}", "method": "GET", "status": "200"}
        assert registry.get_sample_value("http_requests_total", labels) == 1


def test_a_router_of_ones_own(registry: CollectorRegistry) -> None:
    """A router that is not aiohttp's can't be given a route, and the error says so."""

    class Router(AbstractRouter):
        async def resolve(self, request: web.Request) -> UrlMappingMatchInfo:
            raise NotImplementedError

    with pytest.warns(DeprecationWarning, match="router argument"):
        app = web.Application(router=Router())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"is a router of your own.* give path=None"):
        aiosvc.setup(app, registry=registry)
    aiosvc.setup(app, registry=registry, path=None)


async def test_one_name_only(registry: CollectorRegistry) -> None:
    """?name[]= restricts the answer to that sample name."""
    app = make_app()
    aiosvc.setup(app, registry=registry)
    async with client_of(app) as client:
        text = await (await client.get("/metrics?name[]=active_connections")).text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == ["active_connections 1.0"]


async def test_connections_are_counted_while_open(registry: CollectorRegistry) -> None:
    """Idle keep-alive connections are open; closed ones are not, and all were accepted."""
    app = make_app()
    aiosvc.setup(app, registry=registry)
    server = TestServer(app)
    async with TestClient(server) as client:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        for _ in range(100):
            text = await (await client.get("/metrics")).text()
            if "active_connections 21.0" in text:
                break
        assert "active_connections 21.0" in text
        for _, writer in idle:
            writer.close()
        for _ in range(100):
            text = await (await client.get("/metrics")).text()
            if "active_connections 1.0" in text:
                break
        assert "active_connections 1.0" in text
        assert "connections_total 21.0" in text


async def test_probes_on_the_applications_port(registry: CollectorRegistry) -> None:
    """/livez and /readyz answer, follow the checks and the drain, and are no requests."""
    app = make_app()
    observer = aiosvc.setup(app, registry=registry)
    well = True
    observer.health.add_check("database", lambda: well)
    async with client_of(app) as client:
        assert (await client.get("/livez")).status == 200
        assert (await client.get("/readyz")).status == 200
        well = False
        refused = await client.get("/readyz")
        assert (refused.status, "database" in await refused.text()) == (503, True)
        well = True
        observer.health.set_draining()
        assert (await client.get("/readyz")).status == 503
        text = await (await client.get("/metrics")).text()
    assert "readyz" not in text


async def test_probes_of_ones_own(registry: CollectorRegistry) -> None:
    """An application that has its own probe keeps it, added before setup or after."""
    app = web.Application()
    app.router.add_get("/livez", hello)
    aiosvc.setup(app, registry=registry)
    app.router.add_get("/readyz", hello)
    async with client_of(app) as client:
        assert await (await client.get("/livez")).text() == "hello"
        assert await (await client.get("/readyz")).text() == "hello"
        text = await (await client.get("/metrics")).text()
    assert 'endpoint="/livez"' in text


async def test_our_endpoints_count_when_asked_to(registry: CollectorRegistry) -> None:
    """With count_own, /metrics and the probes are requests like any other."""
    app = make_app()
    aiosvc.setup(app, registry=registry, count_own=True)
    async with client_of(app) as client:
        await client.get("/livez")
        await client.get("/metrics")
        text = await (await client.get("/metrics")).text()
    for path in ("/livez", "/metrics"):
        assert f'http_requests_total{{endpoint="{path}",method="GET",status="200"}} 1.0' in text


async def test_the_admin_server(registry: CollectorRegistry) -> None:
    """It is there while the application runs, answers while that is blocked, and says so."""
    app = make_app()

    async def block(_request: web.Request) -> web.Response:
        time.sleep(3.0)  # noqa: ASYNC251 - the loop is to be blocked
        return web.Response()

    app.router.add_get("/block", block)
    admin = aiosvc.AdminOptions(admin_port=0, live_timeout=1.0)
    observer = aiosvc.setup(app, registry=registry, admin=admin)
    seen: list[tuple[int, str, str]] = []

    def ask() -> None:
        url = observer.admin_url
        while not seen or seen[-1][0] != 503:
            try:
                with urlopen(f"{url}/livez", timeout=5) as answer:
                    live = answer.status, answer.read().decode()
            except HTTPError as error:
                live = error.code, error.read().decode()
            with urlopen(f"{url}/metrics", timeout=5) as answer:
                seen.append((*live, answer.read().decode()))

    async with client_of(app) as client:
        await client.get("/hello/a")
        asking = asyncio.create_task(asyncio.to_thread(ask))
        await asyncio.sleep(0.1)
        await client.get("/block")
        await asking
    status, why, text = seen[-1]
    assert (status, "blocked for" in why) == (503, True)
    assert 'http_requests_total{endpoint="/hello/{name}",method="GET",status="200"} 1.0' in text
    assert 'http_requests_in_progress{endpoint="/block",method="GET"} 1.0' in text
    assert observer.admin_url is None


async def test_an_admin_port_that_is_taken(registry: CollectorRegistry) -> None:
    """The application does not start, and the error names the option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = make_app()
        aiosvc.setup(app, registry=registry, admin=aiosvc.AdminOptions(admin_port=port))
        runner = web.AppRunner(app)
        with pytest.raises(aiosvc.BindError, match=f"port {port} is taken.*admin_port"):
            await runner.setup()
        await runner.cleanup()


async def test_the_last_scrape_of_a_shutdown(registry: CollectorRegistry) -> None:
    """The admin server and the metrics are there until the application has cleaned up all it has."""
    app, sub = make_app(), web.Application()
    admin = aiosvc.AdminOptions(admin_port=0)
    observer = aiosvc.setup(app, registry=registry, admin=admin)
    seen: dict[str, str] = {}

    def note(when: str) -> Callable[[web.Application], Awaitable[None]]:
        async def scrape(_app: web.Application) -> None:
            def ask() -> str:
                with urlopen(f"{observer.admin_url}/metrics", timeout=30) as answer:
                    text: str = answer.read().decode()
                    return text

            seen[when] = await asyncio.to_thread(ask)

        return scrape

    async def context(app: web.Application) -> AsyncIterator[None]:
        yield
        await note("context")(app)

    app.cleanup_ctx.append(context)
    app.on_shutdown.append(note("on_shutdown"))
    app.on_cleanup.append(note("on_cleanup"))
    sub.on_cleanup.append(note("a sub-application's on_cleanup"))
    app.add_subapp("/sub", sub)
    for _ in range(2):
        seen.clear()
        async with client_of(app) as client:
            await client.get("/hello/a")
        assert len(seen) == 4
        for when, text in seen.items():
            assert "\nactive_connections " in text, when
            assert 'http_requests_total{endpoint="/hello/{name}"' in text, when
        assert observer.admin_url is None
        assert "\nactive_connections " not in generate_latest(registry).decode()


@pytest.mark.parametrize("where", ["on_startup", "context", "on_cleanup"])
async def test_an_application_that_fails(registry: CollectorRegistry, where: str) -> None:
    """Whatever of its start or its cleanup fails, nothing of what began with it goes on."""
    app = make_app()
    admin = aiosvc.AdminOptions(admin_port=0)
    observer = aiosvc.setup(app, registry=registry, admin=admin)

    async def fail(_app: web.Application) -> None:
        raise ValueError("on purpose")

    async def context(app: web.Application) -> AsyncIterator[None]:
        yield
        await fail(app)

    if where == "context":
        app.cleanup_ctx.append(context)
    else:
        getattr(app, where).append(fail)
    runner = web.AppRunner(app)
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    with pytest.raises(ValueError, match="on purpose"):  # noqa: PT012 - in one of the two
        try:
            await runner.setup()
        finally:
            await runner.cleanup()
    assert observer.admin_url is None
    begun = set(threading.enumerate()) - threads
    assert [thread.name for thread in begun if thread.name == "aiosvc admin"] == []
    assert asyncio.all_tasks() <= tasks
    assert "\nactive_connections " not in generate_latest(registry).decode()


@pytest.mark.parametrize("parent_too", [True, False])
async def test_a_sub_application_alone(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture, *, parent_too: bool
) -> None:
    """A sub-application whose parent is not measured says so at the start, and only then."""
    app, sub = web.Application(), make_app()
    if parent_too:
        aiosvc.setup(app, registry=registry)
    aiosvc.setup(sub, registry=registry)
    app.add_subapp("/sub", sub)
    async with client_of(app) as client:
        await client.get("/sub/hello/a")
    assert "\nactive_connections " not in generate_latest(registry).decode()
    warned = [r for r in caplog.records if "for a sub-application only" in r.getMessage()]
    assert len(warned) == (0 if parent_too else 1)
