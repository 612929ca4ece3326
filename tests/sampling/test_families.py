"""Metric families of a user's source, checked and copied."""

from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.samples import Exemplar, Timestamp

from aiosvc.sampling.families import checked


def taken(family: Any) -> Metric:
    """Return the copy of a family."""
    steps = checked(family)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            copy: Metric = end.value
            return copy


def family_of(kind: str, name: Any, labels: dict[Any, Any] | None = None, **more: Any) -> Metric:
    """Return a family `shop` with one sample."""
    family = Metric("shop", "Shop.", kind)
    family.add_sample(name, labels or {}, 1.0, **more)
    return family


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("counter", f"shop{suffix}") for suffix in ("_total", "_created")),
        *(("histogram", f"shop{suffix}") for suffix in ("_bucket", "_count", "_sum", "_created")),
        *(("summary", f"shop{suffix}") for suffix in ("", "_count", "_sum", "_created")),
        *(("gaugehistogram", f"shop{suffix}") for suffix in ("_bucket", "_gcount", "_gsum")),
        ("gauge", "shop"),
        ("info", "shop_info"),
        ("stateset", "shop"),
        ("unknown", "shop"),
    ],
)
def test_samples_of_their_family(kind: str, name: str) -> None:
    """Every type has its samples, which come through as they are."""
    family = family_of(kind, name, {"state": "open"}, timestamp=Timestamp(5, 0))
    assert taken(family) == family


@pytest.mark.parametrize(
    ("kind", "name"),
    [("gauge", "process_threads"), ("gauge", "shop_total"), ("counter", "shop"), ("info", "shop")],
)
def test_samples_of_another_family(kind: str, name: str) -> None:
    """A sample that is none of its family's could be a series of somebody else's."""
    with pytest.raises(ValueError, match=f"family 'shop': '{name}' is no sample of a {kind}"):
        taken(family_of(kind, name))


@pytest.mark.parametrize("name", [5, None, ""])
def test_labels_that_are_none(name: object) -> None:
    """A label has a name, which is a text."""
    with pytest.raises(ValueError, match=f"family 'shop': {name!r} is no name of a label"):
        taken(family_of("gauge", "shop", {name: "x"}))


def test_exemplars_where_they_may_be() -> None:
    """An exemplar of a counter or bucket stays, its texts such as can be sent."""
    exemplar = Exemplar({"trace": "a\ud800"}, 1, 5.0)
    for kind, name in (("counter", "shop_total"), ("histogram", "shop_bucket")):
        (sample,) = taken(family_of(kind, name, exemplar=exemplar)).samples
        assert sample.exemplar == Exemplar({"trace": "a\ufffd"}, 1.0, 5.0)


@pytest.mark.parametrize(("kind", "name"), [("gauge", "shop"), ("histogram", "shop_count")])
def test_exemplars_where_none_can_be(kind: str, name: str) -> None:
    """One that OpenMetrics has no place for is refused, and not found out at a scrape."""
    with pytest.raises(ValueError, match="family 'shop': an exemplar on"):
        taken(family_of(kind, name, exemplar=Exemplar({}, 1.0)))


@pytest.mark.parametrize(
    "more",
    [
        {"timestamp": "noon"},
        {"exemplar": object()},
        {"exemplar": Exemplar({}, "one")},  # type: ignore[arg-type]
    ],
)
def test_what_no_scrape_could_write(more: dict[str, Any]) -> None:
    """Whatever would fail when it is written fails now."""
    with pytest.raises((ValueError, TypeError, AttributeError)):
        taken(family_of("counter", "shop_total", **more))
