"""Who exports the standard process_* names in a registry."""

from collections.abc import Iterator

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from aiosvc import catalogue, ownership
from aiosvc.catalogue import CATALOGUE, MetricSpec
from aiosvc.collector import ServiceCollector, collector_of
from aiosvc.errors import ConfigError
from aiosvc.ownership import STANDARD
from aiosvc.readings import Readings


class Everything:
    """Reports a number for every standard name."""

    def report(self, readings: Readings) -> None:
        """Add them."""
        for spec in STANDARD:
            readings.number(spec, 1)


def made(registry: CollectorRegistry) -> ServiceCollector:
    """Return the registry's collector, with every standard name to report, after it looked."""
    collector = collector_of(registry)
    collector.attach(Everything())
    collector.ownership.look()
    return collector


def exported(registry: CollectorRegistry) -> list[str]:
    """Return the process_* families of a scrape."""
    lines = generate_latest(registry).decode().splitlines()
    found = [line.split()[2] for line in lines if line.startswith("# TYPE process_")]
    return sorted(name for name in found if not name.endswith("_created"))


NAMES = sorted(spec.name for spec in STANDARD)


def test_the_standard_names_are_those_of_prometheus_client() -> None:
    """The rows have the names, types and texts that prometheus_client's collector has."""
    theirs = {m.name: m for m in ProcessCollector(registry=None).collect()}
    if not theirs:
        pytest.skip("prometheus_client's collector needs /proc")
    ours = {spec.name.removesuffix("_total"): spec for spec in STANDARD}
    assert ours.keys() == theirs.keys()
    for name, metric in theirs.items():
        assert (ours[name].kind, ours[name].help) == (metric.type, metric.documentation)


def test_all_are_ours_where_nobody_has_them() -> None:
    """A registry of its own has each name once, from us."""
    registry = CollectorRegistry()
    made(registry)
    assert exported(registry) == NAMES


@pytest.mark.parametrize("described", [True, False])
def test_none_is_ours_beside_a_process_collector(described: bool) -> None:
    """A ProcessCollector keeps its names, whether or not the registry knows that it has them."""
    registry = CollectorRegistry(auto_describe=described)
    ProcessCollector(registry=registry)
    collector = made(registry)
    assert exported(registry) == NAMES
    assert not any(collector.ownership.exports(spec) for spec in STANDARD)


def test_a_process_collector_between_setup_and_start() -> None:
    """One that the registry does not know by name is found when the process is read."""
    registry = CollectorRegistry()
    collector = collector_of(registry)
    ProcessCollector(registry=registry)
    collector.attach(Everything())
    collector.ownership.look()
    assert exported(registry) == NAMES
    assert not collector.ownership.exports(catalogue.PROCESS_CPU)


def test_a_process_collector_too_late() -> None:
    """Where the registry knows names, a second owner is refused when it is registered."""
    registry = CollectorRegistry(auto_describe=True)
    made(registry)
    with pytest.raises(ValueError, match=r"Duplicated timeseries.*process_"):
        ProcessCollector(registry=registry)
    assert exported(registry) == NAMES


def test_a_single_name_of_somebody_else() -> None:
    """Name by name: one that a metric of the user's has is left to it, the others are ours."""
    registry = CollectorRegistry()
    Gauge("process_open_fds", "Mine.", registry=registry).set(5)
    Counter("process_cpu_seconds", "Mine.", registry=registry)
    collector = made(registry)
    assert exported(registry) == NAMES
    assert registry.get_sample_value("process_open_fds") == 5
    assert registry.get_sample_value("process_max_fds") == 1
    mine = {spec for spec in STANDARD if not collector.ownership.exports(spec)}
    assert mine == {catalogue.PROCESS_OPEN_FDS, catalogue.PROCESS_CPU}


def test_looking_for_names_asks_nobody_and_leaves_nothing() -> None:
    """Collectors of the user are not asked, and nothing but ours is registered."""
    registry = CollectorRegistry()

    class Slow(Collector):
        def collect(self) -> Iterator[Metric]:
            raise AssertionError("asked")

    registry.register(Slow())
    collector = collector_of(registry)
    collector.ownership.look()
    registry.unregister(collector)
    for spec in CATALOGUE:
        registry.register(Name(spec))


class Name(Collector):
    """Has a name."""

    def __init__(self, spec: MetricSpec) -> None:
        self.spec = spec

    def describe(self) -> list[Metric]:
        """Give it."""
        return [Metric(self.spec.name.removesuffix("_total"), "x", self.spec.kind)][
            self.spec.clashes :
        ]

    def collect(self) -> list[Metric]:
        """Give nothing."""
        return []


def test_other_names_are_refused_as_before() -> None:
    """A name of ours that is no standard one is an error at setup."""
    registry = CollectorRegistry()
    Gauge("process_threads", "Mine.", registry=registry)
    with pytest.raises(ConfigError, match="process_threads"):
        collector_of(registry)


def test_a_source_of_a_name_that_is_ours_later() -> None:
    """A source's family is exported while its name is free, and no longer than that."""
    registry = CollectorRegistry()
    collector = collector_of(registry, ())

    class Source:
        def report(self, readings: Readings) -> None:
            readings.family(GaugeMetricFamily("queue_depth", "Mine.", value=5))

    collector.attach(Source())
    assert registry.get_sample_value("queue_depth") == 5
    assert collector_of(registry, catalogue.QUEUES) is collector
    assert registry.get_sample_value("queue_depth") is None
    where = {"where": "family queue_depth"}
    assert registry.get_sample_value("aiosvc_instrumentation_errors_total", where) is not None


def test_a_registry_that_was_emptied() -> None:
    """Whoever needs further names after that puts the collector back."""
    registry = CollectorRegistry()
    collector = collector_of(registry, ())
    registry.unregister(collector)
    assert collector_of(registry, catalogue.QUEUES) is collector
    assert b"aiosvc_build_info{" in generate_latest(registry)


def test_what_services_share_is_made_once() -> None:
    """The second service of a registry gets what the first one made."""
    collector = ServiceCollector()
    first = collector.share("things", Everything)
    assert collector.share("things", Everything) is first
    assert collector.share("others", Everything) is not first


def test_a_process_collector_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a ProcessCollector that can't be asked all names are left to it."""
    registry = CollectorRegistry()

    def fail(_collector: ProcessCollector) -> list[Metric]:
        raise ValueError("could not convert string to float: b'unlimited'")

    monkeypatch.setattr(ProcessCollector, "collect", fail)
    ProcessCollector(registry=registry)
    collector = collector_of(registry)
    collector.ownership.look()
    assert not any(collector.ownership.exports(spec) for spec in STANDARD)


def test_a_registry_that_keeps_its_collectors_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where prometheus_client's private names have changed, what it describes is known still."""
    registry = CollectorRegistry()
    Gauge("process_open_fds", "Mine.", registry=registry)
    collector = collector_of(registry)

    def gone(*_: object) -> list[object]:
        raise AttributeError("_collector_to_names")

    monkeypatch.setattr(ownership, "collectors_of", gone)
    collector.ownership.look()
    assert {s for s in STANDARD if not collector.ownership.exports(s)} == {
        catalogue.PROCESS_OPEN_FDS
    }
