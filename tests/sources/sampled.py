"""Sources as their user has them: added to a service's sampler and seen in its /metrics."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Self

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from processes import poll
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

import aiosvc

__all__ = ["Series", "Service", "Source", "values"]

INTERVAL = 0.05

Source = Callable[[], Awaitable[Iterable[Metric]]]
Series = dict[tuple[str, ...], float]


def values(families: Iterable[Metric], name: str) -> Series | None:
    """Return a metric's numbers by label values, None where there is no such family."""
    found = [f for f in families if name in (f.name, f"{f.name}_total")]
    if not found:
        return None
    samples = [sample for family in found for sample in family.samples]
    assert all(sample.name == name for sample in samples)
    return {tuple(sample.labels.values()): sample.value for sample in samples}


class Service:
    """An application that samples *sources*, for as long as an `async with` block."""

    def __init__(
        self, *, timeout: float = 2.0, interval: float = INTERVAL, **sources: Source
    ) -> None:
        app = web.Application()
        registry = CollectorRegistry()
        self.observer = aiosvc.setup(app, registry=registry, sample_timeout=timeout)
        for name, source in sources.items():
            self.observer.sampler.add(name, source, interval=interval)
        self._client = TestClient(TestServer(app))
        #: Seconds that the slowest scrape took.
        self.slowest = 0.0

    async def __aenter__(self) -> Self:
        await self._client.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def scrape(self) -> dict[str, Metric]:
        """Return every family of /metrics."""
        begun = time.perf_counter()
        async with self._client.get("/metrics") as answer:
            text = await answer.text()
            assert answer.status == 200, text
        self.slowest = max(self.slowest, time.perf_counter() - begun)
        return {family.name: family for family in text_string_to_metric_families(text)}

    async def series(self, name: str) -> Series | None:
        """Return a metric's numbers now."""
        return values((await self.scrape()).values(), name)

    async def up(self, source: str) -> float | None:
        """Return aiosvc_source_up now."""
        return (await self.series("aiosvc_source_up") or {}).get((source,))

    async def until_up(self, source: str, expected: float) -> None:
        """Wait until aiosvc_source_up is as *expected*."""
        await poll(
            lambda: self.up(source), lambda now: now == expected, f"{source} up {expected:g}"
        )

    async def until_series(self, name: str, expected: Series | None) -> None:
        """Wait until a metric's numbers are as *expected*."""
        await poll(lambda: self.series(name), lambda now: now == expected, f"{name} {expected}")
