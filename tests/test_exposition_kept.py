"""
What the exposition keeps between scrapes, how it is cut into slices, and what a failure costs.

Threads are given the GIL every microsecond, so what can be torn is.
"""

import gc
import logging
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from expositions import Families, no_error, reference, rendered, sample_registry
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, Summary
from prometheus_client.core import GaugeMetricFamily

from aiosvc import blocks, clientmetrics, exposition
from aiosvc.exposition import IDLE_SCRAPES, Exposition, self_check
from aiosvc.families import LIMIT
from aiosvc.formats import OPENMETRICS, TEXT, Format

DOTS = Format("text/plain", "1.0.0", "dots")


def whole(exposed: Exposition, form: Format = TEXT) -> bytes:
    """Return one scrape."""
    return b"".join(exposed.render(form))


def exposed_registry() -> tuple[CollectorRegistry, Exposition]:
    """Return an empty registry and its exposition."""
    registry = CollectorRegistry()
    return registry, Exposition(registry, on_error=no_error)


def kept(exposed: Exposition) -> int:
    """Return for how many collectors something is kept."""
    return len(exposed._renderer._kept)


# -- Series that come and go -----------------------------------------------------------------------


def remove(counter: Counter) -> None:
    """Take one series away."""
    counter.remove("5")


@pytest.mark.parametrize(
    "go", [remove, lambda counter: counter.clear(), None], ids=["remove", "clear", "unregister"]
)
def test_a_series_that_went_is_forgotten(go: Callable[[Counter], None] | None) -> None:
    """After the next scrape nothing holds a removed series, nor a metric that was unregistered."""
    registry, exposed = exposed_registry()
    counter = Counter("jobs", "Jobs.", ["queue"], registry=registry)
    for number in range(10):
        counter.labels(str(number)).inc()
    assert b'queue="5"' in whole(exposed)
    series = weakref.ref(counter.labels("5"))
    metric = weakref.ref(counter)
    if go is not None:
        go(counter)
    else:
        registry.unregister(counter)
    assert whole(exposed) == reference(registry, TEXT)
    assert b'queue="5"' not in whole(exposed)
    if go is None:
        assert kept(exposed) == 0
        del counter
    gc.collect()
    assert series() is None
    assert (metric() is None) == (go is None)


def test_an_exposition_that_is_dropped_holds_nothing() -> None:
    """A registry and its metrics end with the exposition, also after a scrape half read."""
    registry, exposed = exposed_registry()
    metric = weakref.ref(Histogram("time", "Time.", registry=registry))
    whole(exposed)
    next(exposed.render())
    del registry, exposed
    gc.collect()
    assert metric() is None


def test_memory_under_churn() -> None:
    """A thousand scrapes with other series each time keep no more than two scrapes' text."""
    registry, exposed = exposed_registry()
    gauge = Gauge("depth", "Depth.", ["queue"], registry=registry)

    class Churning:
        number = 0

        def collect(self) -> Iterator[Metric]:
            self.number += 1
            family = GaugeMetricFamily("own", "Own.", labels=["n"])
            for place in range(10):
                family.add_metric([f"{self.number}-{place}"], 1)
            yield family

    registry.register(Churning())
    for number in range(1000):
        gauge.labels(str(number))
        if number >= 10:
            gauge.remove(str(number - 10))
        whole(exposed)
    per_metric = exposed._renderer._kept.values()
    for each in per_metric:
        for family in each._families.values():
            members, count, _ = family._members._known
            assert count == sum(len(block.series) for block in members) == 10
            assert len(members) == 1
        for text in each._texts.values():
            assert len(text._starts.known) <= 20


@pytest.mark.parametrize("seed", range(8))
def test_series_that_come_and_go_in_any_order(seed: int) -> None:
    """However series come and go, the bytes are right, and blocks neither grow nor crumble."""
    import random  # noqa: PLC0415 - a sequence of its own for each seed

    chance = random.Random(seed)
    registry, exposed = exposed_registry()
    metrics: list[Any] = [
        Counter("jobs", "Jobs.", ["n"], registry=registry),
        Histogram("time", "Time.", ["n"], registry=registry),
    ]
    for _ in range(12):
        for metric in metrics:
            change = chance.choice(["add", "add many", "remove", "remove many", "clear", "touch"])
            if change == "clear" and chance.random() < 0.5:
                metric.clear()
            for _ in range(300 if "many" in change else 1):
                name = str(chance.randrange(1500))
                if "remove" in change:
                    metric.remove(name)
                else:
                    series = metric.labels(name)
                    (series.inc if metric is metrics[0] else series.observe)(chance.random())
        assert whole(exposed) == reference(registry, TEXT)
        assert whole(exposed, OPENMETRICS) == reference(registry, OPENMETRICS)
    for each in exposed._renderer._kept.values():
        members, count, _ = each._families["underscores"]._members._known
        sizes = [len(block.series) for block in members]
        capacity = blocks.SIZE // each._families["underscores"]._reader.width
        assert all(0 < size <= capacity for size in sizes)
        assert len(sizes) <= 2 * count / capacity + 2


