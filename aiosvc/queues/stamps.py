"""
Since when each item of a queue has been ready, kept beside the queue in its own order.

Rule: knows no queue and no clock; gets times, in seconds of one clock, and gives them back. Rule:
it may be wrong about a queue that was changed behind its back, never for long: who uses it compares
`len()` with the queue's size and calls `restart` where they differ. Rule: a number that is not
known is None. What was in the queue before anybody looked has no time of its own, only that of the
first look.

Theory of operation. A queue that is served in order needs one number per item: a deque for first in
first out, a list for last in first out, and the oldest is at the front of either. In a priority
queue, or one whose order is a subclass's own business, an item is found again by its identity, which
is stable while the queue holds it; an OrderedDict by identity keeps the order of arrival, so the
oldest is at its front too, in constant time however many have left from behind it. The same object
can be in such a queue twice; all but its first stamp are then filed under a number of their own.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

__all__ = ["IdentityStamps", "OrderedStamps"]

#: Reads of a container that another thread may be changing.
READ_ATTEMPTS = 10


class OrderedStamps:
    """Stamps of a queue that is served strictly from one end."""

    def __init__(self, *, lifo: bool) -> None:
        #: The stamps themselves, for who adds and takes one with every item.
        self.held: deque[float | None] | list[float | None] = [] if lifo else deque()
        self._since = 0.0
        #: Add the stamp of an item that is put.
        self.append: Callable[[float | None], None] = self.held.append
        #: Return the stamp of the item that is taken; raises IndexError where there is none.
        self.take: Callable[[], float | None]
        if isinstance(self.held, deque):
            self.take = self.held.popleft
        else:
            self.take = self.held.pop

    def __len__(self) -> int:
        return len(self.held)

    def restart(self, size: int, now: float) -> None:
        """Begin anew with *size* items of which nothing is known but that they are there *now*."""
        self._since = now
        self.held.clear()
        self.held.extend([None] * size)

    def oldest(self) -> float | None:
        """Return the earliest stamp, None without items; callable from any thread."""
        return _first(self.held, self._since)


class IdentityStamps:
    """Stamps of a queue whose order is not known, found by the item's identity."""

    def __init__(self) -> None:
        #: The stamps themselves, for who adds and takes one with every item.
        self.held: OrderedDict[int, float] = OrderedDict()
        #: Where the further stamps of an object are that is there more than once; oldest first.
        self.twins: dict[int, deque[int]] = {}
        self._next_twin = -1
        #: Items that were there before anybody looked.
        self.unknown = 0
        self._since = 0.0

    def __len__(self) -> int:
        return len(self.held) + self.unknown

    def restart(self, size: int, now: float) -> None:
        """Begin anew with *size* items of which nothing is known but that they are there *now*."""
        self.held.clear()
        self.twins.clear()
        self._since = now
        self.unknown = size

    def add(self, item: object, at: float) -> None:
        """Add the stamp of an item that is put."""
        key = id(item)
        if key in self.held or key in self.twins:
            twin, self._next_twin = self._next_twin, self._next_twin - 1
            self.twins.setdefault(key, deque()).append(twin)
            key = twin
        self.held[key] = at

    def take(self, item: object) -> float | None:
        """Return the stamp of the item that is taken, of its oldest one where there are more."""
        key = id(item)
        at = self.held.pop(key, None)
        if at is None and self.twins and key in self.twins:
            twins = self.twins[key]
            at = self.held.pop(twins.popleft(), None)
            if not twins:
                del self.twins[key]
        if at is None and self.unknown:
            self.unknown -= 1
        return at

    def oldest(self) -> float | None:
        """Return the earliest stamp, None without items; callable from any thread."""
        if self.unknown:
            return self._since
        for _ in range(READ_ATTEMPTS):
            try:
                return next(iter(self.held.values()), None)
            except RuntimeError:  # changed in between; the next look may be luckier
                continue
        return None


def _first(stamps: Sequence[float | None] | deque[float | None], since: float) -> float | None:
    try:
        first = stamps[0]
    except IndexError:
        return None
    return since if first is None else first
