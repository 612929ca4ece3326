"""Queues by name: who may be watched, what stays when one has gone, and what a restart keeps."""

import asyncio
import concurrent.futures
import gc
from typing import Any

import pytest

from aiosvc.errors import ConfigError
from aiosvc.queues.family import MAX_GONE

from .readouts import Readout, kinds, settle


@pytest.fixture
def readout() -> Readout:
    """Return queues on a registry of the test's own."""
    return Readout()


def use(jobs: asyncio.Queue[int], times: int = 1) -> None:
    """Put and take so often."""
    for number in range(times):
        jobs.put_nowait(number)
        jobs.get_nowait()


@pytest.mark.parametrize("kind", kinds())
def test_the_queue_stays_what_it_is(readout: Readout, kind: Any) -> None:
    """The same object comes back, of the same class."""
    jobs = kind()
    assert readout.queues.watch(jobs, "jobs") is jobs
    assert type(jobs) is kind


@pytest.mark.parametrize(
    "wrong", [None, 5, "jobs", [], object(), asyncio.Event(), asyncio.Queue, iter([])]
)
def test_what_is_no_queue(readout: Readout, wrong: Any) -> None:
    """Anything that has no queue is refused with a word about what would do."""
    with pytest.raises(ConfigError, match="given; expected a queue of asyncio, queue or janus"):
        readout.queues.watch(wrong, "jobs")


def test_what_can_not_be_held_weakly(readout: Readout) -> None:
    """A queue of one's own that can't be referred to weakly is told how it could."""

    class Slotted:
        __slots__ = ()

        def qsize(self) -> int:
            return 0

    with pytest.raises(ConfigError, match="give its class a __weakref__"):
        readout.queues.watch(Slotted(), "jobs")


@pytest.mark.parametrize("name", ["", "a b", "ä", "a/b", 'a"b', "a\n", None, 5, b"jobs"])
def test_names(readout: Readout, name: Any) -> None:
    """A name that would not do as a label's value is refused, in each verb."""
    message = "may hold only letters, digits, '_', '-' and '.'"
    with pytest.raises(ConfigError, match=message):
        readout.queues.watch(asyncio.Queue[int](), name)
    with pytest.raises(ConfigError, match=message):
        readout.queues.track(name)
    with pytest.raises(ConfigError, match=message):
        readout.queues.pool(asyncio.Queue[int](), settle, name)


def test_waits_is_yes_or_no(readout: Readout) -> None:
    """The option says what it expects."""
    with pytest.raises(ConfigError, match="waits: 'no' given; expected True or False"):
        readout.queues.watch(asyncio.Queue[int](), "jobs", waits="no")  # type: ignore[arg-type]  # wrong


def test_same_queue_twice(readout: Readout) -> None:
    """Watching a queue again under its name changes nothing."""
    jobs: asyncio.Queue[int] = asyncio.Queue()
    for _ in range(3):
        readout.queues.watch(jobs, "jobs")
    use(jobs)
    assert readout.value("queue_items_enqueued_total") == 1


def test_taken_name(readout: Readout) -> None:
    """Two live queues can't have one name."""
    jobs = readout.queues.watch(asyncio.Queue[int](), "jobs")
    with pytest.raises(ConfigError, match="'jobs': another queue has it; give this one its own"):
        readout.queues.watch(asyncio.Queue[int](), "jobs")
    assert readout.value("queue_depth") == jobs.qsize()


def test_two_names_of_one_queue(readout: Readout) -> None:
    """A queue may be shown under two names, each of which counts it all."""
    jobs: asyncio.Queue[int] = asyncio.Queue()
    readout.queues.watch(jobs, "jobs")
    readout.queues.watch(jobs, "other")
    use(jobs, 2)
    for name in ("jobs", "other"):
        assert readout.value("queue_items_enqueued_total", name) == 2
        assert readout.value("queue_wait_seconds_count", name) == 2


