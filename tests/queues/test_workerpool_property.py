"""The worker pool under whatever handlers do and whenever it stops: nothing is lost or doubled."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from .readouts import Readout, kinds, settle

#: What an attempt may do, and how it ends where it is the last one that is possible.
LAST = {
    "return": "ok",
    "wait": "ok",
    "fail": "error",
    "fail for good": "error",
    "hang": "timeout",
    "swallow": "timeout",
    "cancel": "cancelled",
}


class PermanentError(Exception):
    """What is not tried again."""


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Item:
    """An item, and what each attempt at it does."""

    def __init__(self, number: int, acts: list[str]) -> None:
        self.number = number
        self.acts = acts
        self.attempts = 0
        self.ends: list[str] = []

    def __lt__(self, other: "Item") -> bool:
        return self.number < other.number


async def handle(item: Item) -> None:
    """Do what the item says for this attempt, and note how it ended."""
    act = item.acts[min(item.attempts, len(item.acts) - 1)]
    item.attempts += 1
    try:
        if act == "wait":
            try:
                await settle(2)
            except asyncio.CancelledError:
                act = "hang"  # two turns may take longer than the timeout, on a busy machine
                raise
        elif act == "fail":
            raise OSError
        elif act == "fail for good":
            raise PermanentError
        elif act == "hang":
            await asyncio.Event().wait()
        elif act == "swallow":
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        elif act == "cancel":
            raise asyncio.CancelledError
    finally:
        item.ends.append(act)


@settings(max_examples=80, deadline=None, phases=set(Phase) - {Phase.explain})
@given(
    acts=st.lists(st.lists(st.sampled_from(sorted(LAST)), min_size=1, max_size=3), max_size=12),
    kind=st.sampled_from(kinds()),
    concurrency=st.integers(1, 3),
    attempts=st.integers(1, 3),
    dead_letters=st.sampled_from([0, 100]),
    turns=st.integers(0, 20),
    drains=st.booleans(),
)
def test_nothing_is_lost(
    acts: list[list[str]],
    kind: Any,
    concurrency: int,
    attempts: int,
    dead_letters: int,
    turns: int,
    drains: bool,
) -> None:
    """Attempts begun == outcomes, and every item is finished, dead or handed back, exactly once."""
    readout = Readout()
    items = [Item(number, each) for number, each in enumerate(acts)]

    async def run() -> tuple[Item, ...]:
        queue: asyncio.Queue[Item] = kind()
        pool = readout.queues.pool(
            queue,
            handle,
            "jobs",
            concurrency=concurrency,
            attempts=attempts,
            retry_on=(OSError, TimeoutError),
            timeout=0.002,
            backoff=0.001,
            dead_letters=dead_letters,
        )
        pool.start()
        for item in items:
            pool.put_nowait(item)
        await settle(turns)
        left = (await pool.stop(60 if drains else 0)).left
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert pool._retries._tries == {}
        assert list(pool.dead_letters) == [] or dead_letters
        await asyncio.wait_for(queue.join(), 60)
        return tuple(left)

    left = asyncio.run(run())
    outcomes = Counter(readout.outcomes("handle"))
    assert sum(outcomes.values()) == sum(item.attempts for item in items)
    assert readout.value("workers_busy") == 0
    assert readout.value("queue_oldest_running_seconds") == 0
    assert readout.value("queue_depth") in (0, None)  # None once the queue was collected
    assert readout.value("queue_items_enqueued_total") == len(items)
    assert readout.value("queue_items_dropped_total", reason="shutdown") == len(left)
    assert len(set(map(id, left))) == len(left)
    assert not (drains and left)
    finals = Counter(outcomes)
    del finals["retry"]
    handed_back = {id(item) for item in left}
    cut_short = finals["cancelled"] - sum(
        item.ends[-1:] == ["cancel"] for item in items if id(item) not in handed_back
    )
    assert sum(finals.values()) - cut_short == len(items) - len(left)
    assert all(item.attempts <= attempts for item in items)
    if drains:
        expected = Counter(LAST[item.ends[-1]] for item in items)
        failed = expected.pop("error", 0) + expected.pop("timeout", 0)
        if dead_letters:
            assert finals["dead"] == failed
        else:
            assert finals["error"] + finals["timeout"] == failed
        assert finals["ok"] == expected["ok"]
        assert finals["cancelled"] == expected["cancelled"]
