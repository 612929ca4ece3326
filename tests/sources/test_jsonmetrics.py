"""Metrics out of JSON documents."""

import asyncio
import time
from typing import Any

import pytest
from prometheus_client import Metric

from aiosvc.errors import ConfigError
from aiosvc.sources.jsonmetrics import DocumentMetrics, FromField, JsonMetric

from .sampled import values

Gauges = dict[str, str | JsonMetric]


async def read(document: Any, gauges: Gauges, max_series: int = 500) -> list[Metric]:
    """Return the families that a document gives."""
    return await DocumentMetrics(gauges, max_series=max_series).families(document)


async def test_several_paths_one_metric() -> None:
    """Texts as labels tell the values of a document apart."""
    found = await read(
        {"pool": {"idle": 1, "active": 2}},
        {
            "pool.idle": JsonMetric("pool_size", "Connections.", labels={"state": "idle"}),
            "pool.active": JsonMetric("pool_size", labels={"state": "active"}),
        },
    )
    assert values(found, "pool_size") == {("idle",): 1.0, ("active",): 2.0}
    assert [(f.name, f.documentation, f.type) for f in found] == [
        ("pool_size", "Connections.", "gauge")
    ]


async def test_lists_of_objects() -> None:
    """Labels come from fields of the same element, of an outer one, and from the path's keys."""
    document = {
        "shards": {
            "eu": {"id": 1, "queues": [{"name": "a", "depth": 3}, {"name": "b", "depth": "4"}]},
            "us": {"id": 2, "queues": []},
        }
    }
    labels: dict[str, str | FromField] = {
        "queue": FromField("name"),
        "id": FromField("$.shards.{shard}.id"),
        "env": "test",
    }
    found = await read(
        document, {"shards.{shard}.queues[*].depth": JsonMetric("depth", labels=labels)}
    )
    assert values(found, "depth") == {("eu", "a", "1", "test"): 3.0, ("eu", "b", "1", "test"): 4.0}


async def test_labels_may_come_in_any_order() -> None:
    """Two paths of one metric may name their labels in different order."""
    found = await read(
        {"x": 1, "y": 2},
        {
            "x": JsonMetric("n", labels={"a": "1", "b": "2"}),
            "y": JsonMetric("n", labels={"b": "3", "a": "4"}),
        },
    )
    assert values(found, "n") == {("1", "2"): 1.0, ("4", "3"): 2.0}


async def test_unknown_is_absent() -> None:
    """A null gives no series, and neither do things that need not be there."""
    found = await read(
        {"a": None, "b": True, "list": [{"v": 1}, {"v": 2, "name": None}, {"name": "x"}]},
        {
            "a": "a",
            "b": "b",
            "c.d": JsonMetric("c", required=False),
            "list[*].v": JsonMetric("v", labels={"name": FromField("name")}, required=False),
        },
    )
    assert values(found, "a") == {}
    assert values(found, "b") == {(): 1.0}
    assert values(found, "c") == {}
    assert values(found, "v") == {("",): 2.0}


async def test_a_counter() -> None:
    """A name with _total is exported as a counter."""
    [family] = await read({"jobs": 7}, {"jobs": "shop_jobs_total"})
    assert (family.name, family.type) == ("shop_jobs", "counter")
    assert values([family], "shop_jobs_total") == {(): 7.0}


@pytest.mark.parametrize(
    ("gauges", "message"),
    [
        ({"gone.x": "a"}, "^gone: missing, and a needs it"),
        ({"list[*].gone": "a"}, r"^list\[0\].gone: missing, and a needs it"),
        ({"pool.text": "a"}, "^pool.text: 'many' is no number"),
        ({"pool": "a"}, "^pool: an object of 1 is no number"),
        ({"list[*].v": "a"}, "^a: two values for the labels {}"),
        (
            {"list[*].v": JsonMetric("a", labels={"b": FromField("gone")})},
            r"list\[0\].gone: missing",
        ),
        (
            {"list[*].v": JsonMetric("a", labels={"b": FromField("$.list")})},
            "^list: a list of 2 is no",
        ),
        ({"pool.text.x": "a"}, "^pool.text: a string; expected an object"),
    ],
)
async def test_another_document_is_an_error_with_its_place(gauges: Gauges, message: str) -> None:
    """What is missing, no number or ambiguous is told by its path."""
    document = {"pool": {"text": "many"}, "list": [{"v": 1}, {"v": 2}]}
    with pytest.raises(ValueError, match=message):
        await read(document, gauges)


@pytest.mark.parametrize(
    ("gauges", "message"),
    [
        ({}, "gauges: {} given; expected a mapping"),
        ([("a", "b")], "expected a mapping of paths"),
        ({"a": 1}, "path 'a': 1 given; expected a name or JsonMetric"),
        ({"a.": "b"}, "path 'a.'"),
        ({"a": "b c"}, "metric 'b c': not a metric name; use letters"),
        ({"a": "http_requests_total"}, "aiosvc exports a metric of that name itself"),
        ({"a": JsonMetric("b", labels={"c": 1})}, "label 'c': 1 given"),  # type: ignore[dict-item]
        ({"a": JsonMetric("b", labels=["c"])}, "is no mapping"),  # type: ignore[arg-type]
        ({"a": JsonMetric("b", labels={"c d": "e"})}, "label 'c d'"),
        ({"{c}": JsonMetric("b", labels={"c": "e"})}, "label 'c' is given twice"),
        ({"{c}.{c}": JsonMetric("b")}, "label 'c' is given twice"),
        ({"a": JsonMetric("b", labels={"c": FromField("d[*]")})}, "must stand where"),
        ({"a": "b", "c": JsonMetric("b", labels={"d": "e"})}, "give all its paths the same ones"),
    ],
)
def test_a_mapping_that_can_not_work_is_refused(gauges: Any, message: str) -> None:
    """A mistake in the mapping is an error at once."""
    with pytest.raises(ConfigError, match=message):
        DocumentMetrics(gauges, max_series=500)


async def test_a_document_can_not_make_series_without_end() -> None:
    """A list that grows and changes leaves a metric at its limit, and is counted."""
    gauges: Gauges = {"items[*].size": JsonMetric("size", labels={"id": FromField("id")})}
    metrics = DocumentMetrics(gauges, max_series=10)
    seen = set()
    for turn in range(20):
        items = [{"id": f"{turn}-{i}", "size": i} for i in range(100)]
        found = await metrics.families({"items": items})
        seen |= set(values(found, "size") or {})
    assert len(seen) == 10
    assert values(found, "aiosvc_label_overflow_total") == {("size", "id"): 20 * 100 - 10}


async def test_a_large_document_does_not_hold_the_loop() -> None:
    """Others have their turn many times while a long list is gone through."""
    items = [{"id": str(i), "size": i} for i in range(20_000)]
    gauges: Gauges = {"[*].size": JsonMetric("size", labels={"id": FromField("id")})}
    reading = asyncio.create_task(DocumentMetrics(gauges, max_series=500).families(items))
    turns = 0
    begun = time.thread_time()
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    milliseconds = (time.thread_time() - begun) * 1000
    assert turns > milliseconds / 20, f"{turns} turns in {milliseconds:.0f} ms"
    await reading
