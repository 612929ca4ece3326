"""
Metrics whose numbers and label values come from outside the process: converted, checked, bounded.

Rule: what comes from outside may be anything. It becomes a finite number and a clean label, or an
error that says what it was; and however much comes, no metric has more than its limit of series,
nor gets more than that many new ones in an hour. Rule: knows nothing of HTTP, JSON or SQL.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final

from prometheus_client import Metric

from aiosvc import catalogue, validation
from aiosvc.errors import ConfigError
from aiosvc.naming import SHOWN, check_labels, check_metric, clean, one_line

__all__ = ["MAX_SERIES", "Bounded", "Filling", "label_text", "number", "overflow"]

log = logging.getLogger("aiosvc.sources")

#: Series of one metric, unless told otherwise.
MAX_SERIES: Final = 500

#: Seconds after which a series that did not come any more makes room for another one.
FORGET_AFTER: Final = 3600.0

#: Characters of a label value; a series with a longer one is left out.
LONGEST: Final = 1000

NUMBER: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)

Labels = tuple[str, ...]


def number(value: Any) -> float | None:
    """
    Return a value of JSON or SQL as a number, None where it says that it is unknown.

    Unknown is null and NaN. Booleans are 0 and 1, a string may hold a decimal number. Raises
    ValueError for anything else.
    """
    if value is None:
        return None
    text = isinstance(value, str) and NUMBER.fullmatch(value)
    if not (text or isinstance(value, int | float | Decimal)):
        raise ValueError(f"{_shown(value)} is no number")
    try:
        converted = float(value)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{_shown(value)} does not fit a float") from error
    return None if math.isnan(converted) else converted


def label_text(value: Any) -> str:
    """
    Return a value of JSON or SQL as a label's; null is the empty one, which means no label.

    Raises ValueError for lists and objects.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | dict | set):
        raise ValueError(f"{_shown(value)} is no label value")  # noqa: TRY004 - of a document
    if isinstance(value, bytes):  # a text of a database without an encoding
        return value.decode("utf-8", "replace")
    return clean(value)


class Bounded:
    """
    A metric with at most *limit* series at a time, filled anew for each sample.

    A name that ends in `_total` is a counter's, any other a gauge's. Who is in stays in for as long
    as it comes, so that the series of a scrape do not change from sample to sample when there are
    too many; a series that has not come for `FORGET_AFTER` seconds of *clock* makes room.

    Raises ConfigError where a name or the limit will not do.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Labels,
        *,
        limit: int = MAX_SERIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            check_metric(name)
            check_labels(labelnames)
        except ConfigError as error:
            raise ConfigError(f"metric {name!r}: {error}") from None
        validation.whole("max_series", limit, at_least=1)
        self.name = name
        self.documentation = documentation or f"Sampled into {name}."
        self.labelnames = labelnames
        #: How often a series was left out.
        self.left_out = 0
        self._limit = limit
        self._clock = clock
        self._known: dict[Labels, float] = {}

    @property
    def is_counter(self) -> bool:
        """Whether it only grows, which its name says."""
        return self.name.endswith("_total")

    def fill(self) -> "Filling":
        """Return the metric without series, to be filled."""
        now = self._clock()
        oldest = now - FORGET_AFTER
        self._known = {labels: at for labels, at in self._known.items() if at > oldest}
        return Filling(self, now)

    def admit(self, labels: Labels, now: float) -> bool:
        """Say whether a series has its place; it is counted, and the first one logged, if not."""
        if labels in self._known or (
            len(self._known) < self._limit and all(len(each) <= LONGEST for each in labels)
        ):
            self._known[labels] = now
            return True
        if not self.left_out:
            log.warning(
                "%s: more than %d series, or a label value of more than %d characters; what is too "
                "much is left out and counted in %s",
                self.name, self._limit, LONGEST, catalogue.LABEL_OVERFLOW.name,
            )  # fmt: skip
        self.left_out += 1
        return False


class Filling:
    """One sample of a `Bounded` metric; `family` is what it came to."""

    def __init__(self, metric: Bounded, now: float) -> None:
        kind = "counter" if metric.is_counter else "gauge"
        self.family = Metric(metric.name.removesuffix("_total"), metric.documentation, kind)
        self._metric = metric
        self._now = now
        self._had: set[Labels] = set()

    def add(self, labels: Labels, value: float | None) -> None:
        """
        Add a series; *labels* are in the order of the names, and None is left out.

        Raises ValueError for the same labels a second time, which would make the whole scrape
        invalid, and for a counter below 0.
        """
        if value is None:
            return
        metric = self._metric
        named = dict(zip(metric.labelnames, labels, strict=True))
        if labels in self._had:
            raise ValueError(f"{metric.name}: two values for the labels {one_line(named)}")
        self._had.add(labels)
        if value < 0 and metric.is_counter:
            raise ValueError(f"{metric.name}: {value:g} given; a counter can't be negative")
        if metric.admit(labels, self._now):
            self.family.add_sample(metric.name, named, value)


def overflow(metrics: Iterable[Bounded]) -> list[Metric]:
    """Return the family that says how often series of *metrics* were left out, if any were."""
    spec = catalogue.LABEL_OVERFLOW
    family = Metric(spec.name.removesuffix("_total"), spec.help, spec.kind)
    for metric in metrics:
        if metric.left_out:
            labels = {"metric": metric.name, "label": ",".join(metric.labelnames)}
            family.add_sample(spec.name, labels, metric.left_out)
    return [family] if family.samples else []


def _shown(value: object) -> str:
    """Return a foreign value for an error message, cut before it is written out in full."""
    if isinstance(value, str):
        return repr(value[:SHOWN])
    if isinstance(value, list | tuple | set | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**18:
        return "an integer of more than 18 digits"
    return one_line(repr(value))
