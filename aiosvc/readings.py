"""
What has been read at one moment: numbers by metric and label values, and how two of them add up.

Rule: holds no metric of its own and knows no registry; reporters add to it, the collector turns it
into metric families. Rule: where two reporters say something about the same series, the row's
*merge* decides, so several applications on one registry need no special case; only a `Shared`
number says for itself that its reporters look at the same thing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from prometheus_client import Metric
from prometheus_client.samples import Exemplar, Sample

from aiosvc import catalogue
from aiosvc.catalogue import MetricSpec

__all__ = [
    "Distribution",
    "Labels",
    "Readings",
    "Refreshed",
    "Reporter",
    "Shared",
    "Stepwise",
    "Total",
]

Labels = tuple[str, ...]

T = TypeVar("T")


class Shared(float):
    """
    A number about something outside that several reporters look at, such as a broker's queue.

    They tell the same fact, if not at the same moment: together it is the largest, never the sum.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """
    A histogram's state: upper bounds without +Inf, counts per bucket (one more), and the sum.

    *exemplars* are by the bucket's place; there need not be one for each.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)

    def __add__(self, other: "Distribution") -> "Distribution":
        """Return both together; their bounds are equal, one registry has one set of buckets."""
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        exemplars = {**self.exemplars, **other.exemplars}
        return Distribution(self.bounds, counts, self.sum + other.sum, exemplars)


@dataclass(frozen=True, slots=True)
class Total:
    """A summary's state without quantiles: how many observations, and their sum."""

    count: int
    sum: float

    def __add__(self, other: "Total") -> "Total":
        """Return both together."""
        return Total(self.count + other.count, self.sum + other.sum)


class Readings:
    """Values by metric and label values, and whole families of the user's sources."""

    def __init__(self) -> None:
        self.numbers: dict[MetricSpec, dict[Labels, float]] = {}
        self.distributions: dict[MetricSpec, dict[Labels, Distribution]] = {}
        self.totals: dict[MetricSpec, dict[Labels, Total]] = {}
        self.families: dict[str, Metric] = {}
        #: Names of families in which two sources have the same series, or that have another type
        #: in each; the first one's is kept.
        self.clashes: list[str] = []

    def declare(self, *specs: MetricSpec) -> None:
        """Export these families also while they have no samples yet."""
        for spec in specs:
            if spec.kind == "histogram":
                self.distributions.setdefault(spec, {})
            elif spec.kind == "summary":
                self.totals.setdefault(spec, {})
            else:
                self.numbers.setdefault(spec, {})

    def number(self, spec: MetricSpec, value: float, labels: Labels = ()) -> None:
        """Add a counter's or gauge's value."""
        merge = max if isinstance(value, Shared) else _MERGES[spec.merge]
        _merge(self.numbers.setdefault(spec, {}), labels, value, merge)

    def distribution(self, spec: MetricSpec, value: Distribution, labels: Labels) -> None:
        """Add a histogram's state."""
        _merge(self.distributions.setdefault(spec, {}), labels, value, Distribution.__add__)

    def total(self, spec: MetricSpec, value: Total, labels: Labels) -> None:
        """Add a summary's state."""
        _merge(self.totals.setdefault(spec, {}), labels, value, Total.__add__)

    def family(self, family: Metric) -> None:
        """
        Add a family of a user's source; a second one of the same name and type adds its samples.

        What a source left out is counted where everything that is left out is.
        """
        overflow = catalogue.LABEL_OVERFLOW
        if family.name == overflow.name.removesuffix("_total"):
            for sample in family.samples:
                labels = tuple(sample.labels.get(name, "") for name in overflow.labels)
                self.number(overflow, sample.value, labels)
            return
        first = self.families.get(family.name)
        new = family.samples
        if first is None:
            self.families[family.name] = first = Metric(
                family.name, family.documentation, family.type, family.unit
            )
        elif first.type != family.type:
            self.clashes.append(family.name)
            return
        else:
            known = {_series(sample) for sample in first.samples}
            new = [sample for sample in new if _series(sample) not in known]
            if len(new) < len(family.samples):
                self.clashes.append(family.name)
        first.samples.extend(new)

    def absorb(self, other: "Readings", *, only: Iterable[str] = ()) -> None:
        """Add all of *other*, or only its metrics of the kinds in *only*."""
        kinds = frozenset(only)
        for spec, numbers in other.numbers.items():
            if not kinds or spec.kind in kinds:
                for labels, number in numbers.items():
                    self.number(spec, number, labels)
        for spec, distributions in other.distributions.items():
            for labels, distribution in distributions.items():
                self.distribution(spec, distribution, labels)
        for spec, totals in other.totals.items():
            for labels, total in totals.items():
                self.total(spec, total, labels)
        if not kinds:
            for family in other.families.values():
                self.family(family)


class Reporter(Protocol):
    """Anything that has something to say at a scrape."""

    def report(self, readings: Readings) -> None:
        """Add what is known now; called from whatever thread renders, so it only reads."""


@runtime_checkable
class Stepwise(Reporter, Protocol):
    """A reporter with so much to say that it does so in steps, of less than a millisecond each."""

    def steps(self, readings: Readings) -> Iterator[None]:
        """Add what `report` adds, and give way in between."""


@runtime_checkable
class Refreshed(Reporter, Protocol):
    """A reporter that can read some of what it knows anew, on its own event loop."""

    def refresh(self) -> None:
        """Read it, if the running event loop is that loop."""


def _series(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.name, frozenset(sample.labels.items())


_MERGES: dict[str, Callable[[float, float], float]] = {
    "sum": lambda a, b: a + b,
    "max": max,
    "min": min,
    "first": lambda a, _b: a,
}


def _merge(into: dict[Labels, T], labels: Labels, value: T, merge: Callable[[T, T], T]) -> None:
    known = into.get(labels)
    into[labels] = value if known is None else merge(known, value)
