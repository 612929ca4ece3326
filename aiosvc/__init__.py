"""aiosvc shows, in Prometheus, what an aiohttp service and its work queues are really doing."""

from aiosvc import client
from aiosvc.admin import AdminOptions, start_metrics_server
from aiosvc.aiohttp import setup
from aiosvc.calls import count, count_exceptions, in_progress, timed
from aiosvc.config import Settings
from aiosvc.errors import AiosvcError, BindError, ConfigError, ImportStringError
from aiosvc.jobs import Job, JobQueue, NotEnqueuedError
from aiosvc.labels import FromRequest, FromResponseHeader
from aiosvc.push import push_on_exit
from aiosvc.queues import PoolClosedError, WorkerPool
from aiosvc.service import Observer
from aiosvc.summary import Summary
from aiosvc.version import __version__

__all__ = [
    "AdminOptions",
    "AiosvcError",
    "BindError",
    "ConfigError",
    "FromRequest",
    "FromResponseHeader",
    "ImportStringError",
    "Job",
    "JobQueue",
    "NotEnqueuedError",
    "Observer",
    "PoolClosedError",
    "Settings",
    "Summary",
    "WorkerPool",
    "__version__",
    "client",
    "count",
    "count_exceptions",
    "in_progress",
    "push_on_exit",
    "setup",
    "start_metrics_server",
    "timed",
]
