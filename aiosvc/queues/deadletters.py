"""
Where items go that were given up on: a bounded list, a queue, or a function of the user's.

Rule: what goes wrong in putting one aside is told to the caller and never ends a worker.
"""

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any

from aiosvc.errors import ConfigError
from aiosvc.queues.state import guarded

__all__ = ["DeadLetters"]


class DeadLetters:
    """
    Takes dead letters to *where*: a number of last ones to keep, a queue, or a function.

    Raises ConfigError for anything else.
    """

    def __init__(self, where: Any) -> None:
        whole = isinstance(where, int) and not isinstance(where, bool) and where >= 0
        if not whole and not callable(where) and not hasattr(where, "put_nowait"):
            raise ConfigError(
                f"dead_letters: {where!r} given; expected a number of items to keep, a queue with "
                "put_nowait, or a function of the item and the exception"
            )
        self.kept: deque[Any] = deque(maxlen=where if whole else 0)
        self._where = where
        self._put_nowait: Callable[[Any], object] | None = getattr(where, "put_nowait", None)

    @property
    def wanted(self) -> bool:
        """Whether there is a place for them."""
        return bool(self.kept.maxlen) or not isinstance(self._where, int)

    @property
    def count(self) -> int | None:
        """How many are kept, None where that is not known here."""
        if self.kept.maxlen:
            return len(self.kept)
        size = guarded(self._where.qsize) if hasattr(self._where, "qsize") else None
        return None if size is None else int(size)

    async def put(self, item: Any, error: BaseException) -> int:
        """Put *item* aside; return how many older ones had to go. Raises what the place raises."""
        if self.kept.maxlen:
            gone = len(self.kept) == self.kept.maxlen
            self.kept.append(item)
            return int(gone)
        if self._put_nowait is not None:
            self._put_nowait(item)
            return 0
        answer = self._where(item, error)
        if inspect.isawaitable(answer):
            await answer
        return 0
