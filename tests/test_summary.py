"""A summary with quantiles: like prometheus_client's to use, and true about the last minutes."""

import asyncio
import gc
import logging
import math
import threading
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import prometheus_client
import pytest
from expositions import HOSTILE, SOUND, by_family, needs_escaping, no_error, reference, rendered
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import aiosvc
from aiosvc.exposition import Exposition
from aiosvc.formats import OPENMETRICS, TEXT
from aiosvc.summary import BATCH


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return an empty registry."""
    return CollectorRegistry()


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


Make = Callable[..., aiosvc.Summary]


@pytest.fixture
def make(registry: CollectorRegistry, clock: Clock) -> Make:
    """Return a function that makes a summary in the registry, on the clock."""

    def made(labelnames: Iterable[str] = (), **options: Any) -> aiosvc.Summary:
        return aiosvc.Summary(
            "wait_seconds", "Wait.", labelnames, registry=registry, clock=clock, **options
        )

    return made


def shown(registry: CollectorRegistry) -> dict[str, float]:
    """Return the samples that a scrape shows, by what stands before the value."""
    lines = rendered(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_quantiles_count_and_sum(registry: CollectorRegistry, make: Make) -> None:
    """The usual quantiles come with a label, within one percent; count and sum are exact."""
    summary = make()
    for value in range(1, 1001):
        summary.observe(value)
    found = shown(registry)
    assert found.pop("wait_seconds_count") == 1000
    assert found.pop("wait_seconds_sum") == 500_500
    for quantile, true in (("0.5", 500), ("0.9", 900), ("0.99", 990)):
        answer = found.pop(f'wait_seconds{{quantile="{quantile}"}}')
        assert answer == pytest.approx(true, rel=0.0101)
    assert found == {}


def test_only_the_window_has_quantiles(
    registry: CollectorRegistry, make: Make, clock: Clock
) -> None:
    """What has left the window no longer counts in quantiles, and stays in count and sum."""
    summary = make(quantiles=(0.5,), window=60, age_buckets=6)
    summary.observe(100)
    clock.now += 30
    summary.observe(1)
    assert shown(registry)['wait_seconds{quantile="0.5"}'] == pytest.approx(1, rel=0.01)
    clock.now += 29
    assert shown(registry)['wait_seconds{quantile="0.5"}'] == pytest.approx(1, rel=0.01)
    summary.observe(1000)
    clock.now += 31
    assert shown(registry)['wait_seconds{quantile="0.5"}'] == pytest.approx(1000, rel=0.01)
    clock.now += 60
    assert shown(registry) == {"wait_seconds_count": 3, "wait_seconds_sum": 1101}


def test_an_empty_window_has_no_quantile(registry: CollectorRegistry, make: Make) -> None:
    """Before the first observation there is a count of 0, and nothing that is no number."""
    make()
    assert shown(registry) == {"wait_seconds_count": 0, "wait_seconds_sum": 0}
    assert "NaN" not in rendered(registry).decode()


@needs_escaping
@pytest.mark.parametrize("form", SOUND, ids=str)
def test_our_bytes_are_prometheus_clients(
    registry: CollectorRegistry, make: Make, clock: Clock, form: Any
) -> None:
    """Full, empty and mixed windows are exposed as generate_latest does, at every scrape."""
    registry.register(prometheus_client.Gauge("before", "Before.", registry=None))
    summary = make(["desk", "b"], unit="seconds", window=10)
    exposed = Exposition(registry, on_error=no_error)
    for step in range(5):
        for text in HOSTILE[step : step + 12]:
            summary.labels(text, "x").observe(0.25 * step)
        assert b"".join(exposed.render(form)) == reference(registry, form)
        clock.now += 6
    clock.now += 100
    assert b"".join(exposed.render(form)) == reference(registry, form)


@pytest.mark.parametrize("names", [["wait_seconds"], ["wait_seconds_count"], ["wait_seconds_sum"]])
@pytest.mark.parametrize("form", [TEXT, OPENMETRICS], ids=str)
def test_restricted_scrapes_are_the_same_too(
    registry: CollectorRegistry, make: Make, clock: Clock, names: list[str], form: Any
) -> None:
    """`name[]` shows just these samples, under one header, also of windows that are empty."""
    summary = make(["desk"], window=10)
    summary.labels("a").observe(1)
    for _ in range(2):
        expected = reference(registry.restricted_registry(names), form)
        if "_" in names[0].removeprefix("wait_seconds") or clock.now == 1000:
            assert by_family(rendered(registry, form, names)) == by_family(expected)
        clock.now += 100
    summary.labels("b").observe(1)
    expected = reference(registry.restricted_registry(names), form)
    assert by_family(rendered(registry, form, names)) == by_family(expected)


def test_parsers_read_it(registry: CollectorRegistry, make: Make) -> None:
    """Both of prometheus_client's parsers find one summary family."""
    summary = make(["desk"])
    summary.labels("a").observe(1)
    summary.labels("b")
    text = prometheus_client.generate_latest(registry).decode()
    [family] = parse_text(text)
    assert (family.type, len(family.samples)) == ("summary", 3 + 2 + 2)
    [family] = parse_openmetrics(rendered(registry, OPENMETRICS).decode())  # type: ignore[no-untyped-call]
    assert (family.type, len(family.samples)) == ("summary", 3 + 2 + 2)


