"""A broker's queue as a source, by `watch_queue`."""

import asyncio
from functools import partial

import pytest
from processes import until
from prometheus_client import CollectorRegistry

from aiosvc import ConfigError, Observer, Settings
from aiosvc.brokers import QueueState
from brokers.observing import observed, said, says, scraped


class Queue:
    """A queue that says what it is told to."""

    backend = "double"

    def __init__(self, answer: object = None) -> None:
        self.answer = QueueState(ready=3) if answer is None else answer
        self.asked = 0
        self.closed = 0

    async def sample(self) -> QueueState:
        """Return the answer, or raise it."""
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]  # a wrong one is a case too

    async def close(self) -> None:
        """Count."""
        self.closed += 1


async def test_any_object_that_says_how_it_is_can_be_watched() -> None:
    """What has a backend and an async `sample` is exported, and closed at the end."""
    queue = Queue()
    async with observed(queue) as observer:
        await says(observer, 3)
        assert said(observer, "aiosvc_source_up") == 1
        assert 'queue_info{backend="double",queue_name="orders",scope="shared"} 1.0' in scraped(
            observer
        )
    assert queue.closed == 1


async def test_the_queue_comes_back() -> None:
    """`watch_queue` returns what it was given, so it can stand where the queue is made."""
    observer = Observer(CollectorRegistry(), Settings())
    queue = Queue()
    assert observer.watch_queue(queue, name="orders") is queue
    assert observer.watch_queue(queue, name="orders") is queue  # a second time changes nothing


async def test_a_queue_that_fails_goes_and_comes_back() -> None:
    """While it fails the source is down and, after the kept intervals, its series are gone."""
    queue = Queue()
    async with observed(queue, interval=0.02) as observer:
        await says(observer, 3)
        queue.answer = ConnectionError("gone")
        await says(observer, 0, "aiosvc_source_up")
        await says(observer, None)
        assert "queue_info" not in scraped(observer)
        queue.answer = QueueState(ready=4)
        await says(observer, 4)
        assert said(observer, "aiosvc_source_up") == 1


async def test_a_wrong_answer_is_an_error_of_the_source(caplog: pytest.LogCaptureFixture) -> None:
    """What is no QueueState is said in the log, and exported as a source that is down."""
    async with observed(Queue(7)) as observer:
        await says(observer, 0, "aiosvc_source_up")
    assert "sample() returned 7; expected aiosvc.brokers.QueueState" in caplog.text


async def test_a_name_belongs_to_one_queue() -> None:
    """A broker's queue and one in the process can't have one name, whichever came first."""
    observer = Observer(CollectorRegistry(), Settings())
    mine: asyncio.Queue[int] = observer.watch_queue(asyncio.Queue(), name="mine")
    with pytest.raises(ConfigError, match="queue name 'mine': another queue has it"):
        observer.watch_queue(Queue(), name="mine")
    observer.watch_queue(Queue(), name="theirs")
    with pytest.raises(ConfigError, match="queue name 'theirs': a broker's queue has it"):
        observer.watch_queue(mine, name="theirs")
    with pytest.raises(ConfigError, match="queue name 'theirs': another queue has it"):
        observer.watch_queue(Queue(), name="theirs")
    with pytest.raises(ConfigError, match="queue 'process': is there already"):
        observer.watch_queue(Queue(), name="process")


@pytest.mark.parametrize("name", ["a b", "", 'x"y', 7])
async def test_a_name_may_not_hold_anything(name: str) -> None:
    """A name of a broker's queue has the characters that any queue's name has."""
    observer = Observer(CollectorRegistry(), Settings())
    with pytest.raises(ConfigError, match="may hold only letters, digits"):
        observer.watch_queue(Queue(), name=name)


@pytest.mark.parametrize(("interval", "timeout"), [(0, None), (-1, None), (1, 0), ("1", None)])
def test_times_must_make_sense(interval: float, timeout: float | None) -> None:
    """An interval or a timeout that is no time is refused at once."""
    observer = Observer(CollectorRegistry(), Settings())
    with pytest.raises(ConfigError, match=r"queue 'orders': (interval|timeout): "):
        observer.watch_queue(Queue(), name="orders", interval=interval, timeout=timeout)


async def test_an_interval_is_for_brokers_only() -> None:
    """A queue in the process is read with everything else, and says so."""
    observer = Observer(CollectorRegistry(), Settings())
    with pytest.raises(ConfigError, match="interval and timeout are for a broker's queue"):
        observer.watch_queue(asyncio.Queue(), name="mine", interval=3.0)


async def test_what_is_no_queue_is_refused() -> None:
    """A wrong object is told what would do."""
    observer = Observer(CollectorRegistry(), Settings())
    for wrong in (object(), Queue, 7):  # a class too, of which no queue was made
        with pytest.raises(
            ConfigError, match=r"expected a queue of asyncio.* or a queue of aiosvc"
        ):
            observer.watch_queue(wrong, name="orders")


async def test_a_queue_may_come_while_the_service_runs() -> None:
    """One that is watched later has its first sample at once, not after an interval."""
    async with observed(Queue()) as observer:
        observer.watch_queue(Queue(QueueState(ready=8)), name="late", interval=3600)
        depth = partial(observer.registry.get_sample_value, "queue_depth", {"queue_name": "late"})
        await until(lambda: depth() == 8, "the first sample")


async def test_two_applications_on_one_registry_agree() -> None:
    """The same queue watched by two observers of a registry is not counted twice."""
    registry = CollectorRegistry()
    observers = [Observer(registry, Settings()) for _ in range(2)]
    for observer in observers:
        observer.watch_queue(Queue(), name="orders")
        await observer.start()
    await says(observers[0], 3)
    for observer in observers:
        await says(observer, 1, "aiosvc_source_up")
    assert said(observers[0]) == 3
    for observer in observers:
        await observer.stop()
    assert said(observers[0]) is None


async def test_a_process_may_leave_the_asking_to_others() -> None:
    """Without sample_brokers a broker's queue is not asked, and says nothing; its name is taken."""
    registry = CollectorRegistry()
    observer = Observer(registry, Settings(sample_brokers=False))
    queue = Queue()
    assert observer.watch_queue(queue, name="orders") is queue
    with pytest.raises(ConfigError, match="queue name 'orders'"):
        observer.watch_queue(asyncio.Queue(), name="orders")
    await observer.start()
    try:
        await asyncio.sleep(0.05)
        assert queue.asked == 0
        assert registry.get_sample_value("queue_depth", {"queue_name": "orders"}) is None
        assert registry.get_sample_value("aiosvc_source_up", {"source": "orders"}) is None
    finally:
        await observer.stop()
