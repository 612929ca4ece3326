"""Every alert fires when it should and stays quiet when it should, by promtool's own judgement."""

from dataclasses import replace
from pathlib import Path

import pytest

from aiosvc.config import Settings
from aiosvc.rules import RulesOptions, groups
from aiosvc.rules.promql import metrics_in

from .cases import CASES
from .promtool import A, Fires, Quiet, group_of, promtool_test, unit

ALERTS = [alert.name for group in groups(RulesOptions(), Settings()) for alert in group.alerts]


def test_every_alert_has_cases() -> None:
    """Each alert has a case in which it fires and two in which it must not."""
    assert list(CASES) == ALERTS
    for name, cases in CASES.items():
        assert any(isinstance(case, Fires) for case in cases), name
        assert sum(isinstance(case, Quiet) for case in cases) >= 2, name


@pytest.mark.parametrize("name", ALERTS)
def test_alert(name: str, promtool: str, tmp_path: Path) -> None:
    """The alert fires with its message, and only, in the cases in which it should."""
    for case in CASES[name]:
        group, alert, options = group_of(name, case)
        said = promtool_test(promtool, tmp_path, group, options, [unit(alert, case, options)])
        assert said == "", case.why


@pytest.mark.parametrize("name", ALERTS)
def test_quiet_cases_would_hear_the_alert(name: str, promtool: str, tmp_path: Path) -> None:
    """An alert that fires whenever there is anything at all fails each case of quiet."""
    quiet = [case for case in CASES[name] if isinstance(case, Quiet)]
    group, alert, options = group_of(name, quiet[0])
    anything = 'count({__name__=~".+", __name__!~"ALERTS.*"})'
    loud = replace(alert, expression=anything, wait=0.0)
    changed = replace(group, alerts=(loud,))
    said = promtool_test(
        promtool, tmp_path, changed, options, [unit(loud, case, options) for case in quiet]
    )
    assert said.count("expr: ") == len(quiet), said


@pytest.mark.parametrize("name", ALERTS)
def test_cases_are_about_the_alert(name: str) -> None:
    """What an alert is to be loud or quiet about are series that its group looks at."""
    for case in CASES[name]:
        group, _, _ = group_of(name, case)
        known = {metric for rule in group.rules for metric in metrics_in(rule.expression)}
        given = {series.partition("{")[0] for series in case.series}
        assert given <= known, case.why


def recorded(
    promtool: str,
    directory: Path,
    name: str,
    series: dict[str, str],
    expected: list[tuple[str, str, float]],
) -> str:
    """Return what promtool says against *expected*: values of expressions of a group at times."""
    options = RulesOptions()
    group = next(each for each in groups(options, Settings()) if each.name == name)
    inputs = [{"series": key, "values": values} for key, values in series.items()]
    samples = [
        {"expr": expression, "eval_time": at, "exp_samples": [{"labels": "{}", "value": value}]}
        for expression, at, value in expected
    ]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": samples}
    return promtool_test(promtool, directory, group, options, [test])


def test_windows_are_weighted_by_requests(promtool: str, tmp_path: Path) -> None:
    """A bad hour with few requests does not count like a good one with many."""
    target = f"http_requests_total{{{A},status="
    series = {
        f'{target}"500"}}': "0+1x60 60x60",
        f'{target}"200"}}': "0x60 0+99x60",
    }
    ratio = "sum(round(job:http_requests_failed_per_request:ratio_rate2h, 0.01))"
    # 60 of 60 + 59 * 99 requests failed, where the mean of both hours' shares would be a half.
    assert recorded(promtool, tmp_path, "availability", series, [(ratio, "120m", 0.01)]) == ""


def test_long_windows_add_up_what_happened(promtool: str, tmp_path: Path) -> None:
    """The recorded rates of a day, times its length, are the requests that there were."""
    target = f"http_requests_total{{{A},status="
    series = {
        f'{target}"500"}}': "0x100 0+3x9 30x1500",
        f'{target}"200"}}': "0+10x1609",
    }
    number = "sum(round(job:http_requests_failed:rate{} * {}, 1))"
    expected = [
        (number.format("1d", 86_400), "20h", 30.0),
        (number.format("6h", 21_600), "3h", 30.0),
        (number.format("3d", 259_200), "26h", 30.0),
        (number.format("1h", 3_600), "20h", 0.0),
        (number.format("6h", 21_600), "20h", 0.0),
        ("sum(round(job:http_requests:rate1d, 0.001))", "26h", round(10 / 60, 3)),
    ]
    assert recorded(promtool, tmp_path, "availability", series, expected) == ""


@pytest.mark.parametrize(("scope", "depth"), [("process", 12.0), ("shared", 7.0)])
def test_replicas_add_up_by_their_scope(
    scope: str, depth: float, promtool: str, tmp_path: Path
) -> None:
    """Queues inside a process are summed, and of one that replicas share the largest is taken."""
    series = {}
    for instance, value in (("a", 5), ("b", 7)):
        labels = f'instance="{instance}",job="aiosvc",queue_name="email"'
        series[f"queue_depth{{{labels}}}"] = f"{value}x10"
        series[f'queue_info{{{labels},backend="x",scope="{scope}"}}'] = "1x10"
        series[f"worker_slots{{{labels}}}"] = "4x10"
    expected = [
        ("sum(job_queue_name:queue_depth:sum_or_max)", "5m", depth),
        ("sum(job_queue_name:worker_slots:sum)", "5m", 8.0),
    ]
    assert recorded(promtool, tmp_path, "queues", series, expected) == ""
