"""
Calls and blocks of code, counted and timed: decorators and context managers for metrics of one's own.

    ORDERS = Histogram("order_seconds", "Time to take an order.")

    @aiosvc.timed(ORDERS)
    async def take(order): ...

    with aiosvc.in_progress("payments_in_progress", "Payments begun and not finished."):
        await pay()

Each takes a metric, prometheus_client's or `aiosvc.Summary`, or the name and documentation of one,
which is made when it is first asked for. Rule: knows metrics; what a call is, and when it begins and
ends, is `spans`' affair.
"""

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from aiosvc.clientmetrics import missing_labels
from aiosvc.errors import ConfigError
from aiosvc.series import OTHER
from aiosvc.spans import Measure

__all__ = ["Observes", "count", "count_exceptions", "in_progress", "timed"]

#: Classes of exceptions that one measure tells apart; further ones count as `_other`.
MAX_CLASSES: Final = 50

#: The metrics that were made by name, so that a name may be used again.
_made: WeakKeyDictionary[CollectorRegistry, dict[str, Any]] = WeakKeyDictionary()
_making = threading.Lock()


class Observes(Protocol):
    """A histogram or a summary, of prometheus_client or of ours."""

    def observe(self, amount: float) -> None:
        """Take in *amount*."""


class _Count(Measure):
    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def end(self, _begun: float, _error: BaseException | None) -> None:
        self._counter.inc()


class _InProgress(Measure):
    def __init__(self, gauge: Gauge) -> None:
        super().__init__()
        self._gauge = gauge

    def begin(self) -> float:
        self._gauge.inc()
        return 0.0

    def end(self, _begun: float, _error: BaseException | None) -> None:
        self._gauge.dec()


class _Timed(Measure):
    def __init__(self, metric: Observes, clock: Callable[[], float]) -> None:
        super().__init__()
        self._metric = metric
        self._clock = clock

    def begin(self) -> float:
        return self._clock()

    def end(self, begun: float, _error: BaseException | None) -> None:
        self._metric.observe(max(0.0, self._clock() - begun))


class _CountExceptions(Measure):
    def __init__(
        self, counter: Counter, classes: tuple[type[BaseException], ...], by: str | None
    ) -> None:
        super().__init__()
        self._counter = counter
        self._classes = classes
        self._by = by
        self._names: set[str] = set()

    def end(self, _begun: float, error: BaseException | None) -> None:
        if not isinstance(error, self._classes):
            return
        if self._by is None:
            self._counter.inc()
            return
        name = type(error).__qualname__
        if name not in self._names:
            if len(self._names) >= MAX_CLASSES:
                name = OTHER
            else:
                self._names.add(name)
        self._counter.labels(**{self._by: name}).inc()


def count(
    counter: Counter | str,
    documentation: str | None = None,
    *,
    registry: CollectorRegistry = REGISTRY,
) -> Measure:
    """
    Count calls or blocks that have ended, each once, however it ended.

    *counter* is a prometheus_client Counter without labels, or with all of them given (`labels()`),
    or the name of one, which is made in *registry* with *documentation*.

    Raises ConfigError for a counter that can't be used so, or can't be made.
    """
    return _Count(_metric(Counter, counter, documentation, registry, "inc"))


def timed(
    metric: Observes | str,
    documentation: str | None = None,
    *,
    registry: CollectorRegistry = REGISTRY,
    clock: Callable[[], float] = perf_counter,
) -> Measure:
    """
    Observe how many seconds calls or blocks take, however they end.

    *metric* is a Histogram or Summary without labels, or with all of them given (`labels()`), or the
    name of a histogram, which is made in *registry* with *documentation*.

    Raises ConfigError for a metric that can't be used so, or can't be made.
    """
    return _Timed(_metric(Histogram, metric, documentation, registry, "observe"), clock)


def in_progress(
    gauge: Gauge | str,
    documentation: str | None = None,
    *,
    registry: CollectorRegistry = REGISTRY,
) -> Measure:
    """
    Keep *gauge* at the number of calls or blocks that have begun and not ended.

    *gauge* is a prometheus_client Gauge without labels, or with all of them given (`labels()`), or
    the name of one, which is made in *registry* with *documentation*.

    Raises ConfigError for a gauge that can't be used so, or can't be made.
    """
    return _InProgress(_metric(Gauge, gauge, documentation, registry, "dec"))


def count_exceptions(
    counter: Counter | str,
    documentation: str | None = None,
    *,
    classes: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    by: str | None = None,
    registry: CollectorRegistry = REGISTRY,
) -> Measure:
    """
    Count the exceptions that leave calls or blocks.

    Counted are those of *classes*: by default every `Exception`, so neither a cancellation nor the
    early close of a generator, which are no failures. With *by*, the name of the counter's only
    label, they are counted by the name of their class, the first fifty; all others as `_other`.
    *counter* is a prometheus_client Counter, or the name of one, which is made in *registry* with
    *documentation*.

    Raises ConfigError for a counter that can't be used so, or can't be made.
    """
    if not isinstance(classes, tuple):
        classes = (classes,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        raise ConfigError(f"classes: {classes!r} given; expected classes of exceptions")
    if by is not None and (not isinstance(by, str) or not by):
        raise ConfigError(f"by: {by!r} given; expected the name of a label, like 'exception'")
    labels = () if by is None else (by,)
    made = _metric(Counter, counter, documentation, registry, "inc", labels)
    return _CountExceptions(made, classes, by)


def _metric(
    kind: type,
    given: Any,
    documentation: str | None,
    registry: CollectorRegistry,
    method: str,
    labels: tuple[str, ...] = (),
) -> Any:
    """Return the metric that was *given*, or named."""
    if isinstance(given, str):
        return _named(kind, given, documentation, registry, labels)
    if documentation is not None:
        raise ConfigError(
            f"documentation: {documentation!r} given beside a metric, which has one of its own; "
            "leave it out, or give the name of a metric to be made"
        )
    if not callable(getattr(given, method, None)):
        raise ConfigError(f"{given!r} given; expected a {kind.__name__}, or the name of one")
    missing = missing_labels(given)
    if missing != labels:
        expected = f"one with the label {labels[0]!r} only" if labels else "labels(...) of it"
        raise ConfigError(f"{given!r} with labels {missing} given; expected {expected}")
    return given


def _named(
    kind: type,
    name: str,
    documentation: str | None,
    registry: CollectorRegistry,
    labels: tuple[str, ...],
) -> Any:
    """Return the metric of that name which was made here, made now if there is none yet."""
    with _making:
        known = _made.setdefault(registry, {})
        metric, *asked = known.get(name, (None,))
        if metric is None:
            if not isinstance(documentation, str) or not documentation:
                raise ConfigError(
                    f"{name!r} given with documentation {documentation!r}; say in a sentence what "
                    "it measures"
                )
            try:
                metric = kind(name, documentation, labels, registry=registry)
            except ValueError as error:
                raise ConfigError(f"{name!r}: {error}") from error
            known[name] = metric, kind, labels
        elif asked != [kind, labels]:
            raise ConfigError(
                f"{name!r} is already a {asked[0].__name__} with labels {asked[1]}; choose another "
                "name"
            )
        return metric
