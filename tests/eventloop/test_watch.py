"""The watch as a whole: on real loops, with real threads, and shared by services."""

import asyncio
import gc
import importlib
import selectors
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aiosvc import catalogue
from aiosvc.eventloop import LoopWatch
from aiosvc.eventloop.lag import SLOT
from aiosvc.readings import Distribution

from .doubles import Registry, until, wait_for, watchdogs

#: Seconds of a block that nothing else on a loaded machine is taken for.
BLOCK = 0.5

#: A threshold that a loaded machine does not reach by itself.
THRESHOLD = 0.3


def uvloop() -> asyncio.AbstractEventLoop:
    """Return a uvloop."""
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


def of_ones_own() -> asyncio.AbstractEventLoop:
    """Return a loop that was given a selector."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def debugging() -> asyncio.AbstractEventLoop:
    """Return a loop in debug mode, which does not complain of what these tests do."""
    loop = asyncio.SelectorEventLoop()
    loop.set_debug(enabled=True)
    loop.slow_callback_duration = 1000.0
    return loop


LOOPS = [asyncio.SelectorEventLoop, of_ones_own, debugging, uvloop]


def run(
    main: Awaitable[None], factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> None:
    """Run on a new loop, and see that no thread is left."""
    before = watchdogs()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)  # type: ignore[arg-type]  # a coroutine
    wait_for(lambda: set(watchdogs()) <= set(before), "the watchdogs' end")


def watch_for(registry: Registry, *, kind: str = "auto") -> LoopWatch:
    """Return a watch that was not started."""
    return LoopWatch(registry, kind=kind, stall_threshold=THRESHOLD)


def lag(registry: Registry) -> Distribution:
    """Return the lag that a registry is told of."""
    return registry.readings().distributions[catalogue.EVENTLOOP_LAG][()]


def stalls(registry: Registry) -> float:
    """Return the stalls that a registry is told of."""
    return registry.readings().numbers[catalogue.EVENTLOOP_STALLS][()]


def busy(registry: Registry) -> float:
    """Return the busy seconds that a registry is told of."""
    return registry.readings().numbers[catalogue.EVENTLOOP_TIME][("busy",)]


async def stall() -> None:
    """Hold up the loop, in a turn of its own."""
    await asyncio.sleep(0.06)  # a heartbeat has been set meanwhile
    time.sleep(BLOCK)  # noqa: ASYNC251 - that is what is measured
    await asyncio.sleep(0.06)


def spin(seconds: float) -> None:
    """Hold up the loop in Python code."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("hold", [time.sleep, spin])
