"""
Groups of rules as a file: Prometheus's own, or a PrometheusRule for its operator in Kubernetes.

Rule: both hold the same groups. Rule: no label of an alert holds a value that changes; values stand
in annotations.
"""

from typing import Any

from aiosvc.config import Settings
from aiosvc.rules.options import RulesOptions
from aiosvc.rules.rule import Alert, Group, Recording
from aiosvc.rules.scope import written
from aiosvc.rules.subjects import groups
from aiosvc.rules.yamltext import yaml_text

__all__ = ["group_mapping", "render"]


def render(options: RulesOptions, settings: Settings) -> str:
    """
    Return the file for a service that was set up with *settings*.

    Raises ConfigError where an objective can't be seen in the metrics.
    """
    content = {"groups": [group_mapping(each, options) for each in groups(options, settings)]}
    if options.rules_format == "kubernetes":
        metadata: dict[str, Any] = {"name": options.rules_name}
        if options.kubernetes_labels:
            metadata["labels"] = dict(options.kubernetes_labels)
        return yaml_text(
            {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "PrometheusRule",
                "metadata": metadata,
                "spec": content,
            }
        )
    return yaml_text(content)


def group_mapping(group: Group, options: RulesOptions) -> dict[str, Any]:
    """Return a group as Prometheus reads it."""
    return {
        "name": f"{options.rules_name}-{group.name}",
        "rules": [
            *map(_recording, group.recordings),
            *(_alert(each, options) for each in group.alerts),
        ],
    }


def _recording(recording: Recording) -> dict[str, Any]:
    labels = {"labels": dict(recording.labels)} if recording.labels else {}
    return {"record": recording.name, "expr": recording.expression, **labels}


def _alert(alert: Alert, options: RulesOptions) -> dict[str, Any]:
    severity = options.page_severity if alert.urgency == "page" else options.ticket_severity
    dashboard = {"dashboard_url": options.dashboard_url} if options.dashboard_url else {}
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": written(alert.wait),
        **({"keep_firing_for": written(alert.keep)} if alert.keep else {}),
        "labels": {"severity": severity, **alert.labels, **options.alert_labels},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{options.runbook_url.rstrip('/')}/{alert.name}.md",
            **dashboard,
        },
    }
