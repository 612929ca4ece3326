"""Alive and ready, and what is said when it is not."""

import asyncio
import contextvars
import functools
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from processes import DEADLINE, poll, until

from aiosvc.errors import ConfigError
from aiosvc.health import Health, Phase


class Clock:
    """Monotonic seconds that stand still until they are told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Elsewhere:
    """An event loop in a thread of its own: the application's, as a probe sees it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the loop and close it."""
        if self.thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end_tasks(), self.loop).result(DEADLINE)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(DEADLINE)
        self.loop.close()

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Return an event loop that turns in another thread."""
    made = Elsewhere()
    yield made
    made.stop()


def ready(**options: Any) -> Health:
    """Return the health of a service that says it is ready."""
    health = Health(**options)
    health.set_ready()
    return health


async def test_phases() -> None:
    """A service is ready only after it said so, and until it drains."""
    health = Health()
    assert health.phase is Phase.STARTING
    verdict = await health.ready()
    assert (verdict.ok, verdict.reason) == (False, "the service is starting")
    health.set_ready()
    assert (await health.ready()).ok
    health.set_draining()
    verdict = await health.ready()
    assert (verdict.ok, verdict.reason) == (False, "the service is draining")
    health.set_starting()
    assert not (await health.ready()).ok


def test_alive_without_a_loop() -> None:
    """A program with no event loop to watch is alive as long as it answers."""
    health = Health()
    health.beat()
    assert health.live().ok


async def test_alive_while_the_loop_turns(elsewhere: Elsewhere) -> None:
    """A loop that answers is alive, however long ago the last beat was."""
    clock = Clock()
    health = Health(live_timeout=2.0, clock=clock)
    health.watch_loop(elsewhere.loop)
    for _ in range(3):
        answered = threading.Event()
        health.beat()
        elsewhere.loop.call_soon_threadsafe(answered.set)
        assert await asyncio.to_thread(answered.wait, DEADLINE)
        clock.now += 100
        assert health.live().ok


async def test_blocked_loop(elsewhere: Elsewhere) -> None:
    """A loop that owes an answer for too long is said to be blocked, and since when; then it heals."""
    clock = Clock()
    health = ready(live_timeout=2.0, clock=clock)
    health.watch_loop(elsewhere.loop)
    release = threading.Event()
    elsewhere.loop.call_soon_threadsafe(release.wait, DEADLINE)
    health.beat()
    clock.now += 2.0
    health.beat()
    assert health.live().ok
    clock.now += 1.2
    verdict = health.live()
    assert (verdict.ok, verdict.reason) == (False, "the event loop has been blocked for 3.2 s")
    assert (await health.ready()).reason == verdict.reason
    release.set()
    await until(lambda: health.live().ok, "the loop turns again")
    assert (await health.ready()).ok


def test_loop_that_ended(elsewhere: Elsewhere) -> None:
    """A loop that was closed is not alive, unless it was let go of before."""
    health = Health()
    health.watch_loop(elsewhere.loop)
    elsewhere.stop()
    health.beat()
    verdict = health.live()
    assert (verdict.ok, verdict.reason) == (False, "the event loop has ended")
    health.forget_loop()
    health.beat()
    assert health.live().ok


@pytest.mark.parametrize(
    ("timeout", "interval"), [(5.0, 1.0), (60.0, 1.0), (1.0, 0.2), (0.01, 0.02)]
)
def test_beat_interval(timeout: float, interval: float) -> None:
    """Beats are frequent enough for the timeout, and not more often than anybody needs."""
    assert Health(live_timeout=timeout).beat_interval == interval


def passes() -> None:
    """Pass."""


def passes_too() -> bool:
    """Pass, and say so."""
    return True


async def passes_async() -> None:
    """Pass, asynchronously."""


def fails() -> bool:
    """Fail without a reason."""
    return False


def raises() -> None:
    """Fail with a reason."""
    raise ConnectionError("no route\nto host")


async def raises_async() -> None:
    """Fail with a reason, asynchronously."""
    raise ConnectionError("no route to host")


def raises_nothing_much() -> None:
    """Fail with a reason that says nothing."""
    raise KeyError


async def raises_timeout() -> None:
    """Fail with a timeout of its own."""
    raise TimeoutError("the database did")


def raises_at_length() -> None:
    """Fail with a long reason."""
    raise ValueError("x" * 10_000)


def exits() -> None:
    """Try to end the program."""
    raise SystemExit(3)


class Ping:
    """An object that is an async function."""

    async def __call__(self) -> bool:
        """Fail."""
        return False


@pytest.mark.parametrize(
    ("check", "why"),
    [
        (passes, None),
        (passes_too, None),
        (passes_async, None),
        (functools.partial(passes_async), None),
        (fails, "failed"),
        (Ping(), "failed"),
        (raises, "ConnectionError: no route to host"),
        (raises_async, "ConnectionError: no route to host"),
        (raises_nothing_much, "KeyError"),
        (raises_timeout, "TimeoutError: the database did"),
        (raises_at_length, f"ValueError: {'x' * 185}..."),
        (exits, "SystemExit: 3"),
        (lambda: passes_async(), "returned a coroutine; make the check an async function"),  # noqa: PLW0108
        (lambda: 1, "returned 1; expected True, False or None"),
    ],
)
async def test_one_check(check: Any, why: str | None) -> None:
    """A check fails by raising or by returning False, and what it raised is why, on one line."""
    health = ready()
    health.add_check("db", check)
    verdict = await health.ready()
    assert verdict.checks == {"db": why}
    assert verdict.ok == (why is None)
    assert verdict.reason == ("ready" if why is None else "not passed: db")


async def test_all_checks_are_told() -> None:
    """Every check is run at once, and all that fail are named."""
    health = ready()
    health.add_check("a", fails)
    health.add_check("b", passes)
    health.add_check("c", raises_async)
    verdict = await health.ready()
    assert verdict.reason == "not passed: a, c"
    assert list(verdict.checks) == ["a", "b", "c"]


async def test_async_check_runs_on_the_services_loop(elsewhere: Elsewhere) -> None:
    """Whichever loop the probe comes from, an async check runs where its resources belong."""
    health = ready()
    health.watch_loop(elsewhere.loop)
    seen: list[asyncio.AbstractEventLoop] = []

    async def check() -> None:
        seen.append(asyncio.get_running_loop())

    health.add_check("db", check)
    assert (await health.ready()).ok
    health.forget_loop()
    assert (await health.ready()).ok
    assert seen == [elsewhere.loop, asyncio.get_running_loop()]


async def test_check_sees_no_context_of_the_probe() -> None:
    """A check runs without the context variables of whoever happened to ask."""
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span", default="none")
    span.set("the probe's")
    seen = []

    async def check() -> None:
        seen.append(span.get())

    health = ready()
    health.add_check("db", check)
    assert (await health.ready()).ok
    assert seen == ["none"]


@pytest.mark.parametrize("where", ["thread", "loop", "blocked loop"])
async def test_check_that_hangs(elsewhere: Elsewhere, where: str) -> None:
    """A check that does not answer costs its timeout once, and is never started twice at once."""
    starts: list[str] = []
    release = threading.Event()

    def in_thread() -> None:
        starts.append(where)
        release.wait(DEADLINE)

    async def on_loop() -> None:
        starts.append(where)
        if where == "blocked loop":
            release.wait(DEADLINE)
        else:
            await asyncio.sleep(DEADLINE)

    health = ready(live_timeout=DEADLINE)
    health.watch_loop(elsewhere.loop)
    health.add_check("db", in_thread if where == "thread" else on_loop, timeout=0.1)
    health.add_check("other", passes)
    assert (await health.ready()).checks == {"db": "no answer within 0.1 s", "other": None}
    if where != "loop":  # there it was cancelled
        again = (await health.ready()).checks["db"] or ""
        assert again.startswith("no answer for 0.")
        assert starts == [where]
    release.set()


async def test_check_that_hung_for_a_while() -> None:
    """A check that came back is asked again."""
    release = threading.Event()
    health = ready()
    health.add_check("db", lambda: not release.wait(DEADLINE) or None, timeout=0.1)
    assert not (await health.ready()).ok
    release.set()

    async def ask() -> bool:
        return (await health.ready()).ok

    await poll(ask, bool, "ready again")


async def test_crowd_shares_one_run() -> None:
    """Probes that come while a check is running share its answer."""
    runs = []

    def slow() -> None:
        runs.append(threading.current_thread().name)
        time.sleep(0.2)

    health = ready()
    health.add_check("db", slow)
    verdicts = await asyncio.gather(*(health.ready() for _ in range(100)))
    assert all(verdict.ok for verdict in verdicts)
    assert runs == ["aiosvc check db"]


async def test_asker_that_leaves() -> None:
    """A probe that is given up takes nothing from another one that waits for the same check."""
    health = ready()
    health.add_check("db", lambda: time.sleep(0.2))
    leaving = asyncio.create_task(health.ready())
    staying = asyncio.create_task(health.ready())
    await asyncio.sleep(0.05)
    leaving.cancel()
    assert (await staying).ok


async def test_loop_that_ends_under_a_check(elsewhere: Elsewhere) -> None:
    """A check left behind on a loop that ended does not keep the next loop's from running."""
    health = ready(live_timeout=DEADLINE)
    health.add_check("db", passes_async, timeout=0.1)
    stopped = asyncio.new_event_loop()
    health.watch_loop(stopped)
    assert (await health.ready()).checks == {"db": "no answer within 0.1 s"}
    stopped.close()
    health.watch_loop(elsewhere.loop)
    await poll(health.ready, lambda verdict: verdict.ok, "the check on the next loop")


