"""What the shipped dashboards hold, and what their expressions name."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser as promql

from aiosvc.catalogue import CATALOGUE, MetricSpec
from aiosvc.dashboards import dashboards

PRESETS = ("classic", "otel")

#: What stands for a dashboard's variables when its queries are asked outside of Grafana.
ANY = {"$job": ".+", "$instance": ".+", "$queue_name": ".+", "$objective": "0.5"}

#: Labels that Prometheus gives every series.
TARGET_LABELS = {"job", "instance"}

_SUFFIXES = {"counter": ("",), "gauge": ("",), "summary": ("_sum", "_count")}
_SUFFIXES["histogram"] = ("_bucket", "_sum", "_count")

#: Every series name, and the row of the catalogue that it comes from.
SERIES: dict[str, MetricSpec] = {
    f"{row.name}{suffix}": row for row in CATALOGUE for suffix in _SUFFIXES[row.kind]
}


class Target(NamedTuple):
    """One query of a panel of a dashboard."""

    board: str
    panel: str
    expr: str

    def __str__(self) -> str:
        return f"{self.board} / {self.panel}: {self.expr}"


class Selected(NamedTuple):
    """A selector of an expression, and the functions and aggregations around it, outermost first."""

    text: str
    name: str
    matchers: dict[str, str]
    around: tuple[Any, ...]
    ranged: bool


def boards() -> list[tuple[str, dict[str, Any]]]:
    """Return each dashboard once, with a name that says its preset too."""
    return [(f"{preset}-{name}", board) for preset in PRESETS for name, board in dashboards(preset)]


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(preset: str) -> list[Target]:
    """Return every query of a preset's dashboards."""
    return [
        Target(name, panel["title"], target["expr"])
        for name, board in dashboards(preset)
        for panel in panels(board)
        for target in panel["targets"]
    ]


def filled(expr: str, *, window: str) -> str:
    """Return the expression as Grafana sends it, for everything that there is to choose."""
    for variable, value in ANY.items():
        expr = re.sub(re.escape(variable) + r"\b", value, expr)
    return expr.replace("$__rate_interval", window)


def parsed(expr: str) -> promql.Expr:
    """Return an expression's tree; raises ValueError where it is none."""
    return promql.parse(expr.replace("$__rate_interval", "4m"))


def selectors(node: Any, around: tuple[Any, ...] = ()) -> Iterator[Selected]:
    """Yield every selector below *node*, with what is around it."""
    inner = (*around, node)
    match node:
        case promql.VectorSelector():
            yield _selected(node, around, ranged=False)
        case promql.MatrixSelector():
            yield _selected(node.vector_selector, around, ranged=True)
        case promql.BinaryExpr():
            yield from selectors(node.lhs, inner)
            yield from selectors(node.rhs, inner)
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr():
            yield from selectors(node.expr, inner)
        case promql.Call():
            for argument in node.args:
                yield from selectors(argument, inner)
        case promql.NumberLiteral() | promql.StringLiteral():
            return
        case _:
            raise AssertionError(f"{node}: what is in a {type(node)}?")


def _selected(node: Any, around: tuple[Any, ...], *, ranged: bool) -> Selected:
    matchers = {each.name: each.value for each in node.matchers.matchers}
    return Selected(str(node), node.name, matchers, around, ranged)
