"""
Objectives of requests, and how fast their error budgets are used up.

Rule: a ratio is recorded as what it is made of, numerator and denominator, and divided last; a window
is weighted by its requests, so a quiet night does not hide a bad hour.

Theory of operation. Only the shortest window is computed from the service's own series. The longer
ones add up what was recorded of it, minute by minute: `sum_over_time(x:rate5m[3d:1m]) / 4320` is the
mean rate of three days, and takes one short series per service where `rate(x[3d])` reads all series
of all replicas. Where nothing was recorded a minute counts as nothing, in numerator and denominator
alike. A numerator is 0, and not absent, as long as there are requests.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import utils

from aiosvc import catalogue
from aiosvc.catalogue import MetricSpec
from aiosvc.config import Settings
from aiosvc.errors import ConfigError
from aiosvc.rules.objectives import BURNS, Objective
from aiosvc.rules.options import RulesOptions
from aiosvc.rules.rule import DAY, HOUR, MINUTE, Alert, Group, Recording
from aiosvc.rules.scope import Scope

__all__ = ["WINDOWS", "check_objectives", "request_groups"]

#: Seconds by the name that a window has in recordings; a scaled one keeps its name.
WINDOWS: Final[Mapping[str, float]] = {
    "5m": 5 * MINUTE, "30m": 30 * MINUTE, "1h": HOUR, "2h": 2 * HOUR, "6h": 6 * HOUR, "1d": DAY,
    "3d": 3 * DAY,
}  # fmt: skip
NAMES: Final = {seconds: name for name, seconds in WINDOWS.items()}

#: A bound as the exposition writes it in `le`.
_bound: Callable[[float], str] = utils.floatToGoString

#: A request that failed although its status says otherwise: the answer broke off.
ABORTED: Final = 'reason="aborted"'


@dataclass(frozen=True, slots=True)
class Requests:
    """How a preset names the requests: what counts them, by what status, and their durations."""

    counter: str
    status: str
    duration: MetricSpec


PRESETS: Final = {
    "classic": Requests(catalogue.HTTP_REQUESTS.name, "status", catalogue.HTTP_DURATION),
    "otel": Requests(
        f"{catalogue.OTEL_DURATION.name}_count",
        "http_response_status_code",
        catalogue.OTEL_DURATION,
    ),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """
    What an error budget is made of: names of recordings, without level and window.

    *missed* of *all* are the requests that missed the objective, *ratio* is their share. *labels*
    tell several objectives of one kind apart.
    """

    all: str
    missed: str
    ratio: str
    percent: float
    labels: Mapping[str, str]

    @property
    def allowed(self) -> str:
        """The share of requests that may miss the objective."""
        return f"{(100 - self.percent) / 100:.10g}"


def check_objectives(options: RulesOptions, settings: Settings) -> None:
    """Refuse a latency objective whose time is no bucket of the durations: it can't be seen."""
    bounds = settings.duration_bounds
    for each in options.objectives:
        if each.bound not in bounds:
            raise ConfigError(
                f"latency_slo: {each.bound:g} s is no bucket of {PRESETS[settings.preset].duration.name}"
                f", which has {', '.join(f'{bound:g}' for bound in bounds)}; choose one of them, or add"
                f" it: aiosvc.setup(app, slo=[{each.bound:g}]), and here AIOSVC_SLO={each.bound:g} or"
                f" slo = [{each.bound:g}] in [tool.aiosvc]"
            )


def request_groups(options: RulesOptions, settings: Settings) -> Iterator[Group]:
    """Yield the group of the availability and one for each latency objective."""
    scope, preset = Scope(options), PRESETS[settings.preset]
    yield _group("availability", _availability(options), scope, preset, options, None)
    for each in options.objectives:
        name = f"latency-{each.bound:g}"
        yield _group(name, _latency(each), scope, preset, options, each)


def _availability(options: RulesOptions) -> Budget:
    return Budget(
        "http_requests",
        "http_requests_failed",
        "http_requests_failed_per_request",
        options.availability_slo,
        {},
    )


def _latency(objective: Objective) -> Budget:
    return Budget(
        "http_requests_timed",
        "http_requests_slow",
        "http_requests_slow_per_request",
        objective.percent,
        {"threshold": _bound(objective.bound)},
    )


