"""What the expressions name exists: metrics, labels, buckets and recordings of the catalogue."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.utils import floatToGoString

from aiosvc.catalogue import CATALOGUE, MetricSpec
from aiosvc.config import Settings
from aiosvc.rules import RulesOptions, groups
from aiosvc.rules.promql import labels_in, selections
from aiosvc.rules.rule import Alert, Group, Recording
from aiosvc.rules.targets import UP

RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
ROWS = {row.name: row for row in CATALOGUE}
TARGET = {"job", "instance"}

#: What Prometheus itself says of each target.
PROMETHEUS = {UP, "scrape_duration_seconds"}

#: What Prometheus calls a metric's own label `job`, the target's being called so already.
RENAMED = {"job": "exported_job"}

OPTIONS = [
    RulesOptions(),
    RulesOptions(
        latency_slo=("0.5:95", "1:99"), queue_ages={"a.b": "1"}, job_ages={"c": "2"},
        group_by=("namespace", "job"), selector='job="x",namespace="y"', time_scale=0.01,
    ),
]  # fmt: skip
PRESETS = ["classic", "otel"]


def family(name: str) -> tuple[MetricSpec, str]:
    """Return the row and the suffix of the series *name*; KeyError where there is no such series."""
    for suffix in ("_bucket", "_count", "_sum"):
        row = ROWS.get(name.removesuffix(suffix))
        if name.endswith(suffix) and row is not None and row.kind in ("histogram", "summary"):
            assert suffix != "_bucket" or row.kind == "histogram"
            return row, suffix
    assert ROWS[name].kind not in ("histogram", "summary"), f"{name} has no series of that name"
    return ROWS[name], ""


def labels_of(name: str) -> set[str]:
    """Return the labels that a series has in Prometheus."""
    row, suffix = family(name)
    own = {RENAMED.get(label, label) for label in row.labels}
    return own | TARGET | ({"le"} if suffix == "_bucket" else set())


def known_to(
    options: RulesOptions, settings: Settings
) -> Iterator[tuple[Recording | Alert, str, set[str]]]:
    """Yield every rule with each series that it looks at, and the labels that this one has."""
    extra = {*options.group_by, *options.selected}
    for group in groups(options, settings):
        recorded: dict[str, set[str]] = {}
        for rule in group.rules:
            for each in selections(rule.expression):
                if each.metric in recorded:
                    labels = recorded[each.metric]
                else:
                    labels = TARGET if each.metric == UP else labels_of(each.metric)
                yield rule, each.metric, labels | extra
            if isinstance(rule, Recording):
                level = rule.name.partition(":")[0]
                labels = {"instance", "queue_name"} if "instance" in level else set()
                recorded[rule.name] = labels | extra | {"queue_name"} | set(rule.labels)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("options", OPTIONS, ids=["default", "others"])
def test_every_series_and_label_exists(options: RulesOptions, preset: str) -> None:
    """A selector names series of the catalogue, or recorded before, and labels that they have."""
    seen = 0
    for rule, metric, labels in known_to(options, Settings(preset=preset)):
        of_metric = [each for each in selections(rule.expression) if each.metric == metric]
        assert of_metric
        for each in of_metric:
            assert {label for label, _, _ in each.matchers} <= labels, (rule.name, metric)
        seen += 1
    assert seen > 100


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("options", OPTIONS, ids=["default", "others"])
def test_every_label_that_is_matched_or_aggregated_exists(
    options: RulesOptions, preset: str
) -> None:
    """`by`, `without`, `on` and `ignoring` name labels that a series of the expression has."""
    by_expression: dict[str, set[str]] = {}
    for rule, _, labels in known_to(options, Settings(preset=preset)):
        by_expression.setdefault(rule.expression, set()).update(labels)
    for expression, labels in by_expression.items():
        assert labels_in(expression) <= labels, expression


@pytest.mark.parametrize("preset", PRESETS)
def test_every_bound_is_a_bucket(preset: str) -> None:
    """An `le` is written as the exposition writes it, and is a bound of that histogram."""
    settings = Settings(preset=preset, slo=(0.3,))
    options = RulesOptions(latency_slo=("0.3:99", "1:99.9"))
    bounds = []
    for group in groups(options, settings):
        for rule in group.rules:
            for each in selections(rule.expression):
                for label, operator, value in each.matchers:
                    if label == "le":
                        assert operator == "="
                        row, _ = family(each.metric)
                        assert row.name.endswith("request_duration_seconds")
                        assert value in map(floatToGoString, settings.duration_bounds)
                        bounds.append(value)
    assert set(bounds) == {"0.3", "1.0"}


@pytest.mark.parametrize("preset", PRESETS)
def test_counters_are_only_seen_as_they_grow(preset: str) -> None:
    """A counter's value stands in a rate or increase, or beside its own past."""
    for group in groups(RulesOptions(), Settings(preset=preset)):
        for rule in group.rules:
            for each in selections(rule.expression):
                row = ROWS.get(each.metric)
                if row is not None and row.kind == "counter":
                    assert any(
                        f"{word}({each.metric}" in rule.expression for word in ("rate", "increase")
                    )


def pages() -> list[Path]:
    """Return the runbooks."""
    return sorted(RUNBOOKS.glob("Aiosvc*.md"))


def alerts(settings: Settings | None = None) -> dict[str, tuple[Group, Alert]]:
    """Return every alert by name, with its group."""
    found = groups(RulesOptions(), settings or Settings())
    return {alert.name: (group, alert) for group in found for alert in group.alerts}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """The page that an alert links to is there, and no page is left of an alert that is gone."""
    assert [page.stem for page in pages()] == sorted(alerts())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_runbook_says_what_it_means_and_what_to_do(page: Path) -> None:
    """Each page has its alert's name, the three chapters and a query at least."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.stem}\n")
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## What it means", "## What to look at", "## What to do"]
    assert queries(text)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_queries_of_runbooks_name_what_exists(page: Path) -> None:
    """A query in a runbook names series and labels of the catalogue, or recordings that are made."""
    recordings = {
        recording.name: recording
        for group in groups(RulesOptions(), Settings())
        for recording in group.recordings
    }
    for query in queries(page.read_text(encoding="utf-8")):
        labels = set()
        for each in selections(query):
            if each.metric in recordings or each.metric in PROMETHEUS:
                labels |= TARGET | {"queue_name", "threshold"}
                continue
            own = labels_of(each.metric)
            assert {label for label, _, _ in each.matchers} <= own, query
            labels |= own
        assert labels_in(query) <= labels, query


def queries(text: str) -> list[str]:
    """Return the queries of a page, one a line in its blocks of PromQL."""
    blocks = text.split("```promql\n")[1:]
    return [line for block in blocks for line in block.split("```")[0].splitlines() if line]
