"""
For tests of a service's metrics: a private registry, a running application, and assertions.

In conftest.py: `pytest_plugins = ["aiosvc.testing"]`. Then, with any plugin that runs async tests:

    from aiohttp import web
    from aiosvc.testing import assert_cardinality, assert_metric_delta, scrape

    async def hello(request):
        return web.Response(text="hello")

    def make_app():
        app = web.Application()
        app.router.add_get("/hello/{name}", hello)
        return app

    async def test_hello_is_counted(observed, metrics_registry):
        async with observed(make_app()) as client:
            labels = {"endpoint": "/hello/{name}", "status": "200"}
            async with assert_metric_delta(metrics_registry, "http_requests_total", labels, 3):
                for name in ("ann", "bob", "cleo"):
                    await client.get(f"/hello/{name}")
            assert_cardinality(metrics_registry, "http_requests_total", at_most=2)
            samples = await scrape(client)
            assert samples.value("http_requests_in_progress") == 0

Rule: an assertion that fails says what there was, before and after, and what came near it. Rule: this
is the one module that imports pytest, `pip install 'aiosvc[testing]'`.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Self

import pytest
from aiohttp import ClientSession, hdrs, web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from aiosvc.aiohttp import setup
from aiosvc.errors import did_you_mean

__all__ = [
    "Sample",
    "Samples",
    "assert_cardinality",
    "assert_metric_delta",
    "metrics_registry",
    "observe",
    "observed",
    "parse",
    "read",
    "scrape",
]

#: Lines of a failure's text about other series.
SHOWN = 10

#: Seconds between two looks at a metric that has not changed as it should.
PAUSE = 0.01

ACCEPT = {
    False: "text/plain;version=0.0.4",
    True: "application/openmetrics-text;version=1.0.0",
}


class Sample(NamedTuple):
    """One line of a scrape, and the family that it belongs to."""

    family: str
    name: str
    labels: dict[str, str]
    value: float

    def __str__(self) -> str:
        return f"{_written(self.name, self.labels)} {self.value:g}"


class Samples(list[Sample]):
    """All samples of a registry, or of a scrape, in their order."""

    def series(self, name: str, labels: Mapping[str, str] | None = None) -> list[Sample]:
        """Return the samples of this name that have these labels, among others or not."""
        wanted = (labels or {}).items()
        return [s for s in self if s.name == name and wanted <= s.labels.items()]

    def value(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        """Return the sum of these samples, None where there are none."""
        found = self.series(name, labels)
        return math.fsum(sample.value for sample in found) if found else None

    def of_family(self, name: str) -> list[Sample]:
        """Return the samples of the family or of the sample *name*."""
        return [sample for sample in self if name in (sample.family, sample.name)]


#: Where samples are read: a registry, or a scrape that is there already.
Source = CollectorRegistry | Samples


def parse(text: str) -> Samples:
    """Return the samples of a text in the Prometheus format, or in OpenMetrics if `# EOF` ends it."""
    if text.rstrip().endswith("# EOF"):
        families: Iterable[Metric] = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    else:
        families = text_string_to_metric_families(text)
    return _flat(families)


async def scrape(
    source: "TestClient[Any, Any] | str | URL",
    path: str = "/metrics",
    *,
    openmetrics: bool = False,
) -> Samples:
    """
    Return the samples that a service shows.

    *source* is a test client, which is asked for *path*, or a URL as a whole. Raises AssertionError
    where the answer is not 200, and ValueError where it can't be parsed.
    """
    headers = {hdrs.ACCEPT: ACCEPT[openmetrics]}
    if isinstance(source, TestClient):
        async with source.get(path, headers=headers) as response:
            return await _answered(response)
    async with ClientSession() as session, session.get(source, headers=headers) as response:
        return await _answered(response)


@asynccontextmanager
async def observe(
    app: web.Application, *, registry: CollectorRegistry | None = None, **options: Any
) -> "AsyncIterator[TestClient[Any, Any]]":
    """
    Serve *app*, measured, for as long as the block lasts, and give a client for it.

    *registry* is a new one unless given; *options* are those of `aiosvc.setup`.
    """
    setup(app, registry=CollectorRegistry() if registry is None else registry, **options)
    async with TestClient(TestServer(app)) as client:
        yield client


class assert_metric_delta:  # noqa: N801 - reads as what it does, in `with` and `async with`
    """
    Assert that a metric changes by *delta* while the block runs.

    *name* is a sample's name, `_total` of a counter included; of its series those count, together,
    that have these *labels*, among others or not; one that is not there counts 0. *source* is a
    registry, or a function that returns `Samples`. With `async with` the change may come up to
    *within* seconds after the block: a request is counted just after its client has the answer.
    """

    def __init__(
        self,
        source: CollectorRegistry | Callable[[], Samples] = REGISTRY,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        delta: float = 1,
        *,
        within: float = 1.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"name: {name!r} given; expected the name of a sample")
        self._read = source if callable(source) else partial(read, source)
        self._name = name
        self._labels = {key: str(value) for key, value in (labels or {}).items()}
        self._delta = delta
        self._within = within
        self._before = Samples()

    def __enter__(self) -> Self:
        self._before = self._read()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            after = self._read()
            if not self._is_right(after):
                raise AssertionError(self._text(after))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        deadline = monotonic() + self._within
        while (  # noqa: ASYNC110 - a metric sets no event
            kind is None and not self._is_right(self._read()) and monotonic() < deadline
        ):
            await asyncio.sleep(PAUSE)
        self.__exit__(kind)

    def _change(self, after: Samples) -> float:
        before = self._before.value(self._name, self._labels) or 0
        return (after.value(self._name, self._labels) or 0) - before

    def _is_right(self, after: Samples) -> bool:
        return math.isclose(self._change(after), self._delta, rel_tol=1e-9, abs_tol=1e-9)

    def _text(self, after: Samples) -> str:
        before, now = (each.value(self._name, self._labels) for each in (self._before, after))
        what = _written(self._name, self._labels)
        lines = [
            f"{what}: expected {self._delta:+g}, was {self._change(after):+g}",
            f"  before: {'no such series' if before is None else f'{before:g}'}",
            f"  after:  {'no such series' if now is None else f'{now:g}'}",
        ]
        names = {sample.name for sample in after}
        if self._name not in names:
            lines.append(f"  there is no sample of that name{did_you_mean(self._name, names)}")
        known = {(s.name, *sorted(s.labels.items())): s.value for s in self._before}
        others = [
            (sample, sample.value - known.get((sample.name, *sorted(sample.labels.items())), 0))
            for sample in after.series(self._name)
        ]
        others.sort(key=lambda each: (not each[1], -len(self._common(each[0]))))
        for sample, change in others[:SHOWN]:
            lines.append(f"  series: {sample} ({change:+g})")
        if len(others) > SHOWN:
            lines.append(f"  and {len(others) - SHOWN} more")
        return "\n".join(lines)

    def _common(self, sample: Sample) -> set[tuple[str, str]]:
        return set(self._labels.items() & sample.labels.items())


class assert_cardinality:  # noqa: N801 - reads as what it does
    """
    Assert that a family has no more than *at_most* series; in `with`, after the block too.

    *name* is a family's, whose buckets count as series, or that of one kind of its samples. *source*
    is a registry or `Samples`.
    """

    def __init__(self, source: Source = REGISTRY, name: str = "", *, at_most: int) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"name: {name!r} given; expected the name of a family")
        self._source = source
        self._name = name
        self._at_most = at_most
        self._check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._check()

    def _check(self) -> None:
        samples = self._source if isinstance(self._source, Samples) else read(self._source)
        found = samples.of_family(self._name)
        if len(found) <= self._at_most:
            return
        values: dict[str, dict[str, None]] = {}
        for sample in found:
            for label, value in sample.labels.items():
                values.setdefault(label, {})[value] = None
        lines = [f"{self._name}: {len(found)} series; expected {self._at_most} at most"]
        for label, each in sorted(values.items(), key=lambda item: -len(item[1])):
            some = ", ".join(map(repr, list(each)[:5])) + (", ..." if len(each) > 5 else "")  # noqa: PLR2004 - examples
            lines.append(f"  {label}: {len(each)} values, {some}")
        raise AssertionError("\n".join(lines))


def read(registry: CollectorRegistry) -> Samples:
    """Return all samples of a registry."""
    return _flat(registry.collect())


@pytest.fixture
def metrics_registry() -> CollectorRegistry:
    """Return a registry that nothing else uses."""
    return CollectorRegistry()


@pytest.fixture
def observed(
    metrics_registry: CollectorRegistry,
) -> "Callable[..., AbstractAsyncContextManager[TestClient[Any, Any]]]":
    """Return `observe`, with the registry of the fixture `metrics_registry`."""
    return partial(observe, registry=metrics_registry)


async def _answered(response: Any) -> Samples:
    text: str = await response.text()
    if response.status != 200:  # noqa: PLR2004 - OK
        raise AssertionError(f"{response.url} answered {response.status}: {text[:500]}")
    return parse(text)


def _flat(families: Iterable[Metric]) -> Samples:
    return Samples(
        Sample(family.name, sample.name, dict(sample.labels), sample.value)
        for family in families
        for sample in family.samples
    )


def _written(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    pairs = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}"
