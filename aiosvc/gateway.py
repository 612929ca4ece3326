"""
What `setup` for ASGI and for WSGI have in common: what is refused, and who is known already.

Rule: says what is wrong with an application or its options; measures nothing.
"""

from contextlib import suppress
from typing import Any, Final, TypeVar

from aiosvc.errors import ConfigError
from aiosvc.frameworks import route_paths
from aiosvc.service import Observer

__all__ = ["LAYERS", "OBSERVER", "known_observer", "refuse_own_route", "remember"]

#: The attribute in which an application, or the layer in it that measures, keeps its observer.
OBSERVER: Final = "_aiosvc_observer"

#: The attributes of a framework's application by which its outermost layer is replaced: those of
#: Quart, Litestar and Flask.
LAYERS: Final = ("asgi_app", "asgi_handler", "wsgi_app")

O = TypeVar("O", bound=Observer)  # noqa: E741 - an observer


def known_observer(app: Any, kind: type[O]) -> O | None:
    """Return what an earlier `setup` of *app* returned, or *app* itself if it is that."""
    if isinstance(app, kind):
        return app
    for place in (app, *(getattr(app, layer, None) for layer in LAYERS)):
        known = getattr(place, OBSERVER, None)
        if isinstance(known, kind):
            return known
    return None


def remember(app: Any, observer: Observer) -> None:
    """Have `known_observer` find *observer*, as long as the application is there."""
    with suppress(AttributeError, TypeError):  # one that has no place for it
        setattr(app, OBSERVER, observer)


def refuse_own_route(app: Any, path: str | None) -> None:
    """Raise ConfigError where the application is known to have a route at *path*."""
    if path is not None and not route_paths(app).isdisjoint((path, f"{path}/")):
        raise ConfigError(
            f"path: the application has a route at {path!r} of its own; remove it, or give aiosvc "
            "another path with path='/internal/metrics'"
        )
