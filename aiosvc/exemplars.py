"""
Which trace an observation belongs to, so that a graph leads to an example of what it shows.

Rule: a trace id is one that OpenTelemetry knows, or a valid one of a W3C `traceparent` header; an
invalid header is no trace. Rule: OpenTelemetry is asked for here and nowhere else, and is optional.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from aiosvc.series import SERVER_ERROR, Ending

__all__ = ["current_trace_id", "is_exemplary", "trace_id_of_header"]

#: https://www.w3.org/TR/trace-context/#traceparent-header; later versions may append fields.
TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)


def is_exemplary(ending: Ending, wanted: str, slow: float) -> bool:
    """Return whether a request that ended so is *wanted* as an example; *slow* is in seconds."""
    if wanted in ("off", "all"):
        return wanted == "all"
    failed = ending.reason is not None or ending.status >= SERVER_ERROR
    return ending.seconds >= slow or (failed and wanted == "failed")


def trace_id_of_header(value: str | None) -> str | None:
    """Return the trace id of a `traceparent` header, None where it is missing or not valid."""
    if value is None:
        return None
    match = TRACEPARENT.fullmatch(value.strip())
    if match is None or (value.startswith("00") and match[2]):
        return None
    return match[1]


def current_trace_id() -> str | None:
    """Return the trace id of OpenTelemetry's current span; None without one, or the library."""
    return _library()()


@cache
def _library() -> Callable[[], str | None]:
    try:
        from opentelemetry.trace import format_trace_id, get_current_span  # noqa: PLC0415
    except ImportError:
        return lambda: None

    def from_span() -> str | None:
        context: Any = get_current_span().get_span_context()
        return format_trace_id(context.trace_id) if context.is_valid else None

    return from_span
