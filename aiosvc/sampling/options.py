"""
The options of one source, each written once.

Rule: a frozen, keyword-only dataclass, validated when made; `SourceKeywords` has the same fields.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypedDict

from aiosvc import validation
from aiosvc.errors import ConfigError
from aiosvc.naming import check_labels

__all__ = ["Kind", "SourceKeywords", "SourceOptions"]

Kind = Literal["gauge", "counter"]


class SourceKeywords(TypedDict, total=False):
    """The keyword arguments of `Sampler.add`; one key for each field of `SourceOptions`."""

    documentation: str
    labelnames: Iterable[str]
    kind: Kind
    max_series: int
    interval: float | None
    jitter: float
    timeout: float | None
    keep: int | None
    backoff: float
    on_loop: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """How a source is read, and what becomes of what it returns; see `Sampler.add`."""

    documentation: str = ""
    labelnames: tuple[str, ...] = ()
    kind: Kind = "gauge"
    max_series: int = 1000
    interval: float | None = None
    jitter: float = 0.0
    timeout: float | None = None
    keep: int | None = None
    backoff: float = 10.0
    on_loop: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if not isinstance(self.documentation, str):
            raise validation.wrong("documentation", self.documentation, "a text")
        object.__setattr__(self, "labelnames", _labelnames(self.labelnames))
        validation.one_of("kind", self.kind, ("gauge", "counter"))
        validation.whole("max_series", self.max_series, at_least=1)
        for name in ("interval", "timeout"):
            if getattr(self, name) is not None:
                validation.seconds(name, getattr(self, name), at_least=0.001)
        validation.seconds("jitter", self.jitter, at_least=0.0)
        if self.keep is not None:
            validation.whole("keep", self.keep, at_least=0)
        validation.seconds("backoff", self.backoff, at_least=0.0)
        validation.yes_or_no("on_loop", self.on_loop)


def _labelnames(names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise validation.wrong("labelnames", names, "a tuple, like ('state',)")
    try:
        return check_labels(names)
    except ConfigError as error:
        raise ConfigError(f"labelnames: {error}") from None
