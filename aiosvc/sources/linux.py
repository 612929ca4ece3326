"""
The process as Linux tells it, in a handful of system calls.

Rule: a reading needs no free descriptor, since running out of them is what it has to show.
"""

import math
import os
import resource
from contextlib import suppress
from pathlib import Path

from aiosvc.descriptors import most_descriptors, open_descriptors
from aiosvc.sources.procfs import boot_time, parse_stat

__all__ = ["LinuxProcess"]

#: Bytes; more than any /proc/PID/stat has.
STAT_SIZE = 4096


class LinuxProcess:
    """Reads /proc, which is at *root*, and asks the kernel."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._machine = root / "stat"
        self._path = str(root / "self" / "stat")
        self._descriptors = str(root / "self" / "fd")
        self._page = resource.getpagesize()
        self._tick = os.sysconf("SC_CLK_TCK")
        self._boot: int | None = None
        self._stat: int | None = None
        self._pid = 0

    def read(self) -> dict[str, float]:
        """Return the facts that are known now; what can't be read is missing."""
        # Of all threads, those that ended included; /proc/self/status has the main thread's only.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        facts: dict[str, float] = {
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "voluntary_switches": usage.ru_nvcsw,
            "involuntary_switches": usage.ru_nivcsw,
        }
        most = most_descriptors()
        if most is not None and most != math.inf:
            facts["max_fds"] = int(most)
        open_now = open_descriptors(self._descriptors)
        if open_now is not None:
            facts["open_fds"] = open_now
        with suppress(OSError, ValueError):
            stat = parse_stat(self._read_stat())
            facts["threads"] = stat.threads
            facts["virtual_bytes"] = stat.virtual_bytes
            facts["resident_bytes"] = stat.resident_pages * self._page
            facts["start_time"] = self._boot_time() + stat.start_ticks / self._tick
        return facts

    def close(self) -> None:
        """Close the descriptor that is kept."""
        stat, self._stat = self._stat, None
        if stat is not None:
            os.close(stat)

    def _read_stat(self) -> bytes:
        # One descriptor is kept and read from the start each time, so that there is one when all
        # others are used up. After a fork it is still about the parent.
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        if self._stat is None:
            self._stat = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._stat, STAT_SIZE, 0)

    def _boot_time(self) -> int:
        # Once: for this file the kernel adds up every interrupt of every core.
        if self._boot is None:
            self._boot = boot_time(self._machine.read_bytes())
        return self._boot