def test_a_block_is_seen_and_placed(
    factory: Callable[[], asyncio.AbstractEventLoop], hold: Callable[[float], None]
) -> None:
    """A block is one stall and one observation of its length, and its line is known."""

    async def order() -> None:
        hold(BLOCK)

    async def main() -> None:
        registry = Registry()
        watch = watch_for(registry)
        watch.start()
        await asyncio.sleep(0.2)
        await asyncio.create_task(order(), name="order 7")
        await until(lambda: [s for s in watch.stalls() if s.ended], "its end")
        watch.stop()
        (seen,) = (s for s in watch.stalls() if s.task == "order 7")
        assert stalls(registry) == len(watch.stalls())
        long = lag(registry).counts[-6:]  # over 0.5 s, or up to 50 ms less on a heartbeat
        assert sum(long) + lag(registry).counts[-7] >= 1
        assert BLOCK - SLOT - 0.002 <= seen.seconds < BLOCK + 10
        assert seen.code is not None
        assert seen.code.file == __file__
        wanted = order if hold is time.sleep else spin
        first = wanted.__code__.co_firstlineno
        assert first < seen.code.line <= first + 4
        assert seen.code.function == wanted.__qualname__
        assert seen.coroutine == order.__qualname__
        assert abs(seen.began + seen.seconds - time.time()) < 30
        assert registry.errors == []

    run(main(), factory)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_stall_shows_while_it_lasts(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Who scrapes in another thread sees the stall, its line, and busy seconds that grow."""
    registry = Registry()
    watch = watch_for(registry)
    seen: list[tuple[float, float | None]] = []
    over = threading.Event()

    def scrape() -> None:
        try:
            wait_for(lambda: stalls(registry) == 1, "the stall")
            wait_for(watch.stalls, "its place")
            assert not watch.stalls()[-1].ended
            times = registry.readings().numbers.get(catalogue.EVENTLOOP_TIME)
            seen.append((watch.stalls()[-1].seconds, None if times is None else times["busy",]))
            time.sleep(0.05)
            times = registry.readings().numbers.get(catalogue.EVENTLOOP_TIME)
            seen.append((watch.stalls()[-1].seconds, None if times is None else times["busy",]))
        finally:
            over.set()

    async def main() -> None:
        watch.start()
        await asyncio.sleep(0.2)
        thread = threading.Thread(target=scrape)
        thread.start()
        over.wait(30)
        await asyncio.sleep(0)
        await until(lambda: watch.stalls()[-1].ended, "its end")
        assert stalls(registry) == 1
        watch.stop()
        thread.join()

    run(main(), factory)
    (first, busy_first), (second, busy_second) = seen
    assert second - first >= 0.045
    if factory is uvloop:
        assert busy_first is busy_second is None
    else:
        assert busy_first is not None
        assert busy_second is not None
        assert busy_first >= THRESHOLD
        assert busy_second - busy_first >= 0.045


def test_nothing_falls_while_a_loop_works_and_a_thread_scrapes() -> None:
    """Read at any moment from another thread, busy and idle only rise and add up to the time."""
    registry = Registry()
    watch = watch_for(registry)
    wrong: list[str] = []
    done = threading.Event()
    reads = 0

    def scrape() -> None:
        nonlocal reads
        last: dict[tuple[str, ...], float] = {}
        while not done.is_set():
            now = registry.readings().numbers[catalogue.EVENTLOOP_TIME]
            wrong.extend(f"{k}: {v} < {last[k]}" for k, v in now.items() if v < last.get(k, 0.0))
            last = dict(now)
            reads += 1

    async def main() -> None:
        watch.start()
        begun = time.perf_counter()
        thread = threading.Thread(target=scrape)
        thread.start()
        for number in range(300):
            await asyncio.sleep(0.001 if number % 3 else 0)
        done.set()
        thread.join()
        total = sum(registry.readings().numbers[catalogue.EVENTLOOP_TIME].values())
        assert total == pytest.approx(time.perf_counter() - begun, abs=0.05)
        watch.stop()

    run(main())
    assert wrong == []
    assert reads > 10


def test_an_idle_loop_is_idle() -> None:
    """A loop that waits is idle, and its slots count as zeros."""

    async def main() -> None:
        registry = Registry()
        watch = watch_for(registry)
        watch.start()
        await asyncio.sleep(1.0)
        watch.stop()
        times = registry.readings().numbers[catalogue.EVENTLOOP_TIME]
        assert times["idle",] > 0.9
        assert sum(lag(registry).counts) <= 22
        assert sum(times.values()) >= 1.0

    run(main())


@pytest.mark.parametrize("kind", ["auto", "heartbeat"])
def test_two_services_on_one_loop_count_once(kind: str) -> None:
    """Of two services on one registry and loop each stall counts once, until both have left."""

    async def main() -> None:
        registry = Registry()
        one, other = watch_for(registry, kind=kind), watch_for(registry, kind=kind)
        one.start()
        other.start()
        await stall()
        assert len(registry.reporters) == 1
        assert len(watchdogs()) == 1
        await until(lambda: len(one.stalls()) == stalls(registry), "the stall in the list")
        assert other.stalls() == one.stalls()
        before = stalls(registry)
        assert before >= 1
        one.stop()
        await stall()
        assert stalls(registry) > before
        await until(lambda: len(other.stalls()) == stalls(registry), "the stall in the list")
        other.stop()
        other.stop()
        assert registry.reporters == []
        assert stalls(registry) == len(other.stalls())

    run(main())


def test_two_registries_are_told_each_for_itself() -> None:
    """A registry that comes later is told of what happens from then on."""

    async def main() -> None:
        early, late = Registry(), Registry()
        first, second = watch_for(early), watch_for(late)
        first.start()
        await stall()
        before = stalls(early)
        second.start()
        assert len(watchdogs()) == 1
        assert stalls(late) == 0
        await stall()
        assert stalls(early) - before == stalls(late) >= 1
        assert busy(early) - busy(late) >= BLOCK
        first.stop()
        second.stop()
        assert "select" not in vars(asyncio.get_running_loop()._selector)  # type: ignore[attr-defined]
        before = stalls(early)
        first.start()
        first.stop()
        assert stalls(early) == before

    run(main())


def test_two_loops_are_summed() -> None:
    """One registry with services on two loops has the sum of both."""
    registry = Registry()
    both = threading.Barrier(2, timeout=30)

    def serve() -> None:
        async def main() -> None:
            watch = watch_for(registry)
            watch.start()
            await asyncio.sleep(0)
            both.wait()
            await stall()
            watch.stop()

        asyncio.run(main())

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: watchdogs() == [], "the watchdogs' end")
    assert stalls(registry) >= 2
    assert busy(registry) >= 2 * BLOCK


def test_off_is_off() -> None:
    """Where it is turned off, there are no families, no threads and no wrapper."""

    async def main() -> None:
        registry = Registry()
        watch = watch_for(registry, kind="off")
        watch.start()
        assert registry.reporters == []
        assert watchdogs() == []
        assert watch.stalls() == []
        watch.stop()

    run(main())


@pytest.mark.parametrize("factory", LOOPS)
def test_fifty_starts_and_stops_leave_nothing(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """However often it is started, the loop is as it was, and what was counted adds up."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        selector = getattr(loop, "_selector", None)
        registry = Registry()
        watch = watch_for(registry)
        last = -1.0
        for number in range(50):
            watch.start()
            watch.start()
            if number % 2:
                await asyncio.sleep(0.001)
            total = sum(registry.readings().numbers.get(catalogue.EVENTLOOP_TIME, {}).values())
            assert factory is uvloop or total > last
            last = total
            watch.stop()
            assert selector is None or "select" not in vars(selector)
        assert registry.reporters == []
        assert registry.errors == []
        await until(lambda: watchdogs() == [], "the threads' end")

    run(main(), factory)


def test_a_selector_that_is_not_asked_is_not_trusted() -> None:
    """A loop that has a selector and does not call it as asyncio does gets a heartbeat."""

    class Odd(asyncio.SelectorEventLoop):
        """Has a selector with a `select` of the class, which goes before one of the object."""

        def __init__(self) -> None:
            class Odd(selectors.DefaultSelector):
                select = property(lambda self: super(Odd, self).select, lambda *_: None)

            super().__init__(Odd())

    async def main() -> None:
        registry = Registry()
        watch = watch_for(registry)
        watch.start()
        await asyncio.sleep(0.2)
        assert catalogue.EVENTLOOP_TIME not in registry.readings().numbers
        await stall()
        assert stalls(registry) >= 1
        watch.stop()
        assert registry.errors == []

    run(main(), Odd)


def test_a_loop_left_behind_can_go() -> None:
    """A loop that ended without a stop is not kept alive."""
    registry = Registry()

    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        watch_for(registry).start()
        await asyncio.sleep(0)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(main())
    before = registry.readings().numbers[catalogue.EVENTLOOP_TIME]
    gc.collect()
    assert loop() is None
    assert registry.readings().numbers[catalogue.EVENTLOOP_TIME] == before
    for thread in watchdogs():
        monitor = next(
            m for m in gc.get_objects() if type(m).__name__ == "Watchdog" and m._thread is thread
        )
        monitor.stop()
    wait_for(lambda: watchdogs() == [], "the thread's end")


def test_what_installed_code_blocks_is_placed_there(tmp_path: Path, monkeypatch: Any) -> None:
    """A callback of an installed package is not charged to the line that runs the loop."""
    package = tmp_path / "site-packages"
    package.mkdir()
    (package / "slowlib_for_a_test.py").write_text("import time\ndef work(s):\n    time.sleep(s)\n")
    monkeypatch.syspath_prepend(str(package))
    library = importlib.import_module("slowlib_for_a_test")

    async def main() -> None:
        watch = watch_for(Registry())
        watch.start()
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_soon(library.work, BLOCK)
        await until(watch.stalls, "the stall")
        watch.stop()
        (seen,) = watch.stalls()
        assert seen.code is not None
        assert (seen.code.function, seen.code.line, seen.task) == ("work", 3, None)

    for factory in (asyncio.SelectorEventLoop, uvloop):
        run(main(), factory)
