"""What collectors hand over: `series()` gives the bytes that `collect()` gives."""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from itertools import accumulate
from typing import Any

import pytest
from expositions import (
    ESCAPES,
    SOUND,
    by_family,
    floats,
    legal_names,
    no_error,
    patient,
    reference,
    rendered,
    texts,
)
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import Exemplar, GaugeMetricFamily

from aiosvc.exposition import Exposition
from aiosvc.families import Layout, Row, SeriesCollector, buckets
from aiosvc.formats import OPENMETRICS, TEXT

FORMS = SOUND if ESCAPES else [TEXT, OPENMETRICS]

Given = Metric | tuple[Layout, list[Row]]


class Plain:
    """A collector that keeps rows, and gives them as families of samples."""

    def __init__(self, *given: Given) -> None:
        self.given = list(given)

    def describe(self) -> Iterable[Metric]:
        """Give the names."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Give families, the long way."""
        for each in self.given:
            if isinstance(each, Metric):
                yield each
                continue
            layout, rows = each
            family = Metric(layout.name, layout.documentation, layout.type, layout.unit)
            for labels, numbers, exemplars in rows:
                own = dict(zip(layout.labelnames, labels, strict=True))
                for place, (suffix, extra) in enumerate(layout.parts):
                    family.add_sample(
                        layout.name + suffix,
                        {**own, **dict(extra)},
                        numbers[place],
                        exemplar=(exemplars or {}).get(place),
                    )
            yield family


class Quick(Plain):
    """The same collector, which hands over its rows."""

    def series(self) -> Iterator[Given]:
        """Give layouts and rows."""
        yield from self.given

    def collect(self) -> Iterator[Metric]:
        """Be asked by nobody but prometheus_client."""
        return super().collect()


def registry_of(*given: Given) -> tuple[CollectorRegistry, Quick, Exposition]:
    """Return a registry with such a collector, the collector, and the registry's exposition."""
    registry = CollectorRegistry()
    quick = Quick(*given)
    registry.register(quick)
    return registry, quick, Exposition(registry, on_error=no_error)


def whole(exposed: Exposition, *arguments: Any) -> bytes:
    """Return one scrape."""
    return b"".join(exposed.render(*arguments))


DEPTH = Layout("queue_depth", "Items ready.", "gauge", ("queue",), (("", ()),))
JOBS = Layout("jobs", "Jobs.", "counter", ("queue", "outcome"), (("_total", ()),))
TIME = Layout("time_seconds", "Time.", "histogram", ("queue",), buckets((0.1, 1.0)), "seconds")
SIZE = Layout("size_bytes", "Sizes.", "summary", (), (("_count", ()), ("_sum", ())))


def histogram(name: str, counts: list[int], total: float) -> Row:
    """Return a row with counts by bucket, and an exemplar in the first."""
    below = list(accumulate(counts))
    return Row((name,), (*below, below[-1], total), {0: Exemplar({"trace_id": "x"}, 0.05, 1.5)})


def test_rows_give_the_bytes_of_samples() -> None:
    """Each kind of family comes out of its rows as it does out of samples, warm and changed too."""
    registry, quick, exposed = registry_of(
        (DEPTH, [Row(("email",), (3,)), Row(('a"\n\\',), (0.5,))]),
        GaugeMetricFamily("between", "Another.", 1),
        (JOBS, [Row(("email", "ok"), (10**7,)), Row(("email", "error"), (0,))]),
        (TIME, [histogram("email", [1, 2, 3], 7.25), histogram("sms", [0, 0, 0], 0.0)]),
        (SIZE, [Row((), (3, 1e9))]),
        (Layout("none", "None.", "gauge", ("x",), (("", ()),)), []),
    )
    for change in range(4):
        if change == 2:
            quick.given[0] = (DEPTH, [Row(("email",), (4,)), Row(("new",), (-0.0,))])
            quick.given[3] = (TIME, [histogram("email", [1, 2, 4], 7.5)])
        for form in FORMS:
            assert whole(exposed, form) == reference(registry, form)
    for names in (["queue_depth"], ["time_seconds_sum", "size_bytes_count"], ["none"], ["jobs"]):
        restricted = registry.restricted_registry(names)
        for form in FORMS:
            assert by_family(whole(exposed, form, names)) == by_family(reference(restricted, form))
            assert whole(exposed, form) == reference(registry, form)


