"""
A pool of workers over a queue: concurrency, time limits, retries, dead letters, and a clean stop.

Rule: every item that a worker took is in exactly one place: with a worker, waiting to be tried again,
back in the queue, or finished; and every attempt at it ends in exactly one outcome. Rule: no signal
handler; whoever runs the service calls `stop`.

Theory of operation. A failed attempt does not keep its worker. Its item waits in a task of its own and
goes back into the queue (see `retries`). A stop refuses new items, cuts those waits short, works off
what there is until its time is over, and then cancels; what is left is taken out of the queue and
handed back.
"""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from random import Random
from typing import Any, Final, NamedTuple, Self

from aiosvc.errors import AiosvcError, ConfigError
from aiosvc.queues.attempts import DEAD, ERROR, EXITS, RETRY, TIMEOUT, Attempt
from aiosvc.queues.deadletters import DeadLetters
from aiosvc.queues.intake import Intake
from aiosvc.queues.jobs import JobTracker
from aiosvc.queues.numbers import DEAD_LETTERS, SHUTDOWN
from aiosvc.queues.options import PoolOptions
from aiosvc.queues.putget import instruments_of
from aiosvc.queues.retries import Retries
from aiosvc.queues.timelimit import is_cancelled, within

__all__ = ["Drained", "PoolClosedError", "WorkerPool"]

log = logging.getLogger("aiosvc.queues")

#: Seconds after which a stop looks again whether others have emptied the queue.
LOOK_AGAIN: Final = 0.1
#: Seconds that cancelled jobs get to end.
GRACE: Final = 1.0
#: Seconds to wait after a queue failed to give an item.
PAUSE: Final = 1.0


class PoolClosedError(AiosvcError, RuntimeError):
    """Raised by `put` and `put_nowait` of a pool that is stopping or has stopped."""


class Drained(NamedTuple):
    """How a stop went: items finished while it lasted, and those that were left and dropped."""

    processed: int
    left: tuple[Any, ...]


