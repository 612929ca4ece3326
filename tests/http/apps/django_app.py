"""The situations as an application of Django."""

from typing import Any, NoReturn

import django
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import include, path, re_path
from django.views.decorators.http import require_GET
from flask_app import chunks
from gates import BODY, wait_at_gate

import aiosvc.wsgi

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, DEBUG=False, LOGGING_CONFIG=None)
django.setup()


@require_GET  # type: ignore[untyped-decorator]  # Django has no types
def ok(_request: Any, **_: Any) -> Any:
    """Answer."""
    return HttpResponse(BODY)


def head(_request: Any) -> Any:
    """Answer HEAD too."""
    return HttpResponse(BODY)


def echo(request: Any) -> Any:
    """Answer with the request's body."""
    return HttpResponse(request.body)


def fail(_request: Any, how: str) -> NoReturn:
    """Raise."""
    raise {"value": ValueError, "timeout": TimeoutError}[how]


def forbidden(_request: Any) -> NoReturn:
    """Raise the framework's own exception."""
    raise PermissionDenied


def moved(_request: Any) -> Any:
    """Redirect."""
    return HttpResponseRedirect("/ok")


def wrong(_request: Any) -> None:
    """Return no response."""


def wait(request: Any) -> Any:
    """Answer when the gate is opened."""
    wait_at_gate(request.GET["gate"])
    return HttpResponse(BODY)


def stream(request: Any, then: str) -> Any:
    """Answer with chunks."""
    return StreamingHttpResponse(chunks(then, request.GET["gate"]))


urlpatterns = [
    path("ok", head),
    path("users/<str:id>", ok),
    re_path(r"^numbers/(?P<number>[0-9]+)$", ok),
    path("echo", echo),
    path("fail/<str:how>", fail),
    path("forbidden", forbidden),
    path("moved", moved),
    path("wrong", wrong),
    path("wait", wait),
    path("stream/<str:then>", stream),
    path("sub/", include([path("leaf/<str:id>", ok)])),
]
app = aiosvc.wsgi.setup(get_wsgi_application())