def test_an_escaping_that_nobody_asks_for_any_more() -> None:
    """Text for another escaping is dropped after some scrapes without it."""
    registry, exposed = exposed_registry()
    Counter("some_jobs", "Jobs.", ["queue"], registry=registry).labels("a").inc()
    registry.register(Families(GaugeMetricFamily("own_depth", "Depth.", 1)))
    whole(exposed, DOTS)
    for _ in range(2 * IDLE_SCRAPES):
        whole(exposed)
    for each in exposed._renderer._kept.values():
        assert set(each._families) | set(each._texts) == {"underscores"}
    assert whole(exposed, DOTS) == whole(Exposition(registry), DOTS)


def test_escapings_share_what_they_write_alike() -> None:
    """Legal names without underscores to escape are kept once for all escapings but dots."""
    registry, exposed = exposed_registry()
    Counter("jobs", "Jobs.", ["queue"], registry=registry).labels("a").inc()
    utf8 = Format("application/openmetrics-text", "1.0.0", "allow-utf-8")
    for form in (TEXT, utf8, DOTS):
        whole(exposed, form)
    (only,) = exposed._renderer._kept.values()
    families = only._families
    assert families["underscores"] is families["allow-utf-8"]
    assert families["underscores"] is not families["dots"]


def test_line_starts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector with more samples than the limit is served whole, and no more is kept."""
    assert LIMIT == 200_000
    monkeypatch.setattr("aiosvc.families.LIMIT", 10)
    family = GaugeMetricFamily("own", "Own.", labels=["n"])
    for number in range(100):
        family.add_metric([str(number)], number)
    registry, exposed = exposed_registry()
    registry.register(Families(family))
    for _ in range(2):
        assert whole(exposed) == reference(registry, TEXT)
    (only,) = exposed._renderer._kept.values()
    assert len(only._texts["underscores"]._starts.known) == 10


def test_subclasses() -> None:
    """A subclass that adds is read like its base; what overrides something is asked."""

    class More(Counter):
        def twice(self) -> None:
            self.inc(2)

    class Other(Counter):
        def collect(self) -> list[Metric]:
            return [GaugeMetricFamily("other", "Other.", 7)]

    registry, exposed = exposed_registry()
    More("more", "More.", registry=registry).twice()
    Other("other", "Other.", registry=registry)
    replaced: Any = Gauge("replaced", "Replaced.", registry=registry)
    replaced.collect = lambda: [GaugeMetricFamily("replaced", "Replaced.", 8)]
    for _ in range(2):
        text = whole(exposed)
        assert text == reference(registry, TEXT)
    assert b"more_total 2.0" in text
    assert b"other 7.0" in text
    assert b"replaced 8.0" in text


def test_an_unlabelled_metric_that_is_begun_anew() -> None:
    """A metric whose values are replaced by others, as tests do to reset it, is read from those."""
    registry, exposed = exposed_registry()
    counter = Counter("jobs", "Jobs.", registry=registry)
    counter.inc(5)
    assert b"jobs_total 5.0" in whole(exposed)
    counter._metric_init()
    counter.inc()
    assert whole(exposed) == reference(registry, TEXT)


def test_a_gauge_that_gets_a_function_later() -> None:
    """Functions given to gauges after the first scrape are called at the next."""
    registry, exposed = exposed_registry()
    gauge = Gauge("depth", "Depth.", ["queue"], registry=registry)
    gauge.labels("a").set(1)
    gauge.labels("b").set(2)
    assert whole(exposed) == reference(registry, TEXT)
    gauge.labels("b").set_function(lambda: -0.0)
    for _ in range(2):
        assert b'depth{queue="b"} -0.0\n' in whole(exposed)
        assert whole(exposed) == reference(registry, TEXT)


# -- Threads ---------------------------------------------------------------------------------------


@contextmanager
def many_switches() -> Iterator[None]:
    """Let threads take turns every microsecond."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@contextmanager
