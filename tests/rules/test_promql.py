"""What an expression names, as it is read from its text."""

import pytest

from aiosvc.rules.promql import Selection, labels_in, metrics_in, selections


@pytest.mark.parametrize(
    ("expression", "metrics"),
    [
        ("up", ["up"]),
        ("up == 0", ["up"]),
        ("sum by (job) (rate(a_total[5m]))", ["a_total"]),
        ("sum(rate(a_total[5m])) by (job)", ["a_total"]),
        ("a / on (job) group_left (version) b", ["a", "b"]),
        ("a and ignoring(x) b or c unless d", ["a", "b", "c", "d"]),
        ("sum_over_time(job:a:rate5m{job='x'}[1h:1m]) / 60", ["job:a:rate5m"]),
        ("a offset 30m", ["a"]),
        ("histogram_quantile(0.99, sum by (le) (rate(a_bucket[5m])))", ["a_bucket"]),
        ("topk(3, a) # of b", ["a"]),
        ("sum (a)", ["a"]),
        ("count(a > 1e3) * 2 ^ -1 % 5", ["a"]),
        ("time() - a", ["a"]),
        ('label_replace(a, "b", "$1", "c", "(.*)")', ["a"]),
    ],
)
def test_metrics(expression: str, metrics: list[str]) -> None:
    """Metrics are the names that are no function, keyword, aggregation, label or text."""
    assert metrics_in(expression) == metrics


def test_matchers() -> None:
    """A selector's matchers are its labels with operator and value, whatever the value holds."""
    found = selections('a{b="c{d},\\"e", f!~"g|h",} + i{}')
    assert found == [
        Selection("a", (("b", "=", 'c{d},\\"e'), ("f", "!~", "g|h"))),
        Selection("i", ()),
    ]


def test_labels() -> None:
    """Labels that are aggregated by or matched on are found too, those of selectors left out."""
    expression = 'sum without (a, b) (x{c="d"}) * on (e) group_left (f) y and ignoring () z'
    assert labels_in(expression) == {"a", "b", "e", "f"}


@pytest.mark.parametrize("expression", ["a{b='c'", "sum by (a", "a ; b", 'a{b="c}'])
def test_what_is_no_expression(expression: str) -> None:
    """Text that is not of the language is a ValueError, not half an answer."""
    with pytest.raises(ValueError, match=r"is no part of PromQL|is missing"):
        selections(expression)
