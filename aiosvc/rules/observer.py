"""
Rules about aiosvc itself: whether what it shows can be believed.

A counter that appears with its first event has no increase that Prometheus could see; the series that
was not there before counts as a whole.
"""

from collections.abc import Iterator
from typing import Final

from aiosvc import catalogue
from aiosvc.catalogue import MetricSpec
from aiosvc.rules.rule import MINUTE, Alert, Group
from aiosvc.rules.scope import Scope

__all__ = ["observer_group"]

#: Events in half an hour that one mishap can make.
FEW: Final = 3


def observer_group(scope: Scope) -> Group:
    """Return the alerts."""
    return Group("observer", (), tuple(_alerts(scope)))


def _increase(scope: Scope, row: MetricSpec, *matchers: str) -> str:
    """Return how often a counter's event occurred in half an hour, a new series' events too."""
    series, window = scope.series(row, *matchers), scope.window(30 * MINUTE)
    return f"({series} unless {series} offset {window} or increase({series}[{window}]))"


def _alerts(scope: Scope) -> Iterator[Alert]:
    yield Alert(
        "AiosvcSamplerStale",
        "ticket",
        f"{scope.series(catalogue.SAMPLER_LATENESS)} > 5",
        "{{ $labels.instance }}: samples are {{ $value | humanizeDuration }} late",
        "The sampler of {{ $labels.instance }} does not get its turn; what it reports is old.",
        scope.seconds(5 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
    yield Alert(
        "AiosvcSourceDown",
        "ticket",
        f"{scope.series(catalogue.SOURCE_UP)} == 0",
        "{{ $labels.instance }}: source {{ $labels.source }} fails",
        "Source {{ $labels.source }} of {{ $labels.instance }} raises or takes too long; its series "
        "are gone after a few intervals.",
        scope.seconds(5 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
    yield Alert(
        "AiosvcLabelOverflow",
        "ticket",
        # Which methods it sends is a client's choice, and nothing to act on.
        f"{_increase(scope, catalogue.LABEL_OVERFLOW, _NOT_METHOD)} > 0",
        "{{ $labels.instance }}: label {{ $labels.label }} of {{ $labels.metric }} is full",
        "New values of label {{ $labels.label }} of {{ $labels.metric }} are counted as '_other', or "
        "left out: {{ $value | humanize }} times in half an hour.",
        scope.seconds(5 * MINUTE),
    )
    yield Alert(
        "AiosvcInstrumentationErrors",
        "ticket",
        f"{_increase(scope, catalogue.INSTRUMENTATION_ERRORS)} > {FEW}",
        "{{ $labels.instance }}: {{ $value | humanize }} errors in {{ $labels.where }}",
        "Something that observes {{ $labels.instance }} raises ({{ $labels.where }}); requests are "
        "not disturbed, but a number is missing or too low.",
        scope.seconds(2 * MINUTE),
    )
    yield Alert(
        "AiosvcCollectorFailing",
        "ticket",
        f"{_increase(scope, catalogue.EXPOSITION_ERRORS)} > {FEW}",
        "{{ $labels.instance }}: collector {{ $labels.collector }} failed in {{ $value | humanize }} "
        "scrapes",
        "The metrics of {{ $labels.collector }} are missing from scrapes of {{ $labels.instance }}.",
        scope.seconds(2 * MINUTE),
    )


_NOT_METHOD: Final = 'label!="method"'
