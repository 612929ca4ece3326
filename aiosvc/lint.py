"""
What is wrong with the names, types and labels of metrics, and which labels grow without end.

Rule: families in, problems out; reads nothing and prints nothing. Rule: about names and types it says
what `promtool check metrics` says, in the same words (client_golang's promlint); what promtool does
not look for has a rule of its own here: series that are there twice, families of too many series, and
labels whose values look like ids, addresses or moments in time.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from aiosvc.exposed import Family

__all__ = ["Problem", "lint"]

BASE_UNITS: Final = frozenset(
    ("amperes", "bytes", "celsius", "grams", "joules", "kelvin", "meters", "metres", "seconds",
     "volts")
)  # fmt: skip
UNITS: Final = {
    **{unit: unit for unit in BASE_UNITS},
    **dict.fromkeys(("minutes", "hours", "days", "weeks"), "seconds"),
    "kelvins": "kelvin",
    **dict.fromkeys(("fahrenheit", "rankine"), "celsius"),
    **dict.fromkeys(("inches", "yards", "miles"), "meters"),
    "bits": "bytes",
    "calories": "joules",
    **dict.fromkeys(("pounds", "ounces"), "grams"),
}
PREFIXES: Final = (
    "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega",
    "mibi", "giga", "gibi", "tera", "tebi", "peta", "pebi", "",
)  # fmt: skip
PREFIXED: Final = {prefix + unit: base for unit, base in UNITS.items() for prefix in PREFIXES}
ABBREVIATIONS: Final = frozenset(
    ("s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d")
)
TYPES: Final = ("counter", "gauge", "summary", "histogram", "gauge_histogram")
CAMEL: Final = re.compile(r"[a-z][A-Z]")

#: What families of OpenMetrics are in the Prometheus format: type, and what is added to the name.
IN_TEXT: Final = {
    "counter": ("counter", "_total"),
    "info": ("gauge", "_info"),
    "stateset": ("gauge", ""),
    "gaugehistogram": ("histogram", ""),
}

#: Labels that hold numbers by nature.
NUMERIC: Final = frozenset(
    ("le", "quantile", "code", "status", "status_code", "http_response_status_code", "port", "cpu",
     "generation", "version", "shard", "partition", "level", "size")
)  # fmt: skip

HEX_ID: Final = re.compile(r"(?=.*[0-9])[0-9a-fA-F]{16,}")
UUID: Final = re.compile(
    r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}"
)

#: Longer values are not compared with patterns: the time to do that is not linear.
LONG: Final = 300

#: Patterns of a whole value, what is said of it, and from how many such values on.
SUSPECTS: Final[tuple[tuple[re.Pattern[str], str, int], ...]] = (
    (UUID, "UUIDs", 2),
    (re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+"), "e-mail addresses", 2),
    (re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}.*|1[0-9]{9}(?:\.\d+|\d{3})?"), "timestamps", 2),
    (
        re.compile(rf"(?:\w+://)?[^?\s]*/(?:\d+|{UUID.pattern}|{HEX_ID.pattern})(?:[/?].*)?"),
        "paths with ids in them",
        2,
    ),
    (re.compile(r"(?:\w+:/)?/[^?\s]*\?.*=.*"), "paths with queries", 2),
    (HEX_ID, "ids", 2),
    (re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?"), "IP addresses", 10),
    (re.compile(r"\d+"), "ids", 20),
    (re.compile(r"\w+[-_:]\d{2,}"), "ids", 20),
    (re.compile(r"/.*"), "paths", 100),
)


class Problem(NamedTuple):
    """What is wrong with a metric: a rule's name for machines, and the text for people."""

    metric: str
    rule: str
    text: str


def lint(families: Iterable[Family], *, openmetrics: bool, max_series: int) -> list[Problem]:
    """Return all problems, in order; a family may have *max_series* series, 0 for as many as it likes."""
    problems: set[Problem] = set()
    for family in families:
        name, kind = _in_text(family) if openmetrics else (family.name, family.type)
        labels = _labels(family)
        problems.update(Problem(name, *found) for found in _named(name, family.help))
        problems.update(Problem(name, *found) for found in _typed(name, kind))
        problems.update(Problem(name, *found) for found in _labelled(kind, labels))
        problems.update(Problem(name, *found) for found in _grown(family, labels, max_series))
    return sorted(problems, key=lambda problem: (problem.metric, problem.text))


