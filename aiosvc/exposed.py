"""
The families in the text of a scrape, as a scraper reads them: the Prometheus format and OpenMetrics.

Rule: knows no rule of style; text in, families or the line that is wrong out. Rule: reads what
Prometheus reads and refuses what promtool refuses, where the formats' documents leave a choice. Rule:
takes time linear in the text, whatever it holds.
Sources: prometheus.io, "Text-based format" and "UTF-8 escaping schemes"; OpenMetrics 1.0.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["Family", "Series", "UnreadableError", "read_families"]

#: What follows a family's name in those of its samples, by type, apart from nothing at all.
SUFFIXES: Final[dict[str, tuple[str, ...]]] = {
    "counter": ("_total", "_created"),
    "gauge": (),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum"),
    "summary": ("_count", "_sum", "_created"),
    "info": ("_info",),
    "stateset": (),
    "unknown": (),
}
#: The same in the Prometheus format, where a counter's `_total` is in the family's name.
TEXT_SUFFIXES: Final[dict[str, tuple[str, ...]]] = {
    "counter": (),
    "gauge": (),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
    "untyped": (),
}
#: Labels that are numbers, by type.
BOUNDS: Final = {"histogram": "le", "gaugehistogram": "le", "summary": "quantile"}

COMMENT: Final = re.compile(r"#[ \t]*(HELP|TYPE|UNIT)[ \t]+(\"(?:[^\"\\]|\\.)*\"|\S+)[ \t]*(.*)")
NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL: Final = re.compile(
    r"[ \t]*(?:(\"(?:[^\"\\]|\\.)*\"|[a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*)?"
    r"(\"(?:[^\"\\]|\\.)*\")[ \t]*(,|(?=}))"
)
REST: Final = re.compile(r"[ \t]*(\S+)(?:[ \t]+([+-]?[0-9]+))?")
OPEN_REST: Final = re.compile(r" (\S+)(?: (-?[0-9][0-9.eE+-]*))?(?: # {.*)?")
NUMBER: Final = re.compile(
    r"[+-]?(?:inf(?:inity)?|(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:e[+-]?[0-9]++)?)|nan",
    re.IGNORECASE,
)
ESCAPE: Final = re.compile(r"\\(.)")
ESCAPES: Final = {"\\": "\\", '"': '"', "n": "\n"}


class UnreadableError(ValueError):
    """Raised where a line is not of the format; says which, and what is wrong with it."""


class Series(NamedTuple):
    """A sample's name and labels, and the line that it is on."""

    name: str
    labels: dict[str, str]
    line: int


@dataclass
class Family:
    """
    A family that has samples.

    *name* is as in its TYPE line; *type* is 'untyped' where there is none; *help* is None where
    nothing is said. *repeated* are series that are there again.
    """

    name: str
    type: str = "untyped"
    help: str | None = None
    series: list[Series] = field(default_factory=list)
    repeated: list[Series] = field(default_factory=list)


def read_families(text: str) -> tuple[list[Family], bool]:
    """
    Return the families of *text* that have samples, in order, and whether it is OpenMetrics.

    It is where its last line is `# EOF`. Raises UnreadableError.
    """
    reading = _Reading(openmetrics=text.rstrip("\n").endswith("# EOF"))
    if text and not reading.openmetrics and not text.endswith("\n"):
        raise UnreadableError("the last line has no end; it may have been cut off")
    for number, line in enumerate(text.split("\n"), 1):
        try:
            reading.line(line, number)
        except UnreadableError as error:
            shown = line if len(line) <= 100 else f"{line[:100]}..."  # noqa: PLR2004 - of a terminal
            raise UnreadableError(f"line {number}: {error}: {shown}") from None
    return [family for family in reading.families.values() if family.series], reading.openmetrics


