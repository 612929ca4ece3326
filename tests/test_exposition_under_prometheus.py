"""
Every format, scraped by a real Prometheus, each by a job of its own.

The scraper asks a proxy, which asks the endpoint for exactly one format. Debian's Prometheus is
2.42, from before names could be quoted: there `allow-utf-8` is held against it with legal names,
and with others against prometheus_client's strict parsers, which know them.
"""

import json
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import BaseTestServer, TestServer
from expositions import ESCAPES, FORMATS, Families, hostile_registry
from hostile import CORPUS
from processes import Prometheus
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import aiosvc
from aiosvc.formats import Format

needs_utf8 = pytest.mark.skipif(not ESCAPES, reason="this prometheus_client refuses such names")

#: How each escaping writes `room.temperature_c` and its label `room.name`.
NAMES = {
    "underscores": ("room_temperature_c", "room_name"),
    "dots": ("room_dot_temperature__c", "room_dot_name"),
    "values": ("U__room_2e_temperature__c", "U__room_2e_name"),
}

VALUES = {"usual": 21.5, "é 日本 😀": -0.25, 'a "quoted" \\ one\n': 1e300, "none": math.nan}


def accept(form: Format) -> str:
    """Return the header that asks for exactly this format."""
    text = f"{form.media_type};version={form.version}"
    return f"{text};escaping={form.escaping}" if form.version == "1.0.0" else text


def registry_of(*, legal: bool) -> CollectorRegistry:
    """Return a registry with something of everything, under legal names or not."""
    registry = CollectorRegistry()
    name, label = ("room_temperature_c", "room_name") if legal else NAMES_AS_THEY_ARE
    gauge = Gauge(name, "Temperature, \\ and\nmore.", [label], registry=registry)
    for place, value in VALUES.items():
        gauge.labels(place).set(value)
    gauge.labels("hot").set(math.inf)
    gauge.labels("cold").set(-math.inf)
    orders = Counter("orders", "Orders.", ["shop"], registry=registry)
    orders.labels("x").inc(12345678.5, {"trace_id": "4bf92f35"})
    times = Histogram("times_seconds", "Times.", buckets=(0.1, 1.0), registry=registry)
    for seconds in (0.05, 0.05, 0.5, 5.0):
        times.observe(seconds, {"trace_id": "00f067aa"})
    registry.register(Families(GaugeMetricFamily("foreign_depth", "Of somebody's.", 3)))
    return registry


NAMES_AS_THEY_ARE = ("room.temperature_c", "room.name")


@asynccontextmanager
async def proxied(registry: CollectorRegistry) -> AsyncIterator[BaseTestServer]:
    """Serve the registry's endpoint, and at /0, /1 ... in front of it one format each."""
    app = web.Application()
    aiosvc.setup(app, registry=registry)
    session = ClientSession()

    async def forward(request: web.Request) -> web.Response:
        form = FORMATS[int(request.match_info["number"])]
        url = service.make_url("/metrics")
        async with session.get(url, headers={"Accept": accept(form)}) as answer:
            kind = answer.headers["Content-Type"]
            assert kind == form.content_type
            body = await answer.read()
            return web.Response(body=body, headers={"Content-Type": kind})

    front = web.Application()
    front.router.add_get(r"/{number:\d+}", forward)
    async with session, TestServer(app) as service, TestServer(front) as server:
        yield server


class Scraping(Prometheus):
    """A Prometheus with a job for each format, named as the content type is."""

    def __init__(self, directory: Path, port: int, forms: list[Format]) -> None:
        super().__init__(directory, target_port=port)
        jobs = [
            {
                "job_name": form.content_type,
                "metrics_path": f"/{FORMATS.index(form)}",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            }
            for form in forms
        ]
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
        self._config.write_text(json.dumps(config), encoding="utf-8")
        self.command.append("--enable-feature=exemplar-storage")

    async def exemplars(self, selector: str) -> list[dict[str, str]]:
        """Return the labels of the exemplars of some series."""
        parameters = {"query": selector, "start": "0", "end": "9999999999"}
        found = await self._ask("query_exemplars", parameters)
        return [each["labels"] for series in found for each in series["exemplars"]]


