"""
A job queue in this process: an asyncio queue and a pool of workers.

Rule: what it holds is lost with the process, and it says so.
"""

import asyncio
import dataclasses
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

from aiosvc.jobs.job import Job
from aiosvc.jobs.message import Message
from aiosvc.queues.jobs import JobTracker
from aiosvc.queues.options import PoolOptions
from aiosvc.queues.workerpool import WorkerPool

__all__ = ["Local"]

log = logging.getLogger("aiosvc.jobs")


class Local:
    """Holds *maxsize* jobs at most, 0 for any number."""

    def __init__(
        self,
        name: str,
        jobs: Mapping[str, Job[Any]],
        tracker: JobTracker,
        options: PoolOptions,
        maxsize: int,
    ) -> None:
        self.queue: asyncio.Queue[Message] = asyncio.Queue(maxsize)
        self._name = name
        self._jobs = jobs
        self._tracker = tracker
        self._options = options
        self._pool: WorkerPool | None = None

    @property
    def dead_letters(self) -> deque[Any]:
        """The last messages that were given up on, as many as the option says."""
        return deque() if self._pool is None else self._pool.dead_letters

    async def start(self, *, workers: bool) -> None:
        """Begin to take jobs in; with *workers*, to run them."""
        log.info(
            "queue %s is kept in memory: a crash loses what it holds, and a stop what is not done "
            "in time",
            self._name,
        )
        # Only now are all jobs known.
        options = dataclasses.replace(
            self._options, jobs=tuple(self._jobs), job_of=lambda message: message.name
        )
        kept = self.dead_letters
        self._pool = WorkerPool(self.queue, self._run, self._tracker, options)
        self._pool.dead_letters.extend(kept)
        # It may have run on another event loop before, and would refuse to be waited for on this one.
        self.queue._loop = None  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way
        if workers:
            self._pool.start()

    async def put(self, message: Message, data: bytes) -> None:
        """Take a job in, as a broker would; raises asyncio.QueueFull where there is no room."""
        del message  # whose arguments are still their sender's, who may change them
        self.queue.put_nowait(Message.decode(data))

    async def stop(self) -> int:
        """Run what can be run in time; return how many jobs did not end."""
        return 0 if self._pool is None else len((await self._pool.stop()).left)

    async def _run(self, message: Message) -> None:
        await self._jobs[message.name](*message.args, **message.kwargs)
