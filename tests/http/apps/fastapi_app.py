"""The situations as an application of FastAPI."""

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import RedirectResponse, StreamingResponse
from gates import BODY, await_gate
from starlette.requests import Request as StarletteRequest
from starlette_app import chunks, socket, wrong

import aiosvc.asgi

app = FastAPI()
sub = APIRouter()

Gate = Annotated[str, "a gate's name"]


@app.get("/ok")
@app.head("/ok")
@app.get("/users/{id}")
@app.get("/numbers/{number}")
async def ok() -> Response:
    """Answer."""
    return Response(BODY)


@sub.get("/leaf/{id}")
async def leaf(id: str) -> Response:  # noqa: A002 - the template's name for it
    """Answer."""
    del id
    return Response(BODY)


@app.post("/echo")
async def echo(request: Request) -> Response:
    """Answer with the request's body."""
    return Response(await request.body())


@app.get("/fail/{how}")
async def fail(how: str) -> None:
    """Raise."""
    raise {"value": ValueError, "timeout": TimeoutError}[how]


@app.get("/forbidden")
async def forbidden() -> None:
    """Raise the framework's own exception."""
    raise HTTPException(403)


@app.get("/moved")
async def moved() -> Response:
    """Redirect."""
    return RedirectResponse("/ok", 302)


@app.get("/wait")
async def wait(gate: Gate) -> Response:
    """Answer when the gate is opened."""
    await await_gate(gate)
    return Response(BODY)


@app.get("/stream/{then}")
async def stream(then: str, gate: Gate) -> Response:
    """Answer with chunks."""
    return StreamingResponse(chunks(then, gate))


@app.get("/background")
async def background(gate: Gate, tasks: BackgroundTasks) -> Response:
    """Answer, and go on working."""
    tasks.add_task(await_gate, gate)
    return Response(BODY, background=tasks)


@app.websocket("/ws")
async def fastapi_socket(websocket: WebSocket) -> None:
    """Send texts back, and close or raise where they say so."""
    await socket(websocket)


async def fastapi_wrong(request: StarletteRequest) -> None:
    """Return no response."""
    await wrong(request)


app.add_route("/wrong", fastapi_wrong)  # type: ignore[arg-type]  # that is what is wrong
app.include_router(sub, prefix="/sub")
aiosvc.asgi.setup(app)