async def check(prometheus: Scraping, form: Format, name: str, label: str) -> None:
    """Fail unless every series of the registry has arrived with its value."""
    job = f'job="{form.content_type}"'

    def named(legal: str) -> str:
        return legal.replace("_", "__") if form.escaping == "dots" else legal

    orders, times = named("orders_total"), named("times_seconds")
    await prometheus.wait_for_value(f"up{{{job}}}", lambda up: up == 1)
    found = await prometheus.wait_for_query(
        f"{name}{{{job}}}", lambda found: len(found) == len(VALUES) + 2
    )
    values = {each.labels[label]: each.value for each in found}
    assert math.isnan(values.pop("none"))
    assert values == {
        **{place: value for place, value in VALUES.items() if place != "none"},
        "hot": math.inf,
        "cold": -math.inf,
    }
    assert await prometheus.value(f'{orders}{{{job},shop="x"}}') == 12345678.5
    buckets = await prometheus.query(f"{times}{named('_bucket')}{{{job}}}")
    assert {each.labels["le"]: each.value for each in buckets} == {"0.1": 2, "1.0": 3, "+Inf": 4}
    assert await prometheus.value(f"{times}{named('_count')}{{{job}}}") == 4
    assert await prometheus.value(f"{times}{named('_sum')}{{{job}}}") == pytest.approx(5.6)
    assert await prometheus.value(f"{named('foreign_depth')}{{{job}}}") == 3
    assert await prometheus.value(f"{named('aiosvc_scrapes_in_progress')}{{{job}}}") >= 1
    names = f"{orders}|{times}{named('_bucket')}"
    traced = await prometheus.exemplars(f'{{__name__=~"{names}",{job}}}')
    ids = {each["trace_id"] for each in traced}
    assert ids == ({"4bf92f35", "00f067aa"} if form.openmetrics else set())


@needs_utf8
async def test_names_that_are_escaped(tmp_path: Path) -> None:
    """In each format that writes names in legal letters, every series arrives, exemplars too."""
    forms = [form for form in FORMATS if form.escaping != "allow-utf-8"]
    async with (
        proxied(registry_of(legal=False)) as server,
        Scraping(tmp_path, server.port or 0, forms) as prometheus,
    ):
        for form in forms:
            await check(prometheus, form, *NAMES[form.escaping])


async def test_names_that_are_legal(tmp_path: Path) -> None:
    """Where no name needs it, `allow-utf-8` and the formats without escaping are read by all."""
    plain = [form for form in FORMATS if form.escaping in ("allow-utf-8", "underscores")]
    async with (
        proxied(registry_of(legal=True)) as server,
        Scraping(tmp_path, server.port or 0, plain) as prometheus,
    ):
        for form in plain:
            await check(prometheus, form, "room_temperature_c", "room_name")


def escaped(text: str) -> str:
    """Return what stands between quotes for *text*."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


async def test_hostile_texts(tmp_path: Path) -> None:
    """Whatever stands in label values and exemplars arrives as it was, whatever the format."""
    forms = [form for form in FORMATS if form.escaping == "underscores"]
    async with (
        proxied(hostile_registry(exemplars=True)) as server,
        Scraping(tmp_path, server.port or 0, forms) as prometheus,
    ):
        for form in forms:
            selector = f'{{__name__=~"jobs[0-9]+_total",job="{form.content_type}"}}'
            found = await prometheus.wait_for_query(
                selector, lambda found: len(found) == len(CORPUS)
            )
            # To Prometheus a label that is empty is none.
            labels = {each.labels["__name__"]: each.labels.get("queue", "") for each in found}
            assert labels == {f"jobs{n}_total": text for n, text in enumerate(CORPUS)}
            traced = await prometheus.exemplars(selector)
            ids = {each.get("trace_id", "") for each in traced}
            # Prometheus 2.42 leaves the escapes in exemplars as they are.
            sent = {escaped(text[:50].replace("\x00", "\ufffd")) for text in CORPUS}
            assert ids == (sent if form.openmetrics else set())


@needs_utf8
@pytest.mark.parametrize("form", [form for form in FORMATS if form.escaping == "allow-utf-8"])
async def test_names_that_are_quoted(form: Format) -> None:
    """Quoted names come back as they are, with their values, from parsers that know them."""
    parse: Any = parse_openmetrics if form.openmetrics else parse_text
    name, label = NAMES_AS_THEY_ARE
    async with proxied(registry_of(legal=False)) as server, ClientSession() as session:
        url = server.make_url(f"/{FORMATS.index(form)}")
        async with session.get(url) as answer:
            text = await answer.text()
    samples = [sample for family in parse(text) for sample in family.samples]
    found = {each.labels[label]: each.value for each in samples if each.name == name}
    assert found.keys() == {*VALUES, "hot", "cold"}
    assert math.isnan(found["none"])
    assert all(found[place] == VALUES[place] for place in VALUES if place != "none")
    assert re.search(r'^\{"room\.temperature_c","room\.name"="usual"\} 21\.5$', text, re.MULTILINE)


@needs_utf8
async def test_prometheus_chooses(tmp_path: Path) -> None:
    """Asked as Prometheus itself asks, the endpoint gives a format that this version can read."""
    app = web.Application()
    aiosvc.setup(app, registry=registry_of(legal=False))
    async with (
        TestServer(app) as server,
        Prometheus(tmp_path, target_port=server.port or 0) as prometheus,
    ):
        usual = '{__name__=~"room[._]temperature_c",job="aiosvc"}'
        found = await prometheus.wait_for_query(usual, lambda found: len(found) == len(VALUES) + 2)
        values = [each.value for each in found if "usual" in each.labels.values()]
        assert values == [21.5]
