"""
Memory, threads, CPU time and descriptors of this process.

Rule: this file knows what there is to say, `linux` and `portable` how to find it out. Rule: each
number is read by itself; one that can't be read now is left out, the others stay.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from aiosvc import catalogue
from aiosvc.catalogue import MetricSpec
from aiosvc.readings import Readings
from aiosvc.sources.cgroup import MemoryLimit
from aiosvc.sources.portable import PortableProcess

if sys.platform != "win32":
    from aiosvc.sources.linux import LinuxProcess

__all__ = ["ProcessReader", "ProcessSource"]

#: The metric of each fact without labels; a fact may be exported under two names.
METRICS: tuple[tuple[MetricSpec, str], ...] = (
    (catalogue.PROCESS_RSS, "resident_bytes"),
    (catalogue.PROCESS_VMS, "virtual_bytes"),
    (catalogue.PROCESS_THREADS, "threads"),
    (catalogue.PROCESS_CPU, "cpu_seconds"),
    (catalogue.PROCESS_RESIDENT_MEMORY, "resident_bytes"),
    (catalogue.PROCESS_VIRTUAL_MEMORY, "virtual_bytes"),
    (catalogue.PROCESS_START, "start_time"),
    (catalogue.PROCESS_OPEN_FDS, "open_fds"),
    (catalogue.PROCESS_MAX_FDS, "max_fds"),
)


class ProcessReader(Protocol):
    """A way to find out about the process."""

    def read(self) -> Mapping[str, float]:
        """Return the facts that are known now, by name; bytes, seconds and counts."""

    def close(self) -> None:
        """Let go of what is held between two readings."""


class ProcessSource:
    """
    Reads this process with *reader*, by default /proc where there is one and psutil elsewhere.

    *wanted* says which of the standard `process_*` names are to be exported at the moment.
    """

    def __init__(
        self,
        wanted: Callable[[MetricSpec], bool] = lambda _spec: True,
        *,
        reader: ProcessReader | None = None,
        limit: MemoryLimit | None = None,
    ) -> None:
        self._wanted = wanted
        # By default found out in the first reading: an event loop is not to ask for files.
        self._reader = reader
        self._limit = limit or MemoryLimit()
        # A reading in its thread may still be going on when the service stops.
        self._reading = threading.Lock()
        #: The process in which that may be held.
        self._pid = os.getpid()

    def read(self) -> Readings:
        """Return what the operating system says now."""
        with self._reading:
            if self._reader is None:
                self._reader = _reader()
            facts = self._reader.read()
            limit = self._limit.effective()
        readings = Readings()
        for spec, fact in METRICS:
            if fact in facts and (not spec.standard or self._wanted(spec)):
                readings.number(spec, facts[fact])
        for kind in ("voluntary", "involuntary"):
            if (fact := f"{kind}_switches") in facts:
                readings.number(catalogue.PROCESS_CONTEXT_SWITCHES, facts[fact], (kind,))
        if limit is not None:
            readings.number(catalogue.PROCESS_MEMORY_LIMIT, limit)
        return readings

    def close(self) -> None:
        """Let go of what is held between two readings; the next one takes it again."""
        if self._pid != os.getpid():
            # A reading that a fork has left in another process ends nowhere.
            self._pid, self._reading = os.getpid(), threading.Lock()
        # A reading that hangs keeps what it uses; the event loop does not wait for it.
        if self._reading.acquire(blocking=False):
            try:
                if self._reader is not None:
                    self._reader.close()
            finally:
                self._reading.release()


def _reader() -> ProcessReader:
    if sys.platform != "win32" and os.path.exists("/proc/self/stat"):  # noqa: PTH110 - the shortest
        return LinuxProcess()
    return PortableProcess()
