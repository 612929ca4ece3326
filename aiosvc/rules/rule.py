"""
What a rule is, before it is written to a file.

Rule: plain data; `files` alone knows how Prometheus wants it spelled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["DAY", "HOUR", "MINUTE", "Alert", "Group", "Recording"]

MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that is computed at each evaluation; *name* is `level:metric:operations`."""

    name: str
    expression: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alert:
    """
    An alert, which fires when *expression* has given a series for *wait* seconds.

    A `page` is for somebody to act on now, a `ticket` within days. It goes on firing for *keep*
    seconds after the expression gave nothing. *labels* are its own and always the same. *summary*
    and *description* are Go templates.
    """

    name: str
    urgency: Literal["page", "ticket"]
    expression: str
    summary: str
    description: str
    wait: float
    keep: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other, so that alerts see what was recorded."""

    name: str
    recordings: tuple[Recording, ...]
    alerts: tuple[Alert, ...]

    @property
    def rules(self) -> tuple[Recording | Alert, ...]:
        """All of them, in the order in which they are evaluated."""
        return (*self.recordings, *self.alerts)
