"""
The demo's options, which its web process and its worker process read alike.

Rule: as in `aiosvc.config`, frozen and checked when made.
"""

import math
from dataclasses import dataclass, field, fields

from aiosvc.errors import ConfigError

__all__ = ["DemoOptions"]

_LIMITS = {
    "workers": (1, 1000),
    "queue_size": (1, 1_000_000),
    "send_seconds": (0, 3600),
    "failure_rate": (0, 1),
    "max_attempts": (1, 1000),
    "drain_timeout": (0, 3600),
    "load": (0, 100_000),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoOptions:
    """The demo's options; a wrong one raises ConfigError when they are made."""

    queue: str = field(
        default="memory://",
        metadata={
            "help": "where e-mails wait: memory://, or a broker that replicas share, at redis://, "
            "nats:// or amqp://"
        },
    )
    workers: int = field(
        default=4, metadata={"help": "e-mail workers, 1 to 1000; on a broker also 0, for none here"}
    )
    queue_size: int = field(
        default=100, metadata={"help": "e-mails that may wait; beyond it orders are refused"}
    )
    send_seconds: float = field(
        default=0.05, metadata={"help": "median seconds that sending an e-mail takes"}
    )
    failure_rate: float = field(
        default=0.05, metadata={"help": "share of attempts to send that fail, 0 to 1"}
    )
    max_attempts: int = field(
        default=3, metadata={"help": "attempts to send an e-mail before giving up"}
    )
    drain_timeout: float = field(
        default=10.0, metadata={"help": "seconds that stopping may spend on what is queued"}
    )
    seed: int = field(default=1, metadata={"help": "seed of everything that is random"})
    load: float = field(
        default=0.0, metadata={"help": "requests per second of the built-in client; 0: none"}
    )
    outbox: str | None = field(
        default=None, metadata={"help": "file that gets a line of JSON for each e-mail sent"}
    )

    @property
    def is_shared(self) -> bool:
        """Whether the queue is on a broker."""
        return not self.queue.startswith("memory:")

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        for name in ("queue", "outbox"):
            value = getattr(self, name)
            if not isinstance(value, str) and (name, value) != ("outbox", None):
                raise ConfigError(f"{name}: {value!r} given; expected a text")
        for option in fields(self):
            if option.name in ("queue", "outbox"):
                continue
            value = getattr(self, option.name)
            whole = type(option.default) is int
            low, high = _LIMITS.get(option.name, (-math.inf, math.inf))
            if option.name == "workers" and self.is_shared:
                low = 0
            right_type = type(value) is int or (type(value) is float and not whole)
            if not (right_type and low <= value <= high):
                kind = "a whole number" if whole else "a number"
                limits = f", {low} to {high}" if option.name in _LIMITS else ""
                raise ConfigError(f"{option.name}: {value!r} given; expected {kind}{limits}")