def test_a_name_goes_on(readout: Readout) -> None:
    """When a queue has gone its gauges are gone, and the next of its name counts on from there."""
    for total in (3, 6, 9):
        jobs: asyncio.Queue[int] | None = readout.queues.watch(asyncio.Queue[int](1), "jobs")
        assert jobs is not None
        use(jobs, 3)
        assert readout.value("queue_items_enqueued_total") == total
        jobs = None
        gc.collect()
        assert readout.value("queue_depth") is None
        assert readout.value("queue_info", backend="asyncio", scope="process") is None
        assert readout.value("queue_items_enqueued_total") == total
        assert readout.value("queue_wait_seconds_count") == total


def test_short_lived_queues_leak_nothing(readout: Readout) -> None:
    """Thousands of queues that came and went leave nothing behind but a few counts."""

    def many(times: int) -> None:
        for number in range(times):
            use(readout.queues.watch(asyncio.Queue[int](), f"jobs-{number}"))
        gc.collect()
        readout.value("queue_depth")

    many(200)
    before = len(gc.get_objects())
    many(10_000)
    assert len(gc.get_objects()) - before < 100
    assert len(readout.queues._watched) == 0
    assert len(readout.queues._gone) == MAX_GONE


def test_counters_outlive_the_service(readout: Readout) -> None:
    """What was counted stays in the registry at a stop, and goes on after the next start."""
    jobs = readout.queues.watch(asyncio.Queue[int](), "jobs")
    with readout.queues.track("jobs", ["send"]).attempt("send"):
        use(jobs, 2)
    for _ in range(2):
        readout.collector.retire(readout.queues)
        readout.queues.forget()
        assert readout.value("queue_depth") is None
        assert readout.value("queue_items_enqueued_total") == 2
        readout.collector.attach(readout.queues)
        assert readout.value("queue_items_enqueued_total") == 2
        assert readout.value("queue_depth") == 0
    use(jobs)
    assert readout.value("queue_items_enqueued_total") == 3
    assert readout.value("queue_wait_seconds_count") == 3
    assert readout.outcomes("send") == {"ok": 1}


def test_one_bad_queue_costs_only_itself(readout: Readout) -> None:
    """A queue that can't be read is counted as an error, and the others are seen."""

    class Moody:
        def statistics(self) -> Any:
            if self.broken:
                raise RuntimeError("not today")
            return self

        broken = False
        borrowed_tokens = 0
        total_tokens = 1
        tasks_waiting = 0

    class Broken(asyncio.Queue[int]):
        pass

    moody = readout.queues.watch(Moody(), "moody")
    broken = readout.queues.watch(Broken(), "broken")
    good = readout.queues.watch(asyncio.Queue[int](), "jobs")
    moody.broken = True
    del broken._getters  # type: ignore[attr-defined]  # as another Python might have it
    broken._maxsize = None  # type: ignore[attr-defined]
    assert readout.value("queue_depth", "moody") is None
    assert readout.value("worker_slots", "moody") == 1
    assert readout.value("queue_consumers_waiting", "broken") is None
    assert readout.value("queue_capacity", "broken") is None
    assert readout.value("queue_depth", "broken") == 0
    assert readout.value("queue_depth") == good.qsize()


def test_who_knows_better_is_believed(readout: Readout) -> None:
    """Jobs that are tracked on a pool's threads are not counted twice as busy."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        readout.queues.watch(pool, "jobs")
        tracker = readout.queues.track("jobs")
        with tracker.attempt("send"):
            assert readout.value("workers_busy") == 1
            assert readout.value("worker_slots") == 4
        readout.queues.track("jobs", slots=2)
        assert readout.value("worker_slots") == 2


def test_two_services_on_one_registry(readout: Readout) -> None:
    """Queues of one name in two services are summed, their oldest item is the older one's."""
    other = Readout()
    readout.collector.attach(other.queues)
    first = readout.queues.watch(asyncio.Queue[int](5), "jobs")
    second = other.queues.watch(asyncio.Queue[int](5), "jobs")
    first.put_nowait(1)
    readout.clock.now += 9
    second.put_nowait(1)
    other.clock.now += 4
    assert readout.value("queue_depth") == 2
    assert readout.value("queue_capacity") == 10
    assert readout.value("queue_oldest_item_age_seconds") == 9
    assert readout.value("queue_info", backend="asyncio", scope="process") == 1
