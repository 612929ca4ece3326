"""
Panels: what one shows and why, said once, and how Grafana is told.

Rule: a panel has a title, a description that says what to make of it, and a unit; the dashboard's
variables choose where its numbers come from.
"""

from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    DataSourceRef,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

__all__ = ["SOURCE", "WIDTH", "Column", "Panel", "Query"]

#: Columns of Grafana's grid.
WIDTH = 24

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

P = TypeVar("P", timeseries.Panel, stat.Panel, table.Panel)

Shape = Literal["lines", "stacked", "number", "table"]

_HEIGHTS: dict[Shape, int] = {"lines": 8, "stacked": 8, "number": 4, "table": 9}

#: What Grafana calls the queries of a panel.
_NAMES = ascii_uppercase


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and what its series are called, in Grafana's template of labels."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the name of its query's value, and its unit."""

    name: str
    unit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """
    One panel.

    *unit* is one of Grafana's. *limits* are the values beyond which a number is amber and red; where
    the first is the larger one, low is bad. *most* is the top of the scale. *runbooks* are the alerts
    that fire on what is shown here. *columns* are a table's, one for each query.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    shape: Shape = "lines"
    width: int = 8
    limits: tuple[float, float] | None = None
    most: float | None = None
    runbooks: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()

    def build(self, number: int) -> Builder[models.Panel]:
        """Return the panel as Grafana's SDK has it, *number* of its dashboard."""
        if self.shape == "number":
            return self._number().id(number)
        panel = self._table() if self.shape == "table" else self._chart()
        return panel.id(number)

    def _chart(self) -> timeseries.Panel:
        legend = (
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        tooltip = (
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
        panel = (
            self._described(timeseries.Panel())
            .legend(legend)
            .tooltip(tooltip)
            .line_width(1)
            .fill_opacity(40 if self.shape == "stacked" else 8)
            .show_points(VisibilityMode.NEVER)
            .min(0)
        )
        if self.shape == "stacked":
            panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
        for query, name in self._named():
            panel.with_target(_target(query, name).range().legend_format(query.legend))
        return panel

    def _number(self) -> stat.Panel:
        panel = (
            self._described(stat.Panel())
            .graph_mode(BigValueGraphMode.AREA)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            .no_value("nothing to say")
        )
        for query, name in self._named():
            panel.with_target(_target(query, name).range().legend_format(query.legend))
        return panel

    def _table(self) -> table.Panel:
        merged = models.DataTransformerConfig(id_val="merge", options={})
        names = {
            f"Value #{name}": column.name
            for column, name in zip(self.columns, _NAMES, strict=False)
        }
        tidied = models.DataTransformerConfig(
            id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": names}
        )
        first = common.TableSortByFieldState().display_name(self.columns[0].name).desc(desc=True)
        panel = self._described(table.Panel()).transformations([merged, tidied]).sort_by([first])
        for query, name in self._named():
            panel.with_target(_target(query, name).instant().format(PromQueryFormat.TABLE))
        for column in self.columns:
            unit = models.DynamicConfigValue(id_val="unit", value=column.unit)
            panel.override_by_name(column.name, [unit])
        return panel

    def _described(self, panel: P) -> P:
        panel.title(self.title).description(self.description).unit(self.unit)
        panel.datasource(SOURCE).span(self.width).height(_HEIGHTS[self.shape])
        panel.links([_runbook(alert) for alert in self.runbooks])
        if self.most is not None:
            panel.max(self.most)
        steps = [models.Threshold(value=None, color="green")]
        if self.limits is not None:
            amber, red = self.limits
            colors = ("green", "orange", "red") if amber < red else ("red", "orange", "green")
            steps = [
                models.Threshold(value=value, color=color)
                for value, color in zip(
                    (None, min(amber, red), max(amber, red)), colors, strict=True
                )
            ]
        panel.thresholds(
            dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
        )
        return panel

    def _named(self) -> list[tuple[Query, str]]:
        return list(zip(self.queries, _NAMES, strict=False))


def _target(query: Query, name: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(SOURCE).expr(query.expr).ref_id(name)


def _runbook(alert: str) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(f"Runbook: {alert}")
        .url("${runbooks}/" + alert + ".md")
        .placement("")
        .target_blank(target_blank=True)
    )
