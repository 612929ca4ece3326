"""What is offered for tests: it passes where it should, and says enough where it does not."""

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

import aiosvc
from aiosvc import testing
from aiosvc.testing import (
    Samples,
    assert_cardinality,
    assert_metric_delta,
    observe,
    parse,
    read,
    scrape,
)


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry with a counter of some series."""
    registry = CollectorRegistry()
    jobs = Counter("jobs", "Jobs.", ["queue", "outcome"], registry=registry)
    for queue in ("email", "sms"):
        for outcome in ("ok", "error"):
            jobs.labels(queue, outcome)
    registry.jobs = jobs  # type: ignore[attr-defined]
    return registry


def inc(registry: Any, queue: str, outcome: str, amount: float = 1) -> None:
    """Count a job."""
    registry.jobs.labels(queue, outcome).inc(amount)


def failure(run: Any) -> str:
    """Return the text of the assertion that fails."""
    with pytest.raises(AssertionError) as raised:
        run()
    return str(raised.value)


def test_delta(registry: CollectorRegistry) -> None:
    """The change of all series with these labels is what is asserted, 0 and below as well."""
    with assert_metric_delta(registry, "jobs_total", {"queue": "email"}, 3):
        inc(registry, "email", "ok", 2)
        inc(registry, "email", "error")
        inc(registry, "sms", "ok")
    with assert_metric_delta(registry, "jobs_total", None, 0):
        pass
    with assert_metric_delta(registry, "jobs_total", {"queue": "fax"}, 0.3):
        inc(registry, "fax", "ok", 0.1)
        inc(registry, "fax", "ok", 0.1)
        inc(registry, "fax", "ok", 0.1)
    depth = Gauge("depth", "Depth.", registry=registry)
    with assert_metric_delta(registry, "depth", delta=-2):
        depth.dec(2)


def test_a_delta_that_is_wrong(registry: CollectorRegistry) -> None:
    """The text shows before and after, and the series that changed instead, first."""

    def run() -> None:
        with assert_metric_delta(registry, "jobs_total", {"queue": "email", "outcome": "ok"}, 1):
            inc(registry, "email", "error")

    assert failure(run).splitlines() == [
        'jobs_total{outcome="ok",queue="email"}: expected +1, was +0',
        "  before: 0",
        "  after:  0",
        '  series: jobs_total{outcome="error",queue="email"} 1 (+1)',
        '  series: jobs_total{outcome="ok",queue="email"} 0 (+0)',
        '  series: jobs_total{outcome="ok",queue="sms"} 0 (+0)',
        '  series: jobs_total{outcome="error",queue="sms"} 0 (+0)',
    ]


def test_a_name_or_label_that_is_not_there(registry: CollectorRegistry) -> None:
    """A mistyped name gets the nearest one, a mistyped label the series that there are."""

    def mistyped_name() -> None:
        with assert_metric_delta(registry, "job_total", None, 1):
            pass

    assert failure(mistyped_name).endswith(
        "  after:  no such series\n  there is no sample of that name; did you mean 'jobs_total'?"
    )

    def mistyped_label() -> None:
        with assert_metric_delta(registry, "jobs_total", {"queue": "mail"}, 1):
            inc(registry, "email", "ok")

    text = failure(mistyped_label)
    assert "before: no such series" in text
    assert '  series: jobs_total{outcome="ok",queue="email"} 1 (+1)' in text


def test_long_texts_are_cut(registry: CollectorRegistry) -> None:
    """A family of a hundred series shows the ten that tell most."""
    for number in range(100):
        inc(registry, f"q{number}", "ok")

    def run() -> None:
        with assert_metric_delta(registry, "jobs_total", {"queue": "email"}, 1):
            inc(registry, "q77", "ok")

    lines = failure(run).splitlines()
    assert lines[3] == '  series: jobs_total{outcome="ok",queue="q77"} 2 (+1)'
    assert lines[-1] == "  and 94 more"


def test_the_blocks_own_error_comes_first(registry: CollectorRegistry) -> None:
    """An exception in the block is not hidden by the assertion."""
    with pytest.raises(KeyError), assert_metric_delta(registry, "jobs_total", None, 1):
        raise KeyError


async def test_delta_of_requests() -> None:
    """With `async with` what is counted after the answer is waited for, but not for ever."""

    async def hello(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/", hello)
    registry = CollectorRegistry()
    async with observe(app, registry=registry) as client:
        for _ in range(20):
            async with assert_metric_delta(registry, "http_requests_total", {"endpoint": "/"}, 1):
                await client.get("/")
        with pytest.raises(AssertionError, match="expected \\+1, was \\+0"):
            async with assert_metric_delta(registry, "http_requests_total", within=0.03):
                pass
        with pytest.raises(KeyError):
            async with assert_metric_delta(registry, "http_requests_total"):
                raise KeyError


async def test_scrape() -> None:
    """Both formats and both kinds of source give the same samples."""

    async def hello(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/", hello)
    async with observe(app, path="/m", count_own=False) as client:
        await client.get("/")
        text = await scrape(client, "/m")
        open_metrics = await scrape(client.make_url("/m"), openmetrics=True)
        labels = {"endpoint": "/", "method": "GET"}
        assert text.value("http_requests_total", labels) == 1
        assert open_metrics.value("http_requests_total", labels) == 1
        assert open_metrics.series("http_requests_total", {"status": "200"})[0].family == (
            "http_requests"
        )
        assert text.value("nothing") is None
        with pytest.raises(AssertionError, match="/metrics answered 404"):
            await scrape(client)
        with pytest.raises(AssertionError, match="answered 404"):
            await scrape(str(client.make_url("/nowhere")))


def test_parse() -> None:
    """A text is parsed as what it is; nonsense is a ValueError."""
    assert parse('# TYPE a counter\na_total{x="1"} 2\n').value("a_total", {"x": "1"}) == 2
    assert parse("# TYPE a counter\na_total 2\n# EOF\n")[0].family == "a"
    assert parse("") == Samples()
    with pytest.raises(ValueError):
        parse("this is = no metric\n")


def test_cardinality(registry: CollectorRegistry) -> None:
    """A family may have so many series; a text with more says which label has how many values."""
    assert_cardinality(registry, "jobs_total", at_most=4)
    assert_cardinality(registry, "nothing", at_most=0)
    assert_cardinality(read(registry), "jobs_total", at_most=4)
    text = failure(lambda: assert_cardinality(registry, "jobs_total", at_most=3))
    assert text.splitlines() == [
        "jobs_total: 4 series; expected 3 at most",
        "  queue: 2 values, 'email', 'sms'",
        "  outcome: 2 values, 'ok', 'error'",
    ]

    def grow() -> None:
        with assert_cardinality(registry, "jobs_total", at_most=10):
            for number in range(10):
                inc(registry, f"user {number}", "ok")

    assert "queue: 12 values, 'email', 'sms', 'user 0', 'user 1', 'user 2', ..." in failure(grow)
    with pytest.raises(KeyError), assert_cardinality(registry, "jobs_total", at_most=99):
        raise KeyError


def test_the_buckets_of_a_histogram_are_series(registry: CollectorRegistry) -> None:
    """A family counts as what it costs, one kind of its samples alone if asked for."""
    Histogram("time", "Time.", buckets=(1, 2), registry=registry)
    without_created = [s for s in read(registry).of_family("time") if "created" not in s.name]
    assert len(without_created) == 5
    assert_cardinality(registry, "time_bucket", at_most=3)
    with pytest.raises(AssertionError):
        assert_cardinality(registry, "time", at_most=4)


def test_mistakes(registry: CollectorRegistry) -> None:
    """A name is needed."""
    with pytest.raises(TypeError, match="name: '' given"):
        assert_metric_delta(registry)
    with pytest.raises(TypeError, match="name: 3 given"):
        assert_cardinality(registry, 3, at_most=1)  # type: ignore[arg-type]


def test_the_example_runs(tmp_path: Path) -> None:
    """The example in the module's docstring is a test that passes, with the plugin as it says."""
    doc = inspect.getdoc(testing)
    assert doc is not None
    code = "\n".join(re.findall(r"^(?:    .*|)$", doc, re.MULTILINE))
    [plugin] = re.findall(r"`(pytest_plugins = .*?)`", doc)
    (tmp_path / "conftest.py").write_text(plugin)
    (tmp_path / "test_hello.py").write_text(textwrap.dedent(code))
    environment = {"PYTHONPATH": str(Path(aiosvc.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_only_here_is_pytest_imported() -> None:
    """`import aiosvc` and the command do without pytest."""
    package = Path(aiosvc.__file__).parent
    users = [
        path.name
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) pytest\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert users == ["testing.py"]
    code = "import sys, aiosvc, aiosvc.cli; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
