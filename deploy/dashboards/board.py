"""
Dashboards: their variables, links and order of panels.

Rule: a dashboard is a file that Grafana's file provisioning takes as it is: no `__inputs`, no id, a
uid that stays. Rule: it refreshes no faster than every 30 s, and opens on one job.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models
from panels import SOURCE, Panel

__all__ = ["Board", "Row", "Variable"]

#: What links the dashboards to each other.
TAG = "aiosvc"

#: Where Grafana itself serves the runbooks when they are mounted into it, as deploy/compose.yaml does.
RUNBOOKS = "/public/runbooks"


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice above the panels: label values of a query, several at a time where *multi*."""

    name: str
    label: str
    description: str
    query: str
    multi: bool = True
    default: str = ""


#: The variables of all dashboards. Only what aiosvc measures is a job here.
JOB = Variable("job", "Job", "Jobs of Prometheus.", "label_values(aiosvc_build_info, job)")
INSTANCE = Variable(
    "instance",
    "Instance",
    "Replicas of the jobs.",
    'label_values(aiosvc_build_info{job=~"$job"}, instance)',
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """A dashboard."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()

    def build(self) -> models.Dashboard:
        """Return the dashboard as Grafana's SDK has it."""
        built = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG])
            .readonly()
            .refresh("30s")
            .time("now-1h", "now")
            .timezone("browser")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .with_variable(
                dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
            )
        )
        for variable in (JOB, INSTANCE, *self.variables):
            built.with_variable(_query(variable))
        built.with_variable(dashboard.ConstantVariable("runbooks").value(RUNBOOKS))
        built.links(
            [
                dashboard.DashboardLink("aiosvc")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .placement("")
                .include_vars(include_vars=True)
                .keep_time(keep_time=True),
            ]
        )
        _fill(built, self.rows)
        return built.build()


def _query(variable: Variable) -> dashboard.QueryVariable:
    query: dict[str, object] = {"query": variable.query, "refId": variable.name}
    built = (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .description(variable.description)
        .datasource(SOURCE)
        .query(query)
        .definition(variable.query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
        .multi(variable.multi)
    )
    if variable.multi:
        built.include_all(include_all=True).all_value(".+")
    if variable.multi and variable is not JOB:
        built.current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    if variable.default:
        built.current(
            models.VariableOption(selected=True, text=variable.default, value=variable.default)
        )
    return built


def _fill(built: dashboard.Dashboard, rows: Iterable[Row]) -> None:
    number = 0
    for row in rows:
        number += 1
        built.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            built.with_panel(panel.build(number))
