"""
A summary with quantiles over a sliding window of time, which prometheus_client's has not.

Rule: an observation never waits and never fails; a reader may wait for a moment. Rule: a quantile
is of what was observed in the window, and absent while that is nothing; count and sum are of all
time.

Use a histogram where replicas are added up: the quantile of a whole service is not to be had from
the quantiles of its replicas. Use a summary for one process, where the range of values is not known
beforehand, or an exact share matters more than the series it costs.

Theory of operation. `observe` appends value and time to a deque, which is atomic. Once there are a
few dozen, or somebody reads, whoever gets the lock moves them into the sketch; an observer that does
not get it leaves them to the next. So `observe` may be called from any thread, and where it
interrupts itself, in a signal handler or a finalizer, there is no lock to wait for.
"""

import logging
import math
import numbers
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import prometheus_client
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.registry import Collector

from aiosvc import sketch
from aiosvc.calls import timed
from aiosvc.errors import ConfigError
from aiosvc.families import Layout, Row
from aiosvc.seriestext import number
from aiosvc.sketch import WindowSketch
from aiosvc.spans import Measure
from aiosvc.validation import seconds, whole

__all__ = ["Summary", "SummarySeries"]

log = logging.getLogger("aiosvc")

#: Observations that wait to be put into the sketch; some 20 microseconds of work.
BATCH: Final = 32

Labels = tuple[str, ...]


class SummarySeries:
    """One series of a `Summary`: what its `labels()` returns."""

    __slots__ = ("_clock", "_lock", "_on_strange", "_pending", "_sketch", "count", "sum")

    def __init__(
        self,
        clock: Callable[[], float],
        window: WindowSketch,
        on_strange: Callable[[float], None],
    ) -> None:
        self._clock = clock
        self._on_strange = on_strange
        self._sketch = window
        self._lock = threading.Lock()
        self._pending: deque[tuple[float, float]] = deque()
        #: Of all observations since the start, but those that wait to be put in.
        self.count = 0
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        """
        Take in *amount*.

        Any finite number will do, also a negative one or zero; one whose magnitude is below the
        smallest normal double, 2.2e-308, counts as zero. NaN and infinities are no measurements:
        they are left out of everything, and the first is logged. Raises TypeError for what is no
        number.
        """
        if type(amount) is not float:
            amount = _as_float(amount)
        pending = self._pending
        pending.append((self._clock(), amount))
        if len(pending) >= BATCH and self._lock.acquire(blocking=False):
            try:
                self._take_in()
            finally:
                self._lock.release()

    def time(self) -> Measure:
        """Observe how many seconds a block or a function takes; see `aiosvc.timed`."""
        return timed(self)

    def read(self, wanted: Iterable[float]) -> tuple[tuple[float, ...] | None, int, float]:
        """Return the *wanted* quantiles, None where the window is empty, and count and sum."""
        with self._lock:
            self._take_in()
            self._sketch.advance(self._clock())
            return self._sketch.quantiles(wanted), self.count, self.sum

    def _take_in(self) -> None:
        pending, add = self._pending, self._sketch.add
        # No more than there are now: others may add as fast as these are taken.
        for _ in range(len(pending)):
            when, amount = pending.popleft()
            if math.isfinite(amount):
                add(amount, when)
                self.count += 1
                self.sum += amount
            else:
                self._on_strange(amount)


