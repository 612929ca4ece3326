"""
The one collector that aiosvc puts into a registry, whoever uses that registry.

Rule: one collector per registry, found again by whoever comes second, so two applications can share
a registry. Rule: counters outlive the application that counted them; its gauges leave with it.

Rule: a name is ours from when there may be something to export under it. A program that serves no
requests and watches no queue keeps those names for metrics of its own.

Theory of operation. What there is to say is read in steps, between which requests are served, and
applications may come and go. One that goes leaves its counters to the collector; who was reading
meanwhile may have seen them in both places or in neither, so it begins again.
"""

import asyncio
import logging
import os
import platform
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate, starmap
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import aiohttp
from prometheus_client import CollectorRegistry, Metric

from aiosvc import catalogue
from aiosvc.catalogue import CATALOGUE, MetricSpec
from aiosvc.errors import ConfigError
from aiosvc.families import Handed, Layout, Row, buckets
from aiosvc.ownership import Ownership, family_of
from aiosvc.readings import Distribution, Labels, Readings, Refreshed, Reporter, Stepwise
from aiosvc.seriestext import Part, encode
from aiosvc.version import __version__

__all__ = ["ServiceCollector", "collector_of"]

log = logging.getLogger("aiosvc")

CUMULATIVE = ("counter", "histogram", "summary")

#: How often to read in steps before nobody may come or go, by reading in one.
ATTEMPTS = 3

T = TypeVar("T")


class ServiceCollector:
    """Asks every reporter of a registry and gives their answers as metric families."""

    def __init__(self, ownership: Ownership | None = None) -> None:
        self.ownership = Ownership() if ownership is None else ownership
        self._owned = frozenset(CATALOGUE if ownership is None else ())
        self._shared: dict[str, Any] = {}
        self._reporters: list[Reporter] = []
        self._retired = Readings()
        # Held while numbers move from a reporter to what is retired, and never between two steps.
        self._moving = threading.Lock()
        self._moves = 0
        self._errors: dict[str, int] = {}
        self._claims: dict[str, object] = {}
        # What was said last of each counter of which only the most counts, and in which process.
        self._most: dict[MetricSpec, dict[Labels, float]] = {}
        self._pid = os.getpid()
        self._layouts: dict[tuple[MetricSpec, tuple[str, ...], tuple[Part, ...]], Layout] = {}
        self._extra: dict[MetricSpec, tuple[str, ...]] = {}
        self._build = (__version__, platform.python_version(), aiohttp.__version__)

    def attach(self, reporter: Reporter) -> None:
        """Include *reporter* from now on; a second time changes nothing."""
        with self._moving:
            if reporter not in self._reporters:
                self._reporters.append(reporter)

    def retire(self, reporter: Reporter) -> None:
        """Leave *reporter* out from now on, but keep what it counted."""
        with self._moving:
            if reporter in self._reporters:
                last = Readings()
                reporter.report(last)
                self._reporters.remove(reporter)
                self._retired.absorb(last, only=CUMULATIVE)
                self._moves += 1

    def refresh(self) -> None:
        """Have samplers that live on the running event loop read what can be read at once."""
        for reporter in list(self._reporters):
            if isinstance(reporter, Refreshed):
                reporter.refresh()

    def error(self, where: str, error: BaseException) -> None:
        """Count an error inside the instrumentation; the first one at *where* is logged."""
        known = self._errors.get(where, 0)
        self._errors[where] = known + 1
        # A cancellation is no mistake to find, and a loop that is ended cancels everything.
        if not known and not isinstance(error, asyncio.CancelledError):
            log.error(
                "an error in %s; requests go on, further ones are only counted in %s",
                where,
                catalogue.INSTRUMENTATION_ERRORS.name,
                exc_info=error,
            )

    def claim(self, what: str, value: object) -> None:
        """Hold the registry to one *value*; raises ConfigError where another one is in use."""
        known = self._claims.setdefault(what, value)
        if known != value:
            raise ConfigError(
                f"{what}: {value} given, but another application on the same registry uses "
                f"{known}; give both the same, or each its own registry"
            )

    def extend(self, spec: MetricSpec, names: tuple[str, ...]) -> None:
        """Export *spec* with these labels after its own."""
        self._extra[spec] = names

    def share(self, what: str, make: Callable[[], T]) -> T:
        """Return the one object that all services of the registry have for *what*."""
        shared: T = self._shared.setdefault(what, make())
        return shared

    def own(self, specs: Iterable[MetricSpec], registry: CollectorRegistry) -> None:
        """
        Have these names in *registry*, beside those that are ours already.

        Raises ValueError where somebody has one of them; then all is as before.
        """
        before, wanted = self._owned, self._owned.union(specs)
        if wanted == before:
            return
        with suppress(KeyError):  # not there yet, or taken out by somebody
            registry.unregister(self)
        self._owned = wanted
        try:
            registry.register(self)
        except ValueError:
            self._owned = before
            if before:
                registry.register(self)
            raise
        self.ownership.reconsider()

    def describe(self) -> Iterator[Metric]:
        """Give the names that are ours, so that a registry refuses a second owner."""
        for spec in CATALOGUE:
            if self._exports(spec):
                yield family_of(spec)

    def collect(self) -> Iterator[Metric]:
        """Give every family with what is known now; called by the registry at a scrape."""
        for handed in self.series():
            if not isinstance(handed, bytes):
                yield handed if isinstance(handed, Metric) else _metric(*handed)

    def series(self) -> Iterator[Handed]:
        """Give the same as `collect`, without making samples of it."""
        readings = yield from self._read()
        for spec in CATALOGUE:
            if not self._exports(spec):
                continue
            names = spec.labels + self._extra.get(spec, ())
            if spec in readings.distributions:
                yield self._histograms(spec, names, readings.distributions.pop(spec))
            elif spec in readings.totals:
                layout = self._layout(spec, names, (("_count", ()), ("_sum", ())))
                totals = readings.totals.pop(spec).items()
                yield layout, (Row(labels, (t.count, t.sum)) for labels, t in totals)
            elif spec in readings.numbers:
                suffix = "_total" if spec.kind == "counter" and not spec.clashes else ""
                layout = self._layout(spec, names, ((suffix, ()),))
                numbers = readings.numbers.pop(spec).items()
                yield layout, (Row(labels, (number,)) for labels, number in numbers)
        yield from readings.families.values()

    def _exports(self, spec: MetricSpec) -> bool:
        return spec in self._owned and self.ownership.exports(spec)

    def _read(self) -> Generator[bytes, None, Readings]:
        for _ in range(ATTEMPTS):
            with self._moving:
                moves, reporters = self._moves, self._reporters.copy()
                readings = Readings()
                readings.absorb(self._retired)
            for reporter in reporters:
                yield b""
                yield from self._asked(reporter, readings)
            if moves == self._moves:
                break
        else:
            with self._moving:
                readings = Readings()
                readings.absorb(self._retired)
                for reporter in self._reporters:
                    for _ in self._asked(reporter, readings):
                        pass
        self._hold_up(readings)
        self._refuse_clashes(readings)
        readings.declare(catalogue.INSTRUMENTATION_ERRORS)
        readings.number(catalogue.BUILD_INFO, 1, self._build)
        for where, count in list(self._errors.items()):
            readings.number(catalogue.INSTRUMENTATION_ERRORS, count, (where,))
        return readings

    def _hold_up(self, readings: Readings) -> None:
        # Of several applications each reads the process at its own time. When the one that read it
        # last goes, the other's older number is no reason for a counter to fall.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._most.clear()
        for spec, numbers in readings.numbers.items():
            if spec.kind == "counter" and spec.merge == "max":
                most = self._most.setdefault(spec, {})
                for labels, number in numbers.items():
                    numbers[labels] = most[labels] = max(number, most.get(labels, number))

    def _refuse_clashes(self, readings: Readings) -> None:
        for name in readings.clashes:
            error = ValueError(
                "two sources give the same series, or another type; the first one's is exported"
            )
            self.error(f"family {name}", error)
        for name, family in list(readings.families.items()):
            if not self.ownership.admits(family):
                del readings.families[name]
                error = ValueError("the registry has a metric of that name; it is exported")
                self.error(f"family {name}", error)

    def _asked(self, reporter: Reporter, readings: Readings) -> Iterator[bytes]:
        try:
            if isinstance(reporter, Stepwise):
                for _ in reporter.steps(readings):
                    yield b""
            else:
                reporter.report(readings)
        except Exception as error:  # noqa: BLE001 - the others must not lose their scrape
            self.error(f"report of {type(reporter).__name__}", error)

    def _histograms(
        self, spec: MetricSpec, names: tuple[str, ...], found: dict[Labels, Distribution]
    ) -> Handed:
        # One registry has one set of buckets for a metric; without series, any will do.
        bounds = next(iter(found.values())).bounds if found else spec.buckets
        return self._layout(spec, names, buckets(bounds)), starmap(_row, found.items())

    def _layout(self, spec: MetricSpec, names: tuple[str, ...], parts: tuple[Part, ...]) -> Layout:
        key = spec, names, parts
        layout = self._layouts.get(key)
        if layout is None:
            family = family_of(spec)
            layout = Layout(family.name, spec.help, family.type, names, parts)
            self._layouts[key] = layout
        return layout