def busy(*work: Callable[[int], object]) -> Iterator[None]:
    """Do each of *work* over and over in a thread of its own."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run(each: Callable[[int], object]) -> None:
        number = 0
        try:
            while not stop.is_set():
                each(number)
                number += 1
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            errors.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    with many_switches():
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert errors == []


def torn(text: bytes) -> list[tuple[str, list[float], float]]:
    """Return the histograms whose buckets fall, or whose count is not their last bucket."""
    buckets: dict[str, list[float]] = {}
    counts: dict[str, float] = {}
    for line in text.decode().splitlines():
        start, _, value = line.partition(" # ")[0].rpartition(" ")
        if start.startswith("time_bucket"):
            buckets.setdefault(start.partition(",n=")[2], []).append(float(value))
        elif start.startswith("time_count"):
            counts[start.partition("{n=")[2]] = float(value)
    assert set(buckets) == set(counts) != set()
    return [
        (name, each, counts[name])
        for name, each in buckets.items()
        if each != sorted(each) or each[-1] != counts[name] or len(each) != 15
    ]


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
def test_a_histogram_is_never_torn(form: Format) -> None:
    """While threads observe, and scrapes are cut, each histogram's buckets and count agree."""
    registry = CollectorRegistry()
    exposed = Exposition(registry, on_error=no_error, budget=0)
    histogram = Histogram("time", "Time.", ["n"], registry=registry)
    series = [histogram.labels(str(number)) for number in range(100)]
    scrapes = 0
    with busy(
        lambda n: series[n % 100].observe(n % 11, {"trace_id": str(n)}),
        lambda n: series[n * 7 % 100].observe(n % 11 + 0.5),
        lambda _: torn(whole(exposed, TEXT)),
    ):
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert torn(b"".join(chunk for chunk in exposed.render(form))) == []
            scrapes += 1
    assert scrapes > 3
    assert whole(exposed, form) == reference(registry, form)


def test_series_that_come_and_go_during_a_scrape() -> None:
    """While threads add and remove series, every scrape is well-formed, and the last one right."""
    registry, exposed = exposed_registry()
    counter = Counter("jobs", "Jobs.", ["n"], registry=registry)
    for number in range(2000):
        counter.labels(str(number)).inc()

    def come_and_go(number: int) -> None:
        counter.labels(f"new-{number % 50}").inc()
        counter.remove(f"new-{(number + 25) % 50}")

    def clear(number: int) -> None:
        time.sleep(0.05)
        counter.clear()
        counter.labels(str(number)).inc()

    with busy(come_and_go, clear, lambda _: whole(exposed, OPENMETRICS)):
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            for line in whole(exposed).splitlines():
                name, _, value = line.rpartition(b" ")
                assert name.startswith((b"jobs_total{", b"jobs_created{", b"# ")), line
                assert value, line
    assert whole(exposed) == reference(registry, TEXT)


def test_a_dict_that_changes_while_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series that are added and removed between two steps of a copy are neither lost nor kept."""
    monkeypatch.setattr(blocks, "STEP", 10)
    registry, exposed = exposed_registry()
    counter = Counter("jobs", "Jobs.", ["n"], registry=registry)
    for number in range(100):
        counter.labels(str(number))
    exposed._budget = -1  # so each piece is a step
    got = []
    for number, chunk in enumerate(exposed.render()):
        got.append(chunk)
        if number < 100 and not any(got):
            counter.remove(str(number))
            counter.labels(str(1000 + number))
    assert len(got) > 10
    assert b"".join(got).count(b"jobs_total{") == 100
    assert whole(exposed) == reference(registry, TEXT)


def test_two_scrapes_step_by_step() -> None:
    """Two scrapes that take turns on one thread give the same as one after the other."""
    registry = sample_registry()
    exposed = Exposition(registry, on_error=no_error, budget=0)
    one, other = exposed.render(), exposed.render(OPENMETRICS)
    got: tuple[list[bytes], list[bytes]] = ([], [])
    going = True
    while going:
        chunks = next(one, None), next(other, None)
        going = chunks != (None, None)
        got[0].append(chunks[0] or b"")
        got[1].append(chunks[1] or b"")
    assert b"".join(got[0]) == reference(registry, TEXT)
    assert b"".join(got[1]) == reference(registry, OPENMETRICS)


# -- Slices ----------------------------------------------------------------------------------------


def test_slices_keep_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is done in a step than fits into the budget, going by what the last piece took."""
    registry = CollectorRegistry()
    counter = Counter("jobs", "Jobs.", ["n"], registry=registry)
    for number in range(5000):
        counter.labels(str(number))
    clock = SimpleNamespace(now=0.0, looks=0)

    def look() -> float:
        clock.now += 0.0005
        clock.looks += 1
        return float(clock.now)

    monkeypatch.setattr(exposition, "perf_counter", look)
    steps = []
    exposed = Exposition(registry, budget=0.002, chunk_size=10**9)
    for _ in exposed.render():
        steps.append(clock.looks)
        clock.looks = 0
    assert max(steps) <= 5
    assert len(steps) > 10


