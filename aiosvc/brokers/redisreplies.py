"""
Replies of Redis, in one form whatever the client, of RESP2 or of RESP3.

Rule: plain values in, plain values out; what is not there or not what it should be is None.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["document", "entry_time", "following", "pairs", "scored", "text", "time_of"]

#: Unix seconds, of 2001: a smaller number is no time at which work was queued.
EARLIEST: Final = 1e9

#: Bytes of a message of an engine that are looked into.
LONGEST: Final = 65_536


def text(value: Any) -> str:
    """Return a string of a reply."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def pairs(reply: Any) -> dict[str, Any]:
    """Return a map, which RESP2 gives as a list of keys and values."""
    if isinstance(reply, Mapping):
        return {text(name): value for name, value in reply.items()}
    flat = list(reply or ())
    return {text(name): value for name, value in zip(flat[::2], flat[1::2], strict=False)}


def scored(reply: Any) -> list[tuple[str, float]]:
    """Return members with their scores, which RESP2 gives as one flat list."""
    flat = list(reply or ())
    if flat and isinstance(flat[0], list | tuple):
        flat = [part for pair in flat for part in pair]
    members: Iterable[tuple[Any, Any]] = zip(flat[::2], flat[1::2], strict=False)
    return [(text(member), float(score)) for member, score in members]


def following(identity: str) -> str:
    """Return the smallest identity of a stream's entry that is after *identity*."""
    milliseconds, _, sequence = identity.partition("-")
    return f"{milliseconds}-{int(sequence or 0) + 1}"


def entry_time(identity: str) -> float | None:
    """Return the Unix time that is in the identity of a stream's entry; None if it is no time."""
    return time_of(identity.partition("-")[0], 1000.0)


def time_of(value: Any, units: float = 1.0) -> float | None:
    """Return a number of *units* to the second, or a time in ISO 8601, UTC, as a Unix time."""
    if value is None:
        return None
    written = text(value)
    try:
        moment = float(written) / units
    except ValueError:
        try:
            parsed = datetime.fromisoformat(written)
        except ValueError:
            return None
        moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    return moment if moment > EARLIEST else None


def document(value: Any) -> dict[str, Any]:
    """Return a JSON object; {} where it is none, or a very long one."""
    if not isinstance(value, str | bytes) or len(value) > LONGEST:
        return {}
    try:
        found = json.loads(value)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
