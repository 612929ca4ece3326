"""
Prometheus rules for what aiosvc exports: recordings that add replicas up rightly, and alerts.

Rule: everything is text; nothing here asks a Prometheus. Rule: metric names come from the catalogue,
thresholds from the options. `subjects` has the groups of all subjects, `files` writes them.
"""

from aiosvc.rules.files import render
from aiosvc.rules.options import RulesOptions
from aiosvc.rules.subjects import alerts_by_metric, groups

__all__ = ["RulesOptions", "alerts_by_metric", "groups", "render"]
