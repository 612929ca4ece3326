"""Memory and threads of this process."""

import os

import psutil

from aiosvc import catalogue
from aiosvc.readings import Readings

__all__ = ["ProcessSource"]


class ProcessSource:
    """Reads this process; psutil knows how on each platform."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None

    def read(self) -> Readings:
        """Return what the operating system says now."""
        # Made here, not earlier: making it reads files too, and a fork may lie between.
        if self._process is None or self._process.pid != os.getpid():
            self._process = psutil.Process()
        readings = Readings()
        with self._process.oneshot():
            memory = self._process.memory_info()
            readings.number(catalogue.PROCESS_RSS, memory.rss)
            readings.number(catalogue.PROCESS_VMS, memory.vms)
            readings.number(catalogue.PROCESS_THREADS, self._process.num_threads())
        return readings
