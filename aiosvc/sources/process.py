"""Memory and threads of this process."""

import psutil

from aiosvc import catalogue
from aiosvc.readings import Readings

__all__ = ["ProcessSource"]


class ProcessSource:
    """Reads this process; psutil knows how on each platform."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def read(self) -> Readings:
        """Return what the operating system says now."""
        readings = Readings()
        with self._process.oneshot():
            memory = self._process.memory_info()
            readings.number(catalogue.PROCESS_RSS, memory.rss)
            readings.number(catalogue.PROCESS_VMS, memory.vms)
            readings.number(catalogue.PROCESS_THREADS, self._process.num_threads())
        return readings
