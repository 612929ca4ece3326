"""
A job queue that a broker keeps: jobs are sent to it, and workers in any process take them.

Rule: a message is settled after its job has ended for good, and not before; so a job is run at
least once, whatever dies. One whose workers die each time is given up on: it may be the cause.
Rule: no more is taken than there is room for, so that what waits is in the broker, where it can be
counted and where another worker can have it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from random import Random
from typing import Any

from aiosvc.jobs.backend import Backend, Delivery
from aiosvc.jobs.job import Job
from aiosvc.jobs.ledger import Ledger
from aiosvc.jobs.message import Message
from aiosvc.naming import one_line, what_happened
from aiosvc.queues.attempts import DEAD, EXITS, RETRY
from aiosvc.queues.options import PoolOptions
from aiosvc.queues.timelimit import is_cancelled, within

__all__ = ["Distributed"]

log = logging.getLogger("aiosvc.jobs")

#: Seconds between two attempts to reach a broker that is down, at first and at most.
PAUSE, LONGEST_PAUSE = 0.1, 2.0
#: How often, and how many seconds apart, a broker is asked to settle a message.
SETTLE_ATTEMPTS, SETTLE_PAUSE = 5, 0.2
#: Seconds that jobs which were cancelled get to end.
GRACE = 1.0

Settling = Callable[[Delivery], Coroutine[Any, Any, None]]


class Distributed:
    """
    Sends jobs to a *backend*, and runs those that it takes from there.

    What the broker hands out once more while it is in hand here is not run a second time. One that
    waits to be tried again keeps its place among the `concurrency` ones in hand: it is the
    broker's until it has ended for good. A message that was handed out more than *deliveries* times,
    and never settled, is put aside.
    """

    def __init__(
        self,
        backend: Backend,
        jobs: Mapping[str, Job[Any]],
        ledger: Ledger,
        options: PoolOptions,
        deliveries: int,
    ) -> None:
        self.backend = backend
        self._jobs = jobs
        self._ledger = ledger
        self._options = options
        self._deliveries = deliveries
        self._rng = options.rng or Random()  # noqa: S311 - it spreads waits
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._held: dict[object, list[Delivery]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_down = False

    async def start(self, *, workers: bool) -> None:
        """Connect; with *workers*, begin to run jobs."""
        # They belong to one event loop, and this may be another one than the last time.
        self._stopping, self._changed = asyncio.Event(), asyncio.Event()
        await self.backend.start(worker=workers)
        self._ledger.tracker.slots = self._options.concurrency if workers else None
        if workers:
            loop = asyncio.get_running_loop()
            self._tasks.append(loop.create_task(self._work(), name="aiosvc jobs"))
            if self.backend.keep_every is not None:
                keeping = self._keep(self.backend.keep_every)
                self._tasks.append(loop.create_task(keeping, name="aiosvc jobs kept"))

    async def put(self, message: Message, data: bytes) -> None:
        """Send a job; the broker has it when this returns. Raises what its library raises."""
        await self.backend.send(message, data)

    async def stop(self) -> int:
        """Take no more, let jobs end for *drain* seconds, disconnect; return how many had to go."""
        self._stopping.set()
        self._changed.set()
        if self._tasks:
            # The worker ends by itself, so that nothing is lost on its way here.
            await asyncio.wait(self._tasks[:1], timeout=self._options.drain + GRACE)
        if self._running:
            await asyncio.wait(list(self._running), timeout=self._options.drain)
        left = list(self._running)
        for task in (*left, *self._tasks):
            task.cancel()
        if left or self._tasks:
            await asyncio.wait([*left, *self._tasks], timeout=GRACE)
        self._tasks.clear()
        self._ledger.tracker.slots = None
        await self.backend.stop()
        return len(left)

    async def _work(self) -> None:
        pause = PAUSE
        while not self._is_over():
            room = self._options.concurrency - len(self._running)
            if not room:
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                deliveries = await self.backend.take(room)
            except Exception as error:  # noqa: BLE001 - it is asked again, whatever it was
                if is_cancelled():
                    return  # a library may make an error of its own of that
                self._note_down(error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = PAUSE
            self._note_up()
            for delivery in deliveries:
                if self._is_over():
                    await self._settle([delivery], give_back)
                    continue
                task = asyncio.get_running_loop().create_task(self._process(delivery))
                self._running.add(task)
                task.add_done_callback(self._processed)

    def _is_over(self) -> bool:
        # A library may drop a cancellation, such as that of an event loop that ends without a stop.
        return self._stopping.is_set() or is_cancelled()

    async def _keep(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            for delivery in [each for held in self._held.values() for each in held]:
                with suppress(Exception):  # what can't be kept is handed out again, at worst
                    await delivery.keep()
                if is_cancelled():
                    return

    def _processed(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job could not be settled", exc_info=error)

    async def _process(self, delivery: Delivery) -> None:
        try:
            message = Message.decode(delivery.data)
        except ValueError as error:
            await self._refuse(delivery, str(error))
            return
        job = self._jobs.get(message.name)
        if job is None:
            await self._refuse(delivery, f"no job is named {message.name!r}")
            return
        held = self._held.get(message.id) if delivery.number > 1 else None
        if held is not None:
            # The broker lost sight of this worker, which has it in hand and settles it anew.
            held.append(delivery)
            return
        if delivery.number > self._deliveries:
            times = delivery.number - 1
            reason = (
                f"{job.name} was handed out {times} times and never ended; did it kill its worker?"
            )
            await self._refuse(delivery, reason, job.name)
            return
        held = [delivery]
        # Nothing keeps another sender from using an id twice, or none; each of these is run.
        is_new = message.id and message.id not in self._held
        identity = message.id if is_new else object()
        self._held[identity] = held
        try:
            await self._process_job(job, message, held)
        finally:
            del self._held[identity]

    async def _process_job(self, job: Job[Any], message: Message, held: list[Delivery]) -> None:
        if message.sent is not None:
            # Clocks of two machines differ; nothing waits for less than no time.
            self._ledger.waited(max(0.0, time.time() - message.sent))
        try:
            reason = await self._run(job, message.args, message.kwargs)
        except asyncio.CancelledError:
            await asyncio.shield(self._settle(held, give_back))
            raise
        if reason is None:
            await self._settle(held, done)
        else:
            await self._settle(held, dead(reason))

    async def _refuse(self, delivery: Delivery, why: str, job: str = "") -> None:
        reason = one_line(why)
        log.error("a message was put aside: %s", reason)
        with self._ledger.attempt(job) as attempt:
            attempt.dead()
        await self._settle([delivery], dead(reason))

    async def _run(self, job: Job[Any], args: list[Any], kwargs: dict[str, Any]) -> str | None:
        """Run a job until it succeeds or is given up on; return why it was, else None."""
        for number in range(1, self._options.attempts + 1):
            limit = asyncio.timeout(self._options.timeout)
            with self._ledger.attempt(job.name) as attempt:
                try:
                    await within(limit, job(*args, **kwargs))
                except EXITS:
                    raise
                except BaseException as error:
                    if is_cancelled():
                        # Whatever the job made of it, others may have it.
                        raise asyncio.CancelledError from error
                    again = isinstance(error, (self._options.retry_on, asyncio.CancelledError))
                    is_last = number == self._options.attempts or not again
                    attempt.end(DEAD if is_last else RETRY)
                    reason = what_happened(error)
                    if is_last:
                        log.exception("job %s failed %d times; it is put aside", job.name, number)
                        return reason
                    delay = self._options.wait_before(number + 1, self._rng)
                    log.warning("job %s failed (%s); again in %.1f s", job.name, reason, delay)
                else:
                    return None
            await self._wait(delay)
        raise AssertionError("a job has one attempt at least")

    async def _wait(self, delay: float) -> None:
        """Wait before another attempt; a stop has it cancelled, and the broker hands it out anew."""
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._stopping.wait()
        if self._stopping.is_set():
            raise asyncio.CancelledError

    async def _settle(self, held: list[Delivery], how: Settling) -> None:
        """Settle a message by the last of its deliveries; the broker may make one meanwhile."""
        for number in range(SETTLE_ATTEMPTS):
            delivery = held[-1]
            try:
                await how(delivery)
            except Exception as error:  # noqa: BLE001 - told again, or handed out again
                if number == SETTLE_ATTEMPTS - 1:
                    log.warning(
                        "a job's end can't be told to the broker, which will hand it out again: "
                        "%s: %s",
                        type(error).__name__,
                        error,
                    )
                    return
                await asyncio.sleep(SETTLE_PAUSE * 2**number)
            else:
                break
        for other in held:
            if other is not delivery:
                with suppress(Exception):  # what the broker does not wait for any more
                    await (other.give_back() if how is give_back else other.done())

    def _note_down(self, error: Exception) -> None:
        if not self._is_down:
            self._is_down = True
            log.warning(
                "the %s broker can't be asked for jobs: %s: %s",
                self.backend.name,
                type(error).__name__,
                error,
            )

    def _note_up(self) -> None:
        if self._is_down:
            self._is_down = False
            log.info("the %s broker is back", self.backend.name)


async def done(delivery: Delivery) -> None:
    """Settle a message whose job is done."""
    await delivery.done()


async def give_back(delivery: Delivery) -> None:
    """Settle a message whose job is not done here."""
    await delivery.give_back()


def dead(reason: str) -> Settling:
    """Return what settles a message whose job is given up on."""
    return lambda delivery: delivery.dead(reason)
