"""The worst of the last minute or two."""

__all__ = ["Worst"]


class Worst:
    """
    The largest value of the last minute or two.

    It depends on the clock alone and not on when it is read, so two scrapers see the same.
    """

    WINDOW = 60.0

    def __init__(self) -> None:
        self._minute = 0
        self._this = self._last = 0.0

    def add(self, value: float, now: float) -> None:
        """Take note of a value; *now* is the monotonic time."""
        self._turn(now)
        self._this = max(self._this, value)

    def value(self, now: float) -> float:
        """Return the largest value of the current minute and the one before it."""
        self._turn(now)
        return max(self._this, self._last)

    def _turn(self, now: float) -> None:
        minute = int(now // self.WINDOW)
        if minute != self._minute:
            self._last = self._this if minute == self._minute + 1 else 0.0
            self._this = 0.0
            self._minute = minute
