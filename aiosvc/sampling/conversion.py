"""
What a user's source may be and return, and the readings that it becomes.

Rule: what can't be exported is an error of the source's, in words, at the time of the sample; a
scrape never meets it.
"""

import asyncio
import inspect
import logging
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Hashable,
    Iterable,
    Mapping,
)
from typing import Any, Protocol, SupportsFloat

from prometheus_client import Metric

from aiosvc import catalogue
from aiosvc.errors import ConfigError
from aiosvc.readings import Readings
from aiosvc.sampling.options import NAME, SourceOptions

__all__ = ["Collector", "Conversion", "Sampled", "reader"]

log = logging.getLogger("aiosvc.sampler")

#: What a source returns: a number, numbers by label value(s), or metric families. A number that is
#: not known, None, is left out of the mapping's series.
Sampled = SupportsFloat | Mapping[Any, SupportsFloat | None] | Iterable[Metric]

#: Characters of what a source returned that an error shows.
SHOWN = 80

#: Samples that are converted without a pause, well under a millisecond.
STEP = 200

TAKEN = frozenset(
    name for spec in catalogue.CATALOGUE for name in (spec.name, spec.name.removesuffix("_total"))
)
OTHER = "_other"

#: The one family of ours that a source may add to: what it had to leave out.
OVERFLOW = catalogue.LABEL_OVERFLOW.name.removesuffix("_total")


class Collector(Protocol):
    """
    prometheus_client's protocol for collectors, asynchronous.

    `collect` is an async function that returns metric families, or an async generator of them. A
    synchronous `collect` will do as well; the sampler calls it in a thread.
    """

    def collect(self) -> Awaitable[Iterable[Metric]] | AsyncIterable[Metric] | Iterable[Metric]:
        """Return what is known now."""


class Conversion:
    """Turns what one source returns into `Readings`."""

    def __init__(self, name: str, options: SourceOptions) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError("not a metric name; use letters, digits and '_', no digit first")
        if name in TAKEN:
            raise ConfigError("aiosvc exports a metric of that name itself")
        if options.kind == "gauge" and name.endswith("_total"):
            raise ConfigError(
                "only a counter's name ends in '_total'; give kind='counter' for a number that "
                "only grows, or another name"
            )
        self._name = name
        self._documentation = options.documentation or f"Sampled by {name}."
        self._labelnames = options.labelnames
        self._kind = options.kind
        self._max_series = options.max_series
        self._admitted: frozenset[Hashable] = frozenset()
        #: Times that a label set past the cap was added to `_other`.
        self.overflown = 0

    @property
    def overflow_labels(self) -> tuple[str, str]:
        """The metric and the label that an overflow is counted under."""
        return self._name, ",".join(self._labelnames)

    def at_once(self, sampled: Any) -> Readings:
        """Return the readings; raises TypeError or ValueError where there is no sense in them."""
        steps = self.in_steps(sampled)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                readings: Readings = end.value
                return readings

    def in_steps(self, sampled: Any) -> Generator[None, None, Readings]:
        """Return the same by a generator that stops each time it has worked for a while."""
        readings = Readings()
        if isinstance(sampled, Mapping):
            readings.family((yield from self._from_mapping(sampled)))
        elif isinstance(sampled, SupportsFloat) and not isinstance(sampled, Metric):
            if self._labelnames:
                raise ValueError(
                    f"returned {sampled!r}; expected a mapping from values of "
                    f"{self._labelnames!r} to numbers"
                )
            family = self._family()
            self._add(family, {}, float(sampled))
            readings.family(family)
        elif isinstance(sampled, Iterable) and not isinstance(sampled, str | bytes | Metric):
            for family in sampled:
                readings.family((yield from _checked(family)))
        else:
            if inspect.iscoroutine(sampled):
                sampled.close()
                raise TypeError("returned a coroutine; make the source an async function")
            raise TypeError(
                f"returned {_short(sampled)}; expected a number, a mapping from label values to "
                "numbers, or metric families"
            )
        return readings

    def _from_mapping(self, sampled: Mapping[Any, Any]) -> Generator[None, None, Metric]:
        family = self._family()
        known = {self._labels(key): number for key, number in sampled.items() if number is not None}
        kept = self._admit(known)
        others = 0.0
        for place, (values, number) in enumerate(known.items()):
            if place % STEP == STEP - 1:
                yield
            if values in kept:
                labels = dict(zip(self._labelnames, values, strict=True))
                self._add(family, labels, float(number))
            else:
                others += float(number)
        if len(kept) < len(known):
            self._add(family, dict.fromkeys(self._labelnames, OTHER), others)
        return family

    def _admit(self, known: Mapping[tuple[str, ...], Any]) -> frozenset[Hashable]:
        # Those that were there keep their place, so that no series comes and goes by chance.
        self._admitted = self._admitted & known.keys()
        room = self._max_series - len(self._admitted)
        new = [values for values in known if values not in self._admitted]
        if len(new) > room:
            if not self.overflown:
                log.warning(
                    "source %s: more than %d label sets; %r and further ones are added up as %r",
                    self._name,
                    self._max_series,
                    new[room],
                    OTHER,
                )
            self.overflown += len(new) - room
        self._admitted |= frozenset(new[:room])
        return self._admitted

    def _labels(self, key: Any) -> tuple[str, ...]:
        given = (key,) if isinstance(key, str) or not isinstance(key, tuple | list) else tuple(key)
        if len(given) != len(self._labelnames):
            raise ValueError(
                f"labels {given!r} do not fit the label names {self._labelnames!r}"
                + ("" if self._labelnames else "; give labelnames=")
            )
        return tuple(map(_text, given))

    def _family(self) -> Metric:
        return Metric(self._name.removesuffix("_total"), self._documentation, self._kind)

    def _add(self, family: Metric, labels: dict[str, str], number: float) -> None:
        suffix = "_total" if self._kind == "counter" else ""
        family.add_sample(family.name + suffix, labels, number)


