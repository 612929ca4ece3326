"""
Names and texts that are not aiosvc's own, and what they may be for a scrape to hold them.

Rule: the one place that says what a metric, a label, or a thing such as a queue may be called, and
that makes a foreign text one that can be sent. Rule: knows no metric of anybody's but the
catalogue's names.
"""

import re
from collections.abc import Iterable
from typing import Final, TypeGuard

from aiosvc import catalogue
from aiosvc.errors import ConfigError

__all__ = [
    "SHOWN",
    "SURROGATE",
    "TAKEN",
    "check_labels",
    "check_metric",
    "check_name",
    "clean",
    "is_label",
    "is_name",
    "one_line",
    "what_happened",
    "without_surrogates",
]

METRIC: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

#: A name that users give to a thing: it becomes a label's value, and part of a URL or of a flag.
NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")

SURROGATE: Final = re.compile("[\ud800-\udfff]")

#: What aiosvc exports itself, as series and as families.
TAKEN: Final = frozenset(
    name for spec in catalogue.CATALOGUE for name in (spec.name, spec.name.removesuffix("_total"))
)

#: Labels with a meaning of their own in the format.
RESERVED: Final = ("le", "quantile")

#: Characters of a foreign text that go into an error message.
SHOWN: Final = 200


def is_name(name: object) -> TypeGuard[str]:
    """Say whether a queue, a database or a check may be called so."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def check_name(name: object, what: str) -> str:
    """Return *name*; raises ConfigError, about a *what*, where nothing can be called so."""
    if not is_name(name):
        raise ConfigError(f"{what} {name!r}: may hold only letters, digits, '_', '-' and '.'")
    return name


def check_metric(name: object) -> None:
    """Raise ConfigError where *name* is no metric's, or one that aiosvc exports itself."""
    if not isinstance(name, str) or not METRIC.fullmatch(name):
        raise ConfigError("not a metric name; use letters, digits and '_', no digit first")
    if name in TAKEN:
        raise ConfigError("aiosvc exports a metric of that name itself; choose another")


def is_label(name: object) -> TypeGuard[str]:
    """Say whether a label may be called so, be it a reserved name."""
    return (
        isinstance(name, str) and METRIC.fullmatch(name) is not None and not name.startswith("__")
    )


def check_labels(names: Iterable[object]) -> tuple[str, ...]:
    """Return the names of a metric's labels; raises ConfigError where one will not do."""
    checked: list[str] = []
    for name in names:
        if not is_label(name) or name in RESERVED:
            raise ConfigError(
                f"label {name!r}: use letters, digits and '_', no digit and no '__' first, and "
                f"neither {' nor '.join(RESERVED)}"
            )
        if name in checked:
            raise ConfigError(f"label {name!r}: give each name once")
        checked.append(name)
    return tuple(checked)


def clean(text: object) -> str:
    """Return a text that can be sent: a lone surrogate has no form in UTF-8, and becomes U+FFFD."""
    return without_surrogates(str(text))


def without_surrogates(text: str) -> str:
    """Return *text* with U+FFFD for each lone surrogate."""
    return SURROGATE.sub("\ufffd", text)


def one_line(text: object) -> str:
    """Return a foreign text, such as another library's error, as one short printable line."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return flat if len(flat) <= SHOWN else f"{flat[:SHOWN]}..."


def what_happened(error: BaseException) -> str:
    """Return an error's kind and what it has to say as one short line, whatever it does when asked."""
    kind = type(error).__name__
    try:
        return f"{kind}: {one_line(error)}"
    except Exception:  # noqa: BLE001 - an error that can't even say what it is
        return kind
