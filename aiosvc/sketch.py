"""
Quantiles of what was seen lately, with a guaranteed relative error, in bounded memory.

Rule: knows no metric and no clock; numbers and times in, numbers out. Rule: one thread at a time
may use a `WindowSketch`; its owner sees to that.

Theory of operation. The mapping is DDSketch's (Masson, Rim, Lee: "DDSketch: A Fast and
Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", PVLDB 12(12), 2019): a value x > 0
belongs to bucket ceil(log x / log g), where g = (1 + a) / (1 - a), and a bucket answers with the
value that is wrong by the factor 1 ± a at both its ends. Buckets here are numbered so that those of
negative values, of zero and of positive values stand in one order, and are kept in a dict, which
holds what occurs and nothing else.

The window is cut into slices. What is seen goes into the youngest slice and into the sum of all;
the oldest slice is taken off the sum when its time has come. So the quantiles are of one dict.

Where more than `limit` buckets occur, those of the smallest magnitudes count as one from then on,
until the window was empty. The limit is what values over twelve orders of magnitude can fill.
"""

import math
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import accumulate

__all__ = ["Mapping", "WindowSketch"]

#: Orders of magnitude that values may fill before the smallest count as one.
DECADES = 12

#: Smaller magnitudes count as zero: a double can't tell them apart within the error.
TINY = sys.float_info.min

HUGE = sys.float_info.max


class Mapping:
    """Numbers the buckets of a *relative_error*; `limit` is how many a sketch may hold."""

    __slots__ = ("_log_gamma", "_middle", "_shift", "limit", "per_log")

    def __init__(self, relative_error: float) -> None:
        gamma = (1 + relative_error) / (1 - relative_error)
        self._log_gamma = math.log(gamma)
        self.per_log = 1 / self._log_gamma
        self._middle = math.log(2 / (1 + gamma))
        # So that the bucket of the smallest magnitude is number 1, and zero's is 0.
        self._shift = 1 - math.ceil(math.log(TINY) * self.per_log)
        self.limit = math.ceil(DECADES * math.log(10) * self.per_log)

    def bucket(self, value: float) -> int:
        """Return the bucket of a finite *value*; raises OverflowError for an infinite one."""
        if value >= TINY:
            return math.ceil(math.log(value) * self.per_log) + self._shift
        if value <= -TINY:
            return -math.ceil(math.log(-value) * self.per_log) - self._shift
        return 0

    def value(self, bucket: int) -> float:
        """Return what *bucket* answers with."""
        if not bucket:
            return 0.0
        exponent = (abs(bucket) - self._shift) * self._log_gamma + self._middle
        try:
            magnitude = math.exp(exponent)
        except OverflowError:
            magnitude = HUGE
        return math.copysign(magnitude, bucket)


class WindowSketch:
    """
    The values of the last *slices* spans of *span* seconds each, the current one included.

    Times are seconds of any clock, given with each call; one that is before the current span counts
    as now.
    """

    __slots__ = (
        "_floor", "_keep", "_mapping", "_order", "_seen", "_slices", "_span", "_until", "_youngest",
        "size",
    )  # fmt: skip

    def __init__(self, mapping: Mapping, span: float, slices: int) -> None:
        self._mapping = mapping
        self._span = span
        self._keep = slices
        self._slices: deque[dict[int, int]] = deque()
        self._youngest: dict[int, int] = {}
        self._until = -math.inf
        #: All slices together, and its buckets in order (empty: not known).
        self._seen: dict[int, int] = {}
        self._order: list[int] = []
        self._floor = 0
        #: How many values are in the window.
        self.size = 0

    def add(self, value: float, now: float) -> None:
        """Take in a finite *value*; raises OverflowError for an infinite one."""
        bucket = self._mapping.bucket(value)
        if now >= self._until:
            self.advance(now)
        if -self._floor < bucket < self._floor and bucket:
            bucket = self._floor if bucket > 0 else -self._floor
        seen, youngest = self._seen, self._youngest
        try:
            seen[bucket] += 1
        except KeyError:
            seen[bucket] = 1
            self._order = []
        try:
            youngest[bucket] += 1
        except KeyError:
            youngest[bucket] = 1
        self.size += 1
        if len(seen) > self._mapping.limit:
            self._collapse()

    def advance(self, now: float) -> None:
        """Let go of what has left the window."""
        if now < self._until:
            return
        number = math.floor(now / self._span)
        if self.size:
            passed = number - round(self._until / self._span) + 1
            for _ in range(min(passed, self._keep)):
                self._slices.append({})
                if len(self._slices) > self._keep:
                    self._drop(self._slices.popleft())
        if not self.size:
            self._slices = deque([{}])
            self._seen = {}
            self._order = []
            self._floor = 0
        self._youngest = self._slices[-1]
        self._until = (number + 1) * self._span

    def quantiles(self, wanted: Iterable[float]) -> tuple[float, ...] | None:
        """Return the *wanted* quantiles, from 0 to 1, of the window; None where it is empty."""
        if not self.size:
            return None
        order = self._order = self._order or sorted(self._seen)
        below = list(accumulate(map(self._seen.__getitem__, order)))
        last = self.size - 1
        value = self._mapping.value
        return tuple([value(order[bisect_right(below, q * last)]) for q in wanted])

    def _drop(self, old: dict[int, int]) -> None:
        seen = self._seen
        for bucket, count in old.items():
            seen[bucket] -= count
            if not seen[bucket]:
                del seen[bucket]
        self._order = []
        self.size -= sum(old.values())

    def _collapse(self) -> None:
        """Make one bucket of the smallest magnitudes, a sixteenth of all, of each sign."""
        magnitudes = sorted({abs(bucket) for bucket in self._seen if bucket})
        self._floor = magnitudes[len(magnitudes) // 16]
        for counts in (self._seen, *self._slices):
            for bucket in [each for each in counts if 0 < abs(each) < self._floor]:
                raised = self._floor if bucket > 0 else -self._floor
                counts[raised] = counts.get(raised, 0) + counts.pop(bucket)
        self._order = []
