"""aiohttp, FastAPI and Flask side by side, as real services under one real Prometheus."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from contract import Driver, Served, serving_apps
from processes import Program, Prometheus, Sample
from wire import Wire, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

FASTAPI = Driver("uvicorn-httptools", "guide_fastapi")
FLASK = Driver("gunicorn-gthread", "guide_flask")

#: What each service is asked, and how often.
ASKED = {"/health": 5, "/api/users": 3, "/api/users/1": 2, "/api/users/2": 2, "/nothing": 4}
COUNTED = {
    ("/health", "200"): 5.0,
    ("/api/users", "200"): 3.0,
    ("/api/users/{id}", "200"): 4.0,
    ("_unmatched", "404"): 4.0,
}


class Three:
    """The three services, and the Prometheus that scrapes them."""

    def __init__(self, prometheus: Prometheus, ports: dict[str, int]) -> None:
        self.prometheus = prometheus
        self.ports = ports

    def name(self, sample: Sample) -> str:
        """Return which of the services a sample is of."""
        port = int(sample.labels["instance"].rpartition(":")[2])
        return next(name for name, its in self.ports.items() if its == port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Three]:
    """Start all of them, and ask each service the same."""
    directories = [tmp_path_factory.mktemp(name) for name in ("demo", "fastapi", "flask")]
    async with AsyncExitStack() as stack:
        demo = await stack.enter_async_context(
            Program("demo", "--port", "0", directory=directories[0])
        )
        served: dict[str, Served] = {}
        for name, driver, directory in (
            ("fastapi", FASTAPI, directories[1]),
            ("flask", FLASK, directories[2]),
        ):
            served[name] = await stack.enter_async_context(serving_apps(driver, directory))
        ports = {"aiohttp": demo.port, **{name: each.port for name, each in served.items()}}
        for port in ports.values():
            await ask(port)
        prometheus = await stack.enter_async_context(
            Prometheus(
                tmp_path_factory.mktemp("prometheus"),
                target_port=ports["aiohttp"],
                more_ports=(ports["fastapi"], ports["flask"]),
            )
        )
        found = Three(prometheus, ports)
        await prometheus.wait_for_query("up == 1", lambda samples: len(samples) == 3)
        yield found


async def ask(port: int) -> None:
    """Send a service everything in `ASKED`."""
    for path, times in ASKED.items():
        for _ in range(times):
            wire = await Wire.connect(port)
            status = (await wire.ask(request("GET", path))).status
            wire.close()
            assert status == (404 if path == "/nothing" else 200)


async def test_one_query_over_all(three: Three) -> None:
    """The same query gives the same numbers for services of three frameworks."""
    samples = await three.prometheus.query(
        'sum by (instance, endpoint, status) (http_requests_total{job="aiosvc"}) > 0'
    )
    counted: dict[str, dict[tuple[str, str], float]] = {}
    for sample in samples:
        key = sample.labels["endpoint"], sample.labels["status"]
        counted.setdefault(three.name(sample), {})[key] = sample.value
    assert counted == dict.fromkeys(three.ports, COUNTED)


async def test_one_quantile_over_all(three: Three) -> None:
    """Durations of all three make one histogram."""
    (sample,) = await three.prometheus.query(
        "histogram_quantile(0.99, sum by (le) "
        '(http_request_duration_seconds_bucket{endpoint=~"/api/.*"}))'
    )
    assert 0 < sample.value < 10
    (count,) = await three.prometheus.query("sum(http_request_duration_seconds_count)")
    assert count.value == 3 * sum(ASKED.values())


async def test_what_else_they_have_in_common(three: Three) -> None:
    """Each is sampled, tells of itself, and has had no error of ours; one's own metric is there."""
    for expression, expected in (
        ("process_memory_rss_bytes > 1e6", ["aiohttp", "fastapi", "flask"]),
        ('aiosvc_source_up{source="process"} == 1', ["aiohttp", "fastapi", "flask"]),
        ("users_listed_total == 3", ["fastapi", "flask"]),
        ("aiosvc_instrumentation_errors_total > 0", []),
    ):
        samples = await three.prometheus.query(expression)
        names = Counter(three.name(sample) for sample in samples)
        assert names == Counter(expected), expression


async def test_promtool_likes_them(three: Three, promtool: str) -> None:
    """What each of them exposes passes promtool's lint."""
    for name, port in three.ports.items():
        wire = await Wire.connect(port)
        text = (await wire.ask(request("GET", "/metrics"))).body
        wire.close()
        done = await asyncio.to_thread(
            subprocess.run,
            [promtool, "check", "metrics"],
            input=text,
            capture_output=True,
            check=False,
        )
        complaints = done.stderr.decode() + done.stdout.decode()
        assert done.returncode == 0, f"{name}: {complaints}"
