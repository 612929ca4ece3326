"""What a user's source returns, and the readings that it becomes."""

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from aiosvc.readings import Readings
from aiosvc.sampling.conversion import Conversion
from aiosvc.sampling.options import SourceOptions


def converted(returned: Any, **options: Any) -> dict[tuple[str, ...], float]:
    """Return the numbers by label values of the gauge that *returned* becomes."""
    readings = Conversion("shop", SourceOptions(**options)).at_once(returned)
    (family,) = readings.families.values()
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


@pytest.mark.parametrize("number", [3, 3.0, True, Decimal(3), Fraction(3)])
def test_whatever_is_a_number(number: Any) -> None:
    """Numbers of every kind will do."""
    assert converted(number) == {(): float(number)}


def test_a_mapping_by_one_label() -> None:
    """With one label name the keys may be plain strings, or what has a text."""
    expected = {("a",): 1.0, ("2",): 2.0}
    assert converted({"a": 1, 2: 2}, labelnames=["pool"]) == expected


def test_a_mapping_by_several_labels() -> None:
    """With several label names the keys are tuples of as many values."""
    returned = {("a", "idle"): 1, ("a", "busy"): 2}
    expected = {("a", "idle"): 1.0, ("a", "busy"): 2.0}
    assert converted(returned, labelnames=("pool", "state")) == expected


def test_what_is_not_known_is_absent() -> None:
    """A None in a mapping is left out: unknown is absent, never 0."""
    assert converted({"a": None, "b": 0}, labelnames=("pool",)) == {("b",): 0.0}


def test_an_empty_mapping_is_a_family_without_samples() -> None:
    """Where there is nothing, the family says so."""
    assert converted({}, labelnames=("pool",)) == {}


def test_a_counter_has_its_suffix() -> None:
    """A counter's family has the name without `_total`, its sample the one with it."""
    conversion = Conversion("shop_sold_total", SourceOptions(kind="counter"))
    (family,) = conversion.at_once(5).families.values()
    assert (family.name, family.type) == ("shop_sold", "counter")
    assert [sample.name for sample in family.samples] == ["shop_sold_total"]


@pytest.mark.parametrize(
    ("returned", "labelnames", "expected"),
    [
        (None, (), "returned None; expected a number, a mapping"),
        ("7", (), "returned '7'; expected a number"),
        (b"7", (), "returned b'7'"),
        (object, (), "returned <class 'object'>"),
        ([1, 2], (), "returned 1 among the metric families"),
        (7, ("pool",), r"returned 7; expected a mapping from values of \('pool',\) to numbers"),
        ({"a": 1}, (), r"labels \('a',\) do not fit the label names \(\); give labelnames="),
        ({("a", "b"): 1}, ("pool",), r"do not fit the label names \('pool',\)"),
        ({"a": "many"}, ("pool",), "could not convert string"),
        (GaugeMetricFamily("a", "A."), (), "expected a number, a mapping"),
        ([GaugeMetricFamily("queue_depth", "A.", value=1)], (), "aiosvc exports a metric of that"),
        ([CounterMetricFamily("http_requests", "A.", value=1)], (), "aiosvc exports a metric"),
    ],
)
def test_what_makes_no_sense(returned: Any, labelnames: tuple[str, ...], expected: str) -> None:
    """What can't be exported is an error that says what was expected."""
    with pytest.raises((TypeError, ValueError), match=expected):
        converted(returned, labelnames=labelnames)


async def test_a_coroutine_that_nobody_awaits() -> None:
    """A plain function that returns a coroutine is told to be async, without a warning."""

    async def count() -> int:
        return 1

    with pytest.raises(TypeError, match="make the source an async function"):
        converted(count())


def test_the_same_series_twice() -> None:
    """A family with two samples of one series would spoil the scrape, so it is refused."""
    family = GaugeMetricFamily("shop_orders", "Orders.", labels=["state"])
    family.add_metric(["open"], 1)
    family.add_metric(["open"], 2)
    with pytest.raises(ValueError, match="is there twice"):
        converted([family])


def test_families_are_copied_as_they_are() -> None:
    """Type, unit, help, timestamps and samples of a family come through, and later changes don't."""
    family = HistogramMetricFamily(
        "shop_wait_seconds",
        "Waits.",
        buckets=[("1", 2), ("+Inf", 3)],
        sum_value=4.5,
        unit="seconds",
    )
    readings = Conversion("shop", SourceOptions()).at_once(iter([family]))
    copy = readings.families["shop_wait_seconds"]
    assert copy == family
    family.samples.clear()
    assert len(copy.samples) == 4


