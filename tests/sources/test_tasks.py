"""Tasks of the event loop: what is counted, at which cost, and how old they are."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

import aiosvc
from aiosvc import catalogue
from aiosvc.sampling import Sampler
from aiosvc.series import OTHER
from aiosvc.sources import tasks as tasks_module
from aiosvc.sources.tasks import BATCH, PER_SECOND, TaskGroups, TaskSource


class Clock:
    """Stands in for the monotonic time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still."""
    return Clock()


@pytest.fixture(autouse=True)
def _time_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a walk done at once, however slow the machine; tests of slices say otherwise."""
    monkeypatch.setattr(tasks_module, "SLICE", 1000.0)


async def consume_forever() -> None:
    """Wait for the end."""
    await asyncio.Event().wait()


class Mailer:
    """Has a coroutine that is a method."""

    async def send_all(self) -> None:
        """Wait for the end."""
        await asyncio.Event().wait()


@asynccontextmanager
async def running(*coroutines: Any, names: tuple[str, ...] = ()) -> AsyncIterator[list[Any]]:
    """Have tasks of these for a while."""
    made = [asyncio.create_task(each) for each in coroutines]
    for task, name in zip(made, names, strict=False):
        task.set_name(name)
    await asyncio.sleep(0)
    try:
        yield made
    finally:
        for task in made:
            task.cancel()
        await asyncio.gather(*made, return_exceptions=True)


def total(source: TaskSource) -> float | None:
    """Return asyncio_tasks, None where it is absent."""
    numbers = source.read().numbers.get(catalogue.ASYNCIO_TASKS, {})
    assert numbers.keys() <= {()}
    return numbers.get(())


def by_group(source: TaskSource) -> dict[str, float]:
    """Return asyncio_tasks by group."""
    numbers = source.read().numbers[catalogue.ASYNCIO_TASKS]
    return {group: number for (group,), number in numbers.items()}


def oldest(source: TaskSource) -> dict[str, float]:
    """Return asyncio_task_oldest_seconds by group."""
    numbers = source.read().numbers.get(catalogue.ASYNCIO_TASK_OLDEST, {})
    return {group: number for (group,), number in numbers.items()}


