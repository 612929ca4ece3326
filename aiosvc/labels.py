"""
Labels that the user adds to the request metrics, each from a closed set of values.

Rule: a value that is not on its label's list becomes `_other`, so no label can grow. Rule: a
function that raises is counted and its label says `_other`; the request goes on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiosvc.errors import ConfigError
from aiosvc.naming import is_label
from aiosvc.series import OTHER

__all__ = ["FromRequest", "FromResponseHeader", "LabelPolicy", "LabelSource", "check_labels"]

TAKEN: Final = frozenset(
    {"method", "endpoint", "status", "reason", "le", "quantile", "job", "instance"}
    | {"http_request_method", "http_route", "http_response_status_code", "url_scheme", "error_type"}
)


@dataclass(frozen=True, slots=True)
class FromRequest:
    """
    A label whose value is *function* of the request, where that is one of *allowed*.

    *function* gets the request, which is aiohttp's, an ASGI scope or a WSGI environ, and returns a
    string, or None for an empty label. It is called when the request is finished, and at a scrape
    for requests in progress, so it must be quick and must not wait. If it raises, the value is
    `_other` and the error is counted.
    """

    function: Callable[[Any], str | None]
    allowed: Iterable[str]


@dataclass(frozen=True, slots=True)
class FromResponseHeader:
    """
    A label whose value is the response's header *name*, where that is one of *allowed*.

    It is empty for a response without the header, and while a request is in progress.
    """

    name: str
    allowed: Iterable[str]


LabelSource = str | FromRequest | FromResponseHeader


class LabelPolicy:
    """The names of the extra labels, and their values for a request."""

    def __init__(
        self,
        labels: Mapping[str, LabelSource],
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self.names = tuple(labels)
        self._on_error = on_error
        self._sources = [
            (name, source, frozenset() if isinstance(source, str) else frozenset(source.allowed))
            for name, source in labels.items()
        ]

    @property
    def static(self) -> tuple[str, ...] | None:
        """The values, where they are the same for every request; None otherwise."""
        values = [source for _, source, _ in self._sources if isinstance(source, str)]
        return tuple(values) if len(values) == len(self.names) else None

    def values(self, request: Any, response: Any | None) -> tuple[str, ...]:
        """Return a value for each name; *response* is None while there is none."""
        return tuple(
            self._value(name, source, allowed, request, response)
            for name, source, allowed in self._sources
        )

    def _value(
        self, name: str, source: LabelSource, allowed: frozenset[str], request: Any, response: Any
    ) -> str:
        if isinstance(source, str):
            return source
        try:
            if isinstance(source, FromRequest):
                value = source.function(request)
            else:
                headers = getattr(response, "headers", None)
                value = None if headers is None else headers.get(source.name)
        except Exception as error:  # noqa: BLE001 - the user's function, not the user's request
            self._on_error(f"label {name}", error)
            return OTHER
        if value is None:
            return ""
        return value if value in allowed else OTHER


def check_labels(labels: object) -> dict[str, LabelSource]:
    """Return *labels* as a dict; raises ConfigError where a name or a source will not do."""
    if not isinstance(labels, Mapping):
        raise ConfigError(f"labels: {labels!r} given; expected a mapping of names to values")
    for name, source in labels.items():
        if not is_label(name):
            raise ConfigError(f"labels: {name!r} is no label name; use letters, digits and '_'")
        if name in TAKEN:
            raise ConfigError(f"labels: {name!r} is taken; choose another name")
        if isinstance(source, str):
            continue
        if not isinstance(source, FromRequest | FromResponseHeader):
            raise ConfigError(
                f"labels: {name}: {source!r} given; expected a string, aiosvc.FromRequest or "
                "aiosvc.FromResponseHeader"
            )
        if isinstance(source.allowed, str) or not all(isinstance(v, str) for v in source.allowed):
            raise ConfigError(f"labels: {name}: allowed must be a collection of strings")
        if isinstance(source, FromRequest) and not callable(source.function):
            raise ConfigError(f"labels: {name}: {source.function!r} is no function")
    return dict(labels)