class WorkerPool:
    """Calls *handler* with each item of *queue*; made by `Observer.worker_pool`."""

    def __init__(
        self,
        queue: Any,
        handler: Callable[[Any], Awaitable[object]],
        tracker: JobTracker,
        options: PoolOptions,
    ) -> None:
        if not callable(handler):
            raise ConfigError(f"worker_pool: {handler!r} given; expected an async function")
        self.options = options
        self._intake = Intake(queue)
        if options.attempts > 1 and self._intake.put is None:
            raise ConfigError(
                f"attempts: {options.attempts} given, but nothing can be put back into {queue!r}; "
                "give a queue that has put(), or attempts=1"
            )
        self._queue = queue
        self._handler = handler
        self._tracker = tracker
        self._letters = DeadLetters(options.dead_letters)
        self._rng = options.rng or Random()  # noqa: S311 - spreads retries, guards nothing
        self._job = _only_job(handler, tracker.name, tuple(options.jobs))
        tracker.expect(options.jobs or (self._job,))
        self._workers: set[asyncio.Task[None]] = set()
        self._retries = Retries(queue, self._intake, tracker, self._retry_ended)
        self._in_hand = 0
        self._finished = 0
        self._left: list[Any] = []
        self._closed = self._over = False
        self._changed = asyncio.Event()
        self._stopping: asyncio.Task[Drained] | None = None

    @property
    def slots(self) -> int:
        """How many jobs can run at once."""
        return self.options.concurrency

    @property
    def consumers(self) -> int:
        """How many workers take from the queue."""
        return len(self._workers)

    @property
    def scheduled(self) -> int:
        """How many items wait to be tried again, or for room in the queue after that."""
        return len(self._retries)

    @property
    def dead(self) -> int | None:
        """How many dead letters are kept, None where they are not kept or go to a function."""
        return self._letters.count

    @property
    def dead_letters(self) -> deque[Any]:
        """The last items that were given up on, as many as the option says; yours to take."""
        return self._letters.kept

    @property
    def closed(self) -> bool:
        """Whether it has begun to stop, or has not been started again since."""
        return self._closed

    def put_nowait(self, item: Any) -> None:
        """Put *item* into the queue; raises PoolClosedError, and what the queue raises."""
        self._refuse_when_closed()
        if self._intake.put_nowait is None:
            raise TypeError(f"{self._queue!r} can only be taken from; put into its other end")
        self._intake.put_nowait(item)

    async def put(self, item: Any) -> None:
        """Put *item* into the queue when there is room; raises as `put_nowait` does."""
        self._refuse_when_closed()
        if self._intake.put is None:
            raise TypeError(f"{self._queue!r} can only be taken from; put into its other end")
        await self._intake.put(item)

    def start(self) -> None:
        """Start the workers on the running event loop; a second time changes nothing."""
        if self._workers and not self._closed:
            return
        self._closed = self._over = False
        self._stopping = None
        self._changed = asyncio.Event()
        self._retries.start()
        self._tracker.employ(self)
        for number in range(self.options.concurrency):
            worker = self._task(self._work(), f"{self._tracker.name}-worker-{number}")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def stop(self, drain: float | None = None) -> Drained:
        """
        Work off what there is for up to *drain* seconds, by default the option's, then cancel.

        What is left is counted as dropped, logged, taken out of the queue and returned: items that
        waited, that were to be tried again, and that were being processed. A second call returns
        the first one's result.
        """
        if self._stopping is None:
            self._closed = True
            self._retries.hurry()
            seconds = self.options.drain if drain is None else drain
            self._stopping = self._task(
                self._stop(seconds, self._finished), f"{self._tracker.name}-stop"
            )
        return await asyncio.shield(self._stopping)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _stop(self, seconds: float, before: int) -> Drained:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until_idle()
        self._over = True
        tasks = {*self._workers, *self._retries.tasks}
        for task in tasks:
            task.cancel()
        stuck = (await asyncio.wait(tasks, timeout=GRACE))[1] if tasks else ()
        left = (*self._left, *self._rest())
        self._left.clear()
        self._retries.forget()
        self._tracker.drop(SHUTDOWN, len(left))
        self._tracker.dismiss(self)
        log.log(
            logging.WARNING if left or stuck else logging.INFO,
            "queue %s drained: %d processed, %d left%s%s",
            self._tracker.name,
            self._finished - before,
            len(left),
            ", dropped" if left else "",
            f"; {len(stuck)} jobs ignore their cancellation and go on" if stuck else "",
        )
        return Drained(self._finished - before, left)

    async def _until_idle(self) -> None:
        while self._workers and (self._in_hand or self._retries or self._intake.size()):
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await self._changed.wait()

    def _rest(self) -> Iterator[Any]:
        take = self._intake.take_nowait
        with ExitStack() as stack:
            for instrument in instruments_of(self._queue):
                stack.enter_context(instrument.dropping(counted=False))
            while take is not None and self._intake.size():
                try:
                    item = take()
                except Exception:  # noqa: BLE001 - empty, closed or broken: no more comes out of it
                    return
                self._intake.done()
                yield item

    async def _work(self) -> None:
        # One that ignored its cancellation does not join the workers of the next start.
        shift = self._changed
        while not self._over and shift is self._changed:
            try:
                item = await self._intake.take()
            except Exception as error:
                if self._intake.has_ended(error):
                    return
                log.exception("queue %s: no item can be taken; trying again", self._tracker.name)
                await asyncio.sleep(PAUSE)
                continue
            self._in_hand += 1
            retried = False
            try:
                retried = await self._process(item)
                self._finished += not retried
            except asyncio.CancelledError:
                # By itself a handler may cancel what it likes; the worker goes on.
                if is_cancelled():
                    self._left.append(item)
                    raise
                self._finished += 1
            finally:
                self._in_hand -= 1
                if not retried:
                    self._intake.done()
                self._changed.set()
            # Neither get() nor the handler need have let anybody else run.
            await asyncio.sleep(0)

    async def _process(self, item: Any) -> bool:
        """Make one attempt at *item*; return whether there will be another."""
        number = self._retries.attempt_at(item)
        limit = asyncio.timeout(self.options.timeout)
        with self._tracker.attempt(self._job_of(item)) as attempt:
            try:
                await within(limit, self._handle(item))
            except (asyncio.CancelledError, *EXITS):
                raise
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the handler's
                expired = isinstance(error, TimeoutError) and limit.expired()
                return await self._fail(item, number, attempt, error, expired=expired)
        return False

    async def _handle(self, item: Any) -> None:
        answer = self._handler(item)
        if not inspect.isawaitable(answer):
            raise TypeError(
                f"{self._handler!r} returned {answer!r}; the handler must be async, put a blocking "
                "one into asyncio.to_thread"
            )
        await answer

    async def _fail(
        self, item: Any, number: int, attempt: Attempt, error: BaseException, *, expired: bool
    ) -> bool:
        name = self._tracker.name
        again = number < self.options.attempts and isinstance(error, self.options.retry_on)
        if again and not self._over:
            attempt.end(RETRY)
            delay = self.options.wait_before(number + 1, self._rng)
            log.debug(
                "queue %s: attempt %d at %s failed (%s: %s); again in %.1f s",
                name, number, attempt.job, type(error).__name__, error, delay,
            )  # fmt: skip
            self._retries.schedule(item, number + 1, delay)
            return True
        what = "took too long" if expired else "failed"
        log.error(
            "queue %s: attempt %d at %s %s, and is not repeated",
            name, number, attempt.job, what, exc_info=error,
        )  # fmt: skip
        if self._letters.wanted:
            attempt.end(DEAD)
            await self._put_aside(item, error)
        else:
            attempt.end(TIMEOUT if expired else ERROR)
        return False

    async def _put_aside(self, item: Any, error: BaseException) -> None:
        try:
            gone = await self._letters.put(item, error)
        except (asyncio.CancelledError, *EXITS):
            raise
        except BaseException:
            gone = 1
            log.exception("queue %s: a dead letter could not be put aside", self._tracker.name)
        self._tracker.drop(DEAD_LETTERS, gone)

    def _retry_ended(self, item: Any, *, back: bool) -> None:
        if not back:
            self._left.append(item)
        self._intake.done()
        self._changed.set()

    def _job_of(self, item: Any) -> str:
        if self.options.job_of is None:
            return self._job
        try:
            return self.options.job_of(item)
        except Exception:
            log.exception("queue %s: job_of failed; the job is _other", self._tracker.name)
            return ""

    def _refuse_when_closed(self) -> None:
        if self._closed:
            self._tracker.reject(SHUTDOWN)
            raise PoolClosedError(f"queue {self._tracker.name} takes nothing in any more")

    def _task(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work, name=name)


def _only_job(handler: Any, name: str, jobs: tuple[str, ...]) -> str:
    if jobs:
        return jobs[0]
    label = getattr(handler, "__name__", "")
    return label if label.isidentifier() else name
