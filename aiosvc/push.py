"""
The metrics of a job that ends before anybody would scrape it: pushed when it does.

    with aiosvc.push_on_exit("gateway:9091", job="backup"):
        back_up()

Rule: what the job raises goes on as it was; a push that fails is logged, and no more. Rule: however
it ends, its last state is pushed, with when that was and whether it was well.

A job that ended well replaces its group in the Pushgateway (PUT), so nothing of former runs is left.
One that failed, and one that still runs, replaces metrics of the same names only (POST): when it
succeeded last, and what that run did, is not lost to a failure.

The labels of the group are the Pushgateway's to set, and it refuses everything where two series differ
in them only. A metric's own label of such a name is pushed as `exported_job`, as Prometheus would call
it at a scrape.

A signal that ends the process at once, as SIGTERM does unless it is handled, is no end that Python
sees: `signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))` makes it one.
"""

import logging
import re
import ssl
import threading
import time
from asyncio import to_thread
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Self

from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc import catalogue
from aiosvc.collector import collector_of
from aiosvc.errors import ConfigError
from aiosvc.exposition import Exposition
from aiosvc.pushgateway import Gateway, PushError
from aiosvc.readings import Readings
from aiosvc.validation import seconds

__all__ = ["PushOnExit", "push_on_exit"]

log = logging.getLogger("aiosvc")

#: A label of a sample: what is before it, its name, its value.
PAIR: Final = re.compile(rb'([{,])([a-zA-Z_][a-zA-Z0-9_]*)(="(?:[^"\\]|\\.)*")')


class PushOnExit:
    """What `push_on_exit` returns; `pushed` says afterwards whether the last push arrived."""

    def __init__(
        self,
        gateway: Gateway,
        registry: CollectorRegistry,
        *,
        group: Iterable[str],
        interval: float | None,
        deadline: float,
        now: Callable[[], float],
    ) -> None:
        self.pushed = False
        self._group = frozenset(name.encode() for name in group)
        self._gateway = gateway
        self._interval = interval
        self._deadline = deadline
        self._now = now
        self._collector = collector_of(registry, catalogue.JOBS)
        self._exposition = Exposition(registry, on_error=self._collector.error)
        self._begun: float | None = None
        self._ended: float | None = None
        self._well = False
        self._over = threading.Event()
        self._given_up = threading.Event()
        self._between: threading.Thread | None = None

    def report(self, readings: Readings) -> None:
        """Add what is known of the job."""
        if self._begun is None:
            return
        ended = self._ended
        readings.number(catalogue.JOB_LAST_START, self._begun)
        now = self._now() if ended is None else ended
        readings.number(catalogue.JOB_DURATION, max(0.0, now - self._begun))
        if ended is not None:
            readings.number(catalogue.JOB_LAST_END, ended)
            readings.number(catalogue.JOB_SUCCEEDED, float(self._well))
            if self._well:
                readings.number(catalogue.JOB_LAST_SUCCESS, ended)

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._end(error)
        self._last_push()

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._end(error)
        try:
            await to_thread(self._last_push)
        except BaseException:
            # Cancelled in the midst of it: the thread is not to hold the program up.
            self._given_up.set()
            if error is None:
                raise

    def _begin(self) -> None:
        if self._begun is not None and self._ended is None:
            raise RuntimeError(
                "the job has begun already; make another push_on_exit for another job"
            )
        self._begun, self._ended = self._now(), None
        self._over.clear()
        self._collector.attach(self)
        if self._interval is not None:
            self._between = threading.Thread(
                target=self._push_between, name="aiosvc-push", daemon=True
            )
            self._between.start()

    def _end(self, error: BaseException | None) -> None:
        self._well = error is None or (isinstance(error, SystemExit) and not error.code)
        self._ended = self._now()
        self._over.set()

    def _last_push(self) -> None:
        if self._between is not None:
            self._between.join()
            self._between = None
        self.pushed = self._push("PUT" if self._well else "POST", self._deadline, self._given_up)
        self._collector.retire(self)

    def _push_between(self) -> None:
        while not self._over.wait(self._interval):
            # One that fails is followed by the next: no attempt outlasts its turn.
            self._push("POST", 0.0, self._over)

    def _push(self, method: str, patience: float, stop: threading.Event) -> bool:
        try:
            body = _without(self._group, b"".join(self._exposition.render()))
            self._gateway.push(method, body, seconds=patience, stop=stop)
        except PushError as error:
            log.error("the job's metrics were not pushed: %s", error)  # noqa: TRY400 - no more to say
        except Exception:
            log.exception("the job's metrics were not pushed")
        else:
            return True
        return False


def push_on_exit(
    gateway: str,
    *,
    job: str,
    registry: CollectorRegistry = REGISTRY,
    grouping_key: Mapping[str, str] | None = None,
    interval: float | None = None,
    username: str | None = None,
    password: str | None = None,
    tls: ssl.SSLContext | None = None,
    timeout: float = 5.0,
    deadline: float = 30.0,
    now: Callable[[], float] = time.time,
) -> PushOnExit:
    """
    Return a context manager, for `with` and `async with`, that pushes *registry* when a job ends.

    *gateway* is the URL of a Pushgateway; *job* and *grouping_key* are the labels of the group.
    With *interval*, in seconds, it is pushed while the job runs as well. *username* and *password*
    are for basic authentication, *tls* for https. An attempt may take *timeout* seconds; failed
    ones are repeated, less and less often, until *deadline* seconds after the end. Pushed with the
    rest are `job_last_success_timestamp_seconds`, `job_succeeded` and others; *now* gives their
    Unix time. `sys.exit(0)` ends a job well.

    Raises ConfigError for a wrong option.
    """
    if interval is not None:
        seconds("interval", interval, at_least=0.01)
    seconds("timeout", timeout, at_least=0.001)
    seconds("deadline", deadline, at_least=0.0)
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise ConfigError(f"tls: {tls!r} given; expected an ssl.SSLContext")
    there = Gateway(
        gateway,
        job,
        grouping_key,
        username=username,
        password=password,
        tls=tls,
        timeout=timeout,
    )
    group = ("job", *(grouping_key or {}))
    return PushOnExit(there, registry, group=group, interval=interval, deadline=deadline, now=now)


def _without(names: frozenset[bytes], body: bytes) -> bytes:
    """Return a text of the Prometheus format with other names for these labels of its samples."""
    if not any(b'%s="' % name in body for name in names):
        return body

    def renamed(line: bytes) -> bytes:
        taken = {pair[2] for pair in PAIR.finditer(line)}

        def free(pair: re.Match[bytes]) -> bytes:
            name = pair[2]
            while name in names or (name != pair[2] and name in taken):
                name = b"exported_" + name
            return pair[1] + name + pair[3]

        return PAIR.sub(free, line) if taken & names else line

    lines = body.split(b"\n")
    return b"\n".join([line if line.startswith(b"#") else renamed(line) for line in lines])
