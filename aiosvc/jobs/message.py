"""
A job on its way: its name and arguments as bytes, and when it was sent.

Rule: the bytes are those that taskiq's own formatter makes, so that its tools can read them. Rule:
arguments are what JSON can say, whatever queue they go into, so that one can be exchanged for
another.
"""

import json
import math
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

__all__ = ["SENT", "Message", "sent_at"]

#: The label that says when the message was sent, in Unix time.
SENT: Final = "aiosvc_sent"


def sent_at(labels: Mapping[str, Any]) -> float | None:
    """Return the Unix time at which a message with these labels was sent, None where they say none."""
    try:
        at = float(labels.get(SENT, math.nan))
    except (TypeError, ValueError, OverflowError):
        return None
    return at if math.isfinite(at) else None


class Message(NamedTuple):
    """One job; `sent` is the Unix time at which it was enqueued, None where nobody said."""

    id: str
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    sent: float | None

    @classmethod
    def of(cls, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        """Return a new message, sent now."""
        return cls(uuid4().hex, name, list(args), kwargs, time.time())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the message that *data* is; raises ValueError where it is none."""
        try:
            fields = json.loads(data)
            name, args, kwargs = fields["task_name"], fields["args"], fields["kwargs"]
            sent = sent_at(fields.get("labels", {}))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a job's message: {type(error).__name__}: {error}") from None
        if not (isinstance(name, str) and isinstance(args, list) and isinstance(kwargs, dict)):
            raise ValueError("not a job's message: its fields have other types")  # noqa: TRY004 - of a document
        return cls(str(fields.get("task_id") or ""), name, args, kwargs, sent)

    @property
    def labels(self) -> dict[str, Any]:
        """What goes with the message beside its arguments."""
        return {} if self.sent is None else {SENT: self.sent}

    def encode(self) -> bytes:
        """Return the bytes to send; raises TypeError for arguments that JSON can't say."""
        fields = {
            "task_id": self.id,
            "task_name": self.name,
            "labels": self.labels,
            "labels_types": None,
            "args": self.args,
            "kwargs": self.kwargs,
        }
        try:
            return json.dumps(fields, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(
                f"job {self.name!r}: its arguments must be what JSON can say: {error}"
            ) from None
