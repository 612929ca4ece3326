"""
What web frameworks tell of a request: the route that it matched, the exception behind their 500.

Rule: the only module that knows frameworks, and it imports none of them; what it asks, the
application has loaded. Rule: nothing is matched again; what a framework does not tell is not known.
Rule: everything that it reads may be missing or different tomorrow, and then costs the template
only. Rule: no part of a requested path is ever in a template.

An application of no framework, or of one that is not known here, says its template itself, under
the key `aiosvc.endpoint` of the scope or the environ.
"""

import asyncio
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from aiosvc.exchange import Exchange

__all__ = [
    "ENDPOINT",
    "EXCHANGE",
    "known_routes",
    "listen",
    "route_paths",
    "served_paths",
    "template_of_environ",
    "template_of_scope",
]

#: The keys of a scope or an environ that are ours.
EXCHANGE: Final = "aiosvc.exchange"
ENDPOINT: Final = "aiosvc.endpoint"
REQUEST: Final = "aiosvc.request"

NOT_FOUND: Final = 404

_CONVERTED = re.compile(r"\{([^{}:]+):[^{}]*\}")
_ANGLED = re.compile(r"<(?:[^<>:]*:)?([^<>:]+)>")
_GROUP = re.compile(r"\(\?P<(\w+)>")
_ANCHORS = re.compile(r"\^|\$|\\Z|\\z|\\A|\\b|\\B")


# -- Templates -------------------------------------------------------------------------------------


def template_of_scope(exchange: Exchange) -> str | None:
    """Return the template that a request of ASGI matched."""
    scope = exchange.request
    route = scope.get("route")
    if route is not None or "endpoint" in scope:
        template = _of_starlette(scope, route, exchange.status)
    elif "path_template" in scope:
        template = _of_litestar(scope)
    elif REQUEST in scope:
        template = _of_request(scope[REQUEST])
    else:
        template = scope.get(ENDPOINT)
    return None if template is None else _plain(template)


def template_of_environ(exchange: Exchange) -> str | None:
    """Return the template that a request of WSGI matched."""
    environ = exchange.request
    request = environ.get("werkzeug.request") or environ.get(REQUEST)
    template = environ.get(ENDPOINT) if request is None else _of_request(request)
    if template is None:
        return None
    # Where a dispatcher moved a part of the path to the script's name, it is of the template.
    script, path = exchange.entry
    prefix = environ.get("SCRIPT_NAME", "").removeprefix(script)
    moved = prefix and path == prefix + environ.get("PATH_INFO", "")
    return _plain(prefix + template if moved else template)


def known_routes(app: Any) -> Iterator[tuple[str, str]]:
    """Yield (method, template) of the routes that the application lists, HEAD and OPTIONS left out."""
    for route in getattr(app, "routes", ()):
        for methods, path in _routes_in(route, ""):
            yield from _of_methods(methods, path)
    url_map: Any = getattr(app, "url_map", None)
    for rule in url_map.iter_rules() if hasattr(url_map, "iter_rules") else ():
        yield from _of_methods(rule.methods, rule.rule)


def route_paths(app: Any) -> set[str]:
    """
    Return the paths of the application's routes, as far as it has a list of them.

    Those of one host only are left out: they are the application's for nobody else.
    """
    paths: set[Any] = set()
    for route in getattr(app, "routes", ()):
        if hasattr(route, "host_regex"):
            continue
        with suppress(Exception):  # one of a kind that is not known has no known path
            paths.update(path for _, path in _routes_in(route, ""))
    url_map = getattr(app, "url_map", None)
    if url_map is not None and hasattr(url_map, "iter_rules"):
        paths |= {rule.rule for rule in url_map.iter_rules()}
    return {path for path in paths if isinstance(path, str) and path}


def served_paths(app: Any) -> set[str]:
    """Return the same, and those of Django, which are loaded when the application begins to serve."""
    paths = route_paths(app)
    urls: Any = sys.modules.get("django.urls")
    if urls is not None and hasattr(app, "resolve_request"):
        with suppress(Exception):  # what is wrong with them Django says by itself
            paths.update(_of_django(urls.get_resolver(), "/"))
    return paths


