"""The situations as an aiohttp application."""

from typing import Any, NoReturn

from aiohttp import web
from gates import BODY, CHUNK, await_gate

import aiosvc


async def ok(_request: web.Request) -> web.Response:
    """Answer."""
    return web.Response(body=BODY)


async def echo(request: web.Request) -> web.Response:
    """Answer with the request's body."""
    return web.Response(body=await request.read())


async def fail(request: web.Request) -> NoReturn:
    """Raise."""
    raise {"value": ValueError, "timeout": TimeoutError}[request.match_info["how"]]


async def forbidden(_request: web.Request) -> NoReturn:
    """Raise the framework's own exception."""
    raise web.HTTPForbidden


async def moved(_request: web.Request) -> NoReturn:
    """Redirect."""
    raise web.HTTPFound("/ok")


async def wrong(_request: web.Request) -> Any:
    """Return no response."""
    return None


async def wait(request: web.Request) -> web.Response:
    """Answer when the gate is opened."""
    await await_gate(request.query["gate"])
    return web.Response(body=BODY)


async def stream(request: web.Request) -> web.StreamResponse:
    """Send a chunk, wait, and do what the path says."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(CHUNK)
    await await_gate(request.query["gate"])
    if request.match_info["then"] == "fail":
        raise ValueError("in the middle")
    await response.write(CHUNK)
    if request.match_info["then"] == "on":
        while True:
            await response.write(CHUNK * 1000)
    return response


async def socket(request: web.Request) -> web.WebSocketResponse:
    """Send texts back, and close or raise where they say so."""
    response = web.WebSocketResponse()
    await response.prepare(request)
    async for message in response:
        if message.data == "close":
            await response.close(code=1001)
        elif message.data == "raise":
            raise ValueError("in a WebSocket")
        else:
            await response.send_str(message.data)
    return response


def make_app() -> web.Application:
    """Return the measured application."""
    app = web.Application()
    routes = [
        web.get("/ok", ok),
        web.get("/users/{id}", ok),
        web.get(r"/numbers/{number:\d+}", ok),
        web.post("/echo", echo),
        web.get("/fail/{how}", fail),
        web.get("/forbidden", forbidden),
        web.get("/moved", moved),
        web.get("/wrong", wrong),
        web.get("/wait", wait),
        web.get("/stream/{then}", stream),
        web.get("/ws", socket),
    ]
    app.add_routes(routes)
    sub = web.Application()
    sub.add_routes([web.get("/leaf/{id}", ok)])
    app.add_subapp("/sub", sub)
    aiosvc.setup(app)
    return app


app = make_app()
