"""What `aiosvc.wsgi.setup` does, and what it says of requests that no server is needed for."""

import gc
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest
from flask import Blueprint, Flask, Response
from processes import REPOSITORY
from prometheus_client import CollectorRegistry, Counter, generate_latest, make_wsgi_app
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

import aiosvc
import aiosvc.wsgi
from aiosvc.errors import ConfigError

OPENED: list[aiosvc.wsgi.ObservedApp] = []


@pytest.fixture
def registry() -> CollectorRegistry:
    """Give a registry of its own to each test."""
    return CollectorRegistry()


@pytest.fixture(autouse=True)
def _close_what_was_opened() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def setup(app: Any, registry: CollectorRegistry, **options: Any) -> aiosvc.wsgi.ObservedApp:
    """Return the measured application, closed when the test ends."""
    observed = aiosvc.wsgi.setup(app, registry=registry, **options)
    OPENED.append(observed)
    return observed


class Answer:
    """What an application said."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: dict[str, str] = {}
        self.written: list[bytes] = []
        self.body: Any = b""

    def start(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], Any]:
        """Be start_response."""
        if exc_info is not None and self.written:
            raise exc_info[1]
        self.status, self.headers = status, {name.lower(): value for name, value in headers}
        return self.written.append


def environ_of(
    path: str,
    method: str = "GET",
    body: bytes = b"",
    known: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the environ of a request, with what is *known* of the server."""
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method, "SCRIPT_NAME": ""}
    if body:
        environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    environ |= {**(known or {}), **more}
    setup_testing_defaults(environ)
    return environ