def _of_django(resolver: Any, prefix: str) -> Iterator[str]:
    for each in resolver.url_patterns:
        path = prefix + str(each.pattern)
        if hasattr(each, "url_patterns"):
            yield from _of_django(each, path)
        else:
            yield _plain(path)


def _routes_in(route: Any, prefix: str) -> Iterator[tuple[Iterable[str] | None, str]]:
    """Yield the methods, if it is said which, and the path of a route and of all that are in it."""
    contexts = getattr(route, "effective_route_contexts", None)
    if callable(contexts):
        # What FastAPI makes of a router that was included.
        for context in contexts():
            known = getattr(context, "starlette_route", None) or context
            yield getattr(known, "methods", None), prefix + known.path_format
        return
    path: str = getattr(route, "path", None) or ""
    if not hasattr(route, "routes"):
        path = getattr(route, "path_format", None) or path
    yield getattr(route, "methods", None), prefix + path
    for each in getattr(route, "routes", None) or ():
        yield from _routes_in(each, prefix + path)


def _of_methods(methods: Iterable[str] | None, path: str) -> Iterator[tuple[str, str]]:
    for method in methods or ():
        if method not in ("HEAD", "OPTIONS"):
            yield method, _plain(path)


def _of_starlette(scope: Mapping[str, Any], route: Any, status: int) -> str | None:
    endpoint = scope.get("endpoint")
    context = scope.get("fastapi", {}).get("effective_route_context")
    included = getattr(context, "starlette_route", None)
    if route is not None and getattr(context, "original_route", None) is route:
        own = context.path_format
    elif included is not None and getattr(included, "endpoint", None) is endpoint:
        own = included.path_format
    elif route is None or not hasattr(route, "path"):
        own = _path_of_endpoint(scope.get("app"), endpoint, status)
    elif hasattr(route, "routes"):
        # A mount, in which nothing matched: files, or a whole application that knows no such path.
        if status in (0, NOT_FOUND):
            return None
        own = ""
    else:
        own = getattr(route, "path_format", None) or route.path
    if own is None:
        return None
    # What mounts have taken off the path; a root path that the server or a proxy set is not of it.
    root: str = scope.get("root_path", "")
    prefix = root.removeprefix(scope.get("app_root_path", root))
    return _without_values(prefix, own, scope.get("path_params") or {}) or "/"


def _without_values(prefix: str, own: str, params: Mapping[str, Any]) -> str:
    """Return *own* after a mount's *prefix*, with names for the values that the prefix has."""
    if not prefix or not params:
        return prefix + own
    missing = {name for name in params if f"{{{name}}}" not in own}
    if not missing:
        return prefix + own
    names = {str(params[name]): name for name in missing}
    parts = prefix.split("/")
    templated = [f"{{{names[part]}}}" if part in names else part for part in parts]
    replaced = {names[part] for part in parts if part in names}
    # A value that is not a whole segment can't be told from the rest of the prefix.
    return "/".join(templated) + own if replaced == missing else own


def _path_of_endpoint(app: Any, endpoint: Any, status: int) -> str | None:
    # Where it is not told which route it was, but only its endpoint.
    for route in getattr(app, "routes", ()) if endpoint is not None else ():
        if hasattr(route, "routes") and getattr(route, "app", None) is endpoint:
            return None if status in (0, NOT_FOUND) else ""
        if getattr(route, "endpoint", None) is endpoint:
            path: str | None = getattr(route, "path_format", None) or getattr(route, "path", None)
            return path
    return None


def _of_litestar(scope: Mapping[str, Any]) -> str | None:
    handler: Any = scope.get("route_handler")
    if getattr(handler, "is_mount", False):
        path: str | None = next(iter(sorted(handler.paths)), None)
        return path
    template: str | None = scope["path_template"]
    return template or "/"


