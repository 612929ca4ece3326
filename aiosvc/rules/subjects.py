"""
All subjects that there are rules about, as groups.

Rule: what an alert looks at is read from its expression, not written beside it.
"""

from collections.abc import Mapping

from aiosvc.catalogue import CATALOGUE
from aiosvc.config import Settings
from aiosvc.rules.budgets import check_objectives, request_groups
from aiosvc.rules.eventloop import eventloop_group
from aiosvc.rules.observer import observer_group
from aiosvc.rules.options import RulesOptions
from aiosvc.rules.process import process_group
from aiosvc.rules.promql import metrics_in
from aiosvc.rules.queues import queue_group
from aiosvc.rules.rule import Group
from aiosvc.rules.scope import Scope
from aiosvc.rules.targets import target_group

__all__ = ["alerts_by_metric", "groups"]

#: What a histogram's or summary's series have after the family's name.
SUFFIXES = ("_bucket", "_count", "_sum")


def groups(options: RulesOptions, settings: Settings) -> tuple[Group, ...]:
    """
    Return all groups of rules for a service that was set up with *settings*.

    Raises ConfigError where an objective can't be seen in the metrics.
    """
    check_objectives(options, settings)
    scope = Scope(options)
    return (
        *request_groups(options, settings),
        eventloop_group(scope),
        queue_group(scope, options),
        process_group(scope),
        observer_group(scope),
        target_group(scope),
    )


def alerts_by_metric() -> Mapping[str, tuple[str, ...]]:
    """Return the names of the alerts that look at each metric, through recordings too."""
    found: dict[str, dict[str, None]] = {}
    for preset in ("classic", "otel"):
        for group in groups(RulesOptions(), Settings(preset=preset)):
            recorded: dict[str, set[str]] = {}
            for recording in group.recordings:
                recorded[recording.name] = _families(recording.expression, recorded)
            for alert in group.alerts:
                for family in _families(alert.expression, recorded):
                    found.setdefault(family, {})[alert.name] = None
    return {family: tuple(alerts) for family, alerts in found.items()}


def _families(expression: str, recorded: Mapping[str, set[str]]) -> set[str]:
    """Return the catalogue's families that an expression names, or that a recording in it does."""
    found: set[str] = set()
    for name in metrics_in(expression):
        found |= recorded.get(name, {_family(name)})
    return found & {row.name for row in CATALOGUE}


def _family(name: str) -> str:
    bases = [name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)]
    known = {row.name for row in CATALOGUE if row.kind in ("histogram", "summary")}
    return next((base for base in bases if base in known), name)
