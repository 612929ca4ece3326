"""The situations as an application of Flask."""

from collections.abc import Iterator
from typing import Any, NoReturn

from flask import Blueprint, Flask, Response, abort, redirect, request
from gates import BODY, CHUNK, wait_at_gate

import aiosvc.wsgi

app = Flask(__name__)
sub = Blueprint("sub", __name__, url_prefix="/sub")


@app.get("/ok")
@app.get("/users/<id>", endpoint="users")
@app.get("/numbers/<int:number>", endpoint="numbers")
@sub.get("/leaf/<id>", endpoint="leaf")
def ok(**_: Any) -> Response:
    """Answer."""
    return Response(BODY)


@app.post("/echo")
def echo() -> Response:
    """Answer with the request's body."""
    return Response(request.get_data())


@app.get("/fail/<how>")
def fail(how: str) -> NoReturn:
    """Raise."""
    raise {"value": ValueError, "timeout": TimeoutError}[how]


@app.get("/forbidden")
def forbidden() -> NoReturn:
    """Raise the framework's own exception."""
    abort(403)


@app.get("/moved")
def moved() -> Any:
    """Redirect."""
    return redirect("/ok")


@app.get("/wrong")
def wrong() -> Any:
    """Return no response."""
    return None


@app.get("/wait")
def wait() -> Response:
    """Answer when the gate is opened."""
    wait_at_gate(request.args["gate"])
    return Response(BODY)


def chunks(then: str, gate: str) -> Iterator[bytes]:
    """Send a chunk, wait, and do what the path says."""
    yield CHUNK
    wait_at_gate(gate)
    if then == "fail":
        raise ValueError("in the middle")
    yield CHUNK
    while then == "on":
        yield CHUNK * 1000


@app.get("/stream/<then>")
def stream(then: str) -> Response:
    """Answer with chunks."""
    return Response(chunks(then, request.args["gate"]))


app.register_blueprint(sub)
aiosvc.wsgi.setup(app)
