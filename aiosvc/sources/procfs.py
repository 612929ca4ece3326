"""
What Linux writes about a process in /proc, as numbers.

Rule: bytes in, numbers out; nothing here opens a file. Rule: text that is not as expected is a
ValueError, so that half a reading is never taken for a whole one.
"""

from typing import NamedTuple

__all__ = ["Stat", "boot_time", "parse_stat"]


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that are used: threads, ticks, bytes and pages."""

    threads: int
    start_ticks: int
    virtual_bytes: int
    resident_pages: int


def parse_stat(text: bytes) -> Stat:
    """
    Return what /proc/PID/stat says.

    The name of the program stands in parentheses and may hold any character, parentheses too, so
    fields are counted from the last one; see proc_pid_stat(5). Raises ValueError.
    """
    _, closed, rest = text.rpartition(b")")
    fields = rest.split()
    if not closed or len(fields) < 22:  # noqa: PLR2004 - the place of the last field that is used
        raise ValueError(f"/proc/PID/stat: {text[:80]!r} is not in the format of proc_pid_stat(5)")
    return Stat(*(int(fields[place]) for place in (17, 19, 20, 21)))


def boot_time(text: bytes) -> int:
    """Return the Unix time of the start of the machine from /proc/stat; raises ValueError."""
    for line in text.splitlines():
        name, _, number = line.partition(b" ")
        if name == b"btime":
            return int(number)
    raise ValueError("/proc/stat: has no line 'btime'")
