"""promtool's checks and unit tests of rules, driven from Python."""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiosvc.config import Settings
from aiosvc.rules import RulesOptions, groups
from aiosvc.rules.files import group_mapping
from aiosvc.rules.rule import Alert, Group

__all__ = ["A", "B", "Fires", "Quiet", "group_of", "promtool_test", "unit"]

#: The labels of two targets.
A = 'instance="a",job="aiosvc"'
B = 'instance="b",job="aiosvc"'

VALUE = re.compile(r"\{\{ \$value \| \w+ \}\}")
LABEL = re.compile(r"\{\{ \$labels\.(\w+) \}\}")


@dataclass(frozen=True, kw_only=True)
class Fires:
    """Series for which an alert fires *at* a minute with *labels*, its value shown as *value*."""

    why: str
    series: Mapping[str, str]
    at: int
    value: str
    labels: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "classic"


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """Series for which an alert fires at no minute up to *until*, and why it must not."""

    why: str
    series: Mapping[str, str]
    until: int
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "classic"


def group_of(alert: str, case: "Fires | Quiet") -> tuple[Group, Alert, RulesOptions]:
    """Return the group that has an alert, the alert, and the options, as *case* wants them."""
    options = RulesOptions(**case.options)
    for group in groups(options, Settings(preset=case.preset)):
        for each in group.alerts:
            if each.name == alert:
                return group, each, options
    raise AssertionError(f"no alert is called {alert}")


def unit(alert: Alert, case: "Fires | Quiet", options: RulesOptions) -> dict[str, Any]:
    """Return *case* as a unit test of promtool's."""
    inputs = [{"series": name, "values": values} for name, values in case.series.items()]
    test: dict[str, Any] = {"interval": "1m", "input_series": inputs, "name": case.why}
    if isinstance(case, Quiet):
        firing = f'ALERTS{{alertname="{alert.name}",alertstate="firing"}}'
        expression = f"count_over_time({firing}[{case.until}m])"
        return test | {"promql_expr_test": [{"expr": expression, "eval_time": f"{case.until}m"}]}
    severity = {"page": options.page_severity, "ticket": options.ticket_severity}[alert.urgency]
    expected = {
        "exp_labels": {**case.labels, "severity": severity, **options.alert_labels},
        "exp_annotations": {
            "summary": shown(alert.summary, case),
            "description": shown(alert.description, case),
            "runbook_url": f"docs/runbooks/{alert.name}.md",
        },
    }
    at = {"alertname": alert.name, "eval_time": f"{case.at}m", "exp_alerts": [expected]}
    return test | {"alert_rule_test": [at]}


def shown(template: str, case: Fires) -> str:
    """Return what a message says for *case*."""
    return VALUE.sub(case.value, LABEL.sub(lambda found: case.labels[found[1]], template))


def promtool_test(
    promtool: str,
    directory: Path,
    group: Group,
    options: RulesOptions,
    tests: Sequence[Mapping[str, Any]],
) -> str:
    """Run unit tests against one group of rules; return what promtool has to say against it."""
    rules, cases = directory / "rules.json", directory / "tests.json"
    rules.write_text(json.dumps({"groups": [group_mapping(group, options)]}))
    tested = {"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": list(tests)}
    cases.write_text(json.dumps(tested))
    done = subprocess.run(
        [promtool, "test", "rules", str(cases)], capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == ("SUCCESS" in done.stdout), done
    return "" if done.returncode == 0 else done.stdout + done.stderr
