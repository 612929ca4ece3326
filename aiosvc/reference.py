"""
The reference of all metrics, for the terminal and as the page docs/metrics.md.

Rule: says nothing of its own about a metric. Meaning, labels and buckets are the catalogue's, the
alerts are those whose expressions name it, the unit is in the name.
"""

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Final

from aiosvc.catalogue import CATALOGUE, MetricSpec
from aiosvc.rules import alerts_by_metric

__all__ = ["as_markdown", "as_text", "unit_of"]

UNITS: Final = ("seconds", "bytes")

#: The page's chapters: a title, and how the names in it begin.
CHAPTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "HTTP server, preset `otel`": ("http_server_",),
    "HTTP client": ("http_client_",),
    "HTTP server": ("http_", "websocket_", "active_connections", "connections_total"),
    "Event loop, tasks and executor": ("asyncio_",),
    "Process and Python": ("process_", "python_"),
    "Queues and workers": ("queue_", "worker"),
    "Jobs that end": ("job_",),
    "aiosvc itself": ("aiosvc_",),
}  # fmt: skip

INTRODUCTION: Final = """\
# Metrics

All metrics that aiosvc exports, made by `aiosvc metrics --markdown` from the catalogue in
`aiosvc/catalogue.py`. Prometheus adds `job` and `instance`; where a metric has a label `job` of its
own, Prometheus calls that one `exported_job`. What can't be known is absent, never 0. Of a histogram
there are `_bucket`, `_count` and `_sum`, of a summary `_count` and `_sum`.
"""


def unit_of(row: MetricSpec) -> str:
    """Return the unit of a metric, which its name ends in; empty for what is counted."""
    name = row.name.removesuffix("_total")
    return next((unit for unit in UNITS if name.endswith(f"_{unit}")), "")


def as_text() -> str:
    """Return the reference for a terminal."""
    alerts = alerts_by_metric()
    lines: list[str] = []
    for row in CATALOGUE:
        labels = f"{{{', '.join(row.labels)}}}" if row.labels else ""
        lines += [f"{row.name}{labels}", f"    {_kind(row)}"]
        lines += wrap(row.help, 96, initial_indent="    ", subsequent_indent="    ")
        if row.buckets:
            lines += wrap(
                f"buckets: {_buckets(row)}", 96, initial_indent="    ", subsequent_indent="      "
            )
        lines += [f"    alert: {name}" for name in alerts.get(row.name, ())]
        lines.append("")
    return "\n".join(lines)


def as_markdown() -> str:
    """Return the page docs/metrics.md."""
    parts = [INTRODUCTION]
    for title, rows in _chapters().items():
        table = "\n".join(_table(rows))
        parts.append(f"## {title}\n\n{table}\n")
        buckets = [f"- `{row.name}`: {_buckets(row)}" for row in rows if row.buckets]
        if buckets:
            parts.append("Upper bounds of the buckets:\n\n" + "\n".join(buckets) + "\n")
    return "\n".join(parts)


def _chapters() -> dict[str, list[MetricSpec]]:
    """Return the rows by chapter, chapters in the order in which the catalogue comes to them."""
    found: dict[str, list[MetricSpec]] = {}
    for row in CATALOGUE:
        title = next(
            title for title, beginnings in CHAPTERS.items() if row.name.startswith(beginnings)
        )
        found.setdefault(title, []).append(row)
    return found


def _table(rows: list[MetricSpec]) -> Iterator[str]:
    alerts = alerts_by_metric()
    yield "| metric | type | labels | says | alerts |"
    yield "|---|---|---|---|---|"
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        links = ", ".join(f"[{name}](runbooks/{name}.md)" for name in alerts.get(row.name, ()))
        meaning = row.help.replace("|", "\\|")
        yield f"| `{row.name}` | {_kind(row)} | {labels} | {meaning} | {links} |"


def _kind(row: MetricSpec) -> str:
    unit = unit_of(row)
    return f"{row.kind}, {unit}" if unit else row.kind


def _buckets(row: MetricSpec) -> str:
    return ", ".join(f"{bound:g}" for bound in row.buckets)
