"""
What a PromQL expression names: enough of the language to find every series that it looks at.

Rule: reads only what the rules here and the queries in the documentation are made of; whether an
expression is right is for Prometheus to say.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Selection", "labels_in", "metrics_in", "selections"]

TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<comment>\#[^\n]*)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<range>\[[^\]]*\])
      | (?P<number>[0-9][0-9a-zA-Z_.]*)
      | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
      | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},@.])
    )""",
    re.VERBOSE,
)

#: Names that stand before a list of labels in brackets.
GROUPING: Final = {"by", "without", "on", "ignoring", "group_left", "group_right"}
KEYWORDS: Final = {"and", "or", "unless", "offset", "bool", "start", "end", "atan2", "inf", "nan"}
AGGREGATIONS: Final = {
    "sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values", "bottomk",
    "topk", "quantile",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Selection:
    """A selector of series: the metric's name and its matchers, as label, operator and value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selections(expression: str) -> list[Selection]:
    """Return every selector in *expression*; raises ValueError where it can't be read."""
    return [each for each in _parts(expression) if isinstance(each, Selection)]


def metrics_in(expression: str) -> list[str]:
    """Return the name of every metric that *expression* looks at."""
    return [each.metric for each in selections(expression)]


def labels_in(expression: str) -> set[str]:
    """Return every label that *expression* aggregates by or matches on, selectors left out."""
    return {each for each in _parts(expression) if isinstance(each, str)}


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, place, end = [], 0, len(expression.rstrip())
    while place < end:
        match = TOKEN.match(expression, place)
        if match is None:
            raise ValueError(
                f"{expression[place : place + 20]!r} is no part of PromQL that is known"
            )
        kind = match.lastgroup
        if kind is not None and kind != "comment":
            found.append((kind, match[kind]))
        place = match.end()
    return [*found, ("end", "")]


def _parts(expression: str) -> Iterator[Selection | str]:
    tokens = _tokens(expression)
    place = 0
    while place < len(tokens):
        (kind, text), place = tokens[place], place + 1
        if kind != "name":
            continue
        following = tokens[place][1]
        if text in GROUPING:
            if following == "(":
                inside, place = _until(tokens, place + 1, ")")
                yield from (each for kind, each in inside if kind == "name")
        elif text in KEYWORDS or text in AGGREGATIONS or following == "(":
            continue
        elif following == "{":
            inside, place = _until(tokens, place + 1, "}")
            words = [each for each in inside if each[1] != ","]
            yield Selection(
                text,
                tuple(
                    (words[i][1], words[i + 1][1], words[i + 2][1][1:-1])
                    for i in range(0, len(words), 3)
                ),
            )
        else:
            yield Selection(text, ())


def _until(
    tokens: list[tuple[str, str]], place: int, end: str
) -> tuple[list[tuple[str, str]], int]:
    """Return the tokens before the next *end*, and the place after it."""
    found = []
    while tokens[place][1] != end:
        if tokens[place][0] == "end":
            raise ValueError(f"{end!r} is missing")
        found.append(tokens[place])
        place += 1
    return found, place + 1
