"""
Metrics out of a JSON document: which values, under which names, with which labels.

Rule: knows documents, not where they come from. Rule: a large document is gone through in slices
of the event loop.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import Metric

from aiosvc.errors import ConfigError
from aiosvc.sources.bounded import Bounded, Filling, label_text, number, overflow
from aiosvc.sources.jsonpath import JsonPath, Missing

__all__ = ["DocumentMetrics", "FromField", "JsonMetric"]

#: Seconds of the event loop that are taken at a time, and values between two looks at the clock.
SLICE: Final = 0.001
STEP: Final = 32


@dataclass(frozen=True, slots=True)
class FromField:
    """
    A label whose value stands in the document, at *path*.

    The path begins at the element that the last [*] or {label} of the metric's own path stands for,
    or at the document where there is none. One that begins with $ begins at the document, and its
    [*] stand for the same elements as those of the metric's path: $.groups[*].name beside
    groups[*].items[*].size.
    """

    path: str


@dataclass(frozen=True, slots=True)
class JsonMetric:
    """
    What the values at a path become: a counter where *name* ends in `_total`, a gauge otherwise.

    *labels* are texts, or `FromField`; {label} in the path gives more. A value that is missing
    fails the sample, unless *required* is False: then its series is absent, as it always is where
    the value is null.
    """

    name: str
    documentation: str = ""
    labels: Mapping[str, str | FromField] = field(default_factory=dict)
    required: bool = True


class DocumentMetrics:
    """
    Turns documents into metric families, after a mapping of paths to metrics.

    Several paths may give series of the same metric, with the same label names. Raises ConfigError
    where the mapping will not do.
    """

    def __init__(self, gauges: Mapping[str, str | JsonMetric], *, max_series: int) -> None:
        if not isinstance(gauges, Mapping) or not gauges:
            raise ConfigError(
                f"gauges: {gauges!r} given; expected a mapping of paths to metrics, such as "
                "{'pool.idle': 'shop_pool_idle'}"
            )
        self._metrics: dict[str, Bounded] = {}
        self._rules: list[_Rule] = []
        for path, given in gauges.items():
            metric = JsonMetric(given) if isinstance(given, str) else given
            if not isinstance(metric, JsonMetric):
                raise ConfigError(f"path {path!r}: {given!r} given; expected a name or JsonMetric")
            self._rules.append(_Rule(JsonPath(path), metric))
        for rule in self._rules:
            self._declare(rule, max_series)

    async def families(self, document: Any) -> list[Metric]:
        """
        Return every metric's family.

        Raises ValueError, with the path, where a value is missing, is no number or stands twice.
        """
        filled = {name: metric.fill() for name, metric in self._metrics.items()}
        begun = time.perf_counter()
        done = 0
        for rule in self._rules:
            filling = filled[rule.metric.name]
            for keys, value in rule.path.find(document):
                rule.take(document, keys, value, filling)
                done += 1
                if not done % STEP and time.perf_counter() - begun > SLICE:
                    await asyncio.sleep(0)
                    begun = time.perf_counter()
        families = [filling.family for filling in filled.values()]
        return families + overflow(self._metrics.values())

    def _declare(self, rule: "_Rule", max_series: int) -> None:
        name = rule.metric.name
        known = self._metrics.get(name)
        if known is None:
            documentation = next(
                (
                    other.metric.documentation
                    for other in self._rules
                    if other.metric.name == name and other.metric.documentation
                ),
                "",
            )
            known = Bounded(name, documentation, tuple(rule.labels), limit=max_series)
            self._metrics[name] = known
        if set(rule.labels) != set(known.labelnames):
            raise ConfigError(
                f"metric {name!r}: {rule.path.text!r} gives it the labels {sorted(rule.labels)}, "
                f"another path {sorted(known.labelnames)}; give all its paths the same ones"
            )
        rule.order = known.labelnames


class _Rule:
    """One path and what becomes of its values."""

    def __init__(self, path: JsonPath, metric: JsonMetric) -> None:
        self.path = path
        self.metric = metric
        #: How each label comes about: a text, a place, or the number of the path's key.
        self.labels: dict[str, str | JsonPath | int] = {}
        self.order: tuple[str, ...] = ()
        if not isinstance(metric.labels, Mapping):
            raise ConfigError(f"metric {metric.name!r}: labels: {metric.labels!r} is no mapping")
        for name in path.labels:
            self._label(name, path.key_of(name))
        for name, source in metric.labels.items():
            if isinstance(source, FromField):
                self._label(name, JsonPath(source.path).under(path))
            elif isinstance(source, str):
                self._label(name, source)
            else:
                raise ConfigError(
                    f"metric {metric.name!r}: label {name!r}: {source!r} given; expected a text or "
                    "FromField"
                )

    def take(self, document: Any, keys: tuple[str | int, ...], value: Any, into: Filling) -> None:
        """Add one value found at *keys* to its metric."""
        if isinstance(value, Missing):
            if self.metric.required:
                raise ValueError(f"{value.place}: missing, and {self.metric.name} needs it")
            return
        try:
            converted = number(value)
        except ValueError as error:
            raise ValueError(f"{self.path.written(keys)}: {error}") from None
        if converted is None:
            return
        labels = []
        for name in self.order:
            text = self._value(self.labels[name], document, keys)
            if text is None:
                return
            labels.append(text)
        into.add(tuple(labels), converted)

    def _label(self, name: str, source: str | JsonPath | int) -> None:
        if name in self.labels:
            raise ConfigError(f"metric {self.metric.name!r}: label {name!r} is given twice")
        self.labels[name] = source

    def _value(
        self, source: str | JsonPath | int, document: Any, keys: tuple[str | int, ...]
    ) -> str | None:
        if isinstance(source, str):
            return source
        if isinstance(source, int):
            return label_text(keys[source])
        value = source.at(document, keys)
        if isinstance(value, Missing):
            if self.metric.required:
                raise ValueError(f"{value.place}: missing, and a label of {self.metric.name}")
            return None
        try:
            return label_text(value)
        except ValueError as error:
            raise ValueError(f"{source.written(keys)}: {error}") from None
