"""The situations as an application of Starlette."""

from collections.abc import AsyncIterator
from typing import Any, NoReturn

from gates import BODY, CHUNK, await_gate
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import aiosvc.asgi


async def ok(_request: Request) -> Response:
    """Answer."""
    return Response(BODY)


async def echo(request: Request) -> Response:
    """Answer with the request's body."""
    return Response(await request.body())


async def fail(request: Request) -> NoReturn:
    """Raise."""
    raise {"value": ValueError, "timeout": TimeoutError}[request.path_params["how"]]


async def forbidden(_request: Request) -> NoReturn:
    """Raise the framework's own exception."""
    raise HTTPException(403)


async def moved(_request: Request) -> Response:
    """Redirect."""
    return RedirectResponse("/ok", 302)


async def wrong(_request: Request) -> Any:
    """Return no response."""
    return None


async def wait(request: Request) -> Response:
    """Answer when the gate is opened."""
    await await_gate(request.query_params["gate"])
    return Response(BODY)


async def chunks(then: str, gate: str) -> AsyncIterator[bytes]:
    """Send a chunk, wait, and do what the path says."""
    yield CHUNK
    await await_gate(gate)
    if then == "fail":
        raise ValueError("in the middle")
    yield CHUNK
    while then == "on":
        yield CHUNK * 1000


async def stream(request: Request) -> Response:
    """Answer with chunks."""
    then = request.path_params["then"]
    return StreamingResponse(chunks(then, request.query_params["gate"]))


async def background(request: Request) -> Response:
    """Answer, and go on working."""
    return Response(BODY, background=BackgroundTask(await_gate, request.query_params["gate"]))


async def socket(socket: WebSocket) -> None:
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


app = Starlette(
    routes=[
        Route("/ok", ok),
        Route("/users/{id}", ok),
        Route("/numbers/{number:int}", ok),
        Route("/echo", echo, methods=["POST"]),
        Route("/fail/{how}", fail),
        Route("/forbidden", forbidden),
        Route("/moved", moved),
        Route("/wrong", wrong),
        Route("/wait", wait),
        Route("/stream/{then}", stream),
        Route("/background", background),
        WebSocketRoute("/ws", socket),
        Mount("/sub", routes=[Route("/leaf/{id}", ok)]),
    ]
)
aiosvc.asgi.setup(app)