def test_texts_that_can_not_be_sent() -> None:
    """A lone surrogate in a label value or in the help is replaced, not found out at a scrape."""
    family = Metric("shop_orders", "Or\ud800ders.", "gauge")
    family.add_sample("shop_orders", {"state": "\udcff"}, 1)
    readings = Conversion("shop", SourceOptions()).at_once([family])
    (copy,) = readings.families.values()
    assert copy.documentation == "Or\ufffdders."
    assert copy.samples[0].labels == {"state": "\ufffd"}
    assert converted({"\ud800": 1}, labelnames=("pool",)) == {("\ufffd",): 1.0}


def test_two_that_come_to_the_same_series() -> None:
    """Label values that are the same as texts are refused, and not one of them lost."""
    with pytest.raises(ValueError, match=r"labels \('1',\) are there twice"):
        converted({1: 5, "1": 6}, labelnames=("pool",))


def test_a_mapping_that_changes_meanwhile() -> None:
    """What its owner does to the mapping between two steps changes nothing."""
    mine = {f"p{place}": 1.0 for place in range(1000)}
    conversion = Conversion("pools", SourceOptions(labelnames=("pool",)))
    readings = Readings()

    def convert() -> Iterator[None]:
        readings.absorb((yield from conversion.in_steps(mine)))

    for _ in convert():
        mine.clear()
    (family,) = readings.families.values()
    assert len(family.samples) == 1000


@pytest.mark.parametrize("number", [-1, float("nan"), float("-inf")])
def test_a_counter_that_is_none(number: float) -> None:
    """A counter is a number from 0 on."""
    conversion = Conversion("shop_sold_total", SourceOptions(kind="counter"))
    with pytest.raises(ValueError, match="a counter can't be negative or unknown"):
        conversion.at_once(number)


def test_two_families_of_one_name() -> None:
    """Two families of one name and different types, or with one series in both, are refused."""
    one = GaugeMetricFamily("shop", "Shop.", value=1)
    for other in (GaugeMetricFamily("shop", "Shop.", value=2), CounterMetricFamily("shop", "S.")):
        with pytest.raises(ValueError, match="family 'shop' is there twice"):
            converted([one, other])


class TestCap:
    """Label sets of a mapping are bounded."""

    @staticmethod
    def samples(conversion: Conversion, names: Iterator[str] | list[str]) -> dict[str, float]:
        """Convert a mapping with 1 for each of *names*."""
        readings = conversion.at_once(dict.fromkeys(names, 1))
        (family,) = readings.families.values()
        return {sample.labels["job"]: sample.value for sample in family.samples}

    def test_the_rest_is_added_up(self) -> None:
        """50,000 job names make as many series as are allowed, and one for the rest."""
        conversion = Conversion("jobs", SourceOptions(labelnames=("job",), max_series=100))
        found = self.samples(conversion, [f"job{i}" for i in range(50_000)])
        assert len(found) == 101
        assert found["_other"] == 49_900
        assert conversion.overflown == 49_900

    def test_one_that_was_there_keeps_its_series(self) -> None:
        """New label sets don't push out those that were there, whatever the order."""
        conversion = Conversion("jobs", SourceOptions(labelnames=("job",), max_series=2))
        assert set(self.samples(conversion, ["a", "b"])) == {"a", "b"}
        assert set(self.samples(conversion, ["x", "y", "b", "a"])) == {"a", "b", "_other"}

    def test_one_that_went_makes_room(self) -> None:
        """A label set that vanished frees its place for another."""
        conversion = Conversion("jobs", SourceOptions(labelnames=("job",), max_series=2))
        self.samples(conversion, ["a", "b"])
        assert set(self.samples(conversion, ["b", "c"])) == {"b", "c"}
        assert conversion.overflown == 0

    def test_the_offender_is_named_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """The log has one line, with the first label set that found no place."""
        conversion = Conversion("jobs", SourceOptions(labelnames=("job",), max_series=1))
        for _ in range(3):
            self.samples(conversion, ["a", "b"])
        assert len(caplog.records) == 1
        assert "('b',)" in caplog.text

    def test_a_label_set_that_is_called_so(self) -> None:
        """One that the source itself calls `_other` is added to the rest, and there once."""
        conversion = Conversion("jobs", SourceOptions(labelnames=("job",), max_series=2))
        (family,) = conversion.at_once({"_other": 5, "a": 6, "b": 7}).families.values()
        assert [(s.labels["job"], s.value) for s in family.samples] == [
            ("_other", 12.0),
            ("a", 6.0),
        ]
