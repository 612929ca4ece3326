"""
Whether the service is alive and whether it is ready, for probes that ask from any thread.

Rule: knows no framework and no server. Rule: asking never blocks and never raises; what is not
known in time is a no that says why.

Theory of operation. *Alive* means that the observed event loop turns. A thread that is not the
loop's calls `beat` every so often; the loop is handed a callback, and as long as it has not run it,
it is blocked. So the age of the oldest unanswered beat is how long it has been blocked, less the
pause between two beats at most. *Ready* means that the service said so, is not draining, that its
loop turns, and that every check passes. An async check runs on the observed loop, where what it
asks belongs; any other one runs in a thread. A check that is still running when it is wanted again
is not started twice: all who ask share its answer, so many probes cost as much as one.
"""

import asyncio
import contextvars
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiosvc.callables import gives_coroutine
from aiosvc.errors import ConfigError
from aiosvc.naming import check_name
from aiosvc.validation import is_number

__all__ = ["Check", "Health", "Phase", "Verdict"]

log = logging.getLogger("aiosvc.health")

#: What a check is: it raises or returns False where something is wrong.
Check = Callable[[], bool | None] | Callable[[], Awaitable[bool | None]]

#: The most that is told of a check's error.
LONGEST_REASON = 200


class Phase(StrEnum):
    """Where the service is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a probe; `checks` has why each check failed, None where it passed."""

    ok: bool
    reason: str
    checks: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status that says so."""
        return 200 if self.ok else 503

    def text(self, *, reasons: bool = False) -> str:
        """Return lines for a probe, with *reasons* those of the checks that failed too."""
        lines = [self.reason]
        for name, why in self.checks.items():
            if why is None:
                lines.append(f"[+] {name}")
            else:
                lines.append(f"[-] {name}: {why}" if reasons else f"[-] {name}")
        return "\n".join(lines) + "\n"


class Health:
    """
    What the probes ask; one for each service.

    *live_timeout* is how many seconds the event loop may be blocked before the service no longer
    counts as alive. *clock* gives monotonic seconds.
    """

    def __init__(
        self, *, live_timeout: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.phase = Phase.STARTING
        self.live_timeout = live_timeout
        self._clock = clock
        self._heart: _Heart | None = None
        self._checks: dict[str, _Check] = {}

    @property
    def beat_interval(self) -> float:
        """Seconds between two calls of `beat`, as is wanted for this timeout."""
        return max(0.02, min(1.0, self.live_timeout / 5))

    def add_check(self, name: str, check: Check, *, timeout: float = 2.0) -> None:
        """
        Have the service count as ready only while *check* passes, within *timeout* seconds.

        It takes nothing; it fails by raising or by returning False. An async function runs on the
        service's event loop, any other one in a thread, since it may block.

        Raises ConfigError where the name is taken or can't be one, or the timeout makes no sense.
        """
        name = check_name(name, "check")
        if name in self._checks:
            raise ConfigError(f"check {name!r} is there already; give this one another name")
        if not callable(check):
            raise ConfigError(f"check {name!r}: {check!r} given; expected a function")
        if not (is_number(timeout) and timeout > 0):
            raise ConfigError(f"check {name!r}: timeout: {timeout!r} given; expected seconds")
        self._checks[name] = _Check(name, check, timeout, self._clock)

    def set_starting(self) -> None:
        """Say that the service is not ready yet, as it does when it starts anew."""
        self.phase = Phase.STARTING

    def set_ready(self) -> None:
        """Say that the service takes requests."""
        self.phase = Phase.READY

    def set_draining(self) -> None:
        """Say that the service takes no new requests and finishes those that it has."""
        self.phase = Phase.DRAINING

    def watch_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count the service as alive only while this event loop turns."""
        self._heart = _Heart(loop, self._clock)

    def forget_loop(self) -> None:
        """Stop watching, before the event loop ends as it should."""
        self._heart = None

    def beat(self) -> None:
        """See whether the loop turns; called every `beat_interval` from another thread."""
        heart = self._heart
        if heart is not None:
            heart.beat()

    def live(self) -> Verdict:
        """Return whether the event loop turns, and if not, for how long it has not."""
        heart = self._heart
        if heart is None:
            return Verdict(ok=True, reason="live")
        if heart.ended:
            return Verdict(ok=False, reason="the event loop has ended")
        blocked = heart.blocked_for()
        if blocked > self.live_timeout:
            return Verdict(ok=False, reason=f"the event loop has been blocked for {blocked:.1f} s")
        return Verdict(ok=True, reason="live")

    async def ready(self) -> Verdict:
        """Return whether the service is ready, having run its checks; awaited on any loop."""
        if self.phase is not Phase.READY:
            return Verdict(ok=False, reason=f"the service is {self.phase}")
        live = self.live()
        if not live.ok:
            return live
        heart = self._heart
        loop = asyncio.get_running_loop() if heart is None else heart.loop
        checks = list(self._checks.values())
        answers = await asyncio.gather(*(check.ask(loop) for check in checks))
        results = {check.name: why for check, why in zip(checks, answers, strict=True)}
        failing = [name for name, why in results.items() if why is not None]
        if failing:
            return Verdict(ok=False, reason=f"not passed: {', '.join(failing)}", checks=results)
        return Verdict(ok=True, reason="ready", checks=results)