def ask(app: Any, path: str, method: str = "GET", body: bytes = b"", **more: Any) -> Answer:
    """Return what the application says, as a server would read it."""
    answer = Answer()
    chunks = app(environ_of(path, method, body, **more), answer.start)
    try:
        answer.body = b"".join(answer.written) + b"".join(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    return answer


def samples(registry: CollectorRegistry, name: str, *labels: str) -> dict[str, float]:
    """Return what a family says, zeros left out, by labels joined by blanks."""
    return {
        " ".join(sample.labels[label] for label in labels): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and sample.value
    }


def requests_of(registry: CollectorRegistry) -> dict[str, float]:
    """Return the requests counted, as "GET /users/{id} 200"."""
    return samples(registry, "http_requests_total", "method", "endpoint", "status")


def failures_of(registry: CollectorRegistry) -> dict[str, float]:
    """Return the failures by reason."""
    return samples(registry, "http_request_failures_total", "reason")


def bytes_of(registry: CollectorRegistry) -> dict[str, float]:
    """Return the bytes sent, by endpoint."""
    return samples(registry, "http_response_size_bytes_sum", "endpoint")


def make_plain() -> Any:
    """Return an application of no framework."""

    def plain(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["aiosvc.endpoint"] = "/things/{id}"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    return plain


def make_flask() -> Flask:
    """Return an application of Flask."""
    app = Flask(__name__)
    sub = Blueprint("sub", __name__, url_prefix="/sub")

    @app.get("/users/<int:id>")
    @sub.get("/leaf/<path:id>", endpoint="leaf")
    def user(id: Any) -> str:  # noqa: A002 - the template's name
        return f"{id}"

    @app.get("/fail")
    def fail() -> str:
        raise ValueError("no")

    app.register_blueprint(sub)
    return app


# -- Setup -----------------------------------------------------------------------------------------


def test_setup_measures_flask_in_place(registry: CollectorRegistry) -> None:
    """The application of Flask is measured itself, and what setup returned is the same."""
    app = make_flask()
    observed = setup(app, registry)
    assert ask(app, "/users/7").body == b"7"
    assert ask(observed, "/users/8").body == b"8"
    assert app.test_client().get("/sub/leaf/a/b").text == "a/b"
    assert requests_of(registry) == {"GET /users/{id} 200": 2, "GET /sub/leaf/{id} 200": 1}
    assert aiosvc.wsgi.setup(app) is observed


def test_setup_of_an_application_of_no_framework(registry: CollectorRegistry) -> None:
    """The result is an application and an observer; the list's length is known to servers."""
    app = setup(make_plain(), registry)
    body = app(environ_of("/things/7"), Answer().start)
    assert len(body) == 1  # type: ignore[arg-type]  # that is the question
    assert b"".join(body) == b"hello"
    assert requests_of(registry) == {"GET /things/{id} 200": 1}
    assert aiosvc.wsgi.setup(app) is app


def test_what_setup_refuses(registry: CollectorRegistry) -> None:
    """A wrong option, no application, one that has our route: each is told."""
    with pytest.raises(ConfigError, match="expected a WSGI application"):
        aiosvc.wsgi.setup(object(), registry=registry)
    with pytest.raises(ConfigError, match="did you mean 'path'"):
        aiosvc.wsgi.setup(make_plain(), registry=registry, pth="/m")  # type: ignore[call-arg]
    app = make_flask()
    app.add_url_rule("/metrics", "metrics", lambda: "")
    with pytest.raises(ConfigError, match="has a route at '/metrics'"):
        aiosvc.wsgi.setup(app, registry=registry)


def test_dispatched_application(registry: CollectorRegistry) -> None:
    """What a dispatcher moved to the script's name is of the template, once; what a server set is not."""
    app = setup(DispatcherMiddleware(make_plain(), {"/mounted": make_flask()}), registry)
    ask(app, "/mounted/users/7", SCRIPT_NAME="/proxy")
    assert requests_of(registry) == {"GET /mounted/users/{id} 200": 1}


def test_script_name_of_a_client(registry: CollectorRegistry) -> None:
    """A prefix that a client may have sent is in no template."""
    app = make_flask()
    app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]
    setup(app, registry)
    ask(app, "/users/7", HTTP_X_FORWARDED_PREFIX="/made/up")
    assert requests_of(registry) == {"GET /users/{id} 200": 1}


def test_nested_setup_counts_once(registry: CollectorRegistry) -> None:
    """A measured application within a measured one leaves counting to the outer one."""
    inner = make_flask()
    setup(inner, registry)
    outer = setup(DispatcherMiddleware(make_plain(), {"/sub": inner}), registry)
    ask(outer, "/sub/users/7")
    assert requests_of(registry) == {"GET /sub/users/{id} 200": 1}


# -- Endings ---------------------------------------------------------------------------------------


def test_exception_that_flask_answers(registry: CollectorRegistry) -> None:
    """An exception behind Flask's 500 is a failure and counted by its class."""
    app = make_flask()
    setup(app, registry)
    assert ask(app, "/fail").status == "500 INTERNAL SERVER ERROR"
    assert requests_of(registry) == {"GET /fail 500": 1}
    assert failures_of(registry) == {"exception": 1}
    assert samples(registry, "http_exceptions_total", "exception") == {"ValueError": 1}


def test_exception_that_flask_lets_out(registry: CollectorRegistry) -> None:
    """An exception that Flask propagates reaches the server, under the route's template."""
    app = make_flask()
    app.testing = True
    setup(app, registry)
    with pytest.raises(ValueError, match="no"):
        ask(app, "/fail")
    assert requests_of(registry) == {"GET /fail 500": 1}
    assert samples(registry, "http_exceptions_total", "exception") == {"ValueError": 1}


class Chunks:
    """A body that knows whether it was closed, and fails where it is told to."""

    def __init__(self, *chunks: bytes | BaseException) -> None:
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self) -> "Chunks":
        return self

    def __next__(self) -> bytes:
        chunk = next(self.chunks)
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def close(self) -> None:
        """Take note."""
        self.closed += 1


def streaming(chunks: Any, *headers: tuple[str, str]) -> Any:
    """Return an application that answers with *chunks*."""

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("203 Fine", list(headers))
        return chunks

    return app


def in_progress(registry: CollectorRegistry) -> dict[str, float]:
    """Return what is in progress."""
    return samples(registry, "http_requests_in_progress", "endpoint")


