"""What each request is counted as: every row of the table that ends with an answer."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from aiohttp import web
from situations import BODY, CHUNK, Service, make_app, serving, until, write_files
from wire import request

HTTP_EXCEPTIONS = sorted(
    name
    for name, found in vars(web).items()
    if isinstance(found, type) and issubclass(found, web.HTTPException) and found.status_code > 0
)


# -- Answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "template"),
    [
        ("GET", "/ok", "/ok"),
        ("HEAD", "/ok", "/ok"),
        ("GET", "/ok?user=7", "/ok"),
        ("GET", "/users/7", "/users/{id}"),
        ("GET", "/users/%2e%2e%2f", "/users/{id}"),
        ("GET", "/numbers/42", "/numbers/{number}"),
        ("POST", "/echo", "/echo"),
        ("PUT", "/unread", "/unread"),
        ("DELETE", "/any", "/any"),
        ("OPTIONS", "/any", "/any"),
        ("PATCH", "/any", "/any"),
        ("TRACE", "/any", "/any"),
        ("GET", "/sub/twig", "/sub/twig"),
        ("GET", "/sub/deep/leaf/7", "/sub/deep/leaf/{id}"),
        ("GET", "http://service.test/users/7", "/users/{id}"),
    ],
)
async def test_handler_returns(method: str, target: str, template: str) -> None:
    """A request is counted once, under its route's template with all prefixes, as no failure."""
    async with serving() as service:
        answer = await service.ask(request(method, target), to=method)
        assert answer.status == 200
        await service.says({f"{method} {template} 200": 1})


async def test_domain() -> None:
    """A request to an application for a domain is counted under that application's template."""
    async with serving() as service:
        await service.ask(request("GET", "/at/home", headers={"Host": "inner.test"}))
        await service.ask(request("GET", "/at/home", headers={"Host": "other.test"}))
        await service.says({"GET /at/{place} 200": 1, "GET _unmatched 404": 1})


@pytest.mark.parametrize("name", HTTP_EXCEPTIONS)
async def test_http_exception_raised(name: str) -> None:
    """An HTTPException that a handler raises is an answer: neither a failure nor an exception."""
    status = getattr(web, name).status_code
    async with serving() as service:
        answer = await service.ask(request("GET", f"/raise/{name}"))
        assert answer.status == status
        await service.says({f"GET /raise/{{name}} {status}": 1})


@pytest.mark.filterwarnings("ignore:returning HTTPException:DeprecationWarning")
@pytest.mark.parametrize("name", ["HTTPOk", "HTTPForbidden", "HTTPServiceUnavailable"])
async def test_http_exception_returned(name: str) -> None:
    """An HTTPException that a handler returns counts like one that it raises."""
    status = getattr(web, name).status_code
    async with serving() as service:
        assert (await service.ask(request("GET", f"/return/{name}"))).status == status
        await service.says({f"GET /return/{{name}} {status}": 1})


async def test_other_status_than_the_class_has() -> None:
    """The status counted is the one sent, also where a handler chose one that has no name."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=799)

    async def error(_request: web.Request) -> NoReturn:
        failure = web.HTTPBadRequest()
        failure.set_status(422)
        raise failure

    async with serving(web.get("/odd", handler), web.get("/error", error)) as service:
        assert (await service.ask(request("GET", "/odd"))).status == 799
        assert (await service.ask(request("GET", "/error"))).status == 422
        await service.says({"GET /odd 799": 1, "GET /error 422": 1})


async def test_no_route() -> None:
    """A thousand paths that no route has make one series."""
    async with serving() as service:
        wire = await service.connect()
        for number in range(1000):
            await wire.ask(request("GET", f"/wp-admin/{number}.php?x={number}"))
        await service.says({"GET _unmatched 404": 1000})


@pytest.mark.parametrize(
    ("target", "template", "host"),
    [
        ("/ok", "/ok", "service.test"),
        ("/users/7", "/users/{id}", "service.test"),
        ("/users/a%20b", "/users/{id}", "service.test"),
        ("/numbers/42", "/numbers/{number}", "service.test"),
        ("/files/page.txt", "/files", "service.test"),
        ("/files/", "/files", "service.test"),
        ("/sub/twig", "/sub/twig", "service.test"),
        ("/sub/deep/leaf/7", "/sub/deep/leaf/{id}", "service.test"),
        ("/at/home", "/at/{place}", "inner.test"),
        ("http://service.test/users/7?a=b", "/users/{id}", "service.test"),
    ],
)
async def test_wrong_method(target: str, template: str, host: str, tmp_path: Path) -> None:
    """A method that a known path does not have keeps that path's template."""
    app = make_app(web.static("/files", write_files(tmp_path)))
    async with serving(app=app) as service:
        answer = await service.ask(request("DELETE", target, headers={"Host": host}))
        assert answer.status == 405
        await service.says({f"DELETE {template} 405": 1})