class _Heart:
    """One event loop, and since when it owes an answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self.loop = loop
        self.ended = False
        self._clock = clock
        self._asked: float | None = None

    def beat(self) -> None:
        if self._asked is None:
            self._asked = self._clock()
            try:
                self.loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                self.ended = True

    def blocked_for(self) -> float:
        asked = self._asked
        return 0.0 if asked is None else self._clock() - asked

    def _answer(self) -> None:
        self._asked = None


class _Check:
    """One named check, and the run of it that is under way."""

    def __init__(self, name: str, call: Check, timeout: float, clock: Callable[[], float]) -> None:
        self.name = name
        self._call: Callable[[], Any] = call
        self._is_async = gives_coroutine(call)
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._run: Future[str | None] | None = None
        self._run_on: asyncio.AbstractEventLoop | None = None
        self._begun = 0.0
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    async def ask(self, loop: asyncio.AbstractEventLoop) -> str | None:
        """Return None where the check passes, else why not; *loop* is where an async one runs."""
        run, age = self._running(loop)
        left = self._timeout - age
        if left > 0:
            await asyncio.wait([asyncio.wrap_future(run)], timeout=left)
        if run.done():
            why = run.result()
        elif left > 0:
            why = f"no answer within {self._timeout:g} s"
        else:
            why = f"no answer for {age:.1f} s"
        self._note(why)
        return why

    def _running(self, loop: asyncio.AbstractEventLoop) -> tuple[Future[str | None], float]:
        with self._lock:
            # What was left behind on a loop that ended will never be done.
            if self._run is None or self._run.done() or self._run_on not in (None, loop):
                self._run = Future()
                self._run.set_running_or_notify_cancel()  # so that nobody who waits can cancel it
                self._begun = self._clock()
                try:
                    self._start(loop, self._run)
                except RuntimeError as error:  # a loop that has ended, no more threads
                    self._run.set_result(_text(error))
            return self._run, self._clock() - self._begun

    def _start(self, loop: asyncio.AbstractEventLoop, run: Future[str | None]) -> None:
        if self._is_async:
            self._run_on = loop
            # Nobody's context variables: a probe's span must not become that of the check.
            loop.call_soon_threadsafe(self._spawn, loop, run, context=contextvars.Context())
        else:
            # A daemon: a check that hangs for ever must not keep the process from ending.
            name = f"aiosvc check {self.name}"
            threading.Thread(target=self._in_thread, args=(run,), name=name, daemon=True).start()

    def _spawn(self, loop: asyncio.AbstractEventLoop, run: Future[str | None]) -> None:
        self._task = loop.create_task(self._on_loop(run), name=f"aiosvc check {self.name}")

    async def _on_loop(self, run: Future[str | None]) -> None:
        why: str | None = "cancelled"
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                why = _why_not(await self._call())
        except Exception as error:  # noqa: BLE001 - that is the answer
            why = f"no answer within {self._timeout:g} s" if limit.expired() else _text(error)
        finally:
            run.set_result(why)

    def _in_thread(self, run: Future[str | None]) -> None:
        try:
            why = _why_not(self._call())
        except BaseException as error:  # noqa: BLE001 - that is the answer
            why = _text(error)
        run.set_result(why)

    def _note(self, why: str | None) -> None:
        with self._lock:
            was, self._failing = self._failing, why is not None
        if why is not None and not was:
            log.warning("not ready: check %s: %s", self.name, why)
        elif why is None and was:
            log.info("check %s passes again", self.name)


def _why_not(result: object) -> str | None:
    if result is None or result is True:
        return None
    if result is False:
        return "failed"
    if inspect.iscoroutine(result):
        result.close()
        return "returned a coroutine; make the check an async function"
    return _short(f"returned {result!r}; expected True, False or None")


def _text(error: BaseException) -> str:
    text = str(error)
    return _short(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."