async def test_check_on_a_loop_that_ended(elsewhere: Elsewhere) -> None:
    """Where the loop of an async check is closed, the check fails and says so."""
    health = ready()
    health.add_check("db", passes_async)
    health.watch_loop(elsewhere.loop)
    elsewhere.stop()
    assert (await health.ready()).checks == {"db": "RuntimeError: Event loop is closed"}


async def test_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """That a check fails is logged when it begins to, and when it passes again."""
    caplog.set_level(logging.INFO, "aiosvc.health")
    works = False

    def check() -> bool:
        return works

    health = ready()
    health.add_check("db", check)
    for _ in range(3):
        await health.ready()
    works = True
    for _ in range(3):
        await health.ready()
    assert [record.getMessage() for record in caplog.records] == [
        "not ready: check db: failed",
        "check db passes again",
    ]


@pytest.mark.parametrize(
    ("name", "check", "timeout", "message"),
    [
        ("a b", passes, 1, "check 'a b': may hold only letters, digits, '_', '-' and '.'"),
        ("", passes, 1, "check '': may hold only letters, digits, '_', '-' and '.'"),
        (3, passes, 1, "check 3: may hold only letters, digits, '_', '-' and '.'"),
        ("x", passes, 1, "check 'x' is there already; give this one another name"),
        ("y", "ping", 1, "check 'y': 'ping' given; expected a function"),
        ("y", passes, 0, "check 'y': timeout: 0 given; expected seconds"),
        ("y", passes, math.nan, "check 'y': timeout: nan given; expected seconds"),
        ("y", passes, math.inf, "check 'y': timeout: inf given; expected seconds"),
        ("y", passes, "1", "check 'y': timeout: '1' given; expected seconds"),
    ],
)
def test_wrong_check(name: Any, check: Any, timeout: Any, message: str) -> None:
    """A check that can't be one is refused when it is added."""
    health = Health()
    health.add_check("x", passes)
    with pytest.raises(ConfigError) as caught:
        health.add_check(name, check, timeout=timeout)
    assert str(caught.value) == message


def test_reading_from_many_threads() -> None:
    """The state can be read while another thread changes it."""
    health = Health()
    health.add_check("db", passes)
    stop = threading.Event()
    failures: list[BaseException] = []

    def read(ask: Callable[[], Awaitable[Any]]) -> None:
        try:
            while not stop.is_set():
                health.live()
                asyncio.run(ask())  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    readers = [threading.Thread(target=read, args=(health.ready,)) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(300):
        health.set_ready()
        health.set_draining()
        health.add_check(f"check-{number}", passes) if number < 3 else None
    stop.set()
    for reader in readers:
        reader.join(DEADLINE)
    assert failures == []
