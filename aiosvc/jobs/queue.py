"""
A queue of jobs, kept in this process or by a broker; which, is a URL.

Rule: what is enqueued has been taken in when `enqueue` returns, or it raises. Rule: a queue in
memory says that a crash loses what it holds; a queue on a broker loses nothing that it took in.
"""

import asyncio
import importlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, ParamSpec, Protocol, Self, Unpack, overload
from urllib.parse import urlsplit

from aiosvc import validation
from aiosvc.brokers import QueueState
from aiosvc.config import make
from aiosvc.errors import AiosvcError, ConfigError, did_you_mean
from aiosvc.jobs.backend import Backend
from aiosvc.jobs.distributed import Distributed
from aiosvc.jobs.job import Job
from aiosvc.jobs.ledger import Ledger
from aiosvc.jobs.local import Local
from aiosvc.jobs.message import Message
from aiosvc.queues.family import check_name
from aiosvc.queues.numbers import CANCELLED, ERROR, FULL, SHUTDOWN
from aiosvc.queues.options import PoolKeywords, PoolOptions
from aiosvc.queues.timelimit import cancellations, is_cancelled

__all__ = ["JobQueue", "NotEnqueuedError"]

log = logging.getLogger("aiosvc.jobs")

P = ParamSpec("P")

#: The module and the extra of each kind of broker, by the scheme of its URL.
REDIS: Final = ("redis", "taskiq-redis")
NATS: Final = ("nats", "taskiq-nats")
RABBITMQ: Final = ("rabbitmq", "taskiq-rabbitmq")
SCHEMES: Final = {
    "redis": REDIS,
    "rediss": REDIS,
    "unix": REDIS,
    "nats": NATS,
    "tls": NATS,
    "amqp": RABBITMQ,
    "amqps": RABBITMQ,
}
MEMORY: Final = "memory"


