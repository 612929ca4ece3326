"""
The process as psutil tells it, where there is no /proc.

Rule: what the platform does not have is missing, and asked for by name, not by platform.
"""

import os
from contextlib import suppress

import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # asked for below

__all__ = ["PortableProcess"]


class PortableProcess:
    """Reads by psutil."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None

    def read(self) -> dict[str, float]:
        """Return the facts that are known now; raises psutil.Error where nothing can be read."""
        # Made here, not earlier: making it reads files too, and a fork may lie between.
        if self._process is None or self._process.pid != os.getpid():
            self._process = psutil.Process()
        process = self._process
        with process.oneshot():
            memory, cpu = process.memory_info(), process.cpu_times()
            facts: dict[str, float] = {
                "resident_bytes": memory.rss,
                "virtual_bytes": memory.vms,
                "threads": process.num_threads(),
                "cpu_seconds": cpu.user + cpu.system,
                "start_time": process.create_time(),
            }
            with suppress(psutil.Error, NotImplementedError):
                switches = process.num_ctx_switches()
                facts["voluntary_switches"] = switches.voluntary
                # Windows does not tell them apart, and psutil says 0 of the others there.
                if resource is not None:
                    facts["involuntary_switches"] = switches.involuntary
            # On Windows handles come nearest; Go's client calls their number so too.
            count = getattr(process, "num_fds", None) or getattr(process, "num_handles", None)
            if count is not None:
                with suppress(psutil.Error, OSError):
                    facts["open_fds"] = count()
        if resource is not None:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            if soft != resource.RLIM_INFINITY:
                facts["max_fds"] = soft
        return facts

    def close(self) -> None:
        """Let go of the process."""
        self._process = None
