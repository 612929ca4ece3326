"""The rules of Grafana's dashboard-linter and our own, over every dashboard that is shipped."""

import re
from typing import Any

import promql_parser as promql
import pytest
from processes import REPOSITORY

from dashboards.boards import SERIES, TARGET_LABELS, Selected, boards, panels, parsed, selectors

EVERY = boards()
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RUNBOOKS = REPOSITORY / "docs" / "runbooks"

pytestmark = pytest.mark.parametrize(
    "board", [each for _, each in EVERY], ids=[n for n, _ in EVERY]
)


def expressions(board: dict[str, Any]) -> list[str]:
    """Return every expression of a dashboard."""
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def selected(board: dict[str, Any]) -> list[tuple[str, Selected]]:
    """Return every selector of a dashboard, beside the expression that it is in."""
    return [(expr, each) for expr in expressions(board) for each in selectors(parsed(expr))]


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a dashboard's variables by name."""
    return {each["name"]: each for each in board["templating"]["list"]}


def labels_of(name: str) -> set[str]:
    """Return the labels that series *name* has in Prometheus."""
    if name == "up":
        return TARGET_LABELS
    row = SERIES[name]
    # Prometheus keeps `job` for the target, and calls a metric's own label of that name otherwise.
    own = {"exported_job" if label == "job" else label for label in row.labels}
    return own | TARGET_LABELS | ({"le"} if name.endswith("_bucket") else set())


def test_the_datasource_is_chosen_once(board: dict[str, Any]) -> None:
    """One variable says which Prometheus is asked, and every panel, query and variable uses it."""
    assert variables(board)["datasource"]["type"] == "datasource"
    assert variables(board)["datasource"]["query"] == "prometheus"
    for panel in panels(board):
        assert panel["datasource"] == DATASOURCE, panel["title"]
        assert all(target["datasource"] == DATASOURCE for target in panel["targets"])
    queries = [each for each in board["templating"]["list"] if each["type"] == "query"]
    assert all(each["datasource"] == DATASOURCE for each in queries)


@pytest.mark.parametrize("name", ["job", "instance"])
def test_job_and_instance_are_chosen(board: dict[str, Any], name: str) -> None:
    """Several jobs and instances, or all, can be looked at."""
    variable = variables(board)[name]
    assert variable["label"] == name.capitalize()
    assert variable["multi"] is True
    assert variable["includeAll"] is True
    assert variable["allValue"] == ".+"
    assert re.fullmatch(rf"label_values\(.+, {name}\)", variable["query"]["query"])


def test_variables_ask_for_what_there_is(board: dict[str, Any]) -> None:
    """Each query of a variable names a metric of the catalogue and a label that it has."""
    for variable in board["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found, variable
        (selector,) = selectors(parsed(found[1]))
        assert {*selector.matchers, found[2]} <= labels_of(selector.name)
        assert variable["definition"] == variable["query"]["query"]


def test_variables_used_are_there(board: dict[str, Any]) -> None:
    """No query, legend or link uses a variable that the dashboard does not have."""
    texts = expressions(board)
    texts += [t["legendFormat"] for p in panels(board) for t in p["targets"] if "legendFormat" in t]
    texts += [link["url"] for p in panels(board) for link in p["links"]]
    used = {name for text in texts for name in re.findall(r"\$\{?([a-z_]+)", text)}
    assert used - {"__rate_interval"} <= set(variables(board))
    assert {"job", "instance", "runbooks"} <= used


def test_panels_say_what_they_show(board: dict[str, Any]) -> None:
    """Each panel has a title, a description, a unit and a query."""
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names) > 0


def test_series_of_a_chart_can_be_told_apart(board: dict[str, Any]) -> None:
    """Where a chart has several queries, or series by label, each has a legend of its own."""
    for panel in panels(board):
        if panel["type"] != "timeseries":
            continue
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(legends)) == len(legends), panel["title"]
        assert all(legends), panel["title"]