def reader(
    read: Any, conversion: Conversion
) -> Callable[[], Readings] | Callable[[], Coroutine[Any, Any, Readings]]:
    """
    Return a function that reads and converts; an async one where *read* is.

    Raises ConfigError where *read* is neither a function nor a collector.
    """
    call = _callable(read)
    if _is_async(call, inspect.isasyncgenfunction):

        async def generated() -> Readings:
            return await _in_steps(conversion, [family async for family in call()])

        return generated
    if _is_async(call, inspect.iscoroutinefunction):

        async def awaited() -> Readings:
            return await _in_steps(conversion, await call())

        return awaited
    return lambda: conversion.at_once(call())


def _checked(family: Any) -> Generator[None, None, Metric]:
    """Return a copy of a user's family in which everything is what it should be."""
    if not isinstance(family, Metric):
        raise TypeError(f"returned {_short(family)} among the metric families")
    if family.name in TAKEN and family.name != OVERFLOW:
        raise ValueError(f"family {family.name!r}: aiosvc exports a metric of that name itself")
    copy = Metric(family.name, _text(family.documentation), family.type, family.unit)
    seen = set()
    for place, sample in enumerate(family.samples):
        if place % STEP == STEP - 1:
            yield
        labels = {name: _text(value) for name, value in sample.labels.items()}
        series = (sample.name, frozenset(labels.items()))
        if series in seen:
            raise ValueError(f"family {family.name!r}: {sample.name}{labels} is there twice")
        seen.add(series)
        copy.samples.append(sample._replace(labels=labels, value=float(sample.value)))
    return copy


def _text(value: object) -> str:
    # A lone surrogate can't be sent; what it came from can't be told any more.
    return str(value).encode("utf-8", "replace").decode()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _callable(read: Any) -> Callable[[], Any]:
    call = getattr(read, "collect", read)
    if not callable(call):
        raise ConfigError(f"{read!r} given; expected a function, or a collector")
    function: Callable[[], Any] = call
    return function


async def _in_steps(conversion: Conversion, sampled: Sampled) -> Readings:
    steps = conversion.in_steps(sampled)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            readings: Readings = end.value
            return readings
        await asyncio.sleep(0)


def _is_async(read: Callable[[], Any], kind: Callable[[Any], bool]) -> bool:
    return kind(read) or kind(getattr(read, "__call__", None))  # noqa: B004 - whether an object's is
