"""
The e-mail queue on a broker, which all replicas and all worker processes share.

Rule: an order is accepted when the broker has it. Rule: of an order that another process works on,
this one knows that it is queued, and no more; nobody asks around.
"""

import logging
from argparse import Namespace
from random import Random, SystemRandom
from typing import Any

from prometheus_client import REGISTRY

from aiosvc.admin import AdminOptions
from aiosvc.check import CheckOptions
from aiosvc.config import ServeOptions, Settings
from aiosvc.demo.email import SendError
from aiosvc.demo.options import DemoOptions
from aiosvc.demo.orders import BusinessMetrics, Order, OrderStore, Status
from aiosvc.demo.outbox import transport_of
from aiosvc.jobs import JobQueue
from aiosvc.options import read_options

__all__ = ["SharedMailer", "emails"]

log = logging.getLogger("aiosvc.demo")

#: Bits of an order's id; what a client in JavaScript can read exactly.
ID_BITS = 53
#: Seconds after which a client may try again while the broker is away.
RETRY_AFTER = 2
#: Seconds for which a worker that is gone keeps its orders from others.
VISIBILITY = 5.0
#: Orders of other replicas that are remembered.
REMEMBERED = 10_000


class SharedMailer:
    """
    Puts orders into the queue, and sends the e-mails of those that come to this process.

    *store* knows the orders that this process has seen, and how they are.
    """

    def __init__(self, options: DemoOptions, store: OrderStore, metrics: BusinessMetrics) -> None:
        rng = Random(options.seed)  # noqa: S311 - a simulation, nothing secret
        self.queue = JobQueue(
            options.queue,
            name="email",
            concurrency=max(1, options.workers),
            attempts=options.max_attempts,
            retry_on=SendError,
            backoff=0.2,
            backoff_max=30.0,
            drain=options.drain_timeout,
            visibility=VISIBILITY,
            send_timeout=2.0,
            rng=rng,
        )
        self._job = self.queue.job(name="send_confirmation")(self._send)
        self._works = options.workers > 0
        self._max_attempts = options.max_attempts
        self._transport = transport_of(options, rng)
        self._store = store
        self._metrics = metrics
        self._ids = SystemRandom()
        self._runs = self.draining = False

    def new_id(self) -> int:
        """Return an id that no other replica gives out."""
        return self._ids.getrandbits(ID_BITS)

    async def put(self, order: Order) -> None:
        """Have the broker take an order in; raises NotEnqueuedError and forgets it."""
        # Before, for it may be sent before the broker's answer is here.
        self._store.add(order)
        given = {
            "id": order.id,
            "user_id": order.user_id,
            "item": order.item,
            "quantity": order.quantity,
        }
        try:
            await self._job.enqueue(given)
        except BaseException:
            self._store.remove(order)
            raise
        if order.status is Status.ACCEPTED:
            order.status = Status.QUEUED

    def retry_after(self) -> int:
        """Return in how many seconds it may be worthwhile to try again."""
        return RETRY_AFTER

    async def begin(self) -> None:
        """Connect, and begin to send if there are workers here; raises NotEnqueuedError."""
        await self.queue.start(workers=self._works)
        self._runs = True
        log.info(
            "orders wait for their e-mail on %s, which keeps them whatever ends here; %s",
            self.queue.backend,
            "this process sends too" if self._works else "this process only takes orders",
        )

    async def drain(self, _deadline: float) -> None:
        """Take no more orders, and let the e-mails under way be sent, for as long as the option says."""
        self.draining = True
        await self.stop()

    async def stop(self) -> None:
        """Disconnect; what was not sent goes back to the broker."""
        if self._runs:
            self._runs = False
            left = await self.queue.stop()
            log.info("stopped: %d orders under way went back to the broker", left)

    async def _send(self, given: dict[str, Any]) -> None:
        order = self._store.get(given["id"])
        if order is None:
            order = Order(**given)
            self._store.add(order)
        order.status = Status.SENDING
        order.attempts += 1
        outcome = Status.FAILED
        try:
            with self._metrics.send_seconds.time():
                await self._transport.send(order)
            outcome = Status.SENT
        except SendError:
            if order.attempts < self._max_attempts:
                outcome = Status.QUEUED
                self._metrics.retried.inc()
            raise
        except BaseException as error:
            if not isinstance(error, Exception):  # it is stopped, and given back
                outcome = Status.QUEUED
            raise
        finally:
            order.status = outcome
            if outcome is Status.SENT:
                self._metrics.sent.inc()
            elif outcome is Status.FAILED:
                self._metrics.failed.inc()


def emails() -> JobQueue:
    """
    Return the demo's queue with its job, for `aiosvc worker aiosvc.demo:emails`.

    Its options are those of the demo, from the environment and the file: `AIOSVC_QUEUE` above all.
    """
    every = (ServeOptions, Settings, DemoOptions, AdminOptions, CheckOptions)
    [options] = read_options(Namespace(config=None), (DemoOptions,), every)
    return SharedMailer(options, OrderStore(REMEMBERED), BusinessMetrics.of(REGISTRY)).queue
