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

from aiosvc import validation
from aiosvc.catalogue import DURATION_BUCKETS, LIFETIME_BUCKETS
from aiosvc.errors import ConfigError, did_you_mean
from aiosvc.labels import LabelSource, check_labels
from aiosvc.naming import is_name

__all__ = ["Options", "ServeOptions", "Settings", "make", "settings_of"]

T = TypeVar("T")


class Options(TypedDict, total=False):
    """The keyword arguments of `aiosvc.setup`; one key for each field of `Settings`."""

    path: str | None
    sample_interval: float
    sample_timeout: float
    sample_keep: int
    sample_brokers: bool
    loop_probe: str
    stall_threshold: float
    task_groups: Mapping[str, str]
    max_endpoints: int
    exclude: Iterable[str]
    count_own: bool
    labels: Mapping[str, LabelSource]
    preset: str
    buckets: Iterable[float]
    slo: Iterable[float]
    response_start: bool
    response_start_buckets: Iterable[float]
    websocket_buckets: Iterable[float]
    exemplars: str
    slow: float
    max_scrapes: int
    scrape_timeout: float
    scrape_slice: float
    scrape_strict: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What `aiosvc.setup` takes, besides the application and the registry."""

    path: str | None = field(
        default="/metrics",
        metadata={
            "help": "path of the metrics endpoint on the application's own port; in Python None "
            "means that there is none"
        },
    )
    sample_interval: float = field(
        default=1.0,
        metadata={"help": "seconds between two samples of connections and process"},
    )
    sample_timeout: float = field(
        default=5.0,
        metadata={"help": "seconds after which a sample is given up and counts as failed"},
    )
    sample_keep: int = field(
        default=3,
        metadata={"help": "intervals after which what a failing source last said is dropped"},
    )
    sample_brokers: bool = field(
        default=True,
        metadata={
            "help": "whether this process asks brokers how the queues are that it watches there; of "
            "many replicas that watch the same ones, a few are enough"
        },
    )
    loop_probe: str = field(
        default="auto",
        metadata={
            "help": "how the event loop is measured: auto (around its selector, else by a "
            "heartbeat), heartbeat or off"
        },
    )
    stall_threshold: float = field(
        default=0.1,
        metadata={
            "help": "seconds from which an event loop that runs callbacks is stalled; 0.05 or more"
        },
    )
    task_groups: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "groups in which asyncio_tasks are counted, by patterns of the task's or its "
            "coroutine's name, like consumers=consume_*|drain"
        },
    )
    max_endpoints: int = field(
        default=500,
        metadata={"help": "endpoint labels at most; further routes are counted as '_other'"},
    )
    exclude: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "routes that no request metric counts, by template; '*' at the end stands for "
            "whatever follows"
        },
    )
    count_own: bool = field(
        default=False,
        metadata={"help": "whether requests to /metrics, /livez and /readyz count as requests too"},
    )
    labels: Mapping[str, LabelSource] = field(
        default_factory=dict,
        metadata={
            "help": "labels to add to every request metric, like region=eu; those that depend on "
            "a request are given in Python"
        },
    )
    preset: str = field(
        default="classic",
        metadata={"help": "names of the HTTP metrics: classic, or otel for OpenTelemetry's"},
    )
    buckets: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": "upper bounds in seconds of the request duration; none means 0.005 to 10, as "
            "OpenTelemetry advises"
        },
    )
    slo: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": "latency objectives in seconds; each becomes a bucket of durations and of "
            "times to headers, so that the share within it is exact"
        },
    )
    response_start: bool = field(
        default=False,
        metadata={"help": "export http_response_start_seconds, the time to the headers"},
    )
    response_start_buckets: tuple[float, ...] = field(
        default=(),
        metadata={"help": "its upper bounds in seconds; none means those of the duration"},
    )
    websocket_buckets: tuple[float, ...] = field(
        default=(),
        metadata={"help": "upper bounds in seconds of a WebSocket's life; none means 0.1 to 12 h"},
    )
    exemplars: str = field(
        default="off",
        metadata={
            "help": "requests whose trace id becomes an exemplar of its duration's bucket: off, "
            "all, slow or failed (slow ones too)"
        },
    )
    slow: float = field(
        default=1.0, metadata={"help": "seconds from which a request is slow, for the exemplars"}
    )
    max_scrapes: int = field(
        default=16, metadata={"help": "scrapes in progress at most; one more is answered 503"}
    )
    scrape_timeout: float = field(
        default=10.0,
        metadata={
            "help": "seconds that a scrape may take; a scraper's own timeout counts where it is "
            "shorter"
        },
    )
    scrape_slice: float = field(
        default=0.0005,
        metadata={"help": "seconds of the event loop that a scrape takes at a time"},
    )
    scrape_strict: bool = field(
        default=False,
        metadata={
            "help": "whether a collector that fails makes the scrape a 500; its metrics are left "
            "out otherwise"
        },
    )

    @property
    def duration_bounds(self) -> tuple[float, ...]:
        """The upper bounds of durations, objectives included."""
        return _with_objectives(self.buckets or DURATION_BUCKETS, self.slo)

    @property
    def response_start_bounds(self) -> tuple[float, ...]:
        """The upper bounds of times to headers, objectives included."""
        if self.response_start_buckets:
            return _with_objectives(self.response_start_buckets, self.slo)
        return self.duration_bounds

    @property
    def websocket_bounds(self) -> tuple[float, ...]:
        """The upper bounds of WebSocket lifetimes."""
        return self.websocket_buckets or LIFETIME_BUCKETS

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        for name in ("buckets", "response_start_buckets", "websocket_buckets"):
            object.__setattr__(self, name, _bounds(name, getattr(self, name)))
        object.__setattr__(self, "slo", _bounds("slo", _sorted(self.slo)))
        object.__setattr__(self, "exclude", _templates("exclude", self.exclude))
        object.__setattr__(self, "labels", check_labels(self.labels))
        validation.one_of("preset", self.preset, ("classic", "otel"))
        validation.one_of("exemplars", self.exemplars, ("off", "all", "slow", "failed"))
        validation.seconds("slow", self.slow, at_least=0.0)
        validation.yes_or_no("response_start", self.response_start)
        validation.yes_or_no("count_own", self.count_own)
        validation.whole("max_scrapes", self.max_scrapes, at_least=1)
        validation.seconds("scrape_timeout", self.scrape_timeout, at_least=0.001)
        validation.seconds("scrape_slice", self.scrape_slice, at_least=0.0001)
        validation.yes_or_no("scrape_strict", self.scrape_strict)
        if self.path is not None:
            _path("path", self.path)
        validation.seconds("sample_interval", self.sample_interval, at_least=0.01)
        validation.seconds("sample_timeout", self.sample_timeout, at_least=0.01)
        validation.whole("sample_keep", self.sample_keep, at_least=0)
        validation.yes_or_no("sample_brokers", self.sample_brokers)
        validation.one_of("loop_probe", self.loop_probe, ("auto", "heartbeat", "off"))
        validation.seconds("stall_threshold", self.stall_threshold, at_least=0.05)
        validation.whole("max_endpoints", self.max_endpoints, at_least=1)
        object.__setattr__(self, "task_groups", _groups("task_groups", self.task_groups))


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
            raise validation.wrong("host", self.host, "an address like '127.0.0.1'")
        validation.whole("port", self.port, at_least=0, at_most=65535)
        validation.yes_or_no("access_log", self.access_log)
        validation.seconds("shutdown_timeout", self.shutdown_timeout, at_least=0.0)


def make(kind: type[T], options: Mapping[str, Any]) -> T:
    """Return *kind* made from *options*; a name that it does not have is a ConfigError."""
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # always a dataclass
    for name in options:
        if name not in known:
            raise ConfigError(
                f"no option named {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"
            )
    return kind(**options)


def settings_of(settings: Settings | None, options: Mapping[str, Any]) -> Settings:
    """Return the settings, given as such or one by one; raises ConfigError for both."""
    if settings is None:
        return make(Settings, options)
    if options:
        raise ConfigError(f"setup: settings and {', '.join(options)} given; give one or the other")
    return settings


def _path(name: str, value: object) -> None:
    if (
        not isinstance(value, str)
        or not value.startswith("/")
        or value == "/"
        or any(c in value for c in "{}?#% \t\r\n")
    ):
        raise validation.wrong(name, value, "a plain path like '/metrics'")


def _templates(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise validation.wrong(name, value, "templates, like ('/health',)")
    templates = tuple(value)
    for template in templates:
        if not isinstance(template, str) or not template.startswith(("/", "_unmatched")):
            raise validation.wrong(name, template, "a template like '/health'")
    return templates


def _groups(name: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{name}: {value!r} given; expected names and patterns, like "
            "{'consumers': 'consume_*|drain'}"
        )
    for group, patterns in value.items():
        if not is_name(group) or group.startswith("_"):
            raise ConfigError(
                f"{name}: group {group!r} given; expected letters, digits, '_', '-' and '.', and "
                "no '_' first"
            )
        if not isinstance(patterns, str) or not all(p.strip() for p in patterns.split("|")):
            raise ConfigError(
                f"{name}: {group}: {patterns!r} given; expected a pattern like 'consume_*', or "
                "several with '|' between"
            )
    return dict(value)


def _sorted(value: object) -> object:
    try:
        return sorted(set(value))  # type: ignore[call-overload]  # what is not iterable is refused
    except TypeError:
        return value


def _with_objectives(bounds: tuple[float, ...], slo: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted({*bounds, *slo}))


def _bounds(name: str, value: object) -> tuple[float, ...]:
    wrong = validation.wrong(name, value, "rising numbers, like (0.1, 0.5, 1)")
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
