"""What is made of the templates and exceptions that frameworks tell of."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Host, Mount, Route, Router

from aiosvc.exchange import Exchange
from aiosvc.frameworks import known_routes, route_paths, template_of_environ, template_of_scope


def of_scope(scope: Mapping[str, Any] | None = None, status: int = 200, **more: Any) -> str | None:
    """Return the template of a scope."""
    exchange = Exchange("GET", {**(scope or {}), **more})
    exchange.status = status
    return template_of_scope(exchange)


def of_environ(
    environ: Mapping[str, Any] | None = None, entry: tuple[str, str] = ("", "")
) -> str | None:
    """Return the template of an environ."""
    exchange = Exchange("GET", dict(environ or {}))
    exchange.entry = entry
    return template_of_environ(exchange)


@pytest.mark.parametrize(
    ("told", "template"),
    [
        ("/users/<id>", "/users/{id}"),
        ("/users/<int:id>", "/users/{id}"),
        ("/files/<path:name>", "/files/{name}"),
        ("/x/<regex('[a-z]{2}'):code>/<any(a,b):kind>", "/x/{code}/{kind}"),
        ("/static", "/static"),
        ("/", "/"),
    ],
)
def test_template_of_flask(told: str, template: str) -> None:
    """A rule's converters are left out of its template."""
    request = SimpleNamespace(url_rule=SimpleNamespace(rule=told))
    assert of_environ({"werkzeug.request": request}) == template


@pytest.mark.parametrize(
    ("told", "template"),
    [
        ("users/<int:id>/", "/users/{id}/"),
        ("", "/"),
        (r"^articles/(?P<year>[0-9]{4})/$", "/articles/{year}/"),
        (r"api/^x/(?P<a>(one|two)\d+)/y/(?P<b>\w+)\Z", "/api/x/{a}/y/{b}"),
        (r"^files/(?P<name>[a-z\(\)]+)\.txt$", "/files/{name}.txt"),
        (r"^plain/$", "/plain/"),
    ],
)
def test_template_of_django(told: str, template: str) -> None:
    """A route's converters and regular expressions leave the names that they capture."""
    request = SimpleNamespace(resolver_match=SimpleNamespace(route=told))
    assert of_environ({"aiosvc.request": request}) == template


def test_request_that_matched_nothing() -> None:
    """Where a framework matched nothing there is no template."""
    assert of_environ({"werkzeug.request": SimpleNamespace(url_rule=None)}) is None
    assert of_environ({"aiosvc.request": SimpleNamespace(resolver_match=None)}) is None
    assert of_environ() is None
    assert of_scope() is None


def test_what_an_application_says_itself() -> None:
    """An application of no framework says its template under our key."""
    assert of_scope({"aiosvc.endpoint": "/users/{id}"}) == "/users/{id}"
    assert of_environ({"aiosvc.endpoint": "/users/{id}"}) == "/users/{id}"


@pytest.mark.parametrize(
    ("root", "params", "template"),
    [
        ("/t/acme", {"tenant": "acme"}, "/t/{tenant}/leaf/{id}"),
        ("/t/acme/acme", {"tenant": "acme"}, "/t/{tenant}/{tenant}/leaf/{id}"),
        ("/v2", {"version": "2"}, "/leaf/{id}"),
        ("/n/007", {"number": 7}, "/leaf/{id}"),
        ("/static", {}, "/static/leaf/{id}"),
        ("/7", {"id": "7"}, "/7/leaf/{id}"),
    ],
)
def test_prefix_with_values(root: str, params: dict[str, Any], template: str) -> None:
    """What a client put into a mount's prefix is replaced by its name, or the prefix left out."""
    route = SimpleNamespace(path="/leaf/{id}", path_format="/leaf/{id}")
    scope = {"root_path": root, "app_root_path": "", "path_params": {"id": "7", **params}}
    assert of_scope(scope, route=route, endpoint=len) == template