def _group(
    name: str,
    budget: Budget,
    scope: Scope,
    preset: Requests,
    options: RulesOptions,
    objective: Objective | None,
) -> Group:
    window = scope.window(WINDOWS["5m"])
    if objective is None:
        all_of = _rate(scope, scope.series(preset.counter), window)
        failed = scope.series(preset.counter, f'{preset.status}=~"5.."')
        aborted = scope.series(catalogue.HTTP_FAILURES, ABORTED)
        missed = (
            f"sum by {scope.by()} (\n  rate({failed}[{window}])\n  or\n  rate({aborted}[{window}])\n)\n"
            f"or\n{scope.series(scope.named('http_requests:rate5m'))} * 0"
        )
        alerts = tuple(_availability_alerts(budget, scope, options))
    else:
        bound = _bound(objective.bound)
        all_of = _rate(scope, scope.series(preset.duration, suffix="_count"), window)
        within = _rate(
            scope, scope.series(preset.duration, f'le="{bound}"', suffix="_bucket"), window
        )
        missed = f"{all_of}\n-\n{within}"
        alerts = (
            *_latency_alerts(budget, objective, scope, options),
            Alert(
                "AiosvcLatencyBucketMissing",
                "ticket",
                f"{all_of}\nunless\n{within}",
                f"{scope.service}: the latency objective can't be measured",
                f"The durations of {scope.service} have no bucket of {bound} s, so nothing "
                "watches how many requests are slower.",
                scope.seconds(30 * MINUTE),
                labels=budget.labels,
            ),
        )
    recordings = [
        Recording(scope.named(f"{budget.all}:rate5m"), all_of, budget.labels),
        Recording(scope.named(f"{budget.missed}:rate5m"), missed, budget.labels),
    ]
    for long in WINDOWS:
        if long != "5m":
            recordings += [
                _longer(each, long, budget, scope) for each in (budget.all, budget.missed)
            ]
    recordings += [_ratio(each, budget, scope) for each in WINDOWS]
    return Group(name, tuple(recordings), alerts)


def _rate(scope: Scope, series: str, window: str) -> str:
    return f"sum by {scope.by()} (rate({series}[{window}]))"


def _series(name: str, budget: Budget, scope: Scope) -> str:
    """Return the selector of a recording of *budget*."""
    matchers = [f'{label}="{value}"' for label, value in budget.labels.items()]
    return scope.series(scope.named(name), *matchers)


def _longer(name: str, window: str, budget: Budget, scope: Scope) -> Recording:
    minutes = WINDOWS[window] / MINUTE
    short = _series(f"{name}:rate5m", budget, scope)
    span = f"{scope.window(WINDOWS[window])}:{scope.window(MINUTE)}"
    return Recording(
        scope.named(f"{name}:rate{window}"),
        f"sum_over_time({short}[{span}]) / {minutes:g}",
        budget.labels,
    )


def _ratio(window: str, budget: Budget, scope: Scope) -> Recording:
    missed = _series(f"{budget.missed}:rate{window}", budget, scope)
    return Recording(
        scope.named(f"{budget.ratio}:ratio_rate{window}"),
        f"{missed}\n/\n{_series(f'{budget.all}:rate{window}', budget, scope)}",
        budget.labels,
    )


def _burning(urgency: Literal["page", "ticket"], budget: Budget, scope: Scope, least: int) -> str:
    """Return what gives the share that missed the objective while the budget burns too fast."""
    parts = []
    for burn in BURNS[urgency]:
        long, short = NAMES[burn.long], NAMES[burn.short]
        limit = f"{burn.factor:g} * {budget.allowed}"
        number = f"{_series(f'{budget.missed}:rate{long}', budget, scope)} * {scope.seconds(burn.long):g}"
        parts.append(
            f"  {_series(f'{budget.ratio}:ratio_rate{long}', budget, scope)} > {limit}\n  and\n"
            f"  {_series(f'{budget.ratio}:ratio_rate{short}', budget, scope)} > {limit}\n  and\n"
            f"  {number} >= {least}\n"
        )
    return "(\n" + ")\nor\n(\n".join(parts) + ")"


def _availability_alerts(budget: Budget, scope: Scope, options: RulesOptions) -> Iterator[Alert]:
    for urgency, name, wait in _URGENCIES:
        yield Alert(
            f"AiosvcErrorBudgetBurn{name}",
            urgency,
            _burning(urgency, budget, scope, options.min_errors),
            f"{scope.service}: {{{{ $value | humanizePercentage }}}} of all requests fail",
            f"At this rate the error budget of {scope.service} ({options.availability_slo:g} % of "
            f"requests succeed) is used up before its 30 days are over: {_SPEED[urgency]}.",
            scope.seconds(wait),
            scope.seconds(5 * MINUTE),
            budget.labels,
        )


def _latency_alerts(
    budget: Budget, objective: Objective, scope: Scope, options: RulesOptions
) -> Iterator[Alert]:
    for urgency, name, wait in _URGENCIES:
        yield Alert(
            f"AiosvcLatencyBudgetBurn{name}",
            urgency,
            _burning(urgency, budget, scope, options.min_errors),
            f"{scope.service}: {{{{ $value | humanizePercentage }}}} of all requests take longer than "
            f"{objective.bound:g} s",
            f"At this rate the latency budget of {scope.service} ({objective.percent:g} % of "
            f"requests within {objective.bound:g} s) is used up before its 30 days are over: "
            f"{_SPEED[urgency]}.",
            scope.seconds(wait),
            scope.seconds(5 * MINUTE),
            budget.labels,
        )


_URGENCIES: Final[tuple[tuple[Literal["page", "ticket"], str, float], ...]] = (
    ("page", "Fast", 2 * MINUTE),
    ("ticket", "Slow", 15 * MINUTE),
)
_SPEED: Final = {
    "page": "2 % of it went in the last hour, or 5 % in the last six",
    "ticket": "10 % of it went in the last day, or in the last three",
}