def test_stream_is_over_with_its_last_chunk(registry: CollectorRegistry) -> None:
    """A stream is in progress until the server has its last chunk, and closed once."""
    chunks = Chunks(b"ab", b"", b"cd")
    body = setup(streaming(chunks), registry)(environ_of("/"), Answer().start)
    found = iter(body)
    assert [next(found), next(found)] == [b"ab", b""]
    assert in_progress(registry) == {"_unmatched": 1}
    assert [next(found), next(found, None)] == [b"cd", None]
    assert requests_of(registry) == {"GET _unmatched 203": 1}
    assert in_progress(registry) == {}
    body.close()  # type: ignore[attr-defined]  # it has one
    assert chunks.closed == 1
    assert bytes_of(registry) == {"_unmatched": 4}
    assert failures_of(registry) == {}


@pytest.mark.parametrize(
    ("chunks", "request_", "reason"),
    [
        ((ValueError("first"),), "GET _unmatched 500", "exception"),
        ((b"", ValueError("first")), "GET _unmatched 500", "exception"),
        ((TimeoutError("first"),), "GET _unmatched 500", "timeout"),
        ((b"ab", ValueError("later")), "GET _unmatched 203", "aborted"),
        ((b"ab", SystemExit(1)), "GET _unmatched 203", "cancelled"),
        ((SystemExit(1),), "GET _unmatched 499", "cancelled"),
    ],
)
def test_stream_that_fails(
    chunks: tuple[Any, ...], request_: str, reason: str, registry: CollectorRegistry
) -> None:
    """What a body raises passes unchanged, and counts by what had been sent."""
    body = Chunks(*chunks)
    app = setup(streaming(body), registry)
    with pytest.raises(type(chunks[-1])) as raised:
        ask(app, "/")
    assert raised.value is chunks[-1]
    assert body.closed == 1
    assert requests_of(registry) == {request_: 1}
    assert failures_of(registry) == {reason: 1}


@pytest.mark.parametrize(("read", "status"), [(0, 499), (1, 203)])
def test_close_before_the_end(read: int, status: int, registry: CollectorRegistry) -> None:
    """A server that closes a body before its end has lost its client."""
    chunks = Chunks(b"ab", b"cd", b"ef")
    body: Any = setup(streaming(chunks), registry)(environ_of("/"), Answer().start)
    assert [next(body) for _ in range(read)] == [b"ab", b"cd"][:read]
    body.close()
    assert chunks.closed == 1
    assert requests_of(registry) == {f"GET _unmatched {status}": 1}
    assert failures_of(registry) == {"client_disconnected": 1}


def test_chunks_that_are_no_bytes(registry: CollectorRegistry) -> None:
    """What an application gives instead of bytes is the server's to refuse, and passes."""
    app = setup(streaming(b"ab"), registry)  # one string of bytes, where a list of them should be
    chunks: Iterable[object] = app(environ_of("/"), Answer().start)
    assert list(chunks) == [97, 98]
    assert requests_of(registry) == {"GET _unmatched 203": 1}
    assert failures_of(registry) == {}
    assert samples(registry, "aiosvc_instrumentation_errors_total", "where") == {"chunk": 2}


def test_server_that_stops_at_the_content_length(registry: CollectorRegistry) -> None:
    """A server that has got all that was declared need not ask whether there is more."""
    app = setup(streaming(Chunks(b"ab"), ("Content-Length", "2")), registry)
    body: Any = app(environ_of("/"), Answer().start)
    next(body)
    body.close()
    assert requests_of(registry) == {"GET _unmatched 203": 1}
    assert failures_of(registry) == {}


def test_server_that_forgets_to_close(registry: CollectorRegistry) -> None:
    """A body that is dropped is counted at the next scrape, and in progress no longer."""
    body: Any = setup(streaming(Chunks(b"ab", b"cd")), registry)(environ_of("/"), Answer().start)
    next(body)
    del body
    gc.collect()
    assert requests_of(registry) == {"GET _unmatched 203": 1}
    assert in_progress(registry) == {}
    assert failures_of(registry) == {"client_disconnected": 1}