class _Reading:
    """What has been read so far."""

    def __init__(self, *, openmetrics: bool) -> None:
        self.openmetrics = openmetrics
        self._suffixes = SUFFIXES if openmetrics else TEXT_SUFFIXES
        self._rest = OPEN_REST if openmetrics else REST
        self.families: dict[str, Family] = {}
        self._typed: set[str] = set()
        self._helped: set[str] = set()
        self._owners: dict[str, Family] = {}
        self._seen: set[tuple[object, ...]] = set()
        self._ended = False

    def line(self, line: str, number: int) -> None:
        """Take in one line."""
        text = line if self.openmetrics else line.lstrip(" \t")
        if not text:
            return
        if self._ended:
            raise UnreadableError("something follows '# EOF'")
        if text.startswith("#"):
            self._comment(text)
        else:
            self._sample(text, number)

    def _comment(self, text: str) -> None:
        if self.openmetrics and text == "# EOF":
            self._ended = True
            return
        found = COMMENT.fullmatch(text)
        if found is None:
            return
        keyword, name, rest = found.groups()
        if name.startswith('"'):
            name = _unquoted(name)
        elif not NAME.fullmatch(name):
            raise UnreadableError(f"{name!r} is no name of a family")
        if not self.openmetrics:
            # What is said of a histogram's samples is said of the histogram.
            name = next((family.name for family in self._claims(name)), name)
        if keyword == "HELP":
            self._say(name, rest)
        elif keyword == "TYPE" and rest:
            self._type(name, rest)

    def _say(self, name: str, documentation: str) -> None:
        family = self._family(name)
        if not documentation:
            return
        if name in self._helped:
            raise UnreadableError("a second HELP line for the same family")
        self._helped.add(name)
        family.help = documentation

    def _type(self, name: str, kind: str) -> None:
        kind = kind.lower()
        if name in self._typed or (name in self.families and self.families[name].series):
            raise UnreadableError("a second TYPE line for a family, or one after its samples")
        if kind not in self._suffixes:
            raise UnreadableError(f"{kind!r} is no type")
        self._typed.add(name)
        self._family(name).type = "untyped" if kind == "unknown" else kind

    def _sample(self, text: str, number: int) -> None:
        named = NAME.match(text)
        name = named[0] if named else ""
        place = len(name)
        while text[place : place + 1] in (" ", "\t"):
            place += 1
        labels: dict[str, str] = {}
        if text[place : place + 1] == "{":
            name, place = _labels(text, place + 1, name, labels)
        elif self.openmetrics:
            place = len(name)
        rest = self._rest.fullmatch(text, place)
        if not name or rest is None or not _is_number(rest[1]):
            raise UnreadableError("expected a name, labels and a number")
        family = self._owner(name)
        bound = labels.get(BOUNDS.get(family.type, ""))
        if bound is not None and not _is_number(bound):
            raise UnreadableError(f"label {BOUNDS[family.type]!r} is no number")
        series = Series(name, labels, number)
        key = (name, rest[2], *sorted(labels.items()))
        (family.repeated if key in self._seen else family.series).append(series)
        self._seen.add(key)

    def _owner(self, name: str) -> Family:
        known = self._owners.get(name)
        if known is None:
            known = next(self._claims(name), None) or self._family(name)
            self._owners[name] = known
        return known

    def _claims(self, name: str) -> Iterator[Family]:
        if name in self.families:
            yield self.families[name]
        for suffix in (
            "_total",
            "_created",
            "_bucket",
            "_gcount",
            "_gsum",
            "_count",
            "_sum",
            "_info",
        ):
            family = self.families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
            if family is not None and suffix in self._suffixes.get(family.type, ()):
                yield family

    def _family(self, name: str) -> Family:
        return self.families.setdefault(name, Family(name))


def _is_number(text: str) -> bool:
    if not NUMBER.fullmatch(text):
        return False
    # As in Go, one that is too big to be written otherwise is no infinity.
    return math.isfinite(float(text)) or not any(map(str.isdigit, text))


def _labels(text: str, place: int, name: str, labels: dict[str, str]) -> tuple[str, int]:
    """Read *labels* up to the brace, and return the name, which may be among them, and the place."""
    while text[place : place + 1] != "}":
        found = LABEL.match(text, place)
        if found is None:
            if text[place:].lstrip(" \t").startswith("}"):
                place = text.index("}", place)
                continue
            raise UnreadableError('expected labels like a="x"')
        label, value = found[1], _unquoted(found[2])
        if label is None:
            if name:
                raise UnreadableError("a second name")
            name = value
        else:
            label = _unquoted(label) if label.startswith('"') else label
            if label == "__name__":
                raise UnreadableError("label '__name__' is reserved")
            if label in labels:
                raise UnreadableError(f"label {label!r} twice")
            labels[label] = value
        place = found.end()
    return name, place + 1


def _unquoted(text: str) -> str:
    def escaped(found: re.Match[str]) -> str:
        try:
            return ESCAPES[found[1]]
        except KeyError:
            raise UnreadableError(f"{found[0]!r} is no escape sequence") from None

    return ESCAPE.sub(escaped, text[1:-1]) if "\\" in text else text[1:-1]