def test_chunks_are_about_as_large_as_wanted() -> None:
    """Chunks are sent as soon as there is enough, so memory does not grow with the scrape."""
    registry = CollectorRegistry()
    counter = Counter("jobs", "Jobs.", ["n"], registry=registry)
    for number in range(20_000):
        counter.labels(str(number))
    exposed = Exposition(registry, budget=60, chunk_size=10_000)
    whole(exposed)
    chunks = list(exposed.render())
    assert len(chunks) > 50
    assert max(map(len, chunks)) < 10_000 + 30_000
    assert b"".join(chunks) == reference(registry, TEXT)


def test_a_scrape_that_is_given_up() -> None:
    """A scrape may end at any step; the next one is whole."""
    registry = sample_registry()
    exposed = Exposition(registry, on_error=no_error, budget=-1)
    for steps in range(0, 60, 3):
        scrape = exposed.render(OPENMETRICS)
        for _ in range(steps):
            next(scrape, None)
        scrape.close()  # type: ignore[attr-defined]
    assert whole(exposed) == reference(registry, TEXT)


# -- Failures --------------------------------------------------------------------------------------


class Failing:
    """A collector that gives some families and then raises."""

    def __init__(self, error: Exception, families: int) -> None:
        self.error = error
        self.families = families

    def describe(self) -> list[Metric]:
        """Give nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give some, then raise."""
        for number in range(self.families):
            yield GaugeMetricFamily(f"half_{number}", "Half.", number)
        raise self.error


def bad_family(**sample: Any) -> Families:
    """Return a collector with a good family and one that can't be written."""
    family = Metric("bad", "Bad.", "gauge")
    family.add_sample(**{"name": "bad", "labels": {}, "value": 1, **sample})
    return Families(GaugeMetricFamily("half", "Half.", 1), family)


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
@pytest.mark.parametrize(
    "failing",
    [
        Failing(RuntimeError("at once"), 0),
        Failing(RuntimeError("half way"), 3),
        Failing(RuntimeError("huge " * 1_000_000), 1),
        bad_family(value="many"),
        bad_family(value=None),
        bad_family(labels={"queue": 5}),
        bad_family(labels={"queue": None}),
        Families(None),  # type: ignore[arg-type]
        Families.__new__(Families),
    ],
)
def test_a_collector_that_fails_costs_only_its_own_families(form: Format, failing: Any) -> None:
    """What failed is reported and wholly absent; everything else is there, to the end."""
    registry = CollectorRegistry()
    Gauge("before", "Before.", registry=registry)
    registry.register(failing)
    Gauge("after", "After.", registry=registry)
    failed: list[tuple[str, Exception]] = []
    exposed = Exposition(registry, on_error=lambda name, error: failed.append((name, error)))
    for scrapes in (1, 2):
        text = whole(exposed, form)
        assert len(failed) == scrapes
        assert failed[-1][0] == type(failing).__name__
        assert b"\nbefore 0.0\n" in text
        assert b"\nafter 0.0\n" in text
        assert b"half" not in text
        assert b"bad" not in text
        assert text.endswith(b"\n# EOF\n") == form.openmetrics


@pytest.mark.parametrize("size", [1, 2000])
def test_a_gauge_whose_function_fails(size: int) -> None:
    """A gauge's function that raises costs its metric, reported by name, and comes back with it."""
    registry = CollectorRegistry()
    failed: list[str] = []
    exposed = Exposition(registry, on_error=lambda name, _: failed.append(name))
    depth = Gauge("depth", "Depth.", ["queue"], registry=registry)
    for number in range(size):
        depth.labels(str(number)).set(1)
    Gauge("after", "After.", registry=registry)

    def fail() -> NoReturn:
        raise ConnectionError("no broker")

    depth.labels(str(size - 1)).set_function(fail)
    text = whole(exposed)
    assert failed == ["depth"]
    assert b"depth" not in text
    assert b"\nafter 0.0\n" in text
    depth.labels(str(size - 1)).set_function(lambda: 2)
    assert whole(exposed) == reference(registry, TEXT)
    assert failed == ["depth"]


