"""
The options, each written once: flags, environment variables and file keys derive from the fields.

Rule: frozen, keyword-only dataclasses, validated when made; a wrong value is a ConfigError that
names the option, what was given and what is expected.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, TypedDict, TypeVar

from aiosvc.errors import ConfigError, did_you_mean

__all__ = ["Options", "ServeOptions", "Settings", "make"]

T = TypeVar("T")


class Options(TypedDict, total=False):
    """The keyword arguments of `aiosvc.setup`; one key for each field of `Settings`."""

    path: str
    sample_interval: float
    sample_timeout: float
    max_endpoints: int
    buckets: Iterable[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What `aiosvc.setup` takes, besides the application and the registry."""

    path: str = field(
        default="/metrics",
        metadata={"help": "path of the metrics endpoint on the application's own port"},
    )
    sample_interval: float = field(
        default=1.0,
        metadata={"help": "seconds between two samples of connections, queues and process"},
    )
    sample_timeout: float = field(
        default=5.0,
        metadata={"help": "seconds after which a sample is given up and counts as failed"},
    )
    max_endpoints: int = field(
        default=500,
        metadata={"help": "endpoint labels at most; further routes are counted as '_other'"},
    )
    buckets: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": "upper bounds in seconds of http_request_duration_seconds; "
            "empty means the default ones, 0.005 to 10"
        },
    )

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        _path("path", self.path)
        _seconds("sample_interval", self.sample_interval, at_least=0.01)
        _seconds("sample_timeout", self.sample_timeout, at_least=0.01)
        _whole("max_endpoints", self.max_endpoints, at_least=1)
        object.__setattr__(self, "buckets", _bounds("buckets", self.buckets))


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions:
    """Where `aiosvc run` and `aiosvc demo` listen, and how they stop."""

    host: str = field(default="127.0.0.1", metadata={"help": "address to listen on"})
    port: int = field(default=8000, metadata={"help": "port to listen on; 0 takes a free one"})
    access_log: bool = field(
        default=False, metadata={"help": "write a line for each request: true or false"}
    )
    shutdown_timeout: float = field(
        default=60.0,
        metadata={"help": "seconds that running requests get to finish at a stop"},
    )

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if not isinstance(self.host, str) or not self.host:
            raise ConfigError(f"host: {self.host!r} given; expected an address like '127.0.0.1'")
        _whole("port", self.port, at_least=0, at_most=65535)
        if not isinstance(self.access_log, bool):
            raise ConfigError(f"access_log: {self.access_log!r} given; expected true or false")
        _seconds("shutdown_timeout", self.shutdown_timeout, at_least=0.0)


def make(kind: type[T], options: Mapping[str, Any]) -> T:
    """Return *kind* made from *options*; a name that it does not have is a ConfigError."""
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # always a dataclass
    for name in options:
        if name not in known:
            raise ConfigError(
                f"no option named {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"
            )
    return kind(**options)


def _path(name: str, value: object) -> None:
    if (
        not isinstance(value, str)
        or not value.startswith("/")
        or value == "/"
        or any(c in value for c in "{}?#% \t\r\n")
    ):
        raise ConfigError(f"{name}: {value!r} given; expected a plain path like '/metrics'")


def _seconds(name: str, value: object, *, at_least: float) -> None:
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or value < at_least
    ):
        raise ConfigError(f"{name}: {value!r} given; expected seconds, {at_least:g} or more")


def _whole(name: str, value: object, *, at_least: int, at_most: int | None = None) -> None:
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < at_least
        or (at_most is not None and value > at_most)
    ):
        upper = "or more" if at_most is None else f"to {at_most}"
        raise ConfigError(f"{name}: {value!r} given; expected a whole number, {at_least} {upper}")


def _bounds(name: str, value: object) -> tuple[float, ...]:
    wrong = ConfigError(f"{name}: {value!r} given; expected rising numbers, like (0.1, 0.5, 1)")
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise wrong
    try:
        bounds = tuple(float(bound) for bound in value)
    except (TypeError, ValueError):
        raise wrong from None
    if bounds and bounds[-1] == math.inf:
        bounds = bounds[:-1]
    if any(not math.isfinite(b) for b in bounds) or any(a >= b for a, b in pairwise(bounds)):
        raise wrong
    return bounds
