"""
The options of the rules: objectives, thresholds, whom they are about and where they lead.

Rule: what the service itself was set up with (names, buckets) stays an option of `Settings`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiosvc.naming import is_name
from aiosvc.rules.objectives import Objective, check_percent, parse_objective
from aiosvc.validation import is_number, one_of, seconds, whole, wrong

__all__ = ["RulesOptions"]

LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MATCHER: Final = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"\s*')
KUBERNETES_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_./-]*[A-Za-z0-9])?")
NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")

#: The smallest scale of time: five minutes become 0.3 s.
LEAST: Final = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class RulesOptions:
    """What `aiosvc rules` takes, besides what the service was set up with."""

    availability_slo: float = field(
        default=99.9,
        metadata={
            "help": "percent of requests that are to succeed in 30 days; a 5xx, or an answer that "
            "broke off, is a failure",
            "alias": "slo",
        },
    )
    latency_slo: tuple[str, ...] = field(
        default=("0.25:99",),
        metadata={
            "help": "latency objectives, like 0.25:99,1:99.9 for 99 % within 0.25 s and 99.9 % "
            "within 1 s; each time must be a bucket of the service's durations (default: "
            "0.25:99)"
        },
    )
    min_errors: int = field(
        default=10,
        metadata={
            "help": "failed (or slow) requests in an objective's long window below which nobody is "
            "told, so that one error of a quiet service is none"
        },
    )
    selector: str = field(
        default='job="aiosvc"',
        metadata={"help": "which targets the rules are about, as PromQL matchers without braces"},
    )
    group_by: tuple[str, ...] = field(
        default=("job",),
        metadata={
            "help": "labels that tell one service from another; those that the selector names are "
            "added (default: job)"
        },
    )
    queue_age: float = field(
        default=60.0,
        metadata={"help": "seconds that the oldest item of a queue may wait"},
    )
    queue_ages: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "the same for single queues, by name, like email=30,reports=3600"},
    )
    queue_stall: float = field(
        default=600.0,
        metadata={"help": "seconds in which a queue that is not empty must get on"},
    )
    job_age: float = field(
        default=900.0,
        metadata={"help": "seconds after which a job that still runs hangs"},
    )
    job_ages: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "the same for the jobs of single queues, like reports=7200"},
    )
    dead_letters: int = field(
        default=5, metadata={"help": "items that may be given up on in an hour, by queue"}
    )
    page_severity: str = field(
        default="page", metadata={"help": "severity of what somebody is to be woken for"}
    )
    ticket_severity: str = field(
        default="ticket", metadata={"help": "severity of what can wait for the morning"}
    )
    alert_labels: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "labels to add to every alert, by which to route it, like team=shop"},
    )
    runbook_url: str = field(
        default="docs/runbooks",
        metadata={
            "help": "where the pages of docs/runbooks are to be read, like "
            "https://wiki.example.com/runbooks; an alert links to its own there"
        },
    )
    dashboard_url: str = field(
        default="", metadata={"help": "address of a dashboard that every alert links to"}
    )
    time_scale: float = field(
        default=1.0,
        metadata={
            "help": "factor of all windows and waiting times, 0.001 to 1, to try the rules out",
            "alias": "scale",
        },
    )
    rules_format: str = field(
        default="prometheus",
        metadata={
            "help": "prometheus (a rule file) or kubernetes (a PrometheusRule)",
            "alias": "format",
        },
    )
    rules_name: str = field(
        default="aiosvc",
        metadata={"help": "what the names of the groups begin with, and the PrometheusRule's"},
    )
    kubernetes_labels: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "labels of the PrometheusRule, by which the operator finds it, like "
            "release=prometheus"
        },
    )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The latency objectives."""
        return tuple(parse_objective(text) for text in self.latency_slo)

    @property
    def queue_limits(self) -> dict[str, float]:
        """The seconds that items of single queues may wait."""
        return _ages("queue_ages", self.queue_ages)

    @property
    def job_limits(self) -> dict[str, float]:
        """The seconds that jobs of single queues may take."""
        return _ages("job_ages", self.job_ages)

    @property
    def selected(self) -> tuple[str, ...]:
        """The names of the labels in the selector."""
        return tuple(match[1] for match in _matchers(self.selector))

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        self._check_objectives()
        _matchers(self.selector)
        names = _texts("group_by", self.group_by, "label names, like ('job',)")
        if not names or not all(LABEL.fullmatch(name) for name in names):
            raise wrong("group_by", self.group_by, "label names, like ('job',)")
        for name in ("queue_age", "queue_stall", "job_age"):
            seconds(name, getattr(self, name), at_least=0.001)
        _ages("queue_ages", self.queue_ages)
        _ages("job_ages", self.job_ages)
        whole("dead_letters", self.dead_letters, at_least=0)
        for name in ("page_severity", "ticket_severity"):
            _plain(name, getattr(self, name), "a severity, like 'critical'")
        _labels("alert_labels", self.alert_labels, LABEL)
        _labels("kubernetes_labels", self.kubernetes_labels, KUBERNETES_LABEL)
        _plain(
            "runbook_url", self.runbook_url, "an address, like https://wiki.example.com/runbooks"
        )
        if self.dashboard_url != "":
            _plain("dashboard_url", self.dashboard_url, "an address, like https://grafana/d/aiosvc")
        scale = self.time_scale
        if not is_number(scale) or not LEAST <= scale <= 1:
            raise wrong("time_scale", scale, f"a number, {LEAST:g} to 1")
        one_of("rules_format", self.rules_format, ("prometheus", "kubernetes"))
        if not isinstance(self.rules_name, str) or not NAME.fullmatch(self.rules_name):
            raise wrong("rules_name", self.rules_name, "small letters, digits, '-' and '.'")

    def _check_objectives(self) -> None:
        check_percent("availability_slo", self.availability_slo)
        for text in _texts("latency_slo", self.latency_slo, "objectives, like ('0.25:99',)"):
            check_percent(f"latency_slo {text}", parse_objective(text).percent)
        bounds = [each.bound for each in self.objectives]
        if len(set(bounds)) < len(bounds):
            raise wrong("latency_slo", self.latency_slo, "one objective for each time")
        whole("min_errors", self.min_errors, at_least=1)