def test_an_error_callback_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The scrape goes on also where the callback for errors raises, and that is logged."""
    registry = CollectorRegistry()
    registry.register(Failing(RuntimeError("x"), 0))
    Gauge("after", "After.", registry=registry)

    def on_error(_name: str, _error: Exception) -> NoReturn:
        raise KeyError("y")

    text = b"".join(Exposition(registry, on_error=on_error).render())
    assert b"after 0.0" in text
    assert "callback" in caplog.text


def test_without_a_callback_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing fails silently."""
    registry = CollectorRegistry()
    registry.register(Failing(RuntimeError("the reason"), 0))
    assert b"".join(Exposition(registry).render()) == b""
    assert "the collector Failing failed; its metrics are missing" in caplog.text
    assert "the reason" in caplog.text


def test_a_metric_that_is_not_as_we_know_it() -> None:
    """A metric whose values are kept in some other way is asked for them."""
    registry, exposed = exposed_registry()
    summary = Summary("read", "Read.", ["n"], registry=registry)
    for number in range(1000):
        summary.labels(str(number)).observe(number)
    whole(exposed)

    class Value:
        def get(self) -> float:
            return 17.0

    odd: Any = summary.labels("odd")
    odd._sum = Value()
    assert whole(exposed) == reference(registry, TEXT)
    assert b'read_sum{n="odd"} 17.0\n' in whole(exposed)


# -- Another prometheus_client ---------------------------------------------------------------------


@pytest.fixture
def _unchecked() -> Iterator[None]:
    exposition._is_trusted.cache_clear()
    yield
    exposition._is_trusted.cache_clear()


def wrong(registry: Any, *_: Any, **__: Any) -> bytes:
    """Write metrics as no version does today."""
    return b"# a new format\n" + b"".join(b"%d\n" % len(m.samples) for m in registry.collect())


@pytest.mark.usefixtures("_unchecked")
def test_another_format(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where the self-check fails, prometheus_client writes everything, after one warning."""
    monkeypatch.setattr(exposition, "generate_latest", wrong)
    assert not self_check()
    registry = sample_registry()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            exposed = Exposition(registry, chunk_size=10)
            chunks = list(exposed.render())
            assert b"".join(chunks) == wrong(registry)
            assert max(map(len, chunks)) == 10
    assert len(caplog.records) == 1
    assert "is not as we know it" in caplog.text


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize("name", ["_registered", "_owners"])
def test_private_names_that_are_gone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where a private name is missing, public functions give the same bytes."""

    def gone(_: object) -> NoReturn:
        raise AttributeError(name)

    monkeypatch.setattr(clientmetrics, name, gone)
    registry = sample_registry()
    assert not self_check()
    for form in (TEXT, OPENMETRICS):
        assert rendered(registry, form) == reference(registry, form)
        names = ["shop0_depth"]
        expected = reference(registry.restricted_registry(names), form)
        assert rendered(registry, form, names) == expected


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    "name", ["_value", "_children", "_labelvalues", "_buckets", "_created", "_description", "_sum"]
)
def test_private_names_of_metrics_that_are_gone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where a metric's private name is missing, the metric is asked, and all bytes are the same."""

    def gone(_: object) -> NoReturn:
        raise AttributeError(name)

    monkeypatch.setattr(clientmetrics, name, gone)
    registry = sample_registry()
    for form in (TEXT, OPENMETRICS):
        assert rendered(registry, form) == reference(registry, form)


def test_private_names_are_known_in_one_place() -> None:
    """What prometheus_client calls private is spelled in one module of the exposition."""
    private = re.compile(
        r"""["'.](_collector_to_names|_names_to_collectors|_metrics|_labelvalues|_value|_child_samples"""
        r"""|_upper_bounds|_created|_use_created|_exemplar|_documentation)\b(?!["']:)"""
    )
    package = Path(exposition.__file__).parent
    names = ["exposition", "families", "blocks", "seriestext", "formats", "negotiation", "codings"]
    for name in names:
        text = (package / f"{name}.py").read_text(encoding="utf-8")
        assert [each for each in private.findall(text) if each != "_created"] == [], name
