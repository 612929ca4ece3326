"""The situations as an ASGI application of no framework, which says its templates itself."""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from gates import BODY, CHUNK, await_gate

import aiosvc.asgi

ROUTES = {
    "GET": ("/ok", "/users/{id}", "/numbers/{number}", "/fail/{how}", "/forbidden", "/moved",
            "/wrong", "/wait", "/stream/{then}", "/background", "/ws", "/sub/leaf/{id}"),
    "POST": ("/echo",),
}  # fmt: skip
PATTERNS = {
    template: re.compile(re.sub(r"{\w+}", "([^/]+)", template))
    for templates in ROUTES.values()
    for template in templates
}
STATUSES = {"/forbidden": 403, "/moved": 302}


async def bare(  # noqa: C901 - no framework, so every situation is in one function
    scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]
) -> None:
    """Serve."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    path = scope["path"]
    template = next((each for each, found in PATTERNS.items() if found.fullmatch(path)), None)
    if template is not None:
        scope["aiosvc.endpoint"] = template
    gate = parse_qs(scope["query_string"].decode()).get("gate", [""])[0]
    if scope["type"] == "websocket":
        await socket(receive, send)
        return
    status = STATUSES.get(template or "", 200 if template else 404)
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    if template is not None and template not in ROUTES.get(method, ()):
        status, template = 405, None
    body = BODY
    if template == "/fail/{how}":
        raise {"value": ValueError, "timeout": TimeoutError}[path.rpartition("/")[2]]
    if template == "/wait":
        await await_gate(gate)
    elif template == "/echo":
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
    elif template == "/wrong":
        return
    elif template == "/stream/{then}":
        await stream(path, gate, send)
        return
    length = str(len(body)).encode()
    headers = [(b"content-length", length), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    if template == "/background":
        await await_gate(gate)


async def stream(path: str, gate: str, send: Callable[[Any], Awaitable[None]]) -> None:
    """Send a chunk, wait, and do what the path says."""
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await await_gate(gate)
    if path.endswith("fail"):
        raise ValueError("in the middle")
    for _ in range(1000 if path.endswith("on") else 0):
        await send({"type": "http.response.body", "body": CHUNK * 1000, "more_body": True})
    await send({"type": "http.response.body", "body": CHUNK})


async def socket(receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """Send texts back, and close or raise where they say so."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "close":
            await send({"type": "websocket.close", "code": 1001})
            return
        if message["text"] == "raise":
            raise ValueError("in a WebSocket")
        await send({"type": "websocket.send", "text": message["text"]})


app = aiosvc.asgi.setup(bare)