def test_client_of_flask_that_reads_no_body(registry: CollectorRegistry) -> None:
    """A test that looks at a status, and then at the metrics, finds its request there."""
    app = make_flask()
    setup(app, registry)
    client = app.test_client()
    assert client.get("/users/7").status_code == 200
    assert requests_of(registry) == {"GET /users/{id} 200": 1}
    assert failures_of(registry) == {}


def test_close_that_fails(registry: CollectorRegistry) -> None:
    """What an application's close raises reaches the server, and the request is counted."""

    class Failing(Chunks):
        def close(self) -> None:
            super().close()
            raise KeyError("in close")

    app = setup(streaming(Failing(b"ab", b"cd")), registry)
    body: Any = app(environ_of("/"), Answer().start)
    next(body)
    with pytest.raises(KeyError):
        body.close()
    assert requests_of(registry) == {"GET _unmatched 203": 1}
    assert failures_of(registry) == {"aborted": 1}


def test_write(registry: CollectorRegistry) -> None:
    """What is written by the old way counts too, and goes where it went."""

    def app(_environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"abc")
        return [b"de"]

    assert ask(setup(app, registry), "/").body == b"abcde"
    assert bytes_of(registry) == {"_unmatched": 5}


def test_start_response_with_exc_info(registry: CollectorRegistry) -> None:
    """A second start before anything was sent is the one that counts."""

    def app(_environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        error = ValueError("no")
        start_response("503 Busy", [], (ValueError, error, None))
        return [b"busy"]

    assert ask(setup(app, registry), "/").status == "503 Busy"
    assert requests_of(registry) == {"GET _unmatched 503": 1}
    assert failures_of(registry) == {}


def test_start_response_with_exc_info_too_late(registry: CollectorRegistry) -> None:
    """A second start after something was sent raises what the server raises."""

    def app(_environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])(b"ab")
        error = ValueError("no")
        start_response("500 No", [], (ValueError, error, None))
        return []

    with pytest.raises(ValueError, match="no"):
        ask(setup(app, registry), "/")
    assert requests_of(registry) == {"GET _unmatched 200": 1}
    assert failures_of(registry) == {"aborted": 1}


def test_application_that_raises(registry: CollectorRegistry) -> None:
    """What an application raises passes unchanged, and is a 500 of the server's."""

    def app(_environ: Any, _start_response: Any) -> Iterable[bytes]:
        raise error

    error = LookupError("no")
    with pytest.raises(LookupError) as raised:
        ask(setup(app, registry), "/")
    assert raised.value is error
    assert requests_of(registry) == {"GET _unmatched 500": 1}
    assert samples(registry, "http_exceptions_total", "exception") == {"LookupError": 1}


def test_head_has_no_body(registry: CollectorRegistry) -> None:
    """Bytes that a server throws away were not sent."""
    ask(setup(streaming([b"hello"]), registry), "/", "HEAD")
    assert requests_of(registry) == {"HEAD _unmatched 203": 1}
    assert bytes_of(registry) == {}


@pytest.mark.parametrize("how", ["read", "lines", "iterate", "pieces"])
def test_request_body(how: str, registry: CollectorRegistry) -> None:
    """The bytes that an application reads are counted, in whichever way it reads them."""
    ways: dict[str, Callable[[Any], bytes]] = {
        "read": lambda stream: stream.read(),
        "lines": lambda stream: stream.readline() + b"".join(stream.readlines()),
        "iterate": b"".join,
        "pieces": lambda stream: stream.read(3) + stream.read(100),
    }

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [ways[how](environ["wsgi.input"])]

    assert ask(setup(app, registry), "/", "POST", b"one\ntwo\nthree").body == b"one\ntwo\nthree"
    assert samples(registry, "http_request_size_bytes_sum", "method") == {"POST": 13}


