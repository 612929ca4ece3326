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

from aiosvc import catalogue
from aiosvc.errors import ConfigError

__all__ = ["MAX_SERIES", "Bounded", "Filling", "label_text", "number", "one_line", "overflow"]

log = logging.getLogger("aiosvc.sources")

#: Series of one metric, unless told otherwise.
MAX_SERIES: Final = 500

#: Seconds after which a series that did not come any more makes room for another one.
FORGET_AFTER: Final = 3600.0

#: Characters of a label value; a series with a longer one is left out.
LONGEST: Final = 1000

#: Characters of a foreign text that go into an error message.
SHOWN: Final = 200

METRIC: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
NUMBER: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
OURS: Final = frozenset(spec.name for spec in catalogue.CATALOGUE)

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
    # A lone surrogate can be written in JSON, but not in UTF-8, so not in a scrape.
    return str(value).encode("utf-8", "replace").decode("utf-8")


def one_line(text: object) -> str:
    """Return a foreign text, such as another library's error, as one short printable line."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return flat if len(flat) <= SHOWN else f"{flat[:SHOWN]}..."


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
        _check_names(name, labelnames)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigError(f"max_series: {limit!r} given; expected a number of series from 1")
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


def _check_names(name: object, labelnames: Labels) -> None:
    if not isinstance(name, str) or not METRIC.fullmatch(name):
        raise ConfigError(f"metric {name!r}: use letters, digits and '_', no digit first")
    if name in OURS:
        raise ConfigError(f"metric {name!r}: aiosvc exports it itself; choose another name")
    for label in labelnames:
        if not isinstance(label, str) or not METRIC.fullmatch(label) or label.startswith("__"):
            raise ConfigError(
                f"metric {name!r}: label {label!r}: use letters, digits and '_', no digit and no "
                "'__' first"
            )
    if len(set(labelnames)) < len(labelnames):
        raise ConfigError(f"metric {name!r}: a label is named twice in {list(labelnames)}")


def _shown(value: object) -> str:
    """Return a foreign value for an error message, cut before it is written out in full."""
    if isinstance(value, str):
        return repr(value[:SHOWN])
    if isinstance(value, list | tuple | set | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**18:
        return "an integer of more than 18 digits"
    return one_line(repr(value))
