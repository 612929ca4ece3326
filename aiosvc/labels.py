"""
Labels that the user adds to the request metrics, each from a closed set of values.

Rule: a value that is not on its label's list becomes `_other`, so no label can grow. Rule: a
function that raises, or returns what is no text, is counted and its label says `_other`; the request
goes on.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
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

    def __post_init__(self) -> None:
        """Keep what *allowed* gives, which it may give only once."""
        object.__setattr__(self, "allowed", _kept(self.allowed))


@dataclass(frozen=True, slots=True)
class FromResponseHeader:
    """
    A label whose value is the response's header *name*, where that is one of *allowed*.

    It is empty for a response without the header, and while a request is in progress.
    """

    name: str
    allowed: Iterable[str]

    def __post_init__(self) -> None:
        """Keep what *allowed* gives, which it may give only once."""
        object.__setattr__(self, "allowed", _kept(self.allowed))


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
            (name, source, {} if isinstance(source, str) else {v: v for v in source.allowed})
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
        self,
        name: str,
        source: LabelSource,
        allowed: Mapping[str, str],
        request: Any,
        response: Any,
    ) -> str:
        if isinstance(source, str):
            return source
        try:
            if isinstance(source, FromRequest):
                value = source.function(request)
            else:
                headers = getattr(response, "headers", None)
                value = None if headers is None else headers.get(source.name)
            return "" if value is None else allowed.get(_text(value), OTHER)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - not the request's own
            self._on_error(f"label {name}", error)
            return OTHER


def check_labels(labels: object) -> dict[str, LabelSource]:
    """Return *labels* as a dict; raises ConfigError where a name or a source will not do."""
    if not isinstance(labels, Mapping):
        raise ConfigError(f"labels: {labels!r} given; expected a mapping of names to values")
    found: dict[str, LabelSource] = {}
    for name, source in labels.items():
        if not is_label(name):
            raise ConfigError(f"labels: {name!r} is no label name; use letters, digits and '_'")
        if name in TAKEN:
            raise ConfigError(f"labels: {name!r} is taken; choose another name")
        if isinstance(source, str):
            found[name] = _plain(name, source)
            continue
        if not isinstance(source, FromRequest | FromResponseHeader):
            raise ConfigError(
                f"labels: {name}: {source!r} given; expected a string, aiosvc.FromRequest or "
                "aiosvc.FromResponseHeader"
            )
        if not isinstance(source.allowed, tuple) or not all(
            isinstance(v, str) for v in source.allowed
        ):
            raise ConfigError(f"labels: {name}: allowed must be a collection of strings")
        _check_source(name, source)
        found[name] = replace(source, allowed=[_plain(name, value) for value in source.allowed])
    return found


def _check_source(name: str, source: FromRequest | FromResponseHeader) -> None:
    if isinstance(source, FromResponseHeader):
        if not isinstance(source.name, str):
            raise ConfigError(f"labels: {name}: {source.name!r} is no name of a header")
    elif not callable(source.function):
        raise ConfigError(f"labels: {name}: {source.function!r} is no function")
    elif inspect.iscoroutinefunction(source.function):
        raise ConfigError(
            f"labels: {name}: {source.function!r} is async; expected a function that does not wait"
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} returned; expected a string or None")
    return value


def _kept(allowed: object) -> object:
    # What is no collection of strings is refused when the labels are checked.
    if isinstance(allowed, str | bytes) or not isinstance(allowed, Iterable):
        return allowed
    return tuple(allowed)


def _plain(name: str, value: str) -> str:
    """Return a label value that may be of a subclass of str as it is to be written."""
    plain = str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"labels: {name}: {plain!r} given; expected text that UTF-8 can say"
        ) from None
    return plain
