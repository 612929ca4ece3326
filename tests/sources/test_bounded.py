"""Numbers and labels from outside, and the limit of a metric's series."""

import math
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import Metric

from aiosvc import catalogue
from aiosvc.errors import ConfigError
from aiosvc.readings import Readings
from aiosvc.sources.bounded import (
    FORGET_AFTER,
    LONGEST,
    Bounded,
    label_text,
    number,
    overflow,
)

from .sampled import values


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return its time."""
        return self.now


def filled(metric: Bounded, *labels: str) -> set[str]:
    """Return which of the labels are in a sample of these."""
    filling = metric.fill()
    for label in labels:
        filling.add((label,), 1.0)
    return {key for (key,) in values([filling.family], metric.name) or {}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        (-1.5, -1.5),
        (True, 1.0),
        (False, 0.0),
        ("12", 12.0),
        (" -1.5e3 ", -1500.0),
        (Decimal("10.50"), 10.5),
        (None, None),
        (math.nan, None),
        (Decimal("NaN"), None),
        (math.inf, math.inf),
    ],
)
def test_numbers(value: Any, expected: float | None) -> None:
    """What is a number becomes a float, and what is unknown stays so."""
    assert number(value) == expected


@pytest.mark.parametrize(
    "value", ["", "abc", "0x10", "1_000", "nan", "1,5", "٣", [], {"a": 1}, b"1", 10**400]
)
def test_what_is_no_number_is_an_error(value: Any) -> None:
    """Anything else is an error, of one short line."""
    with pytest.raises(ValueError) as caught:
        number(value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a b", "a b"),
        (None, ""),
        (True, "true"),
        (7, "7"),
        (b"caf\xe9", "caf�"),
        ("\ud800", "\ufffd"),
    ],
)
def test_labels(value: Any, expected: str) -> None:
    """What is written in JSON or SQL becomes a text that a scrape can hold."""
    assert label_text(value) == expected


@pytest.mark.parametrize("value", [[1], {}, (1,)])
def test_what_is_no_label(value: Any) -> None:
    """A list or object is no label value."""
    with pytest.raises(ValueError, match="is no label value"):
        label_text(value)


def test_never_more_than_the_limit() -> None:
    """However many series come, and however they change, only so many are in, and the same ones."""
    metric = Bounded("items", "", ("name",), limit=3)
    assert filled(metric, "a", "b", "c", "d", "e") == {"a", "b", "c"}
    assert filled(metric, "e", "d", "c") == {"c"}
    assert filled(metric, *(f"new-{i}" for i in range(1000)), "a") == {"a"}
    assert metric.left_out == 2 + 2 + 1000


def test_a_series_that_does_not_come_makes_room() -> None:
    """After an hour without it another series has its place, so a service can run for months."""
    clock = Clock()
    metric = Bounded("items", "", ("name",), limit=2, clock=clock)
    assert filled(metric, "a", "b") == {"a", "b"}
    clock.now += FORGET_AFTER - 1
    assert filled(metric, "a", "c") == {"a"}
    clock.now += 2
    assert filled(metric, "a", "c") == {"a", "c"}


def test_a_label_of_endless_length_is_left_out() -> None:
    """A label value that is too long is no series, and counted."""
    metric = Bounded("items", "", ("name",))
    assert filled(metric, "x" * LONGEST, "x" * (LONGEST + 1)) == {"x" * LONGEST}
    assert metric.left_out == 1


def test_the_same_labels_twice_are_an_error() -> None:
    """Two values for one series would make the whole scrape invalid."""
    filling = Bounded("items", "", ("name",)).fill()
    filling.add(("a",), 1.0)
    filling.add(("b",), None)
    with pytest.raises(ValueError, match=r"items: two values for the labels {'name': 'a'}"):
        filling.add(("a",), 1.0)


def test_the_name_says_what_is_a_counter() -> None:
    """A name with _total makes a counter, which is named and checked as one."""
    filling = Bounded("jobs_total", "Jobs.", ()).fill()
    filling.add((), 3.0)
    assert (filling.family.name, filling.family.type) == ("jobs", "counter")
    assert [sample.name for sample in filling.family.samples] == ["jobs_total"]
    with pytest.raises(ValueError, match="can't be negative"):
        Bounded("jobs_total", "Jobs.", ()).fill().add((), -1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a-b"}, "metric 'a-b': not a metric name; use letters"),
        ({"name": "queue_depth"}, "aiosvc exports a metric of that name itself"),
        ({"labelnames": ("__a",)}, "label '__a'"),
        ({"labelnames": ("a", "a")}, "label 'a': give each name once"),
        ({"labelnames": ("le",)}, "label 'le': .* neither le nor quantile"),
        ({"name": "http_requests"}, "aiosvc exports a metric of that name itself"),
        ({"limit": 0}, "max_series: 0 given"),
        ({"limit": True}, "max_series: True given"),
        ({"limit": 1.5}, "max_series: 1.5 given"),
    ],
)
def test_names_and_limits_are_checked(arguments: dict[str, Any], message: str) -> None:
    """A metric that a scrape could not hold is refused when it is made."""
    with pytest.raises(ConfigError, match=message):
        Bounded(**{"name": "a", "documentation": "", "labelnames": (), **arguments})


def test_what_was_left_out_is_counted_with_everything_else() -> None:
    """A source's overflow adds to the one metric of ours that says what was left out."""
    metric = Bounded("items", "", ("kind", "name"), limit=1)
    assert overflow([metric]) == []
    filling = metric.fill()
    for name in "abc":
        filling.add(("x", name), 1.0)
    readings = Readings()
    readings.number(catalogue.LABEL_OVERFLOW, 5, ("http_requests_total", "endpoint"))
    for family in (filling.family, *overflow([metric])):
        readings.family(family)
    assert readings.numbers[catalogue.LABEL_OVERFLOW] == {
        ("http_requests_total", "endpoint"): 5.0,
        ("items", "kind,name"): 2.0,
    }
    assert list(readings.families) == ["items"]
    assert isinstance(readings.families["items"], Metric)
