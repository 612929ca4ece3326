"""
Where a thread is: its innermost line, the line of the user's code, and the task that runs there.

Rule: what is returned is text and numbers. No frame is kept, since a frame keeps the caller's
variables alive.
"""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

__all__ = ["Place", "Sighting", "loop_code", "sight"]

#: Frames that are looked at, for a stack without end.
DEEPEST = 1000

#: The most that is told of a name.
LONGEST_NAME = 200

#: Where no user's code is: aiosvc itself, and Python's library.
OURS = f"{Path(__file__).parent.parent}{os.sep}"
STDLIB = f"{Path(os.__file__).parent}{os.sep}"
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code: its *file* as it was imported, the *line*, and the *function* around it."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where a thread was at one moment; see `Stall` for the fields."""

    innermost: Place
    code: Place | None
    task: str | None
    coroutine: str | None


def loop_code() -> CodeType | None:
    """Return the code that the loop's callbacks are called from; asked in such a callback."""
    frame = sys._getframe(1).f_back  # noqa: SLF001 - the only way to one's own stack
    return None if frame is None else frame.f_code


def sight(
    thread: int, loop: asyncio.AbstractEventLoop | None, beneath: CodeType | None
) -> Sighting | None:
    """
    Return where *thread* is now, None where it has no Python code to run.

    Its frames are looked at as far as *beneath*, the loop's own code. *loop* is the one whose task
    is told.
    """
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - the only way to another's stack
    if frame is None:
        return None
    try:
        innermost = _place(frame)
        code = _users(frame, beneath)
    finally:
        del frame
    task, coroutine = _task(loop)
    return Sighting(innermost, code, task, coroutine)


def _users(innermost: FrameType, beneath: CodeType | None) -> Place | None:
    """Return the innermost place in the user's code; where all is installed, in that."""
    installed = None
    frame: FrameType | None = innermost
    for _ in range(DEEPEST):
        if frame is None or frame.f_code is beneath:
            break
        file = frame.f_code.co_filename
        if any(part in file for part in INSTALLED):
            if installed is None and not file.startswith(OURS):
                installed = _place(frame)
        elif not file.startswith((OURS, "<frozen", STDLIB)):
            return _place(frame)
        frame = frame.f_back
    return installed


def _place(frame: FrameType) -> Place:
    code = frame.f_code
    # Between two lines there is none; the function's first says enough then.
    return Place(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname)


def _task(loop: asyncio.AbstractEventLoop | None) -> tuple[str | None, str | None]:
    """Return the name of the loop's task that runs now, and of its coroutine."""
    if loop is None:
        return None, None
    task = asyncio.current_task(loop)
    if task is None:
        return None, None
    coroutine = getattr(task.get_coro(), "__qualname__", None)
    return task.get_name()[:LONGEST_NAME], None if coroutine is None else coroutine[:LONGEST_NAME]
