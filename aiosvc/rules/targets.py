"""Rules about the targets themselves, as Prometheus sees them."""

from typing import Final

from aiosvc.rules.rule import MINUTE, Alert, Group
from aiosvc.rules.scope import Scope

__all__ = ["UP", "target_group"]

#: What Prometheus itself says of each target.
UP: Final = "up"


def target_group(scope: Scope) -> Group:
    """Return the alerts."""
    up = scope.series(UP)
    return Group(
        "targets",
        (),
        (
            Alert(
                "AiosvcTargetDown",
                "ticket",
                f"{up} == 0",
                "{{ $labels.instance }} ({{ $labels.job }}): can't be scraped",
                "Prometheus gets no metrics from {{ $labels.instance }}: it is down, can't be "
                "reached, or takes longer than the scrape's timeout.",
                scope.seconds(5 * MINUTE),
                scope.seconds(2 * MINUTE),
            ),
            Alert(
                "AiosvcServiceAbsent",
                "page",
                f"absent({up})\nor\nsum by {scope.by()} ({up}) == 0",
                f"No target of {scope.targets} can be scraped",
                "No target is there, or none answers: the service is down, or nobody watches it.",
                scope.seconds(3 * MINUTE),
            ),
        ),
    )