def test_strange_observations(
    registry: CollectorRegistry, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Negative, zero and huge count; NaN and infinities are left out, and said once."""
    summary = make(quantiles=(0, 0.5, 1))
    strange: list[Any] = [math.nan, math.inf, -math.inf, 10**400]
    counted: list[Any] = [-5, 0, 1e300, Decimal("2.5"), Fraction(1, 3), True]
    for value in strange + counted:
        summary.observe(value)
    for wrong in ("1", None, b"1", [1]):
        with pytest.raises(TypeError, match="expected a number"):
            summary.observe(wrong)  # type: ignore[arg-type]
    found = shown(registry)
    assert found["wait_seconds_count"] == 6
    assert found["wait_seconds_sum"] == pytest.approx(1e300)
    assert found['wait_seconds{quantile="0.0"}'] == pytest.approx(-5, rel=0.01)
    assert found['wait_seconds{quantile="1.0"}'] == pytest.approx(1e300, rel=0.01)
    assert [record.getMessage() for record in caplog.records] == [
        "wait_seconds: an observation of nan is left out, and all further ones that are not finite"
    ]


def test_labels_as_in_prometheus_client(make: Make) -> None:
    """Series are made at the first mention, by order or name, and are the same ever after."""
    summary = make(["desk", "floor"])
    series = summary.labels("a", 1)
    assert summary.labels(floor="1", desk="a") is series
    assert summary.labels("a", "1") is series
    assert summary.labels(["a"], "1") is not series
    for wrong in (
        lambda: summary.labels("a"),
        lambda: summary.labels(desk="a"),
        lambda: summary.labels("a", floor="1"),
        summary.labels,
        lambda: summary.observe(1),
        summary.time,
        lambda: summary.remove("a"),
        lambda: summary.remove_by_labels({"door": "x"}),
    ):
        with pytest.raises(ValueError, match="wait_seconds"):
            wrong()
    with pytest.raises(ValueError, match="has no labels"):
        aiosvc.Summary("alone", "Alone.", registry=None).labels("x")


def test_remove_and_clear(registry: CollectorRegistry, make: Make) -> None:
    """Series leave the next scrape, one by one, by some of their labels, or all together."""
    summary = make(["desk", "floor"])
    for desk in "abc":
        for floor in "12":
            summary.labels(desk, floor)

    def left() -> set[str]:
        [family] = registry.collect()
        return {s.labels["desk"] + s.labels["floor"] for s in family.samples}

    summary.remove("a", "1")
    summary.remove("a", "1")
    assert left() == {"a2", "b1", "b2", "c1", "c2"}
    summary.remove_by_labels({"floor": "2"})
    summary.remove_by_labels({})
    assert left() == {"b1", "c1"}
    summary.clear()
    assert left() == set()
    alone = aiosvc.Summary("alone", "Alone.", registry=None)
    alone.observe(1)
    alone.clear()
    [family] = alone.collect()
    assert family.samples[-2].value == 1


@pytest.mark.parametrize("name", ["wait_seconds", "wait_seconds_count", "wait_seconds_sum"])
def test_a_taken_name_is_refused_like_prometheus_clients(
    registry: CollectorRegistry, make: Make, name: str
) -> None:
    """Two metrics of one name are a ValueError, whichever comes first and whosever it is."""
    make()
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        prometheus_client.Gauge(name, "Other.", registry=registry)
    other = CollectorRegistry()
    prometheus_client.Gauge(name, "Other.", registry=other)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        aiosvc.Summary("wait_seconds", "Wait.", registry=other)
    registry.unregister(next(iter(registry._collector_to_names)))
    make()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labelnames": "desk"}, "labelnames: 'desk' given; expected a list, like ['desk']"),
        (
            {"labelnames": ["a", "b", "a"]},
            "labelnames: ('a', 'b', 'a') given; expected each name once",
        ),
        ({"labelnames": ["quantile"]}, "summary 'x': Reserved label"),
        ({"labelnames": ["__x"]}, "summary 'x': "),
        ({"name": ""}, "summary '': "),
        ({"quantiles": ()}, "quantiles: () given; expected numbers from 0 to 1"),
        ({"quantiles": (99,)}, "quantiles: (99,) given"),
        ({"quantiles": (0.5, 0.5)}, "quantiles: "),
        ({"quantiles": 0.5}, "quantiles: 0.5 given"),
        ({"window": 0}, "window: 0 given; expected seconds"),
        ({"window": math.inf}, "window: inf given"),
        ({"age_buckets": 0}, "age_buckets: 0 given"),
        ({"age_buckets": 2.5}, "age_buckets: 2.5 given"),
        ({"relative_error": 0}, "relative_error: 0 given; expected 0.001 to 0.25"),
        ({"relative_error": "1%"}, "relative_error: '1%' given"),
        ({"relative_error": math.nan}, "relative_error: nan given"),
    ],
)
def test_wrong_options(options: dict[str, Any], says: str) -> None:
    """A wrong option is a ConfigError that says what was given and expected."""
    arguments = {"name": "x", "documentation": "X.", "registry": None, **options}
    with pytest.raises(aiosvc.ConfigError) as raised:
        aiosvc.Summary(**arguments)
    assert says in str(raised.value)


def test_full_name(registry: CollectorRegistry) -> None:
    """Namespace, subsystem and unit make the name, as in prometheus_client."""
    parts: Any = {"namespace": "shop", "subsystem": "desk", "unit": "seconds"}
    ours = aiosvc.Summary("wait", "Wait.", registry=registry, **parts)
    theirs = prometheus_client.Summary("wait", "Wait.", registry=None, **parts)
    [mine], [model] = ours.describe(), theirs.describe()
    assert (mine.name, mine.unit, mine.type) == (model.name, model.unit, model.type)
    assert "# UNIT shop_desk_wait_seconds seconds" in rendered(registry, OPENMETRICS).decode()


async def test_time_is_right_for_coroutines() -> None:
    """`time()` measures a coroutine while it is awaited, a function's call, and a block."""
    summary = aiosvc.Summary("x", "X.", registry=None)

    @summary.time()
    async def slow() -> str:
        await asyncio.sleep(0.03)
        return "done"

    @summary.time()
    def quick() -> None:
        pass

    pending = slow()
    [family] = summary.collect()
    assert family.samples[-2].value == 0
    assert await pending == "done"
    [family] = summary.collect()
    count, total = family.samples[-2:]
    assert count.value == 1
    assert total.value >= 0.029
    quick()
    with summary.time():
        pass
    [family] = summary.collect()
    assert family.samples[-2].value == 3


def test_threads_lose_nothing(make: Make, registry: CollectorRegistry) -> None:
    """Eight threads that observe while others scrape: each observation is counted once."""
    summary = make(["desk"])
    stop = threading.Event()

    def observe(desk: str) -> None:
        series = summary.labels(desk)
        for number in range(5000):
            series.observe(number % 7)

    def scrape() -> None:
        while not stop.is_set():
            rendered(registry)

    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    observers = [threading.Thread(target=observe, args=(str(n % 2),)) for n in range(8)]
    for each in (*scrapers, *observers):
        each.start()
    for each in observers:
        each.join()
    stop.set()
    for each in scrapers:
        each.join()
    found = shown(registry)
    total = sum(number % 7 for number in range(5000))
    for desk in "01":
        assert found[f'wait_seconds_count{{desk="{desk}"}}'] == 20_000
        assert found[f'wait_seconds_sum{{desk="{desk}"}}'] == 4 * total


def test_an_observer_never_waits(make: Make) -> None:
    """While somebody holds the lock, as in a finalizer that interrupts a scrape, one goes on."""
    summary = make()
    series = summary._alone
    assert series is not None
    with series._lock:
        for _ in range(3 * BATCH):
            summary.observe(1)
    [family] = summary.collect()
    assert family.samples[-2].value == 3 * BATCH


def test_observed_in_a_finalizer(make: Make) -> None:
    """An observation made by the garbage collector, in the middle of others, is counted."""
    summary = make()

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            summary.observe(1)

    before = gc.get_threshold()
    gc.set_threshold(7, 2, 2)
    try:
        for _ in range(2000):
            Cycle()
            summary.observe(1)
            summary.collect()
    finally:
        gc.set_threshold(*before)
        gc.collect()
    [family] = summary.collect()
    assert family.samples[-2].value == 4000


def test_it_is_asked_without_a_thread(registry: CollectorRegistry, make: Make) -> None:
    """Our exposition reads it as a collector of its own kind, on the loop and in slices."""
    make(["desk"])
    assert Exposition(registry, on_error=no_error).foreign() == []


def test_prometheus_client_has_no_quantiles() -> None:
    """Why this exists: prometheus_client's Summary exports count and sum only."""
    theirs = prometheus_client.Summary("x", "X.", registry=None)
    theirs.observe(1)
    [family] = theirs.collect()
    assert isinstance(family, Metric)
    assert {sample.name for sample in family.samples} <= {"x_count", "x_sum", "x_created"}


def test_multiprocess_writes_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A summary without labels makes none of prometheus_client's values, which may be files."""
    made: list[object] = []
    monkeypatch.setattr(prometheus_client.values, "ValueClass", lambda *a, **k: made.append(a))
    aiosvc.Summary("x", "X.", registry=None).observe(1)
    assert made == []


def test_logs_nothing_of_the_usual(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Finite observations are no news."""
    with caplog.at_level(logging.DEBUG):
        make().observe(1)
    assert caplog.records == []
