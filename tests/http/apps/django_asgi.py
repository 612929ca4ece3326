"""The situations as an application of Django under ASGI."""

from typing import Any

import django_app
from django.core.asgi import get_asgi_application
from django.http import StreamingHttpResponse
from django.urls import path
from gates import await_gate
from starlette_app import chunks

import aiosvc.asgi


async def wait(request: Any) -> Any:
    """Answer when the gate is opened."""
    await await_gate(request.GET["gate"])
    return django_app.head(request)


async def stream(request: Any, then: str) -> Any:
    """Answer with chunks."""
    return StreamingHttpResponse(chunks(then, request.GET["gate"]))


django_app.urlpatterns[:0] = [path("wait", wait), path("stream/<str:then>", stream)]
app = aiosvc.asgi.setup(get_asgi_application())
