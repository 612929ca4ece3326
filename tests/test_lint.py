"""About names and types the verdicts are promtool's; about labels they are ours."""

import itertools
import subprocess
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiosvc.exposed import read_families
from aiosvc.lint import Problem, lint

PROMTOOLS_OWN = ("help", "unit", "counter", "reserved", "type", "colon", "case")

TYPES = ["counter", "gauge", "histogram", "summary", "untyped", None]


def problems(text: str, max_series: int = 0) -> list[Problem]:
    """Return the problems of a text."""
    families, openmetrics = read_families(text)
    return lint(families, openmetrics=openmetrics, max_series=max_series)


def verdicts(text: str) -> set[str]:
    """Return ours, of the kinds that promtool has too."""
    return {f"{p.metric} {p.text}" for p in problems(text) if p.rule in PROMTOOLS_OWN}


def promtools(promtool: str, text: str) -> set[str]:
    """Return promtool's."""
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    said = done.stderr.decode()
    assert "error while linting" not in said, said
    return set(said.splitlines())


def family(name: str, kind: str | None, documentation: str | None, labels: str = "") -> str:
    """Return the text of one family."""
    text = "" if documentation is None else f"# HELP {name} {documentation}\n"
    text += "" if kind is None else f"# TYPE {name} {kind}\n"
    if kind == "histogram":
        return text + f'{name}_bucket{{le="+Inf"}} 1\n{name}_count 1\n{name}_sum 1\n'
    if kind == "summary":
        return text + f'{name}{{quantile="0.5"}} 1\n{name}_count 1\n{name}_sum 1\n'
    return text + f"{name}{labels} 1\n"


WORDS = [
    "http", "requests", "total", "count", "sum", "bucket", "bytes", "milliseconds", "seconds",
    "minutes", "kibibytes", "bits", "ms", "s", "b", "gauge", "counter", "histogram", "summary",
    "info", "requestCount", "kelvins", "celsius", "fahrenheit", "thermometers", "kilometers", "h",
    "gauge_histogram", "untyped", "created", "Total", "MS", "decagrams", "percent",
]  # fmt: skip


def test_every_word_in_every_place_and_type(promtool: str) -> None:
    """Each word as a start, middle and end of a name of each type gets promtool's verdict."""
    text = []
    for number, (kind, word) in enumerate(itertools.product(TYPES, WORDS)):
        names = f"{word}_x{number}", f"x{number}_{word}_y", f"x{number}_{word}"
        text += [family(name, kind, "Text.") for name in names]
    whole = "".join(text)
    assert verdicts(whole) == promtools(promtool, whole)


def test_documentation_and_labels(promtool: str) -> None:
    """HELP that is missing or empty, reserved labels and camelCase get promtool's verdict."""
    text = []
    cases = itertools.product(
        TYPES,
        [None, "", " ", "Text."],
        ["", '{le="1"}', '{quantile="1"}', '{userId="1"}', '{user_Id="1",le="1",quantile="1"}'],
    )
    for number, (kind, documentation, labels) in enumerate(cases):
        text.append(family(f"x{number}", kind, documentation, labels))
        text.append(family(f"x{number}:colon", kind, documentation, labels))
    whole = "".join(text)
    assert verdicts(whole) == promtools(promtool, whole)


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map("_".join),
            st.sampled_from(TYPES),
            st.sampled_from([None, "Text."]),
        ),
        max_size=40,
        unique_by=lambda each: each[0],
    )
)
@settings(max_examples=25, deadline=None)
def test_any_names(promtool: str, families: list[tuple[str, str | None, str | None]]) -> None:
    """Names of any words get promtool's verdict; where it chooses among two units, either will do."""
    text = "".join(
        family(f"x{number}_{name}", kind, documentation)
        for number, (name, kind, documentation) in enumerate(families)
    )

    def without_units(found: set[str]) -> set[str]:
        return {each for each in found if " use base unit " not in each}

    ours, theirs = verdicts(text), promtools(promtool, text)
    assert without_units(ours) == without_units(theirs)
    assert {each.split()[0] for each in theirs - ours} <= {each.split()[0] for each in ours}


