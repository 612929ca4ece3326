"""
What a client may be answered with: from its Accept headers to a format and a content coding.

Rule: never raises, whatever a header holds, and takes time linear in its length. Rule: only what we
speak comes out; nothing of a header is echoed. Sources: RFC 9110, 12.4 and 12.5; prometheus.io,
"Scrape protocol content negotiation".

Theory of operation. A header is a list of ranges, `text/*;q=0.5`, each of which stands for some of
the protocols that we speak. A protocol's weight is that of the most specific range that names it:
with its version, by its type, by `text/*`, by `*/*`. The protocol with the greatest weight wins; 0
is a refusal. Of equal ones, those that were asked for by name go first, in Prometheus' own order,
OpenMetrics before text; among the others text 0.0.4 does, so that a browser gets what it can show.
When nothing is left, the answer is text 0.0.4 all the same, as the document demands.

A parameter that is malformed or unknown is taken for absent. A version that is well-formed but not
ours makes its range stand for nothing. An unknown escaping is `underscores`, which is always safe.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from aiosvc.formats import (
    ESCAPINGS,
    OPENMETRICS,
    OPENMETRICS_0_0_1,
    TEXT,
    TEXT_1_0_0,
    Escaping,
    Format,
)

__all__ = ["VARY", "content_coding", "negotiate"]

#: The request headers that an answer depends on.
VARY: Final = "Accept, Accept-Encoding"

_PREFERRED = (OPENMETRICS, OPENMETRICS_0_0_1, TEXT_1_0_0, TEXT)
_SHOWABLE = (TEXT, TEXT_1_0_0, OPENMETRICS, OPENMETRICS_0_0_1)

#: What each range stands for, best first. The versions of a type are in _VERSIONS.
_RANGES: dict[str, tuple[Format, ...]] = {
    "*/*": _SHOWABLE,
    "*": _SHOWABLE,  # what old Java clients send
    "text/*": (TEXT, TEXT_1_0_0),
    "application/*": (OPENMETRICS, OPENMETRICS_0_0_1),
    "text/plain": (TEXT, TEXT_1_0_0),
    "application/openmetrics-text": (OPENMETRICS, OPENMETRICS_0_0_1),
}
_VERSIONS = {(each.media_type, each.version): (each,) for each in _PREFERRED}

# The possessive quantifiers and the quote that the end of the header closes keep both linear.
_QUOTED = r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)'
_PART = re.compile(rf'((?:{_QUOTED}|[^",;]++)*+)([,;]|\Z)', re.DOTALL)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]++")
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,9})?|\.[0-9]{1,9}|1(?:\.0{0,9})?")

#: Of ranges of one header, more than this many are not looked at; real ones have under ten.
_MAX_RANGES: Final = 256

_BY_VERSION, _BY_TYPE, _BY_GROUP, _BY_ANYTHING = 3, 2, 1, 0


class _Range(NamedTuple):
    """One element of a header: what it is about, its parameters, and its weight from 0 to 1."""

    name: str
    parameters: dict[str, str]
    weight: float


class _Wish(NamedTuple):
    """What a client has said about one protocol; of two, the greater one counts."""

    specific: int
    weight: float


def negotiate(accept: str | Iterable[str]) -> Format:
    """
    Return the format to answer in.

    *accept* is the Accept header, or the values of several; "" where there is none.
    """
    wishes: dict[Format, _Wish] = {}
    escapings: dict[Format, Escaping] = {}
    for name, parameters, weight in _ranges(accept):
        version = parameters.get("version")
        formats = _RANGES.get(name, ()) if version is None else _VERSIONS.get((name, version), ())
        specific = _specific(name) if version is None else _BY_VERSION
        for each in formats:
            wish = _Wish(specific, weight)
            if each not in wishes or wish > wishes[each]:
                wishes[each] = wish
                escapings[each] = _escaping(parameters)
    acceptable = [each for each, wish in wishes.items() if wish.weight > 0]
    if not acceptable:
        return TEXT
    best = min(acceptable, key=lambda each: (-wishes[each].weight, _rank(each, wishes[each])))
    return replace(best, escaping=escapings[best]) if best.version == "1.0.0" else best


def content_coding(accept_encoding: str | Iterable[str], available: Sequence[str]) -> str:
    """
    Return the coding to answer in: one of *available*, best first, or "identity".

    *accept_encoding* is the Accept-Encoding header, or the values of several; "" where there is
    none. Of equal weights the first of *available* wins, as in client_golang the server's order
    does. "identity" is the answer also where a client refuses it and everything else that we have.
    """
    weights: dict[str, float] = {}
    for name, _, weight in _ranges(accept_encoding):
        name = "gzip" if name == "x-gzip" else name  # noqa: PLW2901 - RFC 9110, 8.4.1.3: the same
        weights[name] = max(weight, weights.get(name, 0.0))
    if "*" in weights:
        weights.setdefault("gzip", weights["*"])  # every client knows gzip; zstd is asked for
    best, best_weight = "identity", weights.get("identity", 0.0)
    # From the last of *available* to the first: each later one wins where it is wanted as much.
    for coding in reversed(available):
        weight = weights.get(coding, 0.0)
        if weight > 0 and weight >= best_weight:
            best, best_weight = coding, weight
    return best


def _ranges(headers: str | Iterable[str]) -> Iterator[_Range]:
    for header in (headers,) if isinstance(headers, str) else headers:
        count = 0
        parts: list[str] = []
        for match in _PART.finditer(header):
            parts.append(match[1])
            if match[2] != ";":
                if count < _MAX_RANGES and parts != [""]:
                    count += 1
                    yield _range(parts)
                parts = []


def _range(parts: list[str]) -> _Range:
    parameters: dict[str, str] = {}
    for part in parts[1:]:
        name, _, value = part.partition("=")
        name, value = name.strip(" \t").lower(), value.strip(" \t")
        quoted = _STRING.fullmatch(value)
        if quoted is not None:
            value = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
        elif not _TOKEN.fullmatch(value):
            continue
        parameters.setdefault(name, value)
    weight = parameters.get("q", "1")
    return _Range(
        parts[0].strip(" \t").lower(),
        parameters,
        float(weight) if _WEIGHT.fullmatch(weight) else 1.0,
    )


def _specific(name: str) -> int:
    if name in ("*", "*/*"):
        return _BY_ANYTHING
    return _BY_GROUP if name.endswith("/*") else _BY_TYPE


def _escaping(parameters: dict[str, str]) -> Escaping:
    wanted = parameters.get("escaping")
    return next((each for each in ESCAPINGS if each == wanted), "underscores")


def _rank(each: Format, wish: _Wish) -> int:
    by_name = wish.specific == _BY_VERSION or (
        wish.specific == _BY_TYPE and each in (OPENMETRICS, TEXT)
    )
    return _PREFERRED.index(each) if by_name else len(_PREFERRED) + _SHOWABLE.index(each)
