"""The situations as a WSGI application of no framework, which says its templates itself."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from bare_asgi import PATTERNS, ROUTES, STATUSES
from flask_app import chunks
from gates import BODY, wait_at_gate

import aiosvc.wsgi

REASONS = {200: "OK", 302: "Found", 403: "Forbidden", 404: "Not Found", 405: "Not Allowed"}


def bare(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Serve."""
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    template = next((each for each, found in PATTERNS.items() if found.fullmatch(path)), None)
    if template is not None:
        environ["aiosvc.endpoint"] = template
    gate = parse_qs(environ["QUERY_STRING"]).get("gate", [""])[0]
    status = STATUSES.get(template or "", 200 if template else 404)
    allowed = ROUTES.get("GET" if method == "HEAD" else method, ())
    if template is not None and template not in allowed:
        status, template = 405, None
    body = BODY
    if template == "/fail/{how}":
        raise {"value": ValueError, "timeout": TimeoutError}[path.rpartition("/")[2]]
    if template == "/wait":
        wait_at_gate(gate)
    elif template == "/echo":
        length = environ.get("CONTENT_LENGTH")
        body = environ["wsgi.input"].read(int(length)) if length else environ["wsgi.input"].read()
    elif template == "/wrong":
        return None  # type: ignore[return-value]  # that is what is wrong
    line = f"{status} {REASONS[status]}"
    if template == "/stream/{then}":
        start_response(line, [("Content-Type", "text/plain")])
        return chunks(path.rpartition("/")[2], gate)
    start_response(line, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [] if method == "HEAD" else [body]


app = aiosvc.wsgi.setup(bare)
