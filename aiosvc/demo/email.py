"""
The e-mail queue: workers that send one confirmation per order, retry, and drain at the end.

Rule: every order that `enqueue` took is in exactly one place: in the queue, with a worker, waiting
for its next attempt, or settled as sent or failed. `pending` counts the first three, so at any time
accepted == sent + failed + pending, and a drain is over when pending is 0.

A failed attempt does not keep its worker: the order waits in a task of its own and then goes back
into the queue, behind whoever came in between. When draining, that wait is cut short, since what is
left in memory at the end is lost. An unexpected exception is not retried: the message may be out
already, and sending it twice is worse than saying that it failed.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import NamedTuple, Protocol

from aiosvc.demo.orders import BusinessMetrics, Order, Status

__all__ = [
    "MAX_RETRY_AFTER",
    "DrainRate",
    "Drained",
    "Mailer",
    "SendError",
    "SimulatedTransport",
    "Transport",
]

logger = logging.getLogger("aiosvc.demo")

MAX_RETRY_AFTER = 60  # seconds; who is told to wait longer does not come back
_BACKOFF = 0.2  # seconds before the second attempt, doubled for each one after it
_MAX_DOUBLINGS = 7  # so no wait is longer than 26 seconds, before the jitter
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

    `queue` is any asyncio.Queue of orders that only this mailer puts into and takes from.
    `expected_seconds` is what one send should take; it is believed until sends were observed.
    """

    def __init__(
        self,
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
        self._workers = workers
        self._max_attempts = max_attempts
        self._rng = rng
        self._rate = DrainRate(workers=workers, expected=expected_seconds)
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = asyncio.Event()
        self._drained: Drained | None = None
        self.pending = 0

    @property
    def draining(self) -> bool:
        """Whether a drain has begun: no order should be enqueued any more."""
        return self._draining.is_set()

    def enqueue(self, order: Order) -> None:
        """Take an order in, or raise asyncio.QueueFull and forget it."""
        self._queue.put_nowait(order)
        self.pending += 1
        self._idle.clear()

    def retry_after(self) -> int:
        """Return in how many whole seconds, 1 to 60, the present backlog is worked off."""
        seconds = math.ceil(self._rate.seconds_for(self._queue.qsize()))
        return min(max(seconds, 1), MAX_RETRY_AFTER)

    def start(self) -> None:
        """Start the workers on the running loop."""
        for number in range(self._workers):
            self._spawn(self._work(), f"email-worker-{number}")

    async def stop(self) -> None:
        """Cancel the workers and the waiting retries; what they held stays pending."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self, deadline: float) -> Drained:
        """
        Work off what is pending for up to `deadline` seconds, then stop; log how it went.

        A second call returns the first one's result.
        """
        if self._drained is not None:
            return self._drained
        self._draining.set()
        before = self._settled
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self._idle.wait()
        await self.stop()
        self._drained = Drained(self._settled - before, self.pending)
        logger.log(
            logging.WARNING if self._drained.left else logging.INFO,
            "e-mail queue drained: %d processed, %d left%s",
            *self._drained,
            " and lost, as a queue in memory ends with its process" if self._drained.left else "",
        )
        return self._drained

    async def _work(self) -> None:
        while True:
            order = await self._queue.get()
            self._rate.taken(left=self._queue.qsize())
            try:
                await self._attempt(order)
            except Exception:
                logger.exception("order %d: sending crashed, not retried", order.id)
                self._settle(order, Status.FAILED)
            finally:
                self._queue.task_done()

    async def _attempt(self, order: Order) -> None:
        order.status = Status.SENDING
        order.attempts += 1
        try:
            with self._metrics.send_seconds.time():
                await self._transport.send(order)
        except SendError:
            if order.attempts >= self._max_attempts:
                self._settle(order, Status.FAILED)
                return
            order.status = Status.ACCEPTED
            self._metrics.retried.inc()
            self._spawn(self._put_back(order), f"email-retry-{order.id}")
        except asyncio.CancelledError:
            order.status = Status.ACCEPTED
            raise
        else:
            self._settle(order, Status.SENT)

    async def _put_back(self, order: Order) -> None:
        """Wait the order's backoff, or until draining, and then for room in the queue."""
        exact = _BACKOFF * 2 ** min(order.attempts - 1, _MAX_DOUBLINGS)
        with suppress(TimeoutError):
            async with asyncio.timeout(exact * self._rng.uniform(0.5, 1.5)):
                await self._draining.wait()
        await self._queue.put(order)

    def _settle(self, order: Order, outcome: Status) -> None:
        order.status = outcome
        (self._metrics.sent if outcome is Status.SENT else self._metrics.failed).inc()
        self._settled += 1
        self.pending -= 1
        if not self.pending:
            self._idle.set()

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