def test_panels_lie_beside_each_other(board: dict[str, Any]) -> None:
    """No two panels overlap or leave the grid, every line is full, and ids are unique."""
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not covered & cells, panel["title"]
        cells |= covered
    height = max(y for _, y in cells) + 1
    assert cells == {(x, y) for x in range(24) for y in range(height)}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_expressions_are_promql(board: dict[str, Any]) -> None:
    """Each expression parses, and rates take the window that Grafana works out."""
    for expr in expressions(board):
        parsed(expr)
        assert set(re.findall(r"\[[^]]*\]", expr)) <= {"[$__rate_interval]"}, expr


def test_selectors_follow_the_variables(board: dict[str, Any]) -> None:
    """Each selector is of the chosen jobs and instances, and of the chosen queues where it has one."""
    for expr, each in selected(board):
        assert each.matchers["job"] == "$job", expr
        assert each.matchers["instance"] == "$instance", expr
        if "queue_name" in labels_of(each.name):
            assert each.matchers["queue_name"] == "$queue_name", expr


def test_metrics_labels_and_bounds_exist(board: dict[str, Any]) -> None:
    """Each metric, label and bucket that is named is one of the catalogue's."""
    for expr, each in selected(board):
        assert each.name in SERIES or each.name == "up", expr
        assert set(each.matchers) <= labels_of(each.name), expr
        if each.name.endswith("_bucket") and "le" in each.matchers:
            bounds = {str(bound) for bound in SERIES[each.name].buckets}
            assert each.matchers["le"] in bounds | {"$objective"}, expr


def test_aggregations_keep_labels_that_exist(board: dict[str, Any]) -> None:
    """What is summed by a label has that label, or is given it within the expression."""
    for expr, each in selected(board):
        known = labels_of(each.name)
        for around in each.around:
            if isinstance(around, promql.Call) and around.func.name == "label_replace":
                known = known | {around.args[1].val}
        for around in each.around:
            if isinstance(around, promql.AggregateExpr) and around.modifier is not None:
                assert set(around.modifier.labels) <= known, f"{each.name} in {expr}"


def test_counters_are_looked_at_by_their_growth(board: dict[str, Any]) -> None:
    """Counters, buckets, sums and counts are under rate or increase, and gauges never are."""
    for expr, each in selected(board):
        direct = each.around[-1] if each.around else None
        grows = isinstance(direct, promql.Call) and direct.func.name in ("rate", "increase")
        counts = each.name != "up" and SERIES[each.name].kind != "gauge"
        assert grows == counts == each.ranged, f"{each.name} in {expr}"


def test_dashboards_can_be_provisioned(board: dict[str, Any]) -> None:
    """Grafana takes the file as it is, the same dashboard each time, and is not overloaded by it."""
    assert "__inputs" not in board
    assert "id" not in board
    assert board["editable"] is False
    assert re.fullmatch(r"[a-z-]{1,40}", board["uid"])
    assert board["refresh"] == "30s"


def test_dashboards_link_to_each_other(board: dict[str, Any]) -> None:
    """From each dashboard the others are reached, with the same job, instance and time."""
    links = [link for link in board["links"] if link["type"] == "dashboards"]
    assert [link["tags"] for link in links] == [board["tags"]] == [["aiosvc"]]
    assert all(link["includeVars"] and link["keepTime"] for link in links)


def test_panels_link_to_runbooks(board: dict[str, Any]) -> None:
    """Panels of what alerts fire on link to the runbooks, by the alert's name."""
    urls = [link["url"] for panel in panels(board) for link in panel["links"]]
    assert urls
    for url in urls:
        found = re.fullmatch(r"\$\{runbooks\}/([A-Z][A-Za-z]+)\.md", url)
        assert found, url
        if RUNBOOKS.is_dir():
            assert (RUNBOOKS / f"{found[1]}.md").is_file(), url