class NotEnqueuedError(AiosvcError):
    """Raised for a job that the queue did not take in; `reason` is full, shutdown or error."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Engine(Protocol):
    """What keeps the jobs and runs them."""

    async def start(self, *, workers: bool) -> None:
        """Begin to take jobs in; with *workers*, to run them."""

    async def put(self, message: Message, data: bytes) -> None:
        """Take a job in, whose bytes are *data*, or raise."""

    async def stop(self) -> int:
        """Run what can be run in time; return how many jobs did not end."""


class JobQueue:
    """
    Jobs that are enqueued here and run wherever there are workers.

    *url* says where they are kept: `memory://`, or a broker at `redis://`, `nats://` or `amqp://`
    (with `rediss://`, `tls://`, `amqps://` for TLS), whose libraries come with the extras
    `taskiq-redis`, `taskiq-nats` and `taskiq-rabbitmq`. *name* is the queue's there, and the label
    `queue_name` of its metrics. A queue in memory holds *maxsize* jobs, 0 for any number.

    On a broker, a job in hand that its worker did not keep for *visibility* seconds, because it
    died, is handed to another; a worker keeps what it works on by itself, however long that takes.
    One that was handed out *deliveries* times and never ended, because it kills its workers or
    takes all their memory, goes to the dead letters at the next time, and is counted there; so do
    jobs that were in hand beside it each time. *send_timeout* is the seconds that enqueueing may
    take there. The other options are the fields of `aiosvc.queues.PoolOptions`; `jobs` and `job_of`
    are the queue's own affair. So are, on a broker, `dead_letters`; those of a queue in memory are
    messages, with the `name`, `args` and `kwargs` of their jobs.

    `Observer.watch_queue(queue)` exports its metrics. Raises ConfigError for a wrong URL, name or
    option, and where a library is missing.
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        name: str,
        maxsize: int = 0,
        visibility: float = 60.0,
        deliveries: int = 10,
        send_timeout: float = 5.0,
        **options: Unpack[PoolKeywords],
    ) -> None:
        check_name(name)
        validation.whole("maxsize", maxsize, at_least=0)
        validation.seconds("visibility", visibility, at_least=0.1)
        validation.whole("deliveries", deliveries, at_least=1)
        validation.seconds("send_timeout", send_timeout, at_least=0.01)
        for option in ("jobs", "job_of"):
            if option in options:
                raise ConfigError(f"{option}: not an option of a job queue, which knows its jobs")
        self.name = name
        self._send_timeout = send_timeout
        self._jobs: dict[str, Job[Any]] = {}
        self._open = self._workers = False
        chosen = make(PoolOptions, options)
        scheme = _scheme(url)
        self.ledger = Ledger(name, local=scheme == MEMORY)
        #: What `queue_info` says: asyncio, or the kind of broker.
        self.backend = "asyncio"
        #: The queue itself, where it is in memory.
        self.queue: asyncio.Queue[Message] | None = None
        self._source: Backend | None = None
        self._local: Local | None = None
        self._engine: Engine
        if scheme == MEMORY:
            self._local = Local(name, self._jobs, self.ledger.tracker, chosen, maxsize)
            self._engine, self.queue = self._local, self._local.queue
        else:
            if "dead_letters" in options:
                raise ConfigError(
                    "dead_letters: only for a queue in memory; a broker keeps them in a queue beside "
                    "its own"
                )
            if maxsize:
                raise ConfigError(
                    f"maxsize: {maxsize} given; only a queue in memory is bounded, a broker has "
                    "limits of its own"
                )
            backend = _backend(scheme, url, name, chosen.concurrency, visibility)
            self.backend, self._source = backend.name, backend
            self._engine = Distributed(backend, self._jobs, self.ledger, chosen, deliveries)

    @property
    def dead_letters(self) -> deque[Message]:
        """The last jobs that a queue in memory gave up on, yours to take; a broker has its own."""
        return deque() if self._local is None else self._local.dead_letters

    @overload
    def job(self, function: Callable[P, Awaitable[object]]) -> Job[P]: ...
    @overload
    def job(
        self, function: None = None, *, name: str | None = None
    ) -> Callable[[Callable[P, Awaitable[object]]], Job[P]]: ...
    def job(self, function: Any = None, *, name: str | None = None) -> Any:
        """
        Make an async function a job of this queue, under its own name or *name*; a decorator.

        Every process that enqueues it or works for the queue has to make it. Raises ConfigError
        where it is not async, or the name is taken.
        """
        if function is None:
            return lambda function: self._add(function, name)
        return self._add(function, name)

    async def enqueue(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """
        Put in a job by its name; `Job.enqueue` does the same and checks the arguments.

        Raises NotEnqueuedError where the queue did not take it, TypeError for arguments that JSON
        can't say, ConfigError for a job that this queue does not have.
        """
        if name not in self._jobs:
            raise ConfigError(f"no job is named {name!r}{did_you_mean(name, tuple(self._jobs))}")
        message = Message.of(name, args, kwargs)
        data = message.encode()  # so that what is refused is refused whatever queue it is
        if not self._open:
            self.ledger.refuse(SHUTDOWN)
            raise NotEnqueuedError(f"queue {self.name} is not running", SHUTDOWN)
        before = cancellations()
        try:
            async with asyncio.timeout(self._send_timeout):
                await self._engine.put(message, data)
        except asyncio.QueueFull:
            self.ledger.refuse(FULL)
            raise NotEnqueuedError(f"queue {self.name} is full", FULL) from None
        except Exception as error:
            if is_cancelled(before):
                self.ledger.refuse(CANCELLED)
                raise asyncio.CancelledError from error
            self.ledger.refuse(ERROR)
            raise NotEnqueuedError(
                f"queue {self.name}: {type(error).__name__}: {error}", ERROR
            ) from error
        except asyncio.CancelledError:
            self.ledger.refuse(CANCELLED)
            raise
        self.ledger.enqueued += 1
        if is_cancelled(before):
            raise asyncio.CancelledError  # which came too late for the job, not for the caller

    async def start(self, *, workers: bool = True) -> None:
        """
        Take jobs in from now on; with *workers*, run them in this process.

        A second time adds the workers where there are none, and else changes nothing. Raises
        NotEnqueuedError where a broker can't be reached within `send_timeout`.
        """
        if self._open and (self._workers or not workers):
            return
        if self._open and self._source is not None:
            await self._engine.stop()  # a worker has another connection
        before = cancellations()
        try:
            async with asyncio.timeout(self._send_timeout):
                await self._engine.start(workers=workers)
            if is_cancelled(before):
                raise asyncio.CancelledError  # noqa: TRY301 - so that it ends as any other does
        except BaseException as error:
            self._open = False
            with suppress(Exception):  # of what has begun to start; the reason is the error above
                await self._engine.stop()
            if not isinstance(error, Exception):
                raise
            if is_cancelled(before):
                raise asyncio.CancelledError from error
            raise NotEnqueuedError(
                f"queue {self.name}: {self.backend} can't be reached: "
                f"{type(error).__name__}: {error}",
                ERROR,
            ) from error
        self._open, self._workers = True, workers

    async def stop(self) -> int:
        """
        Take nothing in any more, give running jobs `drain` seconds, and disconnect.

        Returns how many did not end: lost if in memory, else to be run by another worker.
        """
        self._open = False
        return await self._engine.stop()

    async def sample(self) -> QueueState:
        """Return how the queue is at its broker; raises ConnectionError while it is not running."""
        if self._source is None or not self._open:
            raise ConnectionError(f"queue {self.name} is not connected")
        return await self._source.sample()

    def running(self, *, workers: bool = True) -> Callable[[object], AsyncIterator[None]]:
        """Return what `app.cleanup_ctx` takes, so that the queue runs while an application does."""

        async def run(_app: object) -> AsyncIterator[None]:
            await self.start(workers=workers)
            yield
            await self.stop()

        return run

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _add(self, function: Callable[P, Awaitable[object]], name: str | None) -> Job[P]:
        name = name or getattr(function, "__name__", "")
        if not name:
            raise ConfigError(f"job: {function!r} has no name; give it one with name='send'")
        if name in self._jobs:
            raise ConfigError(
                f"job {name!r}: the queue has one of that name; give this one another"
            )
        job: Job[P] = Job(function, name, self)
        self._jobs[name] = job
        self.ledger.tracker.expect((name,))
        return job


def _scheme(url: object) -> str:
    scheme = urlsplit(url).scheme if isinstance(url, str) else ""
    known = (MEMORY, *SCHEMES)
    if scheme not in known:
        raise ConfigError(
            f"queue URL {_without_secrets(url)!r}: expected one that begins with "
            f"{', '.join(f'{each}://' for each in known)}{did_you_mean(scheme, known)}"
        )
    return scheme


def _backend(scheme: str, url: str, name: str, concurrency: int, visibility: float) -> Backend:
    module, extra = SCHEMES[scheme]
    try:
        found = importlib.import_module(f"aiosvc.jobs.{module}")
    except ImportError as error:
        raise ConfigError(
            f"queue URL {scheme}://...: {error}; install it with: pip install 'aiosvc[{extra}]'"
        ) from error
    backend: Backend = found.make(url, name, concurrency=concurrency, visibility=visibility)
    return backend


def _without_secrets(url: object) -> object:
    if not isinstance(url, str) or "@" not in url:
        return url
    return f"...@{url.rpartition('@')[2]}"