def _of_request(request: Any) -> str | None:
    rule = getattr(request, "url_rule", None)
    if rule is not None:
        template: str | None = rule.rule
        return template
    match = getattr(request, "resolver_match", None)
    return None if match is None else "/" + (match.route or "")


@lru_cache(maxsize=4096)
def _plain(template: str) -> str:
    """Return a template of any framework as aiohttp writes it: /users/{id}."""
    if "(?P<" in template:
        template = _ANCHORS.sub("", _without_groups(template)).replace("\\", "").replace("?", "")
    elif template.startswith("/^") or template.endswith("$"):
        template = _ANCHORS.sub("", template)
    return _ANGLED.sub(r"{\1}", _CONVERTED.sub(r"{\1}", template))


def _without_groups(pattern: str) -> str:
    """Return a regular expression with the names of its groups in their places."""
    while (match := _GROUP.search(pattern)) is not None:
        depth, end = 1, match.end()
        while depth and end < len(pattern):
            depth += {"(": 1, ")": -1}.get(pattern[end], 0) if pattern[end - 1] != "\\" else 0
            end += 1
        pattern = f"{pattern[: match.start()]}{{{match[1]}}}{pattern[end:]}"
    return pattern


# -- Exceptions, and requests that are not in the scope --------------------------------------------


def listen(app: Any) -> None:
    """Have the frameworks that are loaded tell of exceptions, and *app* of its requests."""
    for name, listener in _LISTENERS.items():
        module: Any = sys.modules.get(name)
        if module is not None:
            for signal in ("got_request_exception", "got_websocket_exception"):
                if hasattr(module, signal):
                    getattr(module, signal).connect(listener)
    if hasattr(app, "after_exception") and hasattr(app, "asgi_handler"):
        app.after_exception.append(_on_litestar)
    for attribute in ("request_class", "websocket_class"):
        kind = getattr(app, attribute, None)
        # Those of Flask are in the environ anyway.
        if isinstance(kind, type) and kind.__module__.partition(".")[0] in ("quart", "django"):
            setattr(app, attribute, _noting(kind))


def _noting(kind: type) -> type:
    """Return a subclass of a request's class whose instances are found from their scope."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it becomes one
        super(made, self).__init__(*args, **kwargs)
        where = getattr(self, "scope", None) or getattr(self, "environ", None)
        if isinstance(where, MutableMapping) and EXCHANGE in where:
            where[REQUEST] = self

    made: Any = type(kind.__name__, (kind,), {"__init__": __init__, "__module__": kind.__module__})
    return made  # type: ignore[no-any-return]  # made by type()


def _note(where: Mapping[str, Any], error: BaseException | None) -> None:
    exchange = where.get(EXCHANGE)
    if isinstance(exchange, Exchange) and error is not None:
        exchange.raised = error
        exchange.note_route()


def _on_flask(_sender: Any, exception: BaseException | None = None, **_: Any) -> None:
    # What a listener raises would be the request's; without a request there is nothing to note.
    with suppress(Exception):
        _note(sys.modules["flask"].request.environ, exception)


async def _on_quart(_sender: Any, exception: BaseException | None = None, **_: Any) -> None:
    quart: Any = sys.modules["quart"]
    with suppress(Exception):
        request = quart.request if quart.has_request_context() else quart.websocket
        _note(request.scope, exception)


def _on_django(sender: Any, request: Any = None, **_: Any) -> None:
    del sender
    error = sys.exc_info()[1]
    with suppress(Exception):
        _note(getattr(request, "scope", None) or request.environ, error)


async def _on_litestar(error: BaseException, scope: Mapping[str, Any]) -> None:
    # It is told of the framework's own HTTP exceptions too, which are answers.
    if not hasattr(error, "status_code") and not isinstance(error, asyncio.CancelledError):
        _note(scope, error)


_LISTENERS: Final[Mapping[str, Any]] = {
    "flask.signals": _on_flask,
    "quart.signals": _on_quart,
    "django.core.signals": _on_django,
}
