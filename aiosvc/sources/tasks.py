"""
How many tasks the event loop has, by group where the user names groups, and how old they are.

Rule: tasks belong to their loop and are looked at on it, since a reference taken in another thread
may be the last one, and would end the task there. Rule: the loop is held for `SLICE` at a time,
however many tasks there are, and no more than `PER_SECOND` of them are looked at, so 10,000 are
counted every five seconds and 500 at every turn. Rule: a task that runs a coroutine of aiosvc's own
is not counted, or the sampler would always find itself, and be the oldest.

Theory of operation. Before Python 3.14 asyncio has weak references to all tasks in one set, which is
copied at once, 40 µs for 10,000, and then walked in slices. A copied reference is the same object
from walk to walk, so a dictionary by reference remembers when a task was first seen, and to which
group it belongs, without a callback at its end. Where that set is not found, `asyncio.all_tasks` is
asked, which holds the loop longer.

A task does not know when it was made. Its age is counted from the walk that found it first, so it is
too small by up to one interval, and by the time that the service ran before the sampler did.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Mapping
from fnmatch import translate
from pathlib import Path
from typing import Any
from weakref import ref

from aiosvc import catalogue
from aiosvc.readings import Readings
from aiosvc.series import OTHER

__all__ = ["TaskGroups", "TaskSource"]

Task = asyncio.Task[Any]

#: Seconds for which a walk holds the loop at a time.
SLICE = 0.0001

#: Tasks that are looked at between two looks at the clock.
BATCH = 32

#: Tasks that are looked at in a second, on average.
PER_SECOND = 2000

#: Where asyncio has references to all tasks: before Python 3.12, and since.
SETS = ("_all_tasks", "_scheduled_tasks")

#: How the path of our own code begins, but for the demo, which is a service like any other.
PACKAGE = Path(__file__).parent.parent
OURS = f"{PACKAGE}{os.sep}"
DEMO = f"{PACKAGE / 'demo'}{os.sep}"


class TaskGroups:
    """
    Sorts tasks into groups by *patterns*, `|` between those of one group; the first that fits wins.

    A pattern is what a shell has for file names, and is compared with the task's name, and with its
    coroutine's name and qualified name.
    """

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self.names = (*patterns, OTHER) if patterns else ("",)
        self._patterns = [
            (name, re.compile("|".join(translate(part.strip()) for part in text.split("|"))))
            for name, text in patterns.items()
        ]

    def group_of(self, task: Task) -> str | None:
        """Return the task's group; None for a task of ours."""
        coroutine: Any = task.get_coro()
        code = getattr(coroutine, "cr_code", None)
        if code is not None:
            path = code.co_filename
            if path.startswith(OURS) and not path.startswith(DEMO):
                return None
        if not self._patterns:
            return ""
        called = (
            task.get_name(),
            getattr(coroutine, "__name__", ""),
            getattr(coroutine, "__qualname__", ""),
        )
        for name, pattern in self._patterns:
            if any(map(pattern.match, called)):
                return name
        return OTHER


class TaskSource:
    """Counts the tasks of the loop that it is read on; *clock* gives monotonic seconds."""

    def __init__(
        self, groups: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._groups = TaskGroups(groups)
        self._grouped = bool(groups)
        self._clock = clock
        self._due = 0.0
        self._walk: _Walk | None = None
        self._next: asyncio.Handle | None = None
        self._last: _Walk | None = None

    def read(self) -> Readings:
        """Return the last count, and begin another if it is time; a few hundred are done at once."""
        now = self._clock()
        if self._walk is None and now >= self._due:
            self._begin(asyncio.get_running_loop(), now)
        readings = Readings()
        if self._last is not None:
            for name in self._groups.names:
                labels = (name,) if self._grouped else ()
                readings.number(catalogue.ASYNCIO_TASKS, self._last.counts[name], labels)
                # Among all tasks the oldest is as old as the service; that says nothing.
                if self._grouped and name != OTHER:
                    since = self._last.oldest.get(name, now)
                    readings.number(catalogue.ASYNCIO_TASK_OLDEST, now - since, labels)
        return readings

    def close(self) -> None:
        """Forget everything; what was begun is not ended."""
        if self._next is not None:
            self._next.cancel()
        self._walk = self._last = self._next = None
        self._due = 0.0

    def _begin(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        until = time.perf_counter() + SLICE
        references = _references(loop)
        self._due = now + len(references) / PER_SECOND
        known = {} if self._last is None else self._last.seen
        self._walk = _Walk(loop, references, self._groups, known, now)
        self._go_on(self._walk, until)

    def _go_on(self, walk: "_Walk", until: float | None = None) -> None:
        self._next = None
        if walk.step(time.perf_counter() + SLICE if until is None else until):
            self._next = walk.loop.call_soon(self._go_on, walk)
        else:
            self._last, self._walk = walk, None


#: When a task was first seen, and its group.
Seen = tuple[float, str | None]


class _Walk:
    """One look at every task, in steps."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        references: "list[ref[Task]]",
        groups: TaskGroups,
        known: "Mapping[ref[Task], Seen]",
        now: float,
    ) -> None:
        self.loop = loop
        self.counts = dict.fromkeys(groups.names, 0)
        self.oldest: dict[str, float] = {}
        self.seen: dict[ref[Task], Seen] = {}
        self._references = references
        self._groups = groups
        self._known = known
        # The same for all tasks that are new, so that there is not one for each.
        self._new: dict[str | None, Seen] = {name: (now, name) for name in (*groups.names, None)}

    def step(self, until: float) -> bool:
        """Go on until that time, by perf_counter, and say whether something is left to do."""
        while self._references:
            for reference in self._references[-BATCH:]:
                task = reference()
                if task is not None:
                    self._look_at(reference, task)
            del self._references[-BATCH:]
            if self._references and time.perf_counter() >= until:
                return True
        self._known = {}
        return False

    def _look_at(self, reference: "ref[Task]", task: Task) -> None:
        try:
            if task.done() or task.get_loop() is not self.loop:
                return
            seen = self._known.get(reference) or self._new[self._groups.group_of(task)]
        except Exception:  # noqa: BLE001 - a task of somebody's own class, and not as it should be
            return
        self.seen[reference] = seen
        since, name = seen
        if name is not None:
            self.counts[name] += 1
            if since < self.oldest.get(name, since + 1):
                self.oldest[name] = since


def _references(loop: asyncio.AbstractEventLoop) -> "list[ref[Task]]":
    """Return weak references to all tasks of *loop*, and maybe of others, ended ones too."""
    current = asyncio.current_task(loop)
    for name in SETS:
        data: Any = getattr(getattr(asyncio.tasks, name, None), "data", None)
        # Whether it is what it was: the task that runs must be in it.
        if isinstance(data, set) and current is not None and ref(current) in data:
            return list(data)
    return [ref(task) for task in asyncio.all_tasks(loop)]
