"""The collector: several reporters on one registry, and names that belong to others."""

import pytest
from prometheus_client import CollectorRegistry, Gauge, Metric, generate_latest

from aiosvc.collector import ServiceCollector, collector_of
from aiosvc.readings import Readings


class Shop:
    """A reporter with one family of a user's."""

    def __init__(self, value: float, **labels: str) -> None:
        self._value = value
        self._labels = labels

    def report(self, readings: Readings) -> None:
        """Say it."""
        family = Metric("shop_carts", "Carts.", "gauge")
        family.add_sample("shop_carts", self._labels, self._value)
        readings.family(family)


def shop(collector: ServiceCollector) -> dict[tuple[str, ...], float]:
    """Return what the collector exports of the family, by label values."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
        if family.name == "shop_carts"
    }


def errors(collector: ServiceCollector) -> dict[str, float]:
    """Return the errors counted, by place."""
    return {
        sample.labels["where"]: sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.name == "aiosvc_instrumentation_errors_total"
    }


def test_two_reporters_add_to_one_family() -> None:
    """Different series of one family come from different sources."""
    collector = ServiceCollector()
    collector.attach(Shop(1, branch="north"))
    collector.attach(Shop(2, branch="south"))
    assert shop(collector) == {("north",): 1, ("south",): 2}
    assert errors(collector) == {}


def test_the_same_series_from_two_sources(caplog: pytest.LogCaptureFixture) -> None:
    """The first one is exported, so the scrape stays valid; the clash is counted, and told once."""
    collector = ServiceCollector()
    collector.attach(Shop(1))
    collector.attach(Shop(2))
    assert shop(collector) == {(): 1}
    assert errors(collector)["family shop_carts"] > 0
    assert len(caplog.records) == 1


def test_a_family_that_the_registry_has_already(caplog: pytest.LogCaptureFixture) -> None:
    """A metric of the user's own goes before a source's family of the same name."""
    registry = CollectorRegistry()
    Gauge("shop_carts", "Mine.", registry=registry).set(7)
    collector = collector_of(registry)
    collector.attach(Shop(1))
    text = generate_latest(registry).decode()
    assert text.count("# TYPE shop_carts gauge") == 1
    assert "shop_carts 7.0" in text
    assert errors(collector)["family shop_carts"] > 0
    assert len(caplog.records) == 1


def test_looking_for_it_leaves_the_registry_as_it_was() -> None:
    """A family that nobody else has is exported, and its name stays free for others."""
    registry = CollectorRegistry()
    collector = collector_of(registry)
    collector.attach(Shop(1))
    assert shop(collector) == {(): 1}
    Gauge("shop_carts", "Mine.", registry=registry)
