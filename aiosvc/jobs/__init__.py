"""
Jobs: one interface for work that is done later, in this process or on a broker.

Rule: which engine is used is a URL, and nothing else of the user's code depends on it. Rule: the
libraries of an engine are imported in its one module, when its URL is used.
"""

from aiosvc.jobs.job import Job
from aiosvc.jobs.queue import JobQueue, NotEnqueuedError

__all__ = ["Job", "JobQueue", "NotEnqueuedError"]
