"""
What one sample says of a queue that lives in a broker or a database.

Rule: what is not known is None, and absent from the scrape; 0 means that there is none. Rule: knows
no broker and no client.
"""

import math
from dataclasses import dataclass

from aiosvc import catalogue
from aiosvc.readings import Readings, Shared

__all__ = ["QueueState"]

#: The metric that each field becomes.
METRICS = {
    "ready": catalogue.QUEUE_DEPTH,
    "in_flight": catalogue.QUEUE_IN_FLIGHT,
    "scheduled": catalogue.QUEUE_SCHEDULED,
    "dead": catalogue.QUEUE_DEAD,
    "retained": catalogue.QUEUE_RETAINED,
    "oldest_age": catalogue.QUEUE_OLDEST_ITEM,
    "consumers": catalogue.QUEUE_CONSUMERS,
    "capacity": catalogue.QUEUE_CAPACITY,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueState:
    """
    How a queue is at one moment; every field may be None, for unknown.

    *ready* items wait to be taken, *in_flight* ones are taken and unfinished, *scheduled* ones wait
    for their time, *dead* ones were given up on: no item is two of these. *retained* is all that
    the store holds, finished items included. *oldest_age* is the seconds since the oldest ready
    item became due, 0 when none is ready; clocks that disagree never make it negative.
    """

    ready: float | None = None
    in_flight: float | None = None
    scheduled: float | None = None
    dead: float | None = None
    retained: float | None = None
    oldest_age: float | None = None
    consumers: float | None = None
    capacity: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no number, and count nothing below 0."""
        for name in METRICS:
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name}: {value!r} given; expected a number, or None")
            object.__setattr__(self, name, max(0, value))

    def __add__(self, other: "QueueState") -> "QueueState":
        """
        Return the state of two queues as one; what is known of one only is that one's.

        The age is unknown where one of them has ready items of unknown age.
        """
        both: dict[str, float | None] = {}
        for field in METRICS:
            known = [v for v in (getattr(self, field), getattr(other, field)) if v is not None]
            both[field] = sum(known) if known else None
        ages = [each.oldest_age for each in (self, other) if each.ready or each.oldest_age]
        known = [age for age in ages if age is not None]
        both["oldest_age"] = max(known, default=0) if len(known) == len(ages) else None
        if both["ready"] is None:
            both["oldest_age"] = None
        return QueueState(**both)

    def readings(self, name: str, backend: str) -> Readings:
        """Return it as metrics of the queue *name*; *backend* says what keeps the queue."""
        readings = Readings()
        for field, spec in METRICS.items():
            value = getattr(self, field)
            if value is not None:
                readings.number(spec, Shared(value), (name,))
        readings.number(catalogue.QUEUE_INFO, Shared(1), (name, backend, "shared"))
        return readings
