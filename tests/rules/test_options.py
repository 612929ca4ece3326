"""The options of the rules: what is refused, and with what words."""

import re
from typing import Any

import pytest

from aiosvc.config import Settings
from aiosvc.errors import ConfigError
from aiosvc.rules import RulesOptions, groups, render
from aiosvc.rules.objectives import BURNS, Objective


def test_objectives() -> None:
    """A latency objective is a time and a percentage."""
    options = RulesOptions(latency_slo=("0.25:99", "1:99.9"))
    assert options.objectives == (Objective(0.25, 99.0), Objective(1.0, 99.9))
    assert RulesOptions(latency_slo=()).objectives == ()


@pytest.mark.parametrize("objective", [50, 90, 93, 93.05])
def test_objective_that_could_never_be_missed(objective: float) -> None:
    """An objective so low that an alert can't fire is refused, with the sum that shows it."""
    share = 14.4 * (100 - objective) / 100
    with pytest.raises(ConfigError) as caught:
        RulesOptions(availability_slo=objective)
    said = str(caught.value)
    assert f"14.4 * (1 - {objective / 100:g}) = {share:.4g}" in said
    assert "could never fire; expected more than 93.06" in said
    with pytest.raises(ConfigError, match=rf"latency_slo 1:{objective}: .* could never fire"):
        RulesOptions(latency_slo=(f"1:{objective}",))


@pytest.mark.parametrize("objective", [93.06, 95, 99, 99.999])
def test_objective_that_every_alert_can_tell(objective: float) -> None:
    """Where an objective is accepted, the threshold of each alert is a share below 1."""
    options = RulesOptions(availability_slo=objective)
    budget = (100 - options.availability_slo) / 100
    assert all(0 < burn.factor * budget < 1 for burns in BURNS.values() for burn in burns)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("availability_slo", 100, "no budget to watch"),
        ("availability_slo", 0, "a percentage between 0 and 100"),
        ("availability_slo", "99", "a percentage between 0 and 100"),
        ("availability_slo", True, "a percentage between 0 and 100"),
        ("latency_slo", ("0.25",), "SECONDS:PERCENT, like 0.25:99"),
        ("latency_slo", ("a:99",), "SECONDS:PERCENT, like 0.25:99"),
        ("latency_slo", ("-1:99",), "seconds, 0 or more"),
        ("latency_slo", ("nan:99",), "seconds, 0 or more"),
        ("latency_slo", ("1:99", "1.0:95"), "one objective for each time"),
        ("latency_slo", "0.25:99", "objectives, like"),
        ("min_errors", 0, "a whole number, 1 or more"),
        ("selector", "", "at least one"),
        ("selector", '{job="x"}', "matchers without braces"),
        ("selector", "job=x", 'like job="shop"'),
        ("selector", 'job="x" namespace="y"', "matchers without braces"),
        ("selector", 'job="x",', "matchers without braces"),
        ("selector", 'job="{{x}}"', "matchers without braces"),
        ("group_by", (), "label names"),
        ("group_by", ("a-b",), "label names"),
        ("queue_age", 0, "seconds, 0.001 or more"),
        ("queue_stall", -1, "seconds, 0.001 or more"),
        ("queue_ages", {"email": "soon"}, "seconds"),
        ("queue_ages", {"e mail": "1"}, "the name of a queue"),
        ("job_ages", {"email": "0"}, "seconds, 0.001 or more"),
        ("job_ages", ("email",), "queue names and seconds"),
        ("dead_letters", -1, "a whole number, 0 or more"),
        ("page_severity", "", "a severity"),
        ("ticket_severity", "{{ $value }}", "a severity"),
        ("alert_labels", {"severity": "x"}, "page_severity and ticket_severity"),
        ("alert_labels", {"a-b": "x"}, "a label's name"),
        ("alert_labels", {"team": "{{ $value }}"}, "a plain text"),
        ("alert_labels", ("team",), "names and values"),
        ("kubernetes_labels", {"a b": "x"}, "a label's name"),
        ("runbook_url", "", "an address"),
        ("dashboard_url", "{{ $labels.x }}", "an address"),
        ("time_scale", 0, "a number, 0.001 to 1"),
        ("time_scale", 2, "a number, 0.001 to 1"),
        ("time_scale", "1", "a number, 0.001 to 1"),
        ("rules_format", "jsonnet", "prometheus or kubernetes"),
        ("rules_name", "My Rules", "small letters"),
    ],
)
def test_wrong_value(option: str, value: Any, expected: str) -> None:
    """A wrong value is a ConfigError that names the option and says what is expected."""
    with pytest.raises(ConfigError, match=f"^{option}.*{re.escape(expected)}"):
        RulesOptions(**{option: value})


def test_latency_objective_without_a_bucket() -> None:
    """A time that is no bucket is refused, with the buckets that there are and how to add it."""
    with pytest.raises(ConfigError) as caught:
        render(RulesOptions(latency_slo=("0.3:99",)), Settings())
    said = str(caught.value)
    assert "0.3 s is no bucket of http_request_duration_seconds, which has 0.005, 0.01," in said
    assert "aiosvc.setup(app, slo=[0.3])" in said
    assert "AIOSVC_SLO=0.3" in said


@pytest.mark.parametrize("settings", [Settings(slo=(0.3,)), Settings(buckets=(0.1, 0.3))])
def test_latency_objective_with_a_bucket_of_its_own(settings: Settings) -> None:
    """What the service was set up with decides which objectives can be measured."""
    assert 'le="0.3"' in render(RulesOptions(latency_slo=("0.3:99",)), settings)


def test_selector_is_everywhere() -> None:
    """Every series in every expression is selected, recorded ones too, by labels that survive."""
    options = RulesOptions(selector='namespace="prod",job=~"shop-.*"')
    for group in groups(options, Settings()):
        names = {recording.name for recording in group.recordings}
        for rule in group.rules:
            selectors = rule.expression.count('{namespace="prod",job=~"shop-.*"')
            assert selectors == rule.expression.count("{"), rule.expression
        levels = {name.partition(":")[0] for name in names}
        assert levels <= {"job_namespace", "job_namespace_queue_name", "instance"}
