"""
The text of a registry, as prometheus_client's `generate_latest` writes it, fast and in slices.

Rule: no socket, no event loop, no thread; a driver steps `Exposition.render` and sends what comes.
Rule: the bytes are those of prometheus_client, but where `seriestext` says that it is wrong. Rule:
a collector that fails costs its own families, whole, and nothing else.

Theory of operation. A collector is read in one of three ways: prometheus_client's own metrics where
they keep their numbers (`clientmetrics`), those that have `series()` by that, all others by
`collect()` (`families`). Each way keeps label text from scrape to scrape, by collector and escaping,
and gives its text in pieces of a fraction of a millisecond. Pieces are put together until there is
enough to send, or time is up; then the driver has its turn. What a collector does inside of one step
of its `collect()` is its own and can't be cut. Its families are held back until all of them are
there; those of prometheus_client's metrics come as they are joined, since nothing can fail any more.

What is kept of a collector is dropped at the first scrape that does not find it in the registry, and
what is kept for an escaping after `IDLE_SCRAPES` that did not ask for it. prometheus_client's private
names are checked once, by `self_check`; if they mean something else than they did, everything is
left to its public functions, after one warning.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from inspect import signature
from time import perf_counter
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Metric,
    Summary,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from aiosvc.clientmetrics import (
    ClientFamily,
    collectors_of,
    is_readable,
    is_single_process,
    prefix_of_process,
)
from aiosvc.descriptors import completed
from aiosvc.families import CollectorText, Handed, SeriesCollector
from aiosvc.foreign import Given
from aiosvc.formats import OPENMETRICS, TEXT, TEXT_1_0_0, Escaping, Format

__all__ = ["Exposition", "OnError", "self_check"]

log = logging.getLogger("aiosvc")

#: Is told which collector failed, by its class or the name of its metric, and how.
OnError = Callable[[str, Exception], None]

NOTHING: Final[Given] = {}

#: Scrapes after which the text for an escaping that nobody asked for is dropped.
IDLE_SCRAPES: Final = 16


class Exposition:
    """
    Renders one registry, again and again; may be used from several threads at once.

    *registry* is anything with `collect()`. *on_error* is called with a collector's name and what
    it raised; without it, that is logged. *budget* is the time in seconds after which `render`
    gives way, *chunk_size* the bytes after which it does so earlier.
    """

    def __init__(
        self,
        registry: Collector,
        *,
        on_error: OnError | None = None,
        budget: float = 0.002,
        chunk_size: int = 65_536,
    ) -> None:
        self.registry = registry
        self._budget = budget
        self._chunk_size = chunk_size
        self._renderer = _Renderer(registry, on_error or _log)
        self._trusted = _is_trusted()

    def foreign(self, names: Iterable[str] | None = None) -> list[Any]:
        """Return the collectors that are neither prometheus_client's nor have `series()`."""
        if not self._trusted:
            return []
        chosen = None if names is None else frozenset(names)
        return [
            collector
            for collector in collectors_of(self.registry, chosen) or ()
            if not type(collector).__module__.startswith("prometheus_client.")
            and not isinstance(collector, SeriesCollector)
            and not is_readable(collector)
        ]

    def render(
        self,
        form: Format = TEXT,
        names: Iterable[str] | None = None,
        given: Given | None = None,
    ) -> Iterator[bytes]:
        """
        Give the exposition in *form*, in chunks; b"" where there is nothing to send yet.

        With *names* only samples of these names, as `registry.restricted_registry(names)`, but in
        the order of registration. *given* is what collectors gave already, or how they failed, by
        their ids; they are not asked again, and the lists in it are emptied on the way.
        """
        chosen = None if names is None else frozenset(names)
        if self._trusted:
            return self._paced(self._renderer.pieces(form, chosen, given or {}))
        return self._cut(form, chosen)

    def _paced(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        budget, chunk_size = self._budget, self._chunk_size
        ready: list[bytes] = []
        size = 0
        begun = before = perf_counter()
        for piece in pieces:
            if piece:
                ready.append(piece)
                size += len(piece)
            now = perf_counter()
            # Whether another piece like this one would still be in time.
            if size >= chunk_size or now - begun + (now - before) > budget:
                yield b"".join(ready)
                ready.clear()
                size = 0
                begun = now = perf_counter()
            before = now
        if ready:
            yield b"".join(ready)

    def _cut(self, form: Format, names: frozenset[str] | None) -> Iterator[bytes]:
        body = _public(self.registry, form, names)
        for start in range(0, len(body), self._chunk_size):
            yield body[start : start + self._chunk_size]


class _Renderer:
    """A registry's text, in pieces, and what is kept of its collectors."""

    def __init__(self, registry: Collector, on_error: OnError) -> None:
        self._registry: Any = registry
        self._on_error = on_error
        self._kept: dict[int, _Kept] = {}
        self._scrapes = 0

    def pieces(
        self, form: Format, names: frozenset[str] | None = None, given: Given = NOTHING
    ) -> Iterator[bytes]:
        """Give the exposition in pieces of a fraction of a millisecond, some of them b""."""
        self._scrapes += 1
        collectors = collectors_of(self._registry, names)
        if collectors is None:
            collectors = [self._registry]
        else:
            yield from self._target(form, names)
        for collector in collectors:
            kept = self._kept.get(id(collector))
            if kept is None:
                kept = self._kept[id(collector)] = _Kept(collector)
            before = given.get(id(collector))
            if isinstance(before, Exception):
                self._failed(kept.name, before)
            else:
                yield from self._collector(kept, form, names, before)
        if form.openmetrics:
            yield b"# EOF\n"
        if names is None:
            self._forget(collectors)

    def _target(self, form: Format, names: frozenset[str] | None) -> Iterator[bytes]:
        """Give the family of the registry's target info, as the registry itself would."""
        info = self._registry.get_target_info()
        if info and (names is None or "target_info" in names):
            family = Metric("target", "Target metadata", "info")
            family.add_sample("target_info", info, 1)
            yield from CollectorText(form.escaping).pieces([family], form)

    def _collector(
        self,
        kept: "_Kept",
        form: Format,
        names: frozenset[str] | None,
        given: list[Metric] | None,
    ) -> Iterator[bytes]:
        family = kept.family(form.escaping, self._scrapes)
        if family is not None:
            begun = False
            try:
                for piece in family.pieces(form, names):
                    begun = begun or bool(piece)
                    yield piece
            except Exception as error:  # noqa: BLE001 - the metric itself has the last word on it
                if begun:
                    self._failed(kept.name, error)
                    return
            else:
                return
        text = kept.text(form.escaping, self._scrapes)
        held: list[bytes] = []
        try:
            handed = kept.handed() if given is None else _taken(given)
            for piece in text.pieces(handed, form, names):
                if piece:
                    held.append(piece)
                yield b""
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are still served
            self._failed(kept.name, error)
        else:
            yield from held

    def _failed(self, name: str, error: Exception) -> None:
        try:
            self._on_error(name, error)
        except Exception:
            log.exception("an error in the callback for errors of the exposition")

    def _forget(self, collectors: list[Any]) -> None:
        current = set(map(id, collectors))
        for key, kept in list(self._kept.items()):
            if key not in current:
                self._kept.pop(key, None)
            elif self._scrapes % IDLE_SCRAPES == 0:
                kept.forget(before=self._scrapes - IDLE_SCRAPES)


class _Kept:
    """What is kept of one collector, by escaping, and which scrape was the last to use it."""

    __slots__ = (
        "_collector", "_families", "_has_series", "_readable", "_texts", "_used", "name",
    )  # fmt: skip

    def __init__(self, collector: Any) -> None:
        self._collector = collector
        self._has_series = isinstance(collector, SeriesCollector)
        self._readable = is_readable(collector) and is_single_process()
        self._families: dict[Escaping, ClientFamily] = {}
        self._texts: dict[Escaping, CollectorText] = {}
        self._used: dict[Escaping, int] = {}
        self.name = type(collector).__name__

    def family(self, escaping: Escaping, scrape: int) -> ClientFamily | None:
        """Return the family of a metric that can be read without asking it, None for others."""
        if not self._readable:
            return None
        self._used[escaping] = scrape
        family = self._families.get(escaping)
        if family is None:
            try:
                family = ClientFamily(self._collector, escaping)
            except Exception:  # noqa: BLE001 - it is not what it seems, so it will be asked
                self._readable = False
                return None
            self.name = family.name
            # Most names are written the same in most escapings.
            same = [known for known in self._families.values() if known.escaping == family.escaping]
            family = self._families.setdefault(escaping, same[0] if same else family)
        return family

    def text(self, escaping: Escaping, scrape: int) -> CollectorText:
        """Return the text of what the collector hands over."""
        self._used[escaping] = scrape
        text = self._texts.get(escaping)
        if text is None:
            text = self._texts.setdefault(escaping, CollectorText(escaping))
        return text

    def handed(self) -> Iterable[Handed]:
        """Ask the collector."""
        if self._has_series:
            return self._collector.series()  # type: ignore[no-any-return]
        prefix = prefix_of_process(self._collector)
        families: Iterable[Metric] = self._collector.collect()
        return families if prefix is None else completed(prefix, families)

    def forget(self, *, before: int) -> None:
        """Drop what no scrape since *before* has used."""
        for escaping, used in list(self._used.items()):
            if used < before:
                self._used.pop(escaping, None)
                self._families.pop(escaping, None)
                self._texts.pop(escaping, None)


def _taken(given: list[Metric]) -> Iterator[Metric]:
    """Empty *given* from its beginning, so that what is in it goes family by family."""
    given.reverse()
    while given:
        yield given.pop()


def self_check() -> bool:
    """Return whether our text of a small registry of all types is prometheus_client's own."""
    try:
        registry = _samples_of_all()
        renderer = _Renderer(registry, _log)
        some = frozenset({"check_own", "check_events_total"})
        for form in (TEXT, TEXT_1_0_0, OPENMETRICS):
            # Twice: as at the first scrape, and from what that has kept.
            for names in (None, None, some):
                if b"".join(renderer.pieces(form, names)) != _public(registry, form, names):
                    return False
    except Exception:  # noqa: BLE001 - then certainly not
        return False
    return True


@cache
def _is_trusted() -> bool:
    if self_check():
        return True
    from importlib.metadata import version  # noqa: PLC0415 - a tenth of our import, for nothing

    log.warning(
        "the installed prometheus_client (%s) is not as we know it: metrics are served by its own "
        "generate_latest, right but slow; update aiosvc",
        version("prometheus_client"),
    )
    return False


def _public(registry: Any, form: Format, names: frozenset[str] | None) -> bytes:
    """Return the exposition by public functions of prometheus_client only."""
    if names is not None:
        registry = registry.restricted_registry(names)
    generate: Callable[..., bytes] = (
        openmetrics.generate_latest if form.openmetrics else generate_latest
    )
    # Up to 0.22 names are never escaped.
    options = {"escaping": form.escaping} if "escaping" in signature(generate).parameters else {}
    return generate(registry, **options)


def _samples_of_all() -> CollectorRegistry:
    """Return a registry with every metric type, with and without labels, and a collector."""
    registry = CollectorRegistry(target_info={"service": "check"})
    registry.register(_Families())
    if not is_single_process():
        return registry  # metrics would write themselves into the directory that is scraped
    for labels in ((), ("a", "b")):
        name = f"check_{len(labels)}_"
        metrics: list[Any] = [
            Counter(f"{name}jobs", "Jobs \\ \n.", labels, registry=registry),
            Gauge(f"{name}depth", 'A "depth".', labels, registry=registry),
            Gauge(f"{name}called", "From a function.", labels, registry=registry),
            Summary(f"{name}read", "Read.", labels, unit="bytes", registry=registry),
            Histogram(f"{name}time", "Time.", labels, unit="seconds", registry=registry),
            Info(f"{name}build", "Build.", labels, registry=registry),
            Enum(f"{name}state", "State.", labels, states=["on", "off"], registry=registry),
        ]
        if labels:
            for metric in metrics:
                metric.labels("never", "touched")
            metrics = [metric.labels("\\ \n", '" é') for metric in metrics]
        counter, gauge, called, summary, histogram, info, state = metrics
        counter.inc(1234567.5, {"trace_id": "abc"})
        gauge.set(-0.5)
        called.set_function(lambda: 1e-9)
        summary.observe(1e300)
        histogram.observe(0.3, {"trace_id": "abc"})
        histogram.observe(1e9)
        info.info({"version": "1"})
        state.state("off")
    return registry


class _Families:
    """A collector of the kind that users write."""

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("check_own", "Own.", 1.5)
        yield CounterMetricFamily("check_events", "Events.", 3, created=1.7e9)


def _log(name: str, error: Exception) -> None:
    log.error("the collector %s failed; its metrics are missing", name, exc_info=error)