class Summary(Collector):
    """
    A prometheus_client Summary with quantiles of the last *window* seconds.

        WAIT = aiosvc.Summary("shop_wait_seconds", "Time that a customer waits.", ["desk"])
        WAIT.labels("returns").observe(12.5)

        @WAIT.labels("sales").time()
        async def serve(customer): ...

    *quantiles* are from 0 to 1, and exported as labels. Each is wrong by *relative_error* of its
    value at most, 0.001 to 0.25: a p99 of 2 s shown with 0.01 is one of 1.98 to 2.02 s. That holds
    while the window's values span less than twelve orders of magnitude, negative and positive ones
    added up; of others the smallest count as one value. The window moves in steps of *window* /
    *age_buckets*, so what is exported covers up to one step less than *window*. A series takes some
    30 KiB, and 1 MiB at the very worst. *namespace*, *subsystem* and *unit* are as in
    prometheus_client; *clock* gives seconds.

    In prometheus_client's multi-process mode each process exports its own. `_created` is not
    exported.

    Raises ConfigError for a wrong option or name, and ValueError, as prometheus_client does, where
    *registry* has a metric of that name.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        *,
        quantiles: Iterable[float] = (0.5, 0.9, 0.99),
        window: float = 600.0,
        age_buckets: int = 5,
        relative_error: float = 0.01,
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: CollectorRegistry | None = REGISTRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(labelnames, str):
            raise ConfigError(
                f"labelnames: {labelnames!r} given; expected a list, like [{labelnames!r}]"
            )
        self._labelnames = tuple(labelnames)
        if len(set(self._labelnames)) < len(self._labelnames):
            raise ConfigError(f"labelnames: {self._labelnames} given; expected each name once")
        self._quantiles = _checked(quantiles)
        seconds("window", window, at_least=0.001)
        whole("age_buckets", age_buckets, at_least=1, at_most=1000)
        if not isinstance(relative_error, int | float) or not 0.001 <= relative_error <= 0.25:  # noqa: PLR2004 - as the docstring says
            raise ConfigError(f"relative_error: {relative_error!r} given; expected 0.001 to 0.25")
        family = _family(name, documentation, self._labelnames, namespace, subsystem, unit)
        self._name = family.name
        self._window = window / age_buckets, age_buckets
        self._mapping = sketch.Mapping(relative_error)
        self._clock = clock
        self._warned = False
        description = family.name, family.documentation, "summary", self._labelnames
        parts = tuple(("", (("quantile", number(q)),)) for q in self._quantiles)
        totals = ("_count", ()), ("_sum", ())
        self._full = Layout(*description, (*parts, *totals), family.unit)
        self._empty = Layout(*description, totals, family.unit)
        self._series: dict[Labels, SummarySeries] = {}
        self._alone: SummarySeries | None = None
        if not self._labelnames:
            self._alone = self._series[()] = self._made()
            self.observe = self._alone.observe  # type: ignore[method-assign]  # a call less
        if registry is not None:
            registry.register(self)

    def labels(self, *labelvalues: object, **labelkwargs: object) -> SummarySeries:
        """
        Return the series of these label values, given in order or by name.

        Raises ValueError where they are not those of the summary.
        """
        key: Any = labelvalues
        try:
            return self._series[key]
        except (KeyError, TypeError):
            key = self._key(labelvalues, labelkwargs)
        return self._series.get(key) or self._series.setdefault(key, self._made())

    def observe(self, amount: float) -> None:
        """Take in *amount*, see `SummarySeries.observe`; a summary with labels raises ValueError."""
        self._only().observe(amount)

    def time(self) -> Measure:
        """Observe how many seconds a block or a function takes; see `aiosvc.timed`."""
        return self._only().time()

    def remove(self, *labelvalues: object) -> None:
        """Remove the series of these label values, if there is one."""
        self._series.pop(self._key(labelvalues, {}), None)

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        """Remove all series that have these label values; without any, none."""
        unknown = [name for name in labels if name not in self._labelnames]
        if unknown:
            raise ValueError(f"{self._name}: labels {unknown} given; it has {self._labelnames}")
        wanted = {self._labelnames.index(name): str(value) for name, value in labels.items()}
        for key in list(self._series) if wanted else ():
            if all(key[place] == value for place, value in wanted.items()):
                self._series.pop(key, None)

    def clear(self) -> None:
        """Remove all series; a summary without labels stays as it is."""
        if self._labelnames:
            self._series.clear()

    def describe(self) -> Iterable[Metric]:
        """Give the family without its samples."""
        full = self._full
        return [Metric(full.name, full.documentation, full.type, full.unit)]

    def collect(self) -> Iterable[Metric]:
        """Give the family."""
        [family] = self.describe()
        for layout, rows in self.series():
            for row in rows:
                labels = dict(zip(layout.labelnames, row.labels, strict=True))
                for (suffix, extra), value in zip(layout.parts, row.numbers, strict=True):
                    family.add_sample(layout.name + suffix, {**labels, **dict(extra)}, value)
        return [family]

    def series(self) -> Iterator[tuple[Layout, Iterable[Row]]]:
        """Give the same without making samples of it: first what has quantiles, then the rest."""
        empty: list[Row] = []
        yield self._full, self._rows(empty)
        yield self._empty, empty

    def _rows(self, empty: list[Row]) -> Iterator[Row]:
        for labels, series in list(self._series.items()):
            quantiles, count, total = series.read(self._quantiles)
            if quantiles is None:
                empty.append(Row(labels, (count, total)))
            else:
                yield Row(labels, (*quantiles, count, total))

    def _made(self) -> SummarySeries:
        window = WindowSketch(self._mapping, *self._window)
        return SummarySeries(self._clock, window, self._strange)

    def _strange(self, amount: float) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "%s: an observation of %s is left out, and all further ones that are not finite",
                self._name,
                amount,
            )

    def _only(self) -> SummarySeries:
        if self._alone is None:
            raise ValueError(f"{self._name} has labels {self._labelnames}; call labels() first")
        return self._alone

    def _key(self, values: tuple[object, ...], named: Mapping[str, object]) -> Labels:
        names = self._labelnames
        if not names:
            raise ValueError(f"{self._name} has no labels")
        if values and named:
            raise ValueError(f"{self._name}: give label values in order or by name, not both")
        if named and named.keys() != set(names):
            raise ValueError(f"{self._name}: labels {list(named)} given; it has {names}")
        if not named and len(values) != len(names):
            raise ValueError(f"{self._name}: {len(values)} label values given; it has {names}")
        return tuple([str(named[name]) for name in names] if named else map(str, values))


def _as_float(amount: Any) -> float:
    if isinstance(amount, numbers.Number) or hasattr(amount, "__float__"):
        try:
            return float(amount)
        except OverflowError:
            return math.inf
    raise TypeError(f"{amount!r} observed; expected a number")


def _checked(quantiles: Iterable[float]) -> tuple[float, ...]:
    wrong = ConfigError(
        f"quantiles: {quantiles!r} given; expected numbers from 0 to 1, like (0.5, 0.99)"
    )
    try:
        checked = tuple(float(each) for each in quantiles)
    except (TypeError, ValueError):
        raise wrong from None
    if not checked or len(set(checked)) < len(checked) or not all(0 <= q <= 1 for q in checked):
        raise wrong
    return checked


def _family(
    name: str, documentation: str, labelnames: Labels, namespace: str, subsystem: str, unit: str
) -> Metric:
    """Return the family's description, judged by prometheus_client."""
    try:
        model = prometheus_client.Summary(
            name,
            documentation,
            # With a label it makes no series of its own, and no files in multi-process mode.
            labelnames or ("any",),
            namespace=namespace,
            subsystem=subsystem,
            unit=unit,
            registry=None,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"summary {name!r}: {error}") from error
    [family] = model.describe()
    return family