def test_openmetrics_is_judged_as_the_text_would_be() -> None:
    """A counter's family without _total is right there, and info and stateset are gauges."""
    text = (
        "# HELP a A.\n# TYPE a counter\na_total 1\n"
        "# HELP b B.\n# TYPE b info\nb_info 1\n"
        "# HELP c_total C.\n# TYPE c_total gauge\nc_total 1\n# EOF\n"
    )
    assert [(p.metric, p.rule) for p in problems(text)] == [("c_total", "counter")]


def test_series_that_are_there_twice() -> None:
    """A series that comes again is a problem, once for its family, with the line."""
    text = '# HELP a A.\na{x="1"} 1\na{x="2"} 1\na{x="1"} 2\na{x="2"} 1\n'
    [found] = problems(text)
    assert found == (
        "a", "duplicate", "the same series is there again, in line 4, and 1 more are",
    )  # fmt: skip
    assert problems('# HELP a A.\na{x="1"} 1\n# HELP b B.\nb{x="1"} 1\n') == []


def test_families_of_too_many_series() -> None:
    """A family beyond the limit is a problem that says which labels make it so."""
    text = "# HELP a A.\n" + "".join(
        f'a{{method="{method}",page="p{"x" * page}"}} 1\n'
        for method in ("get", "put")
        for page in range(30)
    )
    assert problems(text, 60) == []
    assert problems(text, 0) == []
    [found] = problems(text, 59)
    assert found.rule == "cardinality"
    assert found.text == "60 series, expected 59 at most; values by label: page 30, method 2"


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([str(UUID(int=n << 64 | n)) for n in range(2)], "UUIDs"),
        (["ann@example.org", "bob@example.org"], "e-mail addresses"),
        ([f"{n:024x}1" for n in range(2)], "ids"),
        ([str(n) for n in range(100, 120)], "ids"),
        ([f"user-{n}" for n in range(10, 40)], "ids"),
        (["1700000000", "1700000001"], "timestamps"),
        (["1700000000123", "1700000000124"], "timestamps"),
        (["2026-11-22T18:00:00Z", "2026-11-22T18:00:01Z"], "timestamps"),
        (["/users/1", "/users/2"], "paths with ids in them"),
        (["/users/17/orders", "/users/18/orders"], "paths with ids in them"),
        (["https://x.org/a/99", "https://x.org/a/98"], "paths with ids in them"),
        (["/search?q=a", "/search?q=b"], "paths with queries"),
        ([f"10.0.0.{n}" for n in range(10)], "IP addresses"),
        ([f"/{'x' * n}" for n in range(100)], "paths"),
    ],
)
def test_labels_that_grow(values: list[str], what: str) -> None:
    """Values that look like ids, addresses, paths or moments are told, with an example."""
    text = "# HELP a A.\n" + "".join(f'a{{who="{value}"}} 1\n' for value in values)
    [found] = problems(text)
    assert (found.metric, found.rule) == ("a", "suspect")
    assert found.text.startswith(f"label 'who' has {len(values)} values that look like {what}, ")
    assert problems("# HELP a A.\n" + f'a{{who="{values[0]}"}} 1\n') == []


@pytest.mark.parametrize(
    "values",
    [
        [str(n) for n in range(15)],
        ["/api/users/{id}", "/api/users", "/health", "_unmatched", "_other"],
        ["GET", "POST", "_other"],
        ["1.2.3", "1.2.4"],
        ["queue-1", "queue-2", "eu-west-1"],
        ["ValueError", "KeyError"],
        ["deadbeef", "cafe"],
    ],
)
def test_labels_that_do_not(values: list[str]) -> None:
    """Templates, methods, versions, numbered shards and class names are no suspects."""
    text = "# HELP a A.\n" + "".join(f'a{{what="{value}"}} 1\n' for value in values)
    assert problems(text) == []


def test_labels_that_are_numbers() -> None:
    """Buckets and status codes are numbers by nature."""
    lines = "".join(f'a_bucket{{le="{n}"}} 1\n' for n in range(60))
    lines += "".join(f'b_total{{status="{n}"}} 1\n' for n in range(200, 260))
    text = f"# HELP a A.\n# TYPE a histogram\n# HELP b_total B.\n# TYPE b_total counter\n{lines}"
    assert problems(text) == []
