"""
`aiosvc check URL|FILE`: what is wrong with the metrics that somebody exposes, for people and for CI.

Rule: any endpoint will do, ours or not; one text is read and judged. Exit codes: 0 nothing is wrong,
1 there are problems, 2 it can't be read.
"""

import json
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from aiosvc.errors import AiosvcError
from aiosvc.exposed import Family, UnreadableError, read_families
from aiosvc.formats import TEXT
from aiosvc.lint import Problem, lint
from aiosvc.validation import one_of, seconds, whole

__all__ = ["CheckOptions", "SourceError", "check"]

#: Bytes of a text at most.
LIMIT: Final = 256 * 1024 * 1024

#: Bytes of an answer that are read at once.
CHUNK: Final = 64 * 1024

#: Families whose number of series is shown.
SHOWN: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOptions:
    """How `aiosvc check` judges, and how it says so."""

    max_series: int = field(
        default=1000,
        metadata={"help": "series that a family may have; 0 for as many as it likes"},
    )
    format: str = field(default="text", metadata={"help": "of what is printed: text or json"})
    fetch_timeout: float = field(
        default=10.0, metadata={"help": "seconds that an endpoint has to answer"}
    )

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        whole("max_series", self.max_series, at_least=0)
        one_of("format", self.format, ("text", "json"))
        seconds("fetch_timeout", self.fetch_timeout, at_least=0.001)


class SourceError(AiosvcError, OSError):
    """Raised where what is to be checked can't be read."""


def check(source: str, options: CheckOptions, say: Callable[[str], object] = print) -> int:
    """
    Judge the metrics at *source*, a URL, a file, or '-' for stdin; return 0, or 1 for problems.

    What is found is handed to *say*, in lines. Raises SourceError where there is nothing to judge.
    """
    text = _fetched(source, options.fetch_timeout) if "://" in source else _read(source)
    try:
        families, openmetrics = read_families(text)
    except UnreadableError as error:
        shown = _taken_apart(source)[0] if "://" in source else source
        raise SourceError(f"{shown}: {error}; expected the text of a scrape") from None
    problems = lint(families, openmetrics=openmetrics, max_series=options.max_series)
    show = _as_json if options.format == "json" else _as_text
    for line in show(problems, families):
        say(line)
    return 1 if problems else 0


def _as_text(problems: list[Problem], families: list[Family]) -> list[str]:
    lines = [f"{problem.metric} {problem.text}" for problem in problems]
    counts = _counts(families)
    total = sum(counts.values())
    largest = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:SHOWN])
    lines.append(f"{total} series in {len(counts)} families" + (f": {largest}" if counts else ""))
    if len(counts) > SHOWN:
        lines[-1] += ", ..."
    count = len(problems)
    lines.append(f"{count or 'no'} problem{'' if count == 1 else 's'}")
    return lines


def _as_json(problems: list[Problem], families: list[Family]) -> list[str]:
    counts = _counts(families)
    found = {
        "problems": [problem._asdict() for problem in problems],
        "series": sum(counts.values()),
        "families": counts,
    }
    return [json.dumps(found, indent=2)]


def _counts(families: list[Family]) -> dict[str, int]:
    """Return how many series each family has, the largest first."""
    ordered = sorted(families, key=lambda family: (-len(family.series), family.name))
    return {family.name: len(family.series) for family in ordered}


def _read(source: str) -> str:
    try:
        body = sys.stdin.buffer.read(LIMIT + 1) if source == "-" else _head(Path(source))
    except OSError as error:
        hint = "" if source == "-" else "; expected a file, '-', or a URL like http://host:8000/"
        raise SourceError(f"{source}: {error.strerror or error}{hint}") from error
    return _decoded(source, body)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIMIT + 1)


def _taken_apart(url: str) -> tuple[str, str]:
    """Return a URL without user and password, since errors show it, and these."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError as error:
        raise SourceError(f"{url}: {error}; expected a URL like http://host:8000/metrics") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceError(f"{url}: expected a URL like http://host:8000/metrics")
    credentials, _, netloc = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=netloc)), credentials


def _fetched(given: str, timeout: float) -> str:
    url, credentials = _taken_apart(given)
    parts = urlsplit(url)
    if parts.path in ("", "/"):
        parts = parts._replace(path="/metrics")
    try:
        request = urllib.request.Request(  # noqa: S310 - http or https
            urlunsplit(parts), headers={"Accept": TEXT.content_type}
        )
        if credentials:
            encoded = b64encode(unquote_to_bytes(credentials)).decode()
            request.add_unredirected_header("Authorization", f"Basic {encoded}")
        deadline = monotonic() + timeout
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310 - the same
            body = b"".join(_chunks(response, deadline))
    except urllib.error.HTTPError as error:
        with error:
            raise SourceError(f"{url}: answered {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise SourceError(f"{url}: timed out; no whole answer within {timeout:g} s") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SourceError(f"{url}: {reason}") from error
    return _decoded(url, body)


def _chunks(response: HTTPResponse, deadline: float) -> Iterator[bytes]:
    """Give what is read, up to a little more than may be; raises TimeoutError past *deadline*."""
    size = 0
    while size <= LIMIT and (some := response.read1(CHUNK)):
        size += len(some)
        yield some
        if monotonic() > deadline:
            raise TimeoutError


def _decoded(source: str, body: bytes) -> str:
    if len(body) > LIMIT:
        raise SourceError(f"{source}: more than {LIMIT >> 20} MiB; expected the text of a scrape")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"{source}: {error}; expected the text of a scrape") from error