async def test_wrong_method_of_overlapping_routes() -> None:
    """Where several routes match a path, a 405 is counted under one of them."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    routes = [web.get("/pages/{name}", handler), web.put(r"/pages/{number:\d+}", handler)]
    async with serving(*routes) as service:
        assert (await service.ask(request("DELETE", "/pages/1"))).status == 405
        requests = service.seen().requests
        assert list(requests.values()) == [1]
        assert set(requests) < {"DELETE /pages/{name} 405", "DELETE /pages/{number} 405"}


async def test_unmatched_within_a_sub_application() -> None:
    """A path that a sub-application does not have is unmatched; its prefix is no template."""
    async with serving() as service:
        assert (await service.ask(request("GET", "/sub/deep/nothing"))).status == 404
        assert (await service.ask(request("DELETE", "/sub/nothing"))).status == 404
        await service.says({"GET _unmatched 404": 1, "DELETE _unmatched 404": 1})


# -- Failures --------------------------------------------------------------------------------------


async def test_handler_raises() -> None:
    """An exception that nothing caught is a 500, a failure and one of its class."""
    async with serving() as service:
        assert (await service.ask(request("GET", "/fail/value"))).status == 500
        await service.says(
            {"GET /fail/{how} 500": 1},
            failures={"GET /fail/{how} exception": 1},
            exceptions={"/fail/{how} ValueError": 1},
        )


async def test_handler_of_a_sub_application_raises() -> None:
    """An exception in a sub-application is counted once, under the template with the prefixes."""
    async with serving() as service:
        assert (await service.ask(request("GET", "/sub/deep/fail/value"))).status == 500
        await service.says(
            {"GET /sub/deep/fail/{how} 500": 1},
            failures={"GET /sub/deep/fail/{how} exception": 1},
            exceptions={"/sub/deep/fail/{how} ValueError": 1},
        )


async def test_handler_raises_a_connection_error_of_its_own() -> None:
    """A ConnectionError from a handler whose client is there is an exception like any other."""
    async with serving() as service:
        assert (await service.ask(request("GET", "/fail/connection"))).status == 500
        await service.says(
            {"GET /fail/{how} 500": 1},
            failures={"GET /fail/{how} exception": 1},
            exceptions={"/fail/{how} ConnectionResetError": 1},
        )


async def test_handler_times_out() -> None:
    """A TimeoutError is what aiohttp makes of it, 504, and the failure `timeout`."""
    async with serving() as service:
        assert (await service.ask(request("GET", "/fail/timeout"))).status == 504
        await service.says(
            {"GET /fail/{how} 504": 1},
            failures={"GET /fail/{how} timeout": 1},
        )


@pytest.mark.parametrize("what", ["none", "text"])
async def test_handler_returns_no_response(what: str) -> None:
    """What a handler returns and is no response is a 500 and the failure `exception`."""
    async with serving() as service:
        assert (await service.ask(request("GET", f"/wrong/{what}"))).status == 500
        await service.says(
            {"GET /wrong/{what} 500": 1}, failures={"GET /wrong/{what} exception": 1}
        )


async def test_handler_cancelled_itself() -> None:
    """A handler that raises CancelledError answers nobody: no status was sent, so it is 499."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(request("GET", "/fail/cancelled"))
        assert await wire.rest() == b""
        await service.says({"GET /fail/{how} 499": 1}, failures={"GET /fail/{how} cancelled": 1})


@pytest.mark.parametrize(
    ("then", "exceptions"),
    [
        ("value", {"/stream/{then} ValueError": 1}),
        ("connection", {"/stream/{then} ConnectionResetError": 1}),
        ("timeout", {}),
        ("forbidden", {}),
        ("none", {}),
        ("another", {}),
    ],
)
async def test_handler_fails_after_prepare(then: str, exceptions: dict[str, int]) -> None:
    """What goes wrong once headers are sent is `aborted`, under the status that was sent."""
    async with serving() as service:
        service.gate().opened.set()
        wire = await service.connect()
        await wire.send(request("GET", f"/stream/{then}"))
        assert (await wire.head()).status == 200
        await service.says(
            {"GET /stream/{then} 200": 1},
            failures={"GET /stream/{then} aborted": 1},
            exceptions=exceptions,
        )


async def _bytes_then_error() -> Any:
    yield CHUNK
    raise ValueError("in the middle")


async def _error_first() -> Any:
    nothing: tuple[bytes, ...] = ()
    for piece in nothing:
        yield piece
    raise ValueError("at the start")