def test_framework_that_tells_the_endpoint_only() -> None:
    """Where it is not told which route it was, the one with that endpoint gives the template."""

    async def endpoint(_request: Any) -> None:
        """Be an endpoint."""

    files = Mount("/files", app=endpoint)  # type: ignore[arg-type]  # never called
    app = SimpleNamespace(routes=[files, Route("/users/{id:int}", endpoint)])
    assert of_scope(app=SimpleNamespace(routes=app.routes[1:]), endpoint=endpoint) == "/users/{id}"
    scope = {"root_path": "/files", "app_root_path": "", "app": app, "endpoint": endpoint}
    assert of_scope(scope) == "/files"
    assert of_scope(scope, 404) is None
    assert of_scope(app=SimpleNamespace(), endpoint=endpoint) is None


def test_template_of_litestar() -> None:
    """Litestar tells the template itself, or the mount in which it was."""
    assert of_scope(path_template="/users/{id:int}", route_handler=None) == "/users/{id}"
    assert of_scope(path_template="", route_handler=None) == "/"
    mount = SimpleNamespace(is_mount=True, paths={"/files"})
    assert of_scope(path_template="/", route_handler=mount) == "/files"


def test_dispatched_environ() -> None:
    """What was moved from the path to the script's name is of the template; nothing else is."""
    told = {"aiosvc.endpoint": "/users/{id}"}
    moved = {"SCRIPT_NAME": "/proxy/sub", "PATH_INFO": "/users/7"}
    assert of_environ(told | moved, ("/proxy", "/sub/users/7")) == "/sub/users/{id}"
    made_up = {"SCRIPT_NAME": "/made/up", "PATH_INFO": "/users/7"}
    assert of_environ(told | made_up, ("", "/users/7")) == "/users/{id}"


def test_paths_of_an_application_that_has_no_list() -> None:
    """An application that does not list its routes has none that are known."""
    assert route_paths(len) == set()
    assert route_paths(SimpleNamespace(routes=[Route("/a", len), object()])) == {"/a"}


def test_paths_of_routes_in_routers() -> None:
    """Routes are found in included routers and mounts, those of a single host are not the point."""
    inner = APIRouter(prefix="/inner")
    inner.get("/readyz")(len)
    outer = APIRouter()
    outer.include_router(inner, prefix="/outer")
    app = FastAPI(openapi_url=None)
    app.include_router(outer)
    app.mount("/", Starlette(routes=[Route("/livez", len)]))
    app.mount("/files", Starlette())
    app.router.routes.append(Host("api.example.com", Router([Route("/metrics", len)])))
    broken = SimpleNamespace(effective_route_contexts=lambda: [object()])
    app.router.routes.append(broken)  # type: ignore[arg-type]
    assert route_paths(app) == {"/outer/inner/readyz", "/livez", "/files"}


def test_routes_that_are_listed() -> None:
    """Whatever an application lists is known by method and template, with mounts and inclusions."""

    async def endpoint(id: int) -> int:  # noqa: A002 - the template's name
        return id

    router = APIRouter(prefix="/in")
    router.add_api_route("/users/{id}", endpoint, methods=["GET", "PUT"])
    app = FastAPI(openapi_url=None)
    app.include_router(router, prefix="/api")
    app.add_api_route("/health", lambda: None)
    app.mount("/sub", Starlette(routes=[Route("/leaf/{id:int}", endpoint, methods=["POST"])]))
    assert set(known_routes(app)) == {
        ("GET", "/api/in/users/{id}"),
        ("PUT", "/api/in/users/{id}"),
        ("GET", "/health"),
        ("POST", "/sub/leaf/{id}"),
    }
    flask = Flask(__name__, static_folder=None)
    flask.add_url_rule("/users/<int:id>", "user", lambda id: "", methods=["GET"])  # noqa: A006
    assert list(known_routes(flask)) == [("GET", "/users/{id}")]
    assert list(known_routes(len)) == []
