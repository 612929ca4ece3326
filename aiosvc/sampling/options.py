"""
The options of one source, each written once.

Rule: a frozen, keyword-only dataclass, validated when made; `SourceKeywords` has the same fields.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypedDict

from aiosvc import validation

__all__ = ["NAME", "Kind", "SourceKeywords", "SourceOptions"]

Kind = Literal["gauge", "counter"]

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


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
    labelnames = tuple(names)
    for name in labelnames:
        if (
            not isinstance(name, str)
            or not NAME.fullmatch(name)
            or name.startswith("__")
            or name in ("le", "quantile")
        ):
            raise validation.wrong(
                "labelnames",
                name,
                "letters, digits and '_', no digit and no '__' first, and neither le nor quantile",
            )
    if len(set(labelnames)) < len(labelnames):
        raise validation.wrong("labelnames", labelnames, "each name once")
    return labelnames
