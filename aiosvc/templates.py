"""
From what aiohttp matched to the template that a request is counted under.

Rule: uses aiohttp's public routing interface only. Rule: the answer is one of the application's
own templates or `_unmatched`; nothing of the requested path is ever in it.
"""

import os
from collections.abc import Iterable, Iterator
from re import Pattern

from aiohttp import web
from aiohttp.abc import AbstractRouter
from aiohttp.web_urldispatcher import PrefixedSubAppResource

from aiosvc.requests import UNMATCHED

__all__ = ["known_routes", "sub_applications", "template_of", "templates_of"]


def template_of(app: web.Application, request: web.Request) -> str:
    """Return the template that *request* matched in *app*, with the prefixes of sub-apps."""
    match = request.match_info
    resource = match.route.resource
    if resource is not None:
        return resource.canonical
    if isinstance(match.http_exception, web.HTTPMethodNotAllowed):
        # The path was known, the method was not; aiohttp tells the methods but not the resource.
        apps = match.apps or (app,)
        return _template_of_path(apps[-1].router, request.rel_url.path_safe) or UNMATCHED
    return UNMATCHED


def known_routes(app: web.Application) -> Iterator[tuple[str, str]]:
    """Yield (method, template) of every route of *app* that names its method, HEAD left out."""
    for route in _routes(app):
        if route.resource is not None and route.method not in ("*", "HEAD"):
            yield route.method, route.resource.canonical


def sub_applications(app: web.Application) -> Iterator[web.Application]:
    """Yield the applications in *app*, and those in them."""
    router: AbstractRouter = app.router
    for resource in router.resources() if isinstance(router, web.UrlDispatcher) else ():
        if isinstance(resource, PrefixedSubAppResource):
            sub = resource.get_info()["app"]
            yield sub
            yield from sub_applications(sub)


def templates_of(app: web.Application, mark: str) -> set[str]:
    """Return the templates of the routes whose handler has the attribute *mark*."""
    return {
        route.resource.canonical
        for route in _routes(app)
        if route.resource is not None and hasattr(route.handler, mark)
    }


def _routes(app: web.Application) -> Iterable[web.AbstractRoute]:
    router: AbstractRouter = app.router
    # A router of the user's own need not know its routes.
    return router.routes() if isinstance(router, web.UrlDispatcher) else ()


def _template_of_path(router: web.UrlDispatcher, path: str) -> str | None:
    # Sub-applications are left out: the router given is that of the innermost one that answered.
    matching = [
        resource.canonical
        for resource in router.resources()
        if not isinstance(resource, PrefixedSubAppResource) and _matches(resource, path)
    ]
    # Of several, the one that aiohttp tries first: the longest part before a variable.
    return max(matching, key=lambda canonical: len(canonical.partition("{")[0]), default=None)


def _matches(resource: web.AbstractResource, path: str) -> bool:
    info = resource.get_info()
    pattern: Pattern[str] | None = info.get("pattern")
    if pattern is not None:
        return pattern.fullmatch(path) is not None
    if "path" in info:
        return info["path"] == path
    prefix = info.get("prefix")
    if prefix is not None and "directory" in info:
        normal = os.path.normpath(path)
        return normal == prefix or normal.startswith(f"{prefix}/")
    return False
