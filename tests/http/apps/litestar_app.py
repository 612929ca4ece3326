"""The situations as an application of Litestar."""

from typing import Any, NoReturn

from gates import BODY, await_gate
from litestar import Litestar, Request, Response, Router, WebSocket, get, head, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.exceptions import PermissionDeniedException, WebSocketDisconnect
from litestar.response import Redirect, Stream
from starlette_app import chunks

import aiosvc.asgi


@get("/ok")
async def ok() -> Response[bytes]:
    """Answer."""
    return Response(BODY)


@head("/ok")
async def ok_head() -> None:
    """Answer HEAD, which Litestar does not by itself."""


@get(["/users/{id:str}", "/numbers/{number:int}"])
async def one() -> Response[bytes]:
    """Answer."""
    return Response(BODY)


@get("/leaf/{id:str}")
async def leaf() -> Response[bytes]:
    """Answer."""
    return Response(BODY)


@post("/echo", status_code=200)
async def echo(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer with the request's body."""
    return Response(await request.body())


@get("/fail/{how:str}")
async def fail(how: str) -> NoReturn:
    """Raise."""
    raise {"value": ValueError, "timeout": TimeoutError}[how]


@get("/forbidden")
async def forbidden() -> None:
    """Raise the framework's own exception."""
    raise PermissionDeniedException


@get("/moved", status_code=302)
async def moved() -> Redirect:
    """Redirect."""
    return Redirect("/ok", status_code=302)


@get("/wait")
async def wait(gate: str) -> Response[bytes]:
    """Answer when the gate is opened."""
    await await_gate(gate)
    return Response(BODY)


@get("/stream/{then:str}")
async def stream(then: str, gate: str) -> Stream:
    """Answer with chunks."""
    return Stream(chunks(then, gate))


@get("/background")
async def background(gate: str) -> Response[bytes]:
    """Answer, and go on working."""
    return Response(BODY, background=BackgroundTask(await_gate, gate))


@websocket("/ws")
async def socket(socket: WebSocket[Any, Any, Any]) -> None:
    """Send texts back, and close or raise where they say so."""
    await socket.accept()
    try:
        while (text := await socket.receive_text()) != "close":
            if text == "raise":
                raise ValueError("in a WebSocket")
            await socket.send_text(text)
    except WebSocketDisconnect:
        return
    await socket.close(1001)


app = Litestar(
    [
        ok, ok_head, one, echo, fail, forbidden, moved, wait, stream, background, socket,
        Router("/sub", route_handlers=[leaf]),
    ],
    openapi_config=None,
)  # fmt: skip
aiosvc.asgi.setup(app)
