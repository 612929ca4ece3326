"""
How a queue stands at one moment, whatever kind of queue it is.

Rule: what is not known is None and is not exported; 0 always means that somebody looked and there
was none. Rule: knows no queue; a probe fills it in, be it of an object in this process or of a
broker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from aiosvc import catalogue
from aiosvc.catalogue import MetricSpec
from aiosvc.readings import Readings

__all__ = ["PROCESS", "SHARED", "Probe", "QueueState", "Scope", "guarded", "report_state"]

#: Whether each replica has a queue of its own, or all look at the same one.
Scope = Literal["process", "shared"]

PROCESS: Scope = "process"
SHARED: Scope = "shared"


@dataclass(frozen=True, slots=True)
class QueueState:
    """
    The gauges of one queue; None is "not known".

    `depth`, `in_flight`, `scheduled` and `dead` have no item in common. `oldest_age` is in seconds
    since the oldest ready item became so, 0.0 without one. `slots` and `busy` are those of workers
    that belong to the queue itself, as a pool of threads does.
    """

    depth: float | None = None
    in_flight: float | None = None
    scheduled: float | None = None
    dead: float | None = None
    capacity: float | None = None
    consumers: float | None = None
    consumers_waiting: float | None = None
    producers_waiting: float | None = None
    retained: float | None = None
    oldest_age: float | None = None
    slots: float | None = None
    busy: float | None = None


class Probe(Protocol):
    """Reads one queue; it must not wait, and may be called from any thread."""

    backend: str

    def read(self) -> QueueState:
        """Return how the queue stands now."""


ROWS: dict[str, MetricSpec] = {
    "depth": catalogue.QUEUE_DEPTH,
    "in_flight": catalogue.QUEUE_IN_FLIGHT,
    "scheduled": catalogue.QUEUE_SCHEDULED,
    "dead": catalogue.QUEUE_DEAD,
    "capacity": catalogue.QUEUE_CAPACITY,
    "consumers": catalogue.QUEUE_CONSUMERS,
    "consumers_waiting": catalogue.QUEUE_CONSUMERS_WAITING,
    "producers_waiting": catalogue.QUEUE_PRODUCERS_WAITING,
    "retained": catalogue.QUEUE_RETAINED,
    "oldest_age": catalogue.QUEUE_OLDEST_ITEM,
    "slots": catalogue.WORKER_SLOTS,
    "busy": catalogue.WORKERS_BUSY,
}


def report_state(
    readings: Readings, name: str, backend: str, state: QueueState, scope: Scope = PROCESS
) -> None:
    """Add what is known of the queue *name* to *readings*."""
    readings.number(catalogue.QUEUE_INFO, 1, (name, backend, scope))
    for field, spec in ROWS.items():
        value = getattr(state, field)
        if value is not None:
            readings.number(spec, value, (name,))


def guarded(read: Callable[[], object]) -> float | None:
    """
    Return the number that *read* gives, or None where there is none to be had.

    It is for attributes that nobody promised, and for methods that a user may have overridden:
    whatever they raise or return, it only means that something is not known.
    """
    try:
        value = read()
    except Exception:  # noqa: BLE001 - anything can be in the way, and all of it means the same
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:  # noqa: PLR0124 - not NaN
        return value
    return None