def _matchers(selector: object) -> list[re.Match[str]]:
    """Return the matchers of a selector; ConfigError where it is none."""
    expected = (
        'matchers without braces, like job="shop",namespace="prod"; at least one, or the alerts on '
        "`up` were about every target that there is"
    )
    if not isinstance(selector, str) or "{{" in selector:
        raise wrong("selector", selector, expected)
    found, place = [], 0
    while match := MATCHER.match(selector, place):
        found.append(match)
        if match.end() == len(selector):
            return found
        if selector[match.end()] != ",":
            break
        place = match.end() + 1
    raise wrong("selector", selector, expected)


def _texts(name: str, value: object, expected: str) -> tuple[str, ...]:
    if not isinstance(value, tuple | list) or not all(isinstance(each, str) for each in value):
        raise wrong(name, value, expected)
    return tuple(value)


def _ages(name: str, value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise wrong(name, value, "queue names and seconds, like {'email': 30}")
    ages = {}
    for queue, age in value.items():
        if not is_name(queue):
            raise wrong(name, queue, "the name of a queue")
        try:
            ages[queue] = float(age)
        except (TypeError, ValueError):
            raise wrong(f"{name}: {queue}", age, "seconds") from None
        seconds(f"{name}: {queue}", ages[queue], at_least=0.001)
    return ages


def _labels(name: str, value: object, allowed: re.Pattern[str]) -> None:
    if not isinstance(value, Mapping):
        raise wrong(name, value, "names and values, like {'team': 'shop'}")
    for label, text in value.items():
        if not isinstance(label, str) or not allowed.fullmatch(label):
            raise wrong(name, label, "a label's name")
        if label in ("severity", "alertname"):
            raise wrong(
                name, label, "another name: page_severity and ticket_severity are the severities"
            )
        _plain(f"{name}: {label}", text, "a plain text")


def _plain(name: str, value: object, expected: str) -> None:
    """Refuse what is no text, or one that Prometheus would take for a template."""
    if not isinstance(value, str) or not value.isprintable() or not value or "{{" in value:
        raise wrong(name, value, expected)
