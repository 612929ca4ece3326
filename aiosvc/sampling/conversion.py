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
    Iterable,
    Mapping,
)
from typing import Any, Protocol, SupportsFloat

from prometheus_client import Metric

from aiosvc.callables import gives_async_generator, gives_coroutine
from aiosvc.errors import ConfigError
from aiosvc.naming import check_metric, clean
from aiosvc.readings import Labels, Readings
from aiosvc.sampling.families import STEP, checked
from aiosvc.sampling.options import SourceOptions
from aiosvc.series import OTHER

__all__ = ["Collector", "Conversion", "Sampled", "reader"]

log = logging.getLogger("aiosvc.sampler")

#: What a source returns: a number, numbers by label value(s), or metric families. A number that is
#: not known, None, is left out of the mapping's series.
Sampled = SupportsFloat | Mapping[Any, SupportsFloat | None] | Iterable[Metric]

#: Characters of what a source returned that an error shows.
SHOWN = 80


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
        check_metric(name)
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
        self._admitted: set[Labels] = set()
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
            self._add(family, (), self._number(sampled))
            readings.family(family)
        elif isinstance(sampled, Iterable) and not isinstance(sampled, str | bytes | Metric):
            for family in sampled:
                readings.family((yield from checked(family)))
            if readings.clashes:
                raise ValueError(
                    f"family {readings.clashes[0]!r} is there twice, with the same series or "
                    "different types"
                )
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
        known: dict[Labels, float] = {}
        # A copy: between two steps its owner may change it.
        for place, (key, number) in enumerate(dict(sampled).items()):
            if place % STEP == STEP - 1:
                yield
            if number is None:
                continue
            values = self._labels(key)
            if values in known:
                raise ValueError(f"labels {values!r} are there twice")
            known[values] = self._number(number)
        family = self._family()
        for place, (values, number) in enumerate((yield from self._capped(known)).items()):
            if place % STEP == STEP - 1:
                yield
            self._add(family, values, number)
        return family

    def _capped(self, known: dict[Labels, float]) -> Generator[None, None, dict[Labels, float]]:
        """Return the series that have a place, and the sum of the others."""
        other = (OTHER,) * len(self._labelnames)
        # Those that were there keep their place, so that no series comes and goes by chance.
        self._admitted = {values for values in self._admitted if values in known}
        capped: dict[Labels, float] = {}
        for place, (values, number) in enumerate(known.items()):
            if place % STEP == STEP - 1:
                yield
            if values not in self._admitted and len(self._admitted) < self._max_series:
                self._admitted.add(values)
            if values in self._admitted:
                capped[values] = capped.get(values, 0.0) + number
            else:
                self._leave_out(values)
                capped[other] = capped.get(other, 0.0) + number
        return capped

    def _leave_out(self, values: Labels) -> None:
        if not self.overflown:
            log.warning(
                "source %s: more than %d label sets; %r and further ones are added up as %r",
                self._name,
                self._max_series,
                values,
                OTHER,
            )
        self.overflown += 1

    def _number(self, sampled: Any) -> float:
        number = float(sampled)
        if self._kind == "counter" and not number >= 0:
            raise ValueError(f"returned {_short(sampled)}; a counter can't be negative or unknown")
        return number

    def _labels(self, key: Any) -> tuple[str, ...]:
        given = (key,) if isinstance(key, str) or not isinstance(key, tuple | list) else tuple(key)
        if len(given) != len(self._labelnames):
            raise ValueError(
                f"labels {given!r} do not fit the label names {self._labelnames!r}"
                + ("" if self._labelnames else "; give labelnames=")
            )
        return tuple(map(clean, given))

    def _family(self) -> Metric:
        return Metric(self._name.removesuffix("_total"), self._documentation, self._kind)

    def _add(self, family: Metric, values: Labels, number: float) -> None:
        suffix = "_total" if self._kind == "counter" else ""
        labels = dict(zip(self._labelnames, values, strict=True))
        family.add_sample(family.name + suffix, labels, number)


def reader(
    read: Any, conversion: Conversion
) -> Callable[[], Readings] | Callable[[], Coroutine[Any, Any, Readings]]:
    """
    Return a function that reads and converts; an async one where *read* is.

    Raises ConfigError where *read* is neither a function nor a collector.
    """
    call = _callable(read)
    if gives_async_generator(call):

        async def generated() -> Readings:
            return await _in_steps(conversion, [family async for family in call()])

        return generated
    if gives_coroutine(call):

        async def awaited() -> Readings:
            return await _in_steps(conversion, await call())

        return awaited
    return lambda: conversion.at_once(call())


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