def _in_text(family: Family) -> tuple[str, str]:
    kind, suffix = IN_TEXT.get(family.type, (family.type, ""))
    return family.name + suffix, kind


def _labels(family: Family) -> Mapping[str, set[str]]:
    """Return the values of each label."""
    values: dict[str, set[str]] = {}
    for series in family.series:
        for name, value in series.labels.items():
            values.setdefault(name, set()).add(value)
    return values


def _named(name: str, documentation: str | None) -> Iterator[tuple[str, str]]:
    if documentation is None:
        yield "help", "no help text"
    for part in name.split("_"):
        base = PREFIXED.get(part)
        if base is not None and base != part:
            yield "unit", f'use base unit "{base}" instead of "{part}"'
            break
    lower = name.lower()
    for each in TYPES:
        if f"_{each}_" in lower or lower.endswith(f"_{each}"):
            yield "type", f"metric name should not include type '{each}'"
    if ":" in name:
        yield "colon", "metric names should not contain ':'"
    if CAMEL.search(name):
        yield "case", "metric names should be written in 'snake_case' not 'camelCase'"
    if not ABBREVIATIONS.isdisjoint(lower.split("_")[1:]):
        yield "unit", "metric names should not contain abbreviated units"


def _typed(name: str, kind: str) -> Iterator[tuple[str, str]]:
    if kind == "counter" and not name.endswith("_total"):
        yield "counter", 'counter metrics should have "_total" suffix'
    if kind not in ("counter", "untyped") and name.endswith("_total"):
        yield "counter", 'non-counter metrics should not have "_total" suffix'
    if kind not in ("histogram", "untyped") and name.endswith("_bucket"):
        yield "reserved", 'non-histogram metrics should not have "_bucket" suffix'
    for suffix in ("_count", "_sum"):
        if kind not in ("histogram", "summary", "untyped") and name.endswith(suffix):
            text = f'non-histogram and non-summary metrics should not have "{suffix}" suffix'
            yield "reserved", text


def _labelled(kind: str, labels: Iterable[str]) -> Iterator[tuple[str, str]]:
    for label in labels:
        if label == "le" and kind not in ("histogram", "untyped"):
            yield "reserved", 'non-histogram metrics should not have "le" label'
        if label == "quantile" and kind not in ("summary", "untyped"):
            yield "reserved", 'non-summary metrics should not have "quantile" label'
        if CAMEL.search(label):
            yield "case", "label names should be written in 'snake_case' not 'camelCase'"


def _grown(
    family: Family, labels: Mapping[str, set[str]], max_series: int
) -> Iterator[tuple[str, str]]:
    for series in family.repeated[:1]:
        text = f"the same series is there again, in line {series.line}"
        more = len(family.repeated) - 1
        yield "duplicate", text + (f", and {more} more are" if more else "")
    count = len(family.series)
    if max_series and count > max_series:
        largest = sorted(labels.items(), key=lambda each: -len(each[1]))[:3]
        most = ", ".join(f"{label} {len(values)}" for label, values in largest)
        text = f"{count} series, expected {max_series} at most; values by label: {most or 'none'}"
        yield "cardinality", text
    for label, values in labels.items():
        found = None if label in NUMERIC else _suspect(values)
        if found is not None:
            what, alike = found
            like = f"{len(alike)} values that look like {what}, such as {min(alike)!r}"
            yield "suspect", f"label {label!r} has {like}"


def _suspect(values: set[str]) -> tuple[str, list[str]] | None:
    """Return what values look like that should be no label's, and which."""
    short = [value for value in values if len(value) <= LONG]
    for pattern, what, enough in SUSPECTS:
        if len(short) >= enough:
            alike = [value for value in short if pattern.fullmatch(value)]
            if len(alike) >= enough:
                return what, alike
    return None