def test_file_wrapper(registry: CollectorRegistry) -> None:
    """A file comes to the server as the wrapper that it knows, and is counted when closed."""
    file = io.BytesIO(b"0123456789")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "10")])
        return environ["wsgi.file_wrapper"](file)

    app = setup(app, registry)
    given: Any = app(environ_of("/", known={"wsgi.file_wrapper": FileWrapper}), Answer().start)
    assert type(given) is FileWrapper
    assert in_progress(registry) == {"_unmatched": 1}
    given.close()  # the kernel has sent it
    assert file.closed
    assert requests_of(registry) == {"GET _unmatched 200": 1}
    assert bytes_of(registry) == {"_unmatched": 10}
    assert failures_of(registry) == {}


def test_file_wrapper_whose_client_leaves(registry: CollectorRegistry) -> None:
    """A file that could not be sent is closed while the server handles the error."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "10")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789"))

    app = setup(app, registry)
    given: Any = app(environ_of("/", known={"wsgi.file_wrapper": FileWrapper}), Answer().start)

    def serve() -> None:
        try:
            raise BrokenPipeError
        finally:
            given.close()

    with pytest.raises(BrokenPipeError):
        serve()
    assert failures_of(registry) == {"client_disconnected": 1}


def test_many_threads(registry: CollectorRegistry) -> None:
    """Requests in many threads are all counted, and none remains in progress."""
    app = make_flask()
    setup(app, registry)
    barrier = threading.Barrier(8)

    def many(_: int) -> None:
        barrier.wait()
        for number in range(250):
            ask(app, f"/users/{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(many, range(8)))
    assert requests_of(registry) == {"GET /users/{id} 200": 2000}
    counts = samples(registry, "http_request_duration_seconds_count", "endpoint")
    assert counts == {"/users/{id}": 2000}
    assert in_progress(registry) == {}


# -- Our own endpoints, and the process ------------------------------------------------------------


def test_the_metrics_endpoint(registry: CollectorRegistry) -> None:
    """/metrics negotiates, compresses, filters and refuses as it does for aiohttp."""
    Counter("mine", "Mine.", registry=registry).inc()
    app = setup(make_plain(), registry)
    text = ask(app, "/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"\nmine_total 1.0\n" in text.body
    assert b"process_memory_rss_bytes" in text.body
    only = ask(app, "/metrics/", QUERY_STRING="name[]=mine_total")
    assert int(only.headers["content-length"]) == len(only.body)
    assert only.body == b"# HELP mine_total Mine.\n# TYPE mine_total counter\nmine_total 1.0\n"
    packed = ask(app, "/metrics", HTTP_ACCEPT_ENCODING="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.body.startswith(b"\x1f\x8b")
    assert ask(app, "/metrics", "HEAD").body == b""
    refused = ask(app, "/metrics", "POST")
    assert (refused.status, refused.headers["allow"]) == (
        "405 Method Not Allowed", "GET, HEAD, OPTIONS",
    )  # fmt: skip
    assert ask(app, "/livez").body == b"live\n"
    assert ask(app, "/readyz").body == b"ready\n"
    assert requests_of(registry) == {}


DJANGO = """
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import include, path, re_path
from prometheus_client import CollectorRegistry
from wsgiref.util import setup_testing_defaults

import aiosvc.wsgi

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)
django.setup()
urlpatterns = [
    URLS
]
app = aiosvc.wsgi.setup(get_wsgi_application(), registry=CollectorRegistry())
for where in ("/livez", "/readyz"):
    environ = {"PATH_INFO": where}
    setup_testing_defaults(environ)
    print(b"".join(app(environ, lambda *_: None)).decode().strip())