async def test_body_fails_midway() -> None:
    """A body that raises while it is sent is `aborted`, under the status that was sent."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=203, body=_bytes_then_error())

    async with serving(web.get("/body", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/body"))
        assert (await wire.head()).status == 203
        assert CHUNK in await wire.rest()
        await service.says(
            {"GET /body 203": 1},
            failures={"GET /body aborted": 1},
            exceptions={"/body ValueError": 1},
        )


async def test_body_fails_before_anything_is_sent() -> None:
    """A body that raises before its first byte is a 500: no other status was sent."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=_error_first())

    async with serving(web.get("/body", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/body"))
        assert await wire.rest() == b""
        await service.says(
            {"GET /body 500": 1},
            failures={"GET /body exception": 1},
            exceptions={"/body ValueError": 1},
        )


@pytest.mark.parametrize("target", ["/ok", "/stream/end"])
async def test_response_can_not_be_prepared(target: str) -> None:
    """An error in the user's own on_response_prepare is a 500 and counted by its class."""

    async def refuse(_request: web.Request, _response: web.StreamResponse) -> None:
        raise KeyError("no")

    app = make_app()
    app.on_response_prepare.append(refuse)
    template = target.replace("end", "{then}")
    async with serving(app=app) as service:
        wire = await service.connect()
        await wire.send(request("GET", target))
        assert await wire.rest() == b""
        await service.says(
            {f"GET {template} 500": 1},
            failures={f"GET {template} exception": 1},
            exceptions={f"{template} KeyError": 1},
        )


async def test_http_exception_while_preparing() -> None:
    """An HTTPException is never counted as an exception, not even from on_response_prepare."""

    async def refuse(_request: web.Request, _response: web.StreamResponse) -> None:
        raise web.HTTPForbidden

    app = make_app()
    app.on_response_prepare.append(refuse)
    async with serving(app=app) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/ok"))
        assert await wire.rest() == b""
        await service.says({"GET /ok 500": 1}, failures={"GET /ok exception": 1})


async def test_exception_classes_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Exceptions of ever new classes end in `_other`, which is counted and logged once."""
    classes = [type(f"Error{number}", (Exception,), {}) for number in range(80)]

    async def handler(request: web.Request) -> NoReturn:
        raise classes[int(request.query["n"])]

    async with serving(web.get("/classes", handler)) as service:
        for number in range(80):
            await service.ask(request("GET", f"/classes?n={number}"))
        exceptions = service.seen().exceptions
        assert sum(exceptions.values()) == 80
        assert exceptions["/classes _other"] == 30
        labels = {"metric": "http_exceptions_total", "label": "exception"}
        assert service.value("aiosvc_label_overflow_total", **labels) == 30
        warnings = [r for r in caplog.records if r.name == "aiosvc" and "cap" in r.getMessage()]
        assert len(warnings) == 1


# -- Middlewares -----------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def test_middleware_answers_first() -> None:
    """An answer from the user's own middleware counts under the template it kept others from."""

    @web.middleware
    async def teapot(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(status=418)

    async with serving(middlewares=[teapot]) as service:
        assert (await service.ask(request("GET", "/users/7"))).status == 418
        assert (await service.ask(request("GET", "/nothing"))).status == 418
        await service.says({"GET /users/{id} 418": 1, "GET _unmatched 418": 1})


async def test_middleware_raises() -> None:
    """An exception in the user's own middleware is a 500 of the endpoint."""

    @web.middleware
    async def broken(request: web.Request, handler: Handler) -> web.StreamResponse:
        raise LookupError("in a middleware")

    async with serving(middlewares=[broken]) as service:
        assert (await service.ask(request("GET", "/users/7"))).status == 500
        await service.says(
            {"GET /users/{id} 500": 1},
            failures={"GET /users/{id} exception": 1},
            exceptions={"/users/{id} LookupError": 1},
        )


async def test_middleware_turns_an_exception_into_an_answer() -> None:
    """An exception that the user's own middleware caught is what the middleware made of it."""

    @web.middleware
    async def kind(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValueError:
            return web.Response(status=422)

    async with serving(middlewares=[kind]) as service:
        assert (await service.ask(request("GET", "/fail/value"))).status == 422
        await service.says({"GET /fail/{how} 422": 1})


async def test_middleware_replaces_an_answer() -> None:
    """The status that a middleware put in place of the handler's is the one counted."""

    @web.middleware
    async def hide(request: web.Request, handler: Handler) -> web.StreamResponse:
        await handler(request)
        return web.Response(status=404)

    async with serving(middlewares=[hide]) as service:
        assert (await service.ask(request("GET", "/users/7"))).status == 404
        await service.says({"GET /users/{id} 404": 1})


async def test_middleware_answers_for_what_failed_after_prepare(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A second answer where headers were out already is `aborted`, under the first's status."""

    @web.middleware
    async def kind(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValueError:
            return web.Response(status=500)

    caplog.set_level(logging.CRITICAL)
    async with serving(middlewares=[kind]) as service:
        service.gate().opened.set()
        wire = await service.connect()
        await wire.send(request("GET", "/stream/value"))
        assert (await wire.head()).status == 200
        await service.says(
            {"GET /stream/{then} 200": 1}, failures={"GET /stream/{then} aborted": 1}
        )


# -- Expectations ----------------------------------------------------------------------------------


async def test_expect_continue() -> None:
    """The 100 that lets a client go on is no answer: the request is counted by its final one."""
    async with serving() as service:
        wire = await service.connect()
        fields = {"Expect": "100-continue", "Content-Length": "10"}
        await wire.send(request("POST", "/echo", headers=fields))
        assert (await wire.head()).status == 100
        await wire.send(CHUNK)
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, CHUNK)
        await service.says({"POST /echo 200": 1})
        labels = {"method": "POST", "endpoint": "/echo"}
        assert service.value("http_request_size_bytes_sum", **labels) == 10
        assert service.value("http_response_size_bytes_sum", **labels) == 10


async def test_unknown_expectation() -> None:
    """An expectation that aiohttp does not know is its 417, under the template."""
    async with serving() as service:
        answer = await service.ask(request("POST", "/echo", headers={"Expect": "miracles"}))
        assert answer.status == 417
        await service.says({"POST /echo 417": 1})


async def test_expect_handler_that_refuses() -> None:
    """What the user's own expect handler answers is counted under the template."""

    async def raises(_request: web.Request) -> None:
        raise web.HTTPExpectationFailed

    async def returns(_request: web.Request) -> web.Response:
        return web.Response(status=413)

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=BODY)

    app = make_app()
    app.router.add_post("/raises", handler, expect_handler=raises)
    app.router.add_post("/returns", handler, expect_handler=returns)
    async with serving(app=app) as service:
        for path, status in (("/raises", 417), ("/returns", 413)):
            fields = {"Expect": "100-continue", "Content-Length": "0"}
            assert (await service.ask(request("POST", path, headers=fields))).status == status
        await service.says({"POST /raises 417": 1, "POST /returns 413": 1})


# -- Connections -----------------------------------------------------------------------------------


async def test_keep_alive() -> None:
    """Requests one after the other on one connection are counted each."""
    async with serving() as service:
        wire = await service.connect()
        for _ in range(3):
            await wire.ask(request("GET", "/ok"))
        await wire.ask(request("GET", "/users/7"))
        await service.says({"GET /ok 200": 3, "GET /users/{id} 200": 1})
        assert service.value("connections_total") == 1


async def test_http_1_0() -> None:
    """HTTP/1.0 requests are counted like others, whether their connection is kept or not."""
    async with serving() as service:
        wire = await service.connect()
        fields = {"Connection": "keep-alive"}
        await wire.ask(request("GET", "/ok", version="1.0", headers=fields))
        await wire.ask(request("GET", "/ok", version="1.0"))
        assert await wire.rest() == b""
        await service.says({"GET /ok 200": 2})


@pytest.mark.parametrize("count", [2, 100])
async def test_pipelined(count: int) -> None:
    """Pipelined requests are counted once each, with the answers that each got."""
    async with serving() as service:
        wire = await service.connect()
        targets = ["/ok", "/users/7", "/fail/timeout", "/nothing"]
        mixed = [targets[number % 3 if number < count - 1 else 3] for number in range(count)]
        mixed = [target.replace("/fail/timeout", "/raise/HTTPGone") for target in mixed]
        await wire.send(b"".join(request("GET", target) for target in mixed))
        statuses = [(await wire.answer()).status for _ in mixed]
        gone = sum(target == "/raise/HTTPGone" for target in mixed)
        assert statuses.count(404) == 1
        assert statuses.count(410) == gone
        expected = {
            "GET /ok 200": mixed.count("/ok"),
            "GET /users/{id} 200": mixed.count("/users/7"),
            "GET /raise/{name} 410": gone,
            "GET _unmatched 404": 1,
        }
        await service.says({key: value for key, value in expected.items() if value})


def age_of_oldest(service: Service) -> float:
    """Return the age of the oldest request in progress."""
    age = service.value("http_request_oldest_in_progress_seconds")
    assert age is not None
    return age


async def test_pipelined_durations() -> None:
    """A pipelined request's duration begins when its turn comes, not when it was sent."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(request("GET", "/wait") + request("GET", "/ok"))
        gate = await service.entered()
        await until(lambda: age_of_oldest(service) > 0.05, "an age")
        gate.opened.set()
        await wire.answer()
        await wire.answer()
        await service.says({"GET /wait 200": 1, "GET /ok 200": 1})
        waited = service.value("http_request_duration_seconds_sum", method="GET", endpoint="/wait")
        quick = service.value("http_request_duration_seconds_sum", method="GET", endpoint="/ok")
        assert waited is not None
        assert quick is not None
        assert waited > 0.05 > quick
