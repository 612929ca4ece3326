"""The registry's collector: read in steps, while applications come and go; clashing names."""

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from aiosvc import catalogue
from aiosvc.collector import ATTEMPTS, ServiceCollector, collector_of
from aiosvc.config import Settings
from aiosvc.families import Handed
from aiosvc.labels import LabelPolicy
from aiosvc.readings import Readings, Stepwise
from aiosvc.requests import STEP, RequestMetrics


class Many:
    """A reporter that counts bad requests, and reports them in steps."""

    def __init__(self, count: int, steps: int = 10) -> None:
        self.count = count
        self.number = steps

    def report(self, readings: Readings) -> None:
        """Add them."""
        for _ in self.steps(readings):
            pass

    def steps(self, readings: Readings) -> Iterator[None]:
        """Add them, the last ones last."""
        for _ in range(self.number):
            yield
        readings.number(catalogue.HTTP_BAD_REQUESTS, self.count)


@pytest.fixture
def collector() -> ServiceCollector:
    """Give the collector of a new registry."""
    return collector_of(CollectorRegistry())


def bad_requests(handed: list[Handed]) -> float:
    """Return what all reporters together have counted."""
    for each in handed:
        if isinstance(each, tuple) and each[0].name == "http_bad_requests":
            [row] = each[1]
            return row.numbers[0]
    raise AssertionError("nobody has counted")


def consumed(series: Iterator[Handed]) -> list[Handed]:
    """Return all of it, with the rows that each has."""
    return [(each[0], list(each[1])) if isinstance(each, tuple) else each for each in series]


@pytest.mark.parametrize("after", range(14))
def test_one_that_goes_while_it_is_read(collector: ServiceCollector, after: int) -> None:
    """Whenever an application goes, what it counted is in the scrape once, and nobody waits."""
    leaving = Many(5)
    collector.attach(leaving)
    collector.attach(Many(2))
    series = collector.series()
    for _ in range(after):
        assert next(series) == b""
    collector.retire(leaving)
    leaving.count = 0  # as an application does that can be started again
    assert bad_requests(consumed(series)) == 7
    assert bad_requests(consumed(collector.series())) == 7


def test_one_goes_each_time(collector: ServiceCollector) -> None:
    """Where applications go faster than they can be read, reading ends all the same, and is right."""
    leaving = [Many(1) for _ in range(20)]
    for each in leaving:
        collector.attach(each)
    series = collector.series()
    found: list[Handed] = []
    for number, handed in enumerate(series):
        if isinstance(handed, tuple):
            found.append((handed[0], list(handed[1])))
        if number % 30 == 29 and leaving:
            collector.retire(leaving.pop())
    assert len(leaving) < 20 - ATTEMPTS
    assert bad_requests(found) == 20


def test_one_that_fails_between_two_steps(collector: ServiceCollector) -> None:
    """A reporter that fails costs what it had still to say, and is counted."""

    class Failing(Many):
        def steps(self, readings: Readings) -> Iterator[None]:
            yield
            raise RuntimeError("no")

    collector.attach(Failing(1))
    collector.attach(Many(3))
    names = {each.name: each for each in collector.collect() if isinstance(each, Metric)}
    assert names["http_bad_requests"].samples[0].value == 3
    [errors] = names["aiosvc_instrumentation_errors"].samples
    assert (errors.labels, errors.value) == ({"where": "report of Failing"}, 1)


@pytest.mark.parametrize("preset", ["classic", "otel"])
def test_steps_are_small(monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    """However many routes there are, a step reads no more than a few of them."""
    settings = Settings(max_endpoints=2000, preset=preset)
    requests = RequestMetrics(settings, LabelPolicy({}, lambda *_: None))
    for number in range(1000):
        series = requests.route("GET", f"/{number}")
        if requests.refined:
            series = requests.refine(series, None, None, (200, "http", ""))
        series.finish(200, 0.1, 1, 1)
        requests.socket(f"/{number}").close(1000, 1.0)
    assert isinstance(requests, Stepwise)
    readings = Readings()
    added = 0
    add = Readings.distribution

    def counted(*arguments: object) -> None:
        nonlocal added
        added += 1
        add(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Readings, "distribution", counted)
    before, most = 0, 0
    for _ in requests.steps(readings):
        most = max(most, added - before)
        before = added
    assert added >= 1000
    assert most <= 3 * STEP
    whole = Readings()
    requests.report(whole)
    assert whole.numbers == readings.numbers
    assert whole.distributions == readings.distributions


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


class Process:
    """A reporter that read the CPU time of the process at some time."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def report(self, readings: Readings) -> None:
        """Add it, while it is known."""
        if self.seconds is not None:
            readings.number(catalogue.PROCESS_CPU, self.seconds)


def cpu_seconds(collector: ServiceCollector) -> float | None:
    """Return what is exported, None where nothing is."""
    for family in collector.collect():
        if family.name == "process_cpu_seconds":
            return next((sample.value for sample in family.samples), None)
    return None


def test_a_fact_of_the_process_does_not_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who read the process last may go; the older number of another one is not a counter's fall."""
    collector = ServiceCollector()
    late, early = Process(5.2), Process(5.1)
    collector.attach(late)
    collector.attach(early)
    assert cpu_seconds(collector) == 5.2
    late.seconds = None  # it was stopped
    collector.retire(late)
    assert cpu_seconds(collector) == 5.2
    early.seconds = 5.3
    assert cpu_seconds(collector) == 5.3
    # A child of a fork has used less.
    monkeypatch.setattr("os.getpid", lambda: 1)
    early.seconds = 0.1
    assert cpu_seconds(collector) == 0.1


def test_a_fact_of_the_process_that_nobody_reads_is_absent() -> None:
    """What was said last is not said for ever."""
    collector = ServiceCollector()
    only = Process(5.2)
    collector.attach(only)
    assert cpu_seconds(collector) == 5.2
    only.seconds = None  # it was stopped
    collector.retire(only)
    assert cpu_seconds(collector) is None


def test_one_name_with_two_types(collector: ServiceCollector) -> None:
    """Two sources that give one family different types do not spoil the scrape; one is left out."""

    class Giving:
        def __init__(self, family: Metric) -> None:
            self.family = family

        def report(self, readings: Readings) -> None:
            readings.family(self.family)

    for family in (
        GaugeMetricFamily("shop", "Shop.", value=1),
        CounterMetricFamily("shop", "S.", value=2),
    ):
        collector.attach(Giving(family))
    found = [family for family in collector.collect() if family.name == "shop"]
    assert [(f.type, [s.name for s in f.samples]) for f in found] == [("gauge", ["shop"])]
    [errors] = [f for f in collector.collect() if f.name == "aiosvc_instrumentation_errors"]
    assert errors.samples[0].labels == {"where": "family shop"}