app.close()
"""


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ('path("", include([path("readyz", lambda _: HttpResponse("mine"))])),', "live mine"),
        ('re_path(r"^livez$", lambda _: HttpResponse("mine")),', "mine ready"),
        ('path("readyz/<int:id>", lambda _: HttpResponse("mine")),', "live ready"),
        ("1 / 1,", "live ready"),
    ],
)
def test_own_probes_of_django(urls: str, said: str) -> None:
    """A probe that Django has is left to it."""
    script = DJANGO.replace("URLS", urls)
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert ended.stdout.split() == said.split()


def test_a_scrape_of_many_series(registry: CollectorRegistry) -> None:
    """A big exposition comes in pieces, whole; one that is not read to its end leaves nothing."""
    counter = Counter("many", "Many.", ["n"], registry=registry)
    for number in range(20_000):
        counter.labels(str(number))
    app = setup(make_plain(), registry)
    body: Any = app(environ_of("/metrics"), Answer().start)
    pieces = list(body)
    assert len(pieces) > 3
    assert b"".join(pieces).count(b"\nmany_total{") == 20_000
    body = app(environ_of("/metrics"), Answer().start)
    next(iter(body))
    body.close()
    assert samples(registry, "aiosvc_scrapes_in_progress") == {}


def test_several_processes_are_told_of(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """A server of several processes is warned of once: each has its own numbers."""
    app = setup(make_plain(), registry)
    for _ in range(2):
        ask(app, "/", known={"wsgi.multiprocess": True})
    told = [record for record in caplog.records if "several processes" in record.getMessage()]
    assert len(told) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork(registry: CollectorRegistry) -> None:
    """A child of a process that samples has a sampler of its own, and nothing in progress."""
    app = setup(make_plain(), registry)
    chunks: Any = setup(streaming(Chunks(b"ab")), registry)(environ_of("/"), Answer().start)
    ask(app, "/")
    assert ask(app, "/metrics").status == "200 OK"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = ask(app, "/metrics").body
            good = b'aiosvc_source_up{source="process"} 1.0' in text
            good = good and not in_progress(registry) and app.background is not None
            os.write(writing, b"good" if good else text[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    said = os.read(reading, 4000)
    os.close(reading)
    os.waitpid(child, 0)
    assert said == b"good"
    chunks.close()


def test_begins_anew_after_close(registry: CollectorRegistry) -> None:
    """Counts outlive a close; the next request begins anew."""
    app = setup(make_plain(), registry)
    ask(app, "/")
    app.close()
    assert app.background is None
    ask(app, "/")
    assert requests_of(registry) == {"GET /things/{id} 200": 2}


def test_admin_server_of_each_process(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """An admin port that another process has is told of, and requests go on."""
    first = setup(make_plain(), registry, admin=aiosvc.AdminOptions(admin_port=0))
    ask(first, "/")
    assert first.admin_url is not None
    port = int(first.admin_url.rpartition(":")[2])
    admin = aiosvc.AdminOptions(admin_port=port)
    second = setup(make_flask(), CollectorRegistry(), admin=admin)
    assert ask(second, "/users/7").body == b"7"
    assert second.admin_url is None
    assert "has no admin server" in caplog.text


def test_what_peers_mount_is_found(registry: CollectorRegistry) -> None:
    """Where a dispatcher serves prometheus_client's own endpoint, its answer is as it was."""
    Counter("mine", "Mine.", registry=registry).inc()
    app = make_flask()
    app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, {"/own": make_wsgi_app(registry)}
    )
    setup(app, registry)
    assert b"mine_total 1.0" in ask(app, "/own").body


def test_response_object_of_flask(registry: CollectorRegistry) -> None:
    """Flask's own test client and streaming responses work as without us."""
    app = make_flask()
    closed: list[bool] = []

    @app.get("/stream")
    def stream() -> Response:
        response = Response(iter([b"ab", b"cd"]))
        response.call_on_close(lambda: closed.append(True))
        return response

    setup(app, registry)
    with app.test_client() as client:
        response = client.get("/stream")
        assert response.data == b"abcd"
        response.close()
    assert closed == [True]
    assert bytes_of(registry) == {"/stream": 4}


def test_nothing_is_told_of_the_loop_that_samples(registry: CollectorRegistry) -> None:
    """The event loop beside a WSGI application is ours; that it is idle says nothing of the service."""
    app = setup(Flask("shop"), registry)
    ask(app, "/")
    text = generate_latest(registry).decode()
    assert "process_threads" in text
    assert "asyncio_" not in text
