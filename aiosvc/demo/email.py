"""
The e-mail queue: a pool of workers that sends one confirmation per order.

Rule: every order that `enqueue` took is in exactly one place: in the queue, with a worker, waiting
for its next attempt, or settled as sent or failed. `pending` counts the first three, so at any time
accepted == sent + failed + pending.

The workers are an `aiosvc.WorkerPool`, which repeats failed attempts later, keeps what it gave up on
as dead letters, and works off the queue when the service stops. An unexpected exception is not
retried: the message may be out already, and sending it twice is worse than saying that it failed.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple, Protocol

from aiosvc.demo.orders import BusinessMetrics, Order, Status
from aiosvc.service import Observer

__all__ = [
    "MAX_RETRY_AFTER",
    "DrainRate",
    "Drained",
    "Mailer",
    "SendError",
    "SimulatedTransport",
    "Transport",
]

log = logging.getLogger("aiosvc.demo")

MAX_RETRY_AFTER = 60  # seconds; who is told to wait longer does not come back
_BACKOFF = 0.2  # seconds at most before the second attempt, doubled for each one after it
_MAX_BACKOFF = 30.0  # seconds
_DEAD_LETTERS = 100  # orders given up on that are kept to look at
_SPREAD = 0.5  # sigma of the log-normal send time: 2 % take longer than 2.8 times the median


class SendError(Exception):
    """Raised by a transport for a failure that may pass: the order is tried again."""


class Transport(Protocol):
    """Whatever can send an order's confirmation."""

    async def send(self, order: Order) -> None:
        """Send it, or raise SendError."""


class SimulatedTransport:
    """A mail server that takes log-normal time around `median` seconds and fails at random."""

    def __init__(self, *, median: float, failure_rate: float, rng: Random) -> None:
        self._median = median
        self._failure_rate = failure_rate
        self._rng = rng

    async def send(self, order: Order) -> None:
        """Sleep as long as sending would take; raise SendError in `failure_rate` of all cases."""
        await asyncio.sleep(self._median * self._rng.lognormvariate(0.0, _SPREAD))
        if self._rng.random() < self._failure_rate:
            raise SendError(f"order {order.id}: the mail server is busy, try again")


class DrainRate:
    """
    How fast workers take items from a queue that has a backlog.

    Only takes that leave something behind count: a queue that runs empty says how fast orders come,
    not how fast they could go. `workers` takes in `expected` seconds are assumed to precede what
    was observed, so the first answers are sane, and a stuck queue's rate falls towards 0.
    """

    def __init__(
        self, *, workers: int, expected: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers = workers
        self._expected = expected
        self._clock = clock
        self._takes: deque[float] = deque(maxlen=200)

    def taken(self, *, left: int) -> None:
        """Note that a worker took an item and `left` stayed behind."""
        if not left:
            self._takes.clear()
        self._takes.append(self._clock())

    def seconds_for(self, backlog: int) -> float:
        """Return how long `backlog` items take at the observed rate."""
        takes = self._workers
        seconds = self._expected
        if self._takes:
            takes += len(self._takes) - 1
            seconds += self._clock() - self._takes[0]
        return backlog * seconds / takes


class Drained(NamedTuple):
    """How a drain went: orders settled while it lasted, and orders given up when it ended."""

    processed: int
    left: int


class Mailer:
    """
    The queue's workers, from `start` to `drain`.

    `queue` is any asyncio.Queue of orders that only this mailer puts into and takes from; *observer*
    shows it and its workers as `email`. `expected_seconds` is what one send should take; it is
    believed until sends were observed.
    """

    def __init__(
        self,
        observer: Observer,
        queue: asyncio.Queue[Order],
        transport: Transport,
        metrics: BusinessMetrics,
        *,
        workers: int,
        max_attempts: int,
        expected_seconds: float,
        rng: Random,
    ) -> None:
        self._queue = queue
        self._transport = transport
        self._metrics = metrics
        self._max_attempts = max_attempts
        self._rate = DrainRate(workers=workers, expected=expected_seconds)
        self._pool = observer.worker_pool(
            queue,
            self._send,
            name="email",
            jobs=["send_confirmation"],
            concurrency=workers,
            attempts=max_attempts,
            retry_on=SendError,
            backoff=_BACKOFF,
            backoff_max=max(_BACKOFF, _MAX_BACKOFF),
            dead_letters=_DEAD_LETTERS,
            rng=rng,
        )
        self.pending = 0

    @property
    def draining(self) -> bool:
        """Whether a drain has begun: `enqueue` takes no order any more."""
        return self._pool.closed

    def enqueue(self, order: Order) -> None:
        """Take an order in; raises asyncio.QueueFull or aiosvc.PoolClosedError and forgets it."""
        self._pool.put_nowait(order)
        self.pending += 1

    async def put(self, order: Order) -> None:
        """Do what `enqueue` does."""
        self.enqueue(order)

    def new_id(self) -> None:
        """Leave the ids of orders to the store, the only one there is."""

    async def begin(self) -> None:
        """Start the workers, and say what a queue in memory means."""
        log.info(
            "orders wait in memory for their e-mail: a crash loses what the queue holds, and a stop "
            "what is not sent in time; --queue redis://... keeps them"
        )
        self.start()

    def retry_after(self) -> int:
        """Return in how many whole seconds, 1 to 60, the present backlog is worked off."""
        seconds = math.ceil(self._rate.seconds_for(self._queue.qsize()))
        return min(max(seconds, 1), MAX_RETRY_AFTER)

    def start(self) -> None:
        """Start the workers on the running loop."""
        self._pool.start()

    async def stop(self) -> None:
        """Cancel the workers and the waiting retries; what they held stays pending."""
        await self._pool.stop(0)

    async def drain(self, deadline: float) -> Drained:
        """
        Work off what is pending for up to `deadline` seconds, then stop; how it went is logged.

        A second call returns the first one's result.
        """
        drained = await self._pool.stop(deadline)
        return Drained(drained.processed, len(drained.left))

    async def _send(self, order: Order) -> None:
        """Make one attempt, for the pool, which repeats it after a SendError."""
        self._rate.taken(left=self._queue.qsize())
        order.status = Status.SENDING
        order.attempts += 1
        try:
            with self._metrics.send_seconds.time():
                await self._transport.send(order)
        except SendError:
            if order.attempts >= self._max_attempts:
                self._settle(order, Status.FAILED)
            else:
                order.status = Status.ACCEPTED
                self._metrics.retried.inc()
            raise
        except asyncio.CancelledError:
            order.status = Status.ACCEPTED
            raise
        except Exception:
            self._settle(order, Status.FAILED)
            raise
        self._settle(order, Status.SENT)

    def _settle(self, order: Order, outcome: Status) -> None:
        order.status = outcome
        (self._metrics.sent if outcome is Status.SENT else self._metrics.failed).inc()
        self.pending -= 1
