"""Queues under anything that can be done to them, held against a tally of the test's own."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from .readouts import Readout, kinds, settle

#: What a queue raises that was shut down; of a class that Python 3.11 does not have.
SHUT_DOWN: type[Exception] = getattr(asyncio, "QueueShutDown", RuntimeError)


class Item:
    """Something with a priority that compares equal to all others and can't be hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, priority: int) -> None:
        self.priority = priority

    def __eq__(self, other: object) -> bool:
        return True

    def __lt__(self, other: "Item") -> bool:
        return self.priority < other.priority


class QueueUnderUse(RuleBasedStateMachine):
    """
    One queue, its producers and consumers, and what they saw.

    The tally knows when each item got in from its producer's put having returned, and when it was
    taken from its consumer's get having returned, which is at the same time of the clock that the
    test turns. Of an object that is there twice it assumes that the order of the queue decides.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.readout = Readout()
        self.objects = [Item(number % 3) for number in range(5)]
        self.puts: dict[asyncio.Task[None], Item] = {}
        self.gets: set[asyncio.Task[Item]] = set()
        #: (object, since when) in the order of arrival; None for what was there before.
        self.held: list[tuple[Item, float | None]] = []
        self.started = self.readout.clock.now
        self.enqueued = self.taken = self.finished = 0
        self.rejected = {"full": 0, "cancelled": 0, "shutdown": 0}
        self.dropped = 0
        self.waits: list[float] = []
        self.closed = False
        self.uses_task_done = False

    @initialize(kind=st.sampled_from(kinds()), size=st.integers(0, 4), before=st.integers(0, 3))
    def make(self, kind: Any, size: int, before: int) -> None:
        """Make the queue, and put something into it before anybody looks."""
        self.kind = kind
        self.queue: asyncio.Queue[Item] = kind(maxsize=size)
        for number in range(min(before, size or before)):
            self.queue.put_nowait(self.objects[number])
            self.held.append((self.objects[number], None))
        self.readout.queues.watch(self.queue, "jobs")

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        """Turn the clock."""
        self.readout.clock.now += seconds

    @rule(which=st.integers(0, 4))
    def put(self, which: int) -> None:
        """Begin a put that may have to wait."""
        self._run(self._begin_put(self.objects[which]))

    @rule(which=st.integers(0, 4))
    def put_nowait(self, which: int) -> None:
        """Put at once, or not."""
        self._run(self._put_nowait(self.objects[which]))

    @rule()
    def get(self) -> None:
        """Begin a get that may have to wait."""
        self._run(self._begin_get())

    @rule()
    def get_nowait(self) -> None:
        """Take at once, or not."""
        self._run(self._get_nowait())

    @precondition(lambda self: self.puts)
    @rule(data=st.data())
    def give_up_a_put(self, data: st.DataObject) -> None:
        """Cancel a put that waits."""
        data.draw(st.sampled_from(list(self.puts))).cancel()
        self._run(settle())

    @precondition(lambda self: self.gets)
    @rule(data=st.data())
    def give_up_a_get(self, data: st.DataObject) -> None:
        """Cancel a get that waits."""
        data.draw(st.sampled_from(sorted(self.gets, key=id))).cancel()
        self._run(settle())

    @precondition(lambda self: self.taken > self.finished)
    @rule()
    def task_done(self) -> None:
        """Finish an item."""
        self.queue.task_done()
        self.finished += 1
        self.uses_task_done = True

    @precondition(lambda self: sys.version_info >= (3, 13) and not self.closed)
    @rule(immediate=st.booleans())
    def shutdown(self, immediate: bool) -> None:
        """Shut the queue down, from Python 3.13 on."""
        self.closed = True
        if immediate:
            self.dropped += len(self.held)
            self.held.clear()
        self._run(self._shutdown(immediate))

    @invariant()
    def agrees(self) -> None:
        """Everything that a scrape says is what was seen."""
        value = self.readout.value
        assert value("queue_depth") == len(self.held)
        assert value("queue_items_enqueued_total") == self.enqueued
        for reason, count in self.rejected.items():
            assert value("queue_items_rejected_total", reason=reason) == count, reason
        assert value("queue_items_dropped_total", reason="shutdown") == self.dropped
        assert value("queue_items_dropped_total", reason="discarded") == 0
        assert value("queue_wait_seconds_count") == len(self.waits)
        assert value("queue_wait_seconds_sum") == sum(self.waits)
        assert value("queue_producers_waiting") == len(self.puts)
        assert value("queue_consumers_waiting") == len(self.gets)
        since = [self.started if at is None else at for _, at in self.held]
        age = self.readout.clock.now - min(since, default=self.readout.clock.now)
        assert value("queue_oldest_item_age_seconds") == age
        if self.uses_task_done:
            assert value("queue_in_flight") == self.taken - self.finished
        else:
            assert value("queue_in_flight") is None
        assert self.readout.errors == []

    def teardown(self) -> None:
        """Leave no task behind."""
        for task in (*self.puts, *self.gets):
            task.cancel()
        self.loop.run_until_complete(settle())
        self.loop.close()

    async def _begin_put(self, item: Item) -> None:
        self.puts[asyncio.create_task(self.queue.put(item))] = item
        await settle()

    async def _put_nowait(self, item: Item) -> None:
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self.rejected["full"] += 1
        except SHUT_DOWN:
            self.rejected["shutdown"] += 1
        else:
            self._entered(item)
        await settle()

    async def _begin_get(self) -> None:
        self.gets.add(asyncio.create_task(self.queue.get()))
        await settle()

    async def _get_nowait(self) -> None:
        try:
            item = self.queue.get_nowait()
        except (asyncio.QueueEmpty, SHUT_DOWN):
            pass
        else:
            self._left(item)
        await settle()

    async def _shutdown(self, immediate: bool) -> None:
        self.queue.shutdown(immediate)  # type: ignore[attr-defined]  # from Python 3.13 on
        await settle()

    def _run(self, step: Coroutine[Any, Any, None]) -> None:
        """Do a step, then enter into the tally what producers and consumers saw."""
        # Out of a queue that holds something an item leaves before another can enter.
        leaves_first = bool(self.held)
        self.loop.run_until_complete(step)
        if leaves_first:
            self._note_gets()
        for task in [task for task in self.puts if task.done()]:
            item = self.puts.pop(task)
            if task.cancelled():
                self.rejected["cancelled"] += 1
            elif task.exception() is not None:
                self.rejected["shutdown"] += 1
            else:
                self._entered(item)
        self._note_gets()

    def _note_gets(self) -> None:
        for getting in [task for task in self.gets if task.done()]:
            self.gets.discard(getting)
            if not getting.cancelled() and getting.exception() is None:
                self._left(getting.result())

    def _entered(self, item: Item) -> None:
        self.enqueued += 1
        self.held.append((item, self.readout.clock.now))

    def _left(self, item: Item) -> None:
        self.taken += 1
        places = [place for place, (each, _) in enumerate(self.held) if each is item]
        # Of the same object twice in a priority queue nobody can say which has left; we say the
        # one that is known to be the older. What was there before is only told by being alone.
        if self.kind is asyncio.PriorityQueue:
            known = [place for place in places if self.held[place][1] is not None]
            places = known or places
        place = places[-1] if self.kind is asyncio.LifoQueue else places[0]
        _, at = self.held.pop(place)
        if at is not None:
            self.waits.append(self.readout.clock.now - at)


TestQueueUnderUse = QueueUnderUse.TestCase
TestQueueUnderUse.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, phases=set(Phase) - {Phase.explain}
)
