"""
What work queues in the process are really doing, and workers for them.

Rule: a queue stays the object that it is and what its user put into it; no library is imported to
recognise one. `family` has all of them by name, `putget` and `probes` know how to look at one,
`jobs` and `attempts` what became of the items, and `workerpool` processes them.
"""

from aiosvc.queues.attempts import Attempt
from aiosvc.queues.family import Queues, check_name
from aiosvc.queues.jobs import JobTracker
from aiosvc.queues.options import PoolKeywords, PoolOptions
from aiosvc.queues.workerpool import Drained, PoolClosedError, WorkerPool

__all__ = [
    "Attempt",
    "Drained",
    "JobTracker",
    "PoolClosedError",
    "PoolKeywords",
    "PoolOptions",
    "Queues",
    "WorkerPool",
    "check_name",
]
