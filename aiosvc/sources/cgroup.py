"""
The memory that this process's control group may use: version 1, version 2, and both at once.

Rule: reading is split from parsing; parsers take text and return plain values. Rule: what can't be
read or understood is no limit that we know of, and None.

Theory of operation. /proc/self/cgroup says in which group the process is, as a path below the root
of a hierarchy; /proc/self/mountinfo says which part of that hierarchy is mounted where. A mount
shows the group where the group's path begins with the mount's root. A limit holds for everything
below it, so the effective one is the smallest on the way from the group up to the mount point;
further up nothing is visible. In a cgroup namespace paths are told from its root, and what is
outside begins with `/..`; such a group is looked for at the mount point itself, where containers
have theirs.
"""

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

__all__ = ["MemoryLimit", "Mount", "groups_of", "mounts_of", "parse_limit"]

#: Bytes from which a number of version 1 means that there is no limit: it is the largest number of
#: pages in bytes, which depends on the size of a page.
NO_LIMIT = 1 << 62

#: Seconds for which a limit is taken to hold; it is changed by hand, or when a pod is resized.
LASTS = 10.0

V1 = "cgroup"
V2 = "cgroup2"


class Mount(NamedTuple):
    """A mounted control group hierarchy: its version, the part that it shows, and where."""

    kind: str
    root: PurePosixPath
    point: PurePosixPath


def groups_of(text: str) -> dict[str, PurePosixPath]:
    """Return the groups that can limit memory, by version, from /proc/self/cgroup."""
    groups = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, found, path = rest.partition(":")
        if not found or not path.startswith("/"):
            continue
        # A group that was removed under its processes is marked so.
        where = PurePosixPath(path.removesuffix(" (deleted)"))
        if number == "0" and not controllers:
            groups[V2] = where
        elif "memory" in controllers.split(","):
            groups[V1] = where
    return groups


def mounts_of(text: str) -> list[Mount]:
    """Return the hierarchies that can limit memory from /proc/self/mountinfo."""
    mounts = []
    for line in text.splitlines():
        before, found, after = line.partition(" - ")
        place, system = before.split(" "), after.split(" ")
        if not found or len(place) < 5 or len(system) < 3:  # noqa: PLR2004 - see proc_pid_mountinfo(5)
            continue
        kind = system[0]
        if kind == V2 or (kind == V1 and "memory" in system[-1].split(",")):
            mounts.append(Mount(kind, _unescaped(place[3]), _unescaped(place[4])))
    return mounts


def parse_limit(text: str) -> int | None:
    """Return the bytes that memory.max or memory.limit_in_bytes says, None for no limit."""
    try:
        limit = int(text)
    except ValueError:
        return None  # "max", or nothing that the kernel writes
    return limit if 0 <= limit < NO_LIMIT else None


class MemoryLimit:
    """
    Reads the limit below *root*, anew when the last reading is older than `LASTS`.

    *clock* gives monotonic seconds.
    """

    def __init__(
        self, root: Path = Path("/"), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root = root
        self._clock = clock
        self._read_at: float | None = None
        self._limit: int | None = None

    def effective(self) -> int | None:
        """Return the smallest limit in bytes that holds; None where there is none, or none is known."""
        now = self._clock()
        if self._read_at is None or now - self._read_at >= LASTS:
            try:
                self._limit = min(self._limits(), default=None)
            except OSError as error:
                # A limit does not go because there is no descriptor left to read it with.
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    self._limit = None
            self._read_at = now
        return self._limit

    def _limits(self) -> Iterator[int]:
        groups = groups_of(self._text(PurePosixPath("/proc/self/cgroup")) or "")
        if not groups:
            return
        mounts = mounts_of(self._text(PurePosixPath("/proc/self/mountinfo")) or "")
        for kind, group in groups.items():
            at = _place(group, [mount for mount in mounts if mount.kind == kind])
            if at is None:
                continue
            point, directory = at
            # Version 1 says what all groups above it come to, those that are not visible too,
            # and leaves out those that are not accounted with their children.
            known = (
                _hierarchical(self._text(directory / "memory.stat") or "") if kind == V1 else None
            )
            if known is not None:
                if known < NO_LIMIT:
                    yield known
                continue
            name = "memory.max" if kind == V2 else "memory.limit_in_bytes"
            for each in (directory, *directory.parents):
                limit = parse_limit(self._text(each / name) or "")
                if limit is not None:
                    yield limit
                if each == point:
                    break

    def _text(self, path: PurePosixPath) -> str | None:
        try:
            return (self._root / path.relative_to("/")).read_text(
                encoding="utf-8", errors="replace"
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None


def _place(group: PurePosixPath, mounts: list[Mount]) -> tuple[PurePosixPath, PurePosixPath] | None:
    """Return the mount point, and the group's directory at or below it."""
    showing = [mount for mount in mounts if group.is_relative_to(mount.root)]
    if showing and ".." not in group.parts:
        # The one that shows the most of what is above the group.
        mount = min(showing, key=lambda each: len(each.root.parts))
        return mount.point, mount.point / group.relative_to(mount.root)
    return (mounts[0].point, mounts[0].point) if mounts else None


def _hierarchical(text: str) -> int | None:
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == "hierarchical_memory_limit" and number.isdigit():
            return int(number)
    return None


def _unescaped(path: str) -> PurePosixPath:
    """Return a path of mountinfo, in which space, tab, newline and backslash are octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return PurePosixPath(path)
