"""What a sample says, and the metrics that it becomes."""

from collections.abc import Mapping

import pytest

from aiosvc import catalogue
from aiosvc.brokers import QueueState
from aiosvc.readings import Readings

WHOLE = QueueState(
    ready=1, in_flight=2, scheduled=3, dead=4, retained=5, oldest_age=6.5, consumers=7, capacity=8
)


def numbers(readings: Readings) -> Mapping[str, float]:
    """Return the numbers by metric, of readings with one series for each."""
    return {spec.name: sum(series.values()) for spec, series in readings.numbers.items()}


def test_each_field_is_a_metric_of_its_own() -> None:
    """What is known becomes the metric that the catalogue has for it."""
    assert numbers(WHOLE.readings("orders", "redis")) == {
        "queue_depth": 1,
        "queue_in_flight": 2,
        "queue_scheduled": 3,
        "queue_dead": 4,
        "queue_retained_items": 5,
        "queue_oldest_item_age_seconds": 6.5,
        "queue_consumers": 7,
        "queue_capacity": 8,
        "queue_info": 1,
    }


def test_unknown_is_absent() -> None:
    """A field that is None has no series; 0 has one."""
    assert numbers(QueueState(ready=0).readings("orders", "sql")) == {
        "queue_depth": 0,
        "queue_info": 1,
    }


def test_the_queue_is_said_to_be_shared() -> None:
    """`queue_info` tells rules that replicas agree, and what keeps the queue."""
    readings = WHOLE.readings("orders", "nats")
    assert readings.numbers[catalogue.QUEUE_INFO] == {("orders", "nats", "shared"): 1}


def test_two_reporters_of_one_queue_do_not_double_it() -> None:
    """Two applications on one registry that watch the same queue give the larger number."""
    together = Readings()
    for ready in (5, 7, 6):
        together.absorb(QueueState(ready=ready).readings("orders", "redis"))
    again = Readings()
    again.absorb(together)
    again.absorb(QueueState(ready=1).readings("orders", "redis"))
    assert numbers(again) == {"queue_depth": 7, "queue_info": 1}


def test_what_is_in_the_process_is_still_added_up() -> None:
    """A number of the process's own stays a sum, of the same metric too."""
    readings = Readings()
    for depth in (1, 2):
        readings.number(catalogue.QUEUE_DEPTH, depth, ("email",))
    assert numbers(readings) == {"queue_depth": 3}


@pytest.mark.parametrize("value", ["7", float("nan"), float("inf"), object()])
def test_what_is_no_number_is_refused(value: object) -> None:
    """A text, a NaN or an infinity says which field it was given for."""
    with pytest.raises(ValueError, match=r"ready: .* given; expected a number, or None"):
        QueueState(ready=value)  # type: ignore[arg-type]


def test_nothing_is_negative() -> None:
    """A clock that is behind, or two counts of different moments, count as 0."""
    assert QueueState(ready=-1, oldest_age=-0.5) == QueueState(ready=0, oldest_age=0)


@pytest.mark.parametrize(
    ("one", "other", "age"),
    [
        (QueueState(ready=1, oldest_age=5), QueueState(ready=2, oldest_age=9), 9),
        (QueueState(ready=1, oldest_age=5), QueueState(ready=0, oldest_age=0), 5),
        (QueueState(ready=0, oldest_age=0), QueueState(ready=0, oldest_age=0), 0),
        (QueueState(ready=1, oldest_age=5), QueueState(ready=2), None),
        (QueueState(in_flight=1), QueueState(dead=2), None),
    ],
)
def test_the_age_of_two_queues_is_that_of_the_older_one(
    one: QueueState, other: QueueState, age: float | None
) -> None:
    """Two that are one have the larger age, unknown where one with items does not know it."""
    assert (one + other).oldest_age == (other + one).oldest_age == age


def test_two_queues_are_added_up_where_they_are_known() -> None:
    """What only one of them knows is that one's."""
    both = QueueState(ready=1, dead=2) + QueueState(ready=3, in_flight=4)
    assert both == QueueState(ready=4, dead=2, in_flight=4)
