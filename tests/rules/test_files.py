"""The files of rules: promtool takes them, whatever the options, and both formats say the same."""

import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiosvc.config import Settings
from aiosvc.rules import RulesOptions, groups, render
from aiosvc.rules.rule import Alert

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "deploy" / "prometheus" / "rules"

#: Seconds between two scrapes of prometheus.yml.
INTERVAL = 15

OBJECTIVES: list[dict[str, Any]] = [
    {},
    {"availability_slo": 93.5, "latency_slo": ()},
    {"availability_slo": 99.999, "latency_slo": ("0.5:95", "1:99.9"), "min_errors": 1},
]
TARGETS: list[dict[str, Any]] = [
    {},
    {"selector": 'job=~"shop-.*",namespace!="test"', "group_by": ("cluster", "job")},
]
DETAILS: list[dict[str, Any]] = [
    {},
    {
        "queue_ages": {"email": "30", "a.b": "3600"}, "job_ages": {"reports": "7200"},
        "queue_age": 5.5, "queue_stall": 90, "job_age": 60, "dead_letters": 0, "time_scale": 0.01,
        "page_severity": "critical", "ticket_severity": "warning",
        "alert_labels": {"team": "shop", "on": "no: \"quoted\" 'text'"},
        "runbook_url": "https://wiki/x", "dashboard_url": "https://grafana/d/1?var-a=b&c",
        "rules_name": "shop", "kubernetes_labels": {"release": "prometheus"},
    },
]  # fmt: skip
ALL = [
    pytest.param(preset, objectives | targets | details, id=f"{preset}-{number}")
    for preset in ("classic", "otel")
    for number, (objectives, targets, details) in enumerate(
        itertools.product(OBJECTIVES, TARGETS, DETAILS)
    )
]


def seconds(text: str) -> float:
    """Return a duration of PromQL in seconds."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}[unit]


@pytest.mark.parametrize(("preset", "options"), ALL)
def test_promtool_takes_the_rules(
    preset: str, options: dict[str, Any], promtool: str, tmp_path: Path
) -> None:
    """Each combination of options gives a file without an error and without a duplicate rule."""
    file = tmp_path / "rules.yml"
    text = render(RulesOptions(**options), Settings(preset=preset))
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout


@pytest.mark.parametrize(("preset", "options"), ALL)
def test_kubernetes_gets_the_same_groups(preset: str, options: dict[str, Any]) -> None:
    """A PrometheusRule holds the groups of the rule file, under its name and labels."""
    plain = yaml.safe_load(render(RulesOptions(**options), Settings(preset=preset)))
    wanted = RulesOptions(**options, rules_format="kubernetes")
    made = yaml.safe_load(render(wanted, Settings(preset=preset)))
    assert made == {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": wanted.rules_name}
        | ({"labels": wanted.kubernetes_labels} if wanted.kubernetes_labels else {}),
        "spec": plain,
    }


@pytest.mark.parametrize("preset", ["classic", "otel"])
def test_what_every_alert_says(preset: str) -> None:
    """An alert has a severity, a wait of two scrapes or more, messages and a runbook of its name."""
    options = RulesOptions(runbook_url="https://wiki/x/", dashboard_url="https://grafana/d/1")
    content = yaml.safe_load(render(options, Settings(preset=preset)))
    alerts = [rule for group in content["groups"] for rule in group["rules"] if "alert" in rule]
    assert len(alerts) > 20
    for alert in alerts:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert not any("{{" in value for value in alert["labels"].values())
        assert seconds(alert["for"]) >= 2 * INTERVAL
        assert seconds(alert.get("keep_firing_for", "1m")) >= 2 * INTERVAL
        said = alert["annotations"]
        assert said["summary"]
        assert said["description"]
        assert said["runbook_url"] == f"https://wiki/x/{alert['alert']}.md"
        assert said["dashboard_url"] == "https://grafana/d/1"
        value = re.findall(r"\$value[^}]*\}", said["summary"] + said["description"])
        assert all("humanize" in use for use in value)
    assert {alert["labels"]["severity"] for alert in alerts} == {"page", "ticket"}


def test_names() -> None:
    """Recordings are `level:metric:operations` without `_total`, alerts are CamelCase, no two same."""
    found = groups(RulesOptions(latency_slo=("0.25:99", "1:99")), Settings())
    recorded = [(each.name, *each.labels.values()) for group in found for each in group.recordings]
    assert len(set(recorded)) == len(recorded)
    for name, *_ in recorded:
        assert re.fullmatch(r"(job|instance|job_queue_name):[a-z0-9_]+:[a-z0-9_]+", name)
        assert "_total" not in name
    for group in found:
        names = [alert.name for alert in group.alerts]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"Aiosvc([A-Z][a-z]+)+", name) for name in names)


def test_scale_shortens_every_window_and_wait() -> None:
    """Scaled rules have the same names and expressions, with windows and waits in proportion."""
    usual = groups(RulesOptions(), Settings())
    short = groups(RulesOptions(time_scale=0.01), Settings())

    def windows(rules: object) -> list[float]:
        return [
            seconds(each)
            for each in re.findall(r"(?<=[\[:])(\d+(?:ms|[smhd]))(?=[\]:])", str(rules))
        ]

    for one, other in zip(usual, short, strict=True):
        assert [each.name for each in one.recordings] == [each.name for each in other.recordings]
        for rule, scaled in zip(one.rules, other.rules, strict=True):
            assert windows(scaled.expression) == pytest.approx(
                [each / 100 for each in windows(rule.expression)]
            )
            if isinstance(rule, Alert) and isinstance(scaled, Alert):
                assert (scaled.wait, scaled.keep) == pytest.approx(
                    (rule.wait / 100, rule.keep / 100)
                )
    assert len(windows([each.expression for group in usual for each in group.recordings])) > 40


@pytest.mark.parametrize("preset", ["classic", "otel"])
def test_shipped_rules_are_what_the_command_prints(preset: str) -> None:
    """The files in deploy/ are up to date: `aiosvc rules --preset PRESET` prints the same."""
    shipped = (SHIPPED / f"{preset}.yml").read_text(encoding="utf-8")
    assert shipped == render(RulesOptions(), Settings(preset=preset))


def test_the_manifest_is_what_the_command_prints() -> None:
    """The PrometheusRule in deploy/ is up to date, for the job that the manifests beside it make."""
    options = RulesOptions(selector='job="shop"', rules_format="kubernetes")
    manifest = ROOT / "deploy" / "kubernetes" / "prometheusrule.yaml"
    assert manifest.read_text(encoding="utf-8") == render(options, Settings())
