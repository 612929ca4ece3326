"""
Runs the workers of a job queue in a process of their own, until it is told to stop.

Rule: SIGTERM and SIGINT stop it in order: nothing more is taken, jobs end, what does not end in time
goes back to the broker, exit code 0.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc.admin.beside import AdminBeside
from aiosvc.admin.options import AdminOptions
from aiosvc.config import Settings
from aiosvc.errors import ConfigError, ImportStringError
from aiosvc.health import Health
from aiosvc.jobs import JobQueue
from aiosvc.service import Observer
from aiosvc.signals import told_to_stop

__all__ = ["make_queue", "work"]

log = logging.getLogger("aiosvc")


async def make_queue(target: str, found: Any) -> JobQueue:
    """
    Return the job queue that *found* is, or that it returns, called or awaited.

    Raises ImportStringError where the outcome is no JobQueue, ConfigError for one in memory, to
    which no other process can send anything.
    """
    made = found() if callable(found) else found
    if inspect.isawaitable(made):
        made = await made
    if not isinstance(made, JobQueue):
        what = "is" if made is found else "returned"
        raise ImportStringError(
            f"{target!r} {what} {made!r}; expected an aiosvc.JobQueue, or a function that returns one"
        )
    if made.queue is not None:
        raise ConfigError(
            f"queue {made.name}: it is in memory, where no other process can put a job; give it a "
            "broker's URL, like redis://localhost:6379/0"
        )
    return made


async def work(
    queue: JobQueue,
    settings: Settings,
    admin: AdminOptions,
    *,
    registry: CollectorRegistry = REGISTRY,
    started: Callable[[Observer], None] | None = None,
) -> None:
    """
    Run the jobs of *queue* until SIGTERM or SIGINT, observed.

    The metrics are served on the admin port alone. *started* is called once jobs are run.

    Raises NotEnqueuedError where the broker can't be reached, BindError and ConfigError as the admin
    server does.
    """
    observer = Observer(registry, settings, Health(live_timeout=admin.live_timeout))
    observer.watch_queue(queue)
    beside = AdminBeside(observer, admin)
    beside.start()
    if admin.admin_port is None:
        log.warning("nobody can see how the workers are doing; give --admin-port to serve metrics")
    try:
        with told_to_stop() as stop:
            await queue.start()
            await observer.start()
            observer.health.watch_loop(asyncio.get_running_loop())
            observer.health.set_ready()
            if started is not None:
                started(observer)
            await stop.wait()
            log.info("stopping: no more jobs are taken, running ones end")
            observer.health.set_draining()
            left = await queue.stop()
            log.info("queue %s: stopped; %d jobs went back to the broker", queue.name, left)
            observer.health.forget_loop()
            await observer.stop()
    finally:
        await asyncio.to_thread(beside.stop)