def test_the_sign_of_zero_and_what_is_no_number() -> None:
    """Numbers that are equal but not written alike, and NaN which equals nothing, come out right."""
    registry, quick, exposed = registry_of()
    for value in (
        0,
        0.0,
        -0.0,
        0.0,
        float("nan"),
        float("nan"),
        1,
        True,
        1.0,
        2**60,
        float("-inf"),
    ):
        quick.given = [(DEPTH, [Row(("a",), (value,))]), (SIZE, [Row((), (value, -value))])]
        assert whole(exposed) == reference(registry, TEXT)


class Place(str, Enum):  # noqa: UP042 - a StrEnum is shown as it is written
    """An enumeration whose members are strings, and are shown otherwise."""

    HERE = "here"


def test_label_values_that_are_shown_otherwise() -> None:
    """A label value of a subclass of str is written as the text that it is."""
    registry, quick, exposed = registry_of()
    quick.given = [(DEPTH, [Row((Place.HERE,), (1,))])]
    assert b'"here"' in whole(exposed)
    assert whole(exposed) == reference(registry, TEXT)


rows = st.lists(st.tuples(texts, st.one_of(floats, st.integers(-(2**70), 2**70))), max_size=5)


@patient
@given(legal_names, texts, st.lists(rows, min_size=1, max_size=3))
def test_any_rows(name: str, documentation: str, scrapes: list[list[tuple[str, float]]]) -> None:
    """Whatever labels and numbers rows have, they come out as samples would."""
    layout = Layout(name, documentation, "gauge", ("b", "a"), (("", ()), ("_max", (("c", "%"),))))
    registry, quick, exposed = registry_of()
    for scrape in scrapes:
        quick.given = [(layout, [Row((text, text[:1]), (n, -n)) for text, n in scrape])]
        for form in FORMS:
            assert whole(exposed, form) == reference(registry, form)


def test_rows_that_went_are_forgotten() -> None:
    """What is kept is what the last two scrapes had: neither old rows nor old layouts stay."""
    _, quick, exposed = registry_of()
    for number in range(50):
        layout = Layout("depth", "Depth.", "gauge", ("queue",), (("", ()),))
        quick.given = [(layout, [Row((str(number),), (1,))])]
        whole(exposed)
    (only,) = exposed._renderer._kept.values()
    (text,) = only._texts.values()
    assert [list(each._rows.known) for each in text._laid_out.values()] == [[("49",)]]
    for number in range(50, 60):
        quick.given = [(layout, [Row((str(number),), (1,)), Row((str(number + 1),), (1,))])]
        whole(exposed)
        (kept,) = text._laid_out.values()
        assert len(kept._rows.known) <= 3
    quick.given = []
    whole(exposed)
    assert text._laid_out == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: (DEPTH, [Row(("a", "b"), (1,))]),
        lambda: (DEPTH, [Row((), (1,))]),
        lambda: (DEPTH, [Row(("a",), (1, 2))]),
        lambda: (DEPTH, [Row(("a",), ("1",))]),  # type: ignore[arg-type]
        lambda: (DEPTH, [Row((5,), (1,))]),  # type: ignore[arg-type]
    ],
)
def test_rows_that_do_not_fit(spoil: Callable[[], Given]) -> None:
    """Rows that don't fit their layout cost the collector's families, and are reported."""
    registry = CollectorRegistry()
    quick = Quick((SIZE, [Row((), (1, 2))]))
    registry.register(quick)
    quick.given.append(spoil())
    failed: list[str] = []
    exposed = Exposition(registry, on_error=lambda name, _: failed.append(name))
    assert whole(exposed) == b""
    assert failed == ["Quick"]


def test_layouts_that_make_no_sense() -> None:
    """A layout says at once what it can't be."""
    with pytest.raises(ValueError, match="jobs: part '_created' needs a Metric"):
        Layout("jobs", "Jobs.", "counter", (), (("_total", ()), ("_created", ())))
    with pytest.raises(ValueError, match="time: le is a label and one of a part's"):
        Layout("time", "Time.", "histogram", ("le",), buckets((1.0,)))


def test_parts_of_a_histogram() -> None:
    """Bounds are written as prometheus_client writes them."""
    assert [dict(extra).get("le") for _, extra in buckets((0.005, 1, 1e6, 1e9))] == [
        "0.005", "1.0", "1e+06", "1e+09", "+Inf", None, None,
    ]  # fmt: skip
    assert [suffix for suffix, _ in buckets((1,))] == ["_bucket", "_bucket", "_count", "_sum"]


def test_the_protocol() -> None:
    """A collector is asked for series exactly if it has that method."""
    assert isinstance(Quick(), SeriesCollector)
    assert not isinstance(Plain(), SeriesCollector)
    assert rendered(Plain((DEPTH, [Row(("a",), (1,))]))).endswith(b'queue_depth{queue="a"} 1.0\n')
