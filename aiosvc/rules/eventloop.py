"""Rules about the event loop: it is late, it stands still, it has no time left."""

from collections.abc import Iterator

from aiosvc import catalogue
from aiosvc.rules.rule import MINUTE, Alert, Group, Recording
from aiosvc.rules.scope import Scope

__all__ = ["eventloop_group"]

LAG = "instance:asyncio_eventloop_lag_seconds:p99_rate5m"
BUSY = "instance:asyncio_eventloop_busy_per_second:ratio_rate5m"


def eventloop_group(scope: Scope) -> Group:
    """Return the recordings and alerts, each by target."""
    window = scope.window(5 * MINUTE)
    lag = scope.series(catalogue.EVENTLOOP_LAG, suffix="_bucket")
    busy = scope.series(catalogue.EVENTLOOP_TIME, 'state="busy"')
    whole = scope.series(catalogue.EVENTLOOP_TIME)
    return Group(
        "eventloop",
        (
            Recording(LAG, f"histogram_quantile(0.99, rate({lag}[{window}]))"),
            Recording(
                BUSY,
                f"sum without (state) (rate({busy}[{window}]))\n/\n"
                f"sum without (state) (rate({whole}[{window}]))",
            ),
        ),
        tuple(_alerts(scope)),
    )


def _alerts(scope: Scope) -> Iterator[Alert]:
    yield Alert(
        "AiosvcEventLoopLagHigh",
        "ticket",
        f"{scope.series(LAG)} > 0.1",
        "{{ $labels.instance }}: the event loop is {{ $value | humanizeDuration }} late",
        "In 1 % of the time the event loop of {{ $labels.instance }} does not look for what became "
        "ready for {{ $value | humanizeDuration }} or longer; every request waits for it.",
        scope.seconds(10 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
    window = scope.window(10 * MINUTE)
    yield Alert(
        "AiosvcEventLoopStalls",
        "ticket",
        f"increase({scope.series(catalogue.EVENTLOOP_STALLS)}[{window}]) > 10",
        "{{ $labels.instance }}: the event loop stood still {{ $value | humanize }} times",
        "In ten minutes something held up the event loop of {{ $labels.instance }} "
        "{{ $value | humanize }} times for longer than its stall threshold; the log says what.",
        scope.seconds(2 * MINUTE),
        scope.seconds(10 * MINUTE),
    )
    yield Alert(
        "AiosvcEventLoopSaturated",
        "ticket",
        f"{scope.series(BUSY)} > 0.9",
        "{{ $labels.instance }}: the event loop is {{ $value | humanizePercentage }} busy",
        "The event loop of {{ $labels.instance }} has hardly any time left: with more load, "
        "everything in it gets slower.",
        scope.seconds(15 * MINUTE),
        scope.seconds(5 * MINUTE),
    )
