"""The situations as an application of Quart."""

from typing import Any, NoReturn

from gates import BODY, await_gate
from quart import Blueprint, Quart, Response, abort, redirect, request, websocket
from starlette_app import chunks

import aiosvc.asgi

app = Quart(__name__)
sub = Blueprint("sub", __name__, url_prefix="/sub")


@app.get("/ok")
@app.get("/users/<id>", endpoint="users")
@app.get("/numbers/<int:number>", endpoint="numbers")
@sub.get("/leaf/<id>", endpoint="leaf")
async def ok(**_: Any) -> Response:
    """Answer."""
    return Response(BODY)


@app.post("/echo")
async def echo() -> Response:
    """Answer with the request's body."""
    return Response(await request.get_data())


@app.get("/fail/<how>")
async def fail(how: str) -> NoReturn:
    """Raise."""
    raise {"value": ValueError, "timeout": TimeoutError}[how]


@app.get("/forbidden")
async def forbidden() -> NoReturn:
    """Raise the framework's own exception."""
    abort(403)


@app.get("/moved")
async def moved() -> Any:
    """Redirect."""
    return redirect("/ok")


@app.get("/wrong")
async def wrong() -> Any:
    """Return no response."""
    return None


@app.get("/wait")
async def wait() -> Response:
    """Answer when the gate is opened."""
    await await_gate(request.args["gate"])
    return Response(BODY)


@app.get("/stream/<then>")
async def stream(then: str) -> Any:
    """Answer with chunks."""
    return Response(chunks(then, request.args["gate"]))


@app.get("/background")
async def background() -> Response:
    """Answer, and go on working."""
    app.add_background_task(await_gate, request.args["gate"])
    return Response(BODY)


@app.websocket("/ws")
async def socket() -> None:
    """Send texts back, and close or raise where they say so."""
    await websocket.accept()
    while (text := await websocket.receive()) != "close":
        if text == "raise":
            raise ValueError("in a WebSocket")
        await websocket.send(text)
    await websocket.close(1001)


app.register_blueprint(sub)
aiosvc.asgi.setup(app)