_collectors: WeakKeyDictionary[CollectorRegistry, ServiceCollector] = WeakKeyDictionary()
_collectors_lock = threading.Lock()


def collector_of(
    registry: CollectorRegistry, specs: Iterable[MetricSpec] = CATALOGUE
) -> ServiceCollector:
    """
    Return the registry's collector, which has the names of *specs* from now on.

    It has those that are of any process in any case. Raises ConfigError where the registry already
    has metrics of these names that somebody else made.
    """
    with _collectors_lock:
        known = _collectors.get(registry)
        if known is None:
            known = ServiceCollector(Ownership(registry))
        try:
            known.own((*catalogue.RUNTIME, *specs), registry)
        except ValueError as error:
            raise ConfigError(
                f"registry: {error}; aiosvc exports these itself: remove your own metrics of "
                "the same name, or pass a registry of its own with registry="
                "prometheus_client.CollectorRegistry()"
            ) from error
        _collectors[registry] = known
        return known


def _row(labels: Labels, found: Distribution) -> Row:
    below = tuple(accumulate(found.counts))
    return Row(labels, (*below, below[-1], found.sum), found.exemplars)


def _metric(layout: Layout, rows: Iterable[Row]) -> Metric:
    family = Metric(layout.name, layout.documentation, layout.type)
    for row in rows:
        # As our exposition writes them; prometheus_client's fails at what UTF-8 can't say.
        values = [encode(value).decode() for value in row.labels]
        labels = dict(zip(layout.labelnames, values, strict=True))
        exemplars = row.exemplars or {}
        for place, ((suffix, extra), number) in enumerate(
            zip(layout.parts, row.numbers, strict=True)
        ):
            name = layout.name + suffix
            exemplar = exemplars.get(place)
            family.add_sample(name, {**labels, **dict(extra)}, number, exemplar=exemplar)
    return family