@pytest.fixture(params=["references", "all_tasks"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find tasks in asyncio's own set, and by asyncio.all_tasks where that is not there."""
    if request.param == "all_tasks":
        monkeypatch.setattr(tasks_module, "SETS", ("_no_such_set",))


@pytest.mark.usefixtures("_either_way")
async def test_tasks_that_are_not_done_count(clock: Clock) -> None:
    """A task counts from its creation to its end, and not while it is only kept."""
    source = TaskSource({}, clock=clock)
    before = total(source)
    assert before is not None
    async with running(*(consume_forever() for _ in range(20))) as tasks:
        clock.now += 10
        assert total(source) == before + 20
        for task in tasks[:5]:
            task.cancel()
        await asyncio.wait(tasks[:5])
        clock.now += 10
        assert total(source) == before + 15
    clock.now += 10
    assert total(source) == before


@pytest.mark.usefixtures("_either_way")
async def test_it_is_what_asyncio_says(clock: Clock) -> None:
    """The number is that of asyncio.all_tasks()."""
    async with running(*(consume_forever() for _ in range(7))):
        assert total(TaskSource({}, clock=clock)) == len(
            asyncio.all_tasks(asyncio.get_running_loop())
        )


async def test_tasks_of_another_loop_do_not_count(clock: Clock) -> None:
    """Each loop has its own tasks."""
    started, over = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        async with running(*(consume_forever() for _ in range(10))):
            started.set()
            await asyncio.to_thread(over.wait)

    source = TaskSource({}, clock=clock)
    before = total(source)
    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
    thread.start()
    await asyncio.to_thread(started.wait)
    clock.now += 10
    assert total(source) == before
    over.set()
    await asyncio.to_thread(thread.join)


async def test_our_own_tasks_do_not_count(clock: Clock) -> None:
    """The sampler's tasks are not the service's."""
    source = TaskSource({}, clock=clock)
    before = total(source)
    sampler = Sampler(interval=10.0, timeout=1.0, on_error=lambda _where, _error: None)
    sampler.add("slow", consume_answer)
    sampler.start()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) > (before or 0)
    clock.now += 10
    assert total(source) == before
    await sampler.stop()


async def consume_answer() -> float:
    """Give no number, ever."""
    await asyncio.Event().wait()
    return 1.0


async def test_a_connection_is_the_services(clock: Clock) -> None:
    """The task that aiohttp has for a connection runs aiohttp's coroutine, and counts."""
    app = web.Application()
    aiosvc.setup(app, registry=CollectorRegistry())
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    source = TaskSource({}, clock=clock)
    before = total(source)
    assert before is not None
    _, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    while total(source) != before + 1:
        clock.now += 10
        await asyncio.sleep(0.001)
    writer.close()
    await runner.cleanup()


async def test_ten_thousand_tasks_hold_the_loop_in_slices(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk goes on at later turns of the loop, and what it found is said when it is through."""
    monkeypatch.setattr(tasks_module, "SLICE", 0.0)  # a batch, and the time is up
    source = TaskSource({}, clock=clock)
    before = total(source)
    while before is None:
        await asyncio.sleep(0)
        before = total(source)
    clock.now += 10
    async with running(*(consume_forever() for _ in range(10_000))):
        turns = 0
        while total(source) == before:
            await asyncio.sleep(0)
            turns += 1
        assert total(source) == before + 10_000
        assert turns >= 10_000 // BATCH


async def test_many_tasks_are_counted_less_often(clock: Clock) -> None:
    """So many tasks are looked at in a second at most; until it is time the last count stays."""
    source = TaskSource({}, clock=clock)
    async with running(*(consume_forever() for _ in range(2 * PER_SECOND))) as tasks:
        while (found := total(source)) is None:  # noqa: ASYNC110 - a walk sets no event
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        clock.now += 1.9
        for _ in range(1000):
            assert total(source) == found
        clock.now += 0.5
        total(source)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert total(source) == found - 1


async def test_a_walk_keeps_no_task_alive(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended is gone, in the middle of a walk and after it."""
    source = TaskSource({"g": "consume_*"}, clock=clock)
    for seconds in (0.0, 1000.0):
        monkeypatch.setattr(tasks_module, "SLICE", seconds)
        clock.now += 10
        async with running(*(consume_forever() for _ in range(2 * BATCH))) as tasks:
            source.read()
            assert (source._walk is None) == bool(seconds)
            references = [weakref.ref(task) for task in tasks]
        del tasks
        await asyncio.sleep(0)  # the turn of the loop has them until its end
        gc.collect()  # a cancelled task and its exception refer to each other
        assert [each for each in references if each() is not None] == []
        source.close()


async def test_close_ends_a_walk(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a close nothing goes on and nothing is known; a reading begins anew."""
    monkeypatch.setattr(tasks_module, "SLICE", 0.0)
    async with running(*(consume_forever() for _ in range(10 * BATCH))):
        source = TaskSource({}, clock=clock)
        assert total(source) is None
        source.close()
        for _ in range(50):
            await asyncio.sleep(0)
        assert source._last is None
        monkeypatch.setattr(tasks_module, "SLICE", 1000.0)
        assert (total(source) or 0) > 10 * BATCH


async def test_a_task_that_is_not_as_it_should_be(clock: Clock) -> None:
    """A task of somebody's own class that raises is left out, and disturbs nobody."""

    class Odd(asyncio.Task):  # type: ignore[type-arg]
        def get_coro(self) -> Any:
            raise RuntimeError("no")

    source = TaskSource({}, clock=clock)
    before = total(source)
    odd = Odd(consume_forever(), loop=asyncio.get_running_loop())
    clock.now += 10
    assert total(source) == before
    odd.cancel()
    await asyncio.gather(odd, return_exceptions=True)


class TestGroups:
    """Tasks by the groups that the user names."""

    async def test_by_names_of_task_and_coroutine(self, clock: Clock) -> None:
        """A pattern fits the task's name, the coroutine's or its qualified name."""
        groups = {"consumers": "consume_*", "mail": "Mailer.*|post*", "first": "worker-[01]"}
        source = TaskSource(groups, clock=clock)
        before = by_group(source)
        assert before == {"consumers": 0, "mail": 0, "first": 0, OTHER: before[OTHER]}
        async with running(
            consume_forever(),
            Mailer().send_all(),
            asyncio.sleep(100),
            asyncio.sleep(100),
            asyncio.sleep(100),
            asyncio.sleep(100),
            names=("a", "b", "post office", "worker-0", "worker-2", "Consume_x"),
        ):
            clock.now += 10
            assert by_group(source) == {
                "consumers": 1,
                "mail": 2,
                "first": 1,
                OTHER: before[OTHER] + 2,
            }

    async def test_the_first_group_that_fits(self, clock: Clock) -> None:
        """A task is in one group only."""
        source = TaskSource({"a": "consume_*", "all": "*"}, clock=clock)
        async with running(consume_forever()):
            found = by_group(source)
            assert (found["a"], found[OTHER]) == (1, 0)

    async def test_age_of_the_oldest(self, clock: Clock) -> None:
        """The age is that of the oldest since it was first seen, and 0 without a task."""
        source = TaskSource({"consumers": "consume_*"}, clock=clock)
        assert oldest(source) == {"consumers": 0}
        async with running(consume_forever()) as first:
            clock.now += 10
            assert oldest(source) == {"consumers": 0}
            clock.now += 5
            async with running(consume_forever()):
                assert oldest(source) == {"consumers": 5}
                first[0].cancel()
                await asyncio.wait(first)
                clock.now += 7
                assert oldest(source) == {"consumers": 7}
        clock.now += 10
        assert oldest(source) == {"consumers": 0}

    async def test_without_groups_there_is_no_age(self, clock: Clock) -> None:
        """Among all tasks the oldest is the service's main one, which says nothing."""
        assert oldest(TaskSource({}, clock=clock)) == {}

    async def test_the_demo_is_a_service(self) -> None:
        """Coroutines of the demo are its own, like any service's; others of ours are not."""
        from aiosvc.demo.load import __file__ as demo  # noqa: PLC0415
        from aiosvc.health import __file__ as ours  # noqa: PLC0415

        def coroutine(path: str) -> Any:
            names: dict[str, Any] = {}
            exec(compile("async def work(): pass", path, "exec"), names)
            return names["work"]()

        groups = TaskGroups({})
        for path, group in ((demo, ""), (ours, None), ("/srv/shop/app.py", "")):
            task = asyncio.create_task(coroutine(path))
            assert groups.group_of(task) == group
            await task


@pytest.fixture
def eager() -> Callable[..., Any]:
    """Give Python's factory of eager tasks, which 3.12 has."""
    factory: Callable[..., Any] | None = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("Python 3.12 has eager tasks")
    return factory


async def test_eager_tasks(clock: Clock, eager: Callable[..., Any]) -> None:
    """A task that began at once counts when it has to wait, and not when it did not."""
    asyncio.get_running_loop().set_task_factory(eager)
    source = TaskSource({}, clock=clock)
    before = total(source)
    assert before is not None
    asyncio.create_task(asyncio.sleep(0, "at once")).cancel()
    async with running(consume_forever()):
        clock.now += 10
        assert total(source) == before + 1
