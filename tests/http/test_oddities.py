"""What handlers should not do, and do: the numbers must be true all the same."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from situations import BODY, CHUNK, GATES, Gates, Service, make_app, serving, until
from wire import request

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def size_sent(service: Service, endpoint: str, method: str = "GET") -> float | None:
    """Return the bytes sent of an endpoint, once its requests are finished."""
    await service.quiet()
    return service.value("http_response_size_bytes_sum", method=method, endpoint=endpoint)


async def test_same_response_twice() -> None:
    """
    A response that was sent already is not sent again: its second request got no status.

    The table has no such row. Nothing was sent and the client did not leave, so it counts like a
    handler that returned no response: 500 and `exception`.
    """
    kept = web.Response(body=BODY)

    async def handler(_request: web.Request) -> web.Response:
        return kept

    async with serving(web.get("/same", handler)) as service:
        first, second = await service.connect(), await service.connect()
        assert (await first.ask(request("GET", "/same"))).body == BODY
        await second.send(request("GET", "/same"))
        await until(lambda: sum(service.seen().requests.values()) == 2, "the second")
        second.finish()
        assert await second.rest() == b""
        await service.quiet()
        seen = service.seen()
        assert seen.requests == {"GET /same 200": 1, "GET /same 500": 1}
        assert seen.failures == {"GET /same exception": 1}


async def test_same_exception_twice() -> None:
    """An HTTPException object that is raised again is sent once and counted as sent once."""
    kept = web.HTTPForbidden()

    async def handler(_request: web.Request) -> web.Response:
        raise kept

    async with serving(web.get("/same", handler)) as service:
        first, second = await service.connect(), await service.connect()
        assert (await first.ask(request("GET", "/same"))).status == 403
        await second.send(request("GET", "/same"))
        await until(lambda: sum(service.seen().requests.values()) == 2, "the second")
        second.finish()
        assert await second.rest() == b""
        await service.quiet()
        assert service.seen().requests.get("GET /same 403") == 1


async def test_response_of_another_request() -> None:
    """A response that belongs to another connection's request is counted where it was sent."""
    kept: list[web.StreamResponse] = []

    async def owner(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        kept.append(response)
        await service.gate("owner").wait()
        return response

    async def thief(_request: web.Request) -> web.StreamResponse:
        return kept[0]

    routes = [web.get("/owner", owner), web.get("/thief", thief)]
    async with serving(*routes) as service:
        first, second = await service.connect(), await service.connect()
        await first.send(request("GET", "/owner"))
        assert (await first.head()).status == 200
        await second.send(request("GET", "/thief"))
        await until(lambda: bool(service.seen().requests), "the second")
        second.finish()
        assert await second.rest() == b""
        service.gate("owner").opened.set()
        await service.quiet()
        requests = service.seen().requests
        assert requests.pop("GET /owner 200") == 1
        assert requests == {"GET /thief 500": 1}


@pytest.mark.parametrize(
    ("error", "status", "failures", "exceptions"),
    [
        (ValueError, 500, {"GET /late exception": 1}, {"/late ValueError": 1}),
        (TimeoutError, 504, {"GET /late timeout": 1}, {}),
        (web.HTTPForbidden, 403, {}, {}),
    ],
)
async def test_failure_after_headers_that_were_not_sent(
    error: type[Exception], status: int, failures: dict[str, int], exceptions: dict[str, int]
) -> None:
    """
    Headers that were prepared and never left the server are no status.

    aiohttp keeps a Response's headers back until its body comes; its client got another answer,
    whole and well-formed.
    """

    async def handler(request: web.Request) -> web.Response:
        response = web.Response(body=BODY)
        await response.prepare(request)
        raise error

    async with serving(web.get("/late", handler)) as service:
        assert (await service.ask(request("GET", "/late"))).status == status
        await service.says({f"GET /late {status}": 1}, failures=failures, exceptions=exceptions)


async def test_another_response_than_the_prepared() -> None:
    """Of two responses to one request, what the client got is what is counted."""

    async def handler(request: web.Request) -> web.Response:
        await web.Response(body=CHUNK).prepare(request)
        return web.Response(status=203, body=BODY)

    async with serving(web.get("/two", handler)) as service:
        answer = await service.ask(request("GET", "/two"))
        assert (answer.status, answer.body) == (203, BODY)
        await service.quiet()
        assert service.seen().requests == {"GET /two 203": 1}
        assert await size_sent(service, "/two") == len(BODY)


async def test_response_prepared_and_returned() -> None:
    """A response that its handler prepared, and even sent, before it returned it is counted once."""

    async def prepared(request: web.Request) -> web.Response:
        response = web.Response(status=203, body=BODY)
        await response.prepare(request)
        return response

    async def sent(request: web.Request) -> web.Response:
        response = await prepared(request)
        await response.write_eof()
        return response

    routes = [web.get("/prepared", prepared), web.get("/sent", sent)]
    async with serving(*routes) as service:
        wire = await service.connect()
        for path in ("/prepared", "/sent"):
            answer = await wire.ask(request("GET", path))
            assert (answer.status, answer.body) == (203, BODY)
        await service.says({"GET /prepared 203": 1, "GET /sent 203": 1})
        assert await size_sent(service, "/prepared") == len(BODY)
        assert await size_sent(service, "/sent") == len(BODY)


async def test_write_after_the_end() -> None:
    """Writing after the end is an exception after the answer, which its client has got."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write_eof(CHUNK)
        await response.write(CHUNK)
        return response

    async with serving(web.get("/after", handler)) as service:
        wire = await service.connect()
        assert (await wire.ask(request("GET", "/after"))).body == CHUNK
        await service.says(
            {"GET /after 200": 1},
            failures={"GET /after aborted": 1},
            exceptions={"/after RuntimeError": 1},
        )
        assert await size_sent(service, "/after") == 10


@pytest.mark.parametrize("how", ["bytes", "none"])
async def test_stream_that_is_not_returned(how: str) -> None:
    """A handler that sends its answer whole and returns nothing gets `aborted` for it."""

    async def handler(request: web.Request) -> Any:
        response = web.StreamResponse(status=203)
        await response.prepare(request)
        if how == "bytes":
            await response.write(CHUNK)
        await response.write_eof()

    async with serving(web.get("/lost", handler)) as service:
        wire = await service.connect()
        answer = await wire.ask(request("GET", "/lost"))
        assert answer.status == 203
        await service.says({"GET /lost 203": 1}, failures={"GET /lost aborted": 1})


@pytest.mark.parametrize("status", [100, 102, 199])
async def test_informational_status_as_the_answer(status: int) -> None:
    """A handler that answers with 1xx sent that status, and no body."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=CHUNK)

    async with serving(web.get("/info", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/info"))
        assert (await wire.head()).status == status
        await service.says({f"GET /info {status}": 1})
        wire.finish()
        assert await size_sent(service, "/info") == len(await wire.rest())


async def test_json_to_head() -> None:
    """A JSON answer to HEAD is its headers only."""

    async def handler(_request: web.Request) -> web.Response:
        return web.json_response({"a": list(range(100))})

    async with serving(web.get("/json", handler)) as service:
        wire = await service.connect()
        assert (await wire.ask(request("HEAD", "/json"), to="HEAD")).status == 200
        assert (await wire.ask(request("GET", "/json"))).status == 200
        await service.says({"HEAD /json 200": 1, "GET /json 200": 1})
        assert await size_sent(service, "/json", "HEAD") == 0


async def test_handler_that_closes_after_its_answer() -> None:
    """A handler that asks for the end of the connection is an answer like any other."""

    async def handler(request: web.Request) -> web.Response:
        request.protocol.close()
        response = web.Response(body=BODY)
        response.force_close()
        return response

    async with serving(web.get("/last", handler)) as service:
        wire = await service.connect()
        assert (await wire.ask(request("GET", "/last"))).body == BODY
        assert await wire.rest() == b""
        await service.says({"GET /last 200": 1})


async def test_handler_that_waits_for_a_cancelled_task() -> None:
    """A CancelledError out of a task of the handler's own ends the request without an answer."""

    async def handler(_request: web.Request) -> web.Response:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task
        return web.Response()

    async with serving(web.get("/task", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/task"))
        assert await wire.rest() == b""
        await service.says({"GET /task 499": 1}, failures={"GET /task cancelled": 1})


async def test_timeout_within_a_handler() -> None:
    """A timeout that the handler ran into is the failure `timeout`, whoever set it."""

    async def handler(_request: web.Request) -> web.Response:
        async with asyncio.timeout(0.01):
            await service.gate().wait()
        return web.Response()

    async with serving(web.get("/slow", handler)) as service:
        assert (await service.ask(request("GET", "/slow"))).status == 504
        await service.says({"GET /slow 504": 1}, failures={"GET /slow timeout": 1})


async def test_exception_group() -> None:
    """What a task group raises is an exception of its class."""

    async def fail() -> None:
        raise KeyError("x")

    async def handler(_request: web.Request) -> web.Response:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
        return web.Response()

    async with serving(web.get("/group", handler)) as service:
        assert (await service.ask(request("GET", "/group"))).status == 500
        await service.says(
            {"GET /group 500": 1},
            failures={"GET /group exception": 1},
            exceptions={"/group ExceptionGroup": 1},
        )


async def test_exception_whose_text_can_not_be_made() -> None:
    """An exception that can't even be printed is counted by its class."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    async def handler(_request: web.Request) -> web.Response:
        raise UnprintableError

    async with serving(web.get("/odd", handler)) as service:
        assert (await service.ask(request("GET", "/odd"))).status == 500
        await service.quiet()
        seen = service.seen()
        assert seen.requests == {"GET /odd 500": 1}
        assert len(seen.exceptions) == 1


async def test_resource_of_the_users_own() -> None:
    """A view class counts under its template, and what it does not have as its 405."""

    class View(web.View):
        async def get(self) -> web.Response:
            return web.Response(body=BODY)

    async with serving(web.view("/view/{id}", View)) as service:
        assert (await service.ask(request("GET", "/view/1"))).status == 200
        assert (await service.ask(request("DELETE", "/view/1"))).status == 405
        await service.says({"GET /view/{id} 200": 1, "DELETE /view/{id} 405": 1})


async def test_normalised_path() -> None:
    """A redirect of aiohttp's own normalising middleware is an answer without a route."""
    app = make_app(middlewares=[web.normalize_path_middleware()])

    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    app.router.add_get("/slash/", handler)
    async with serving(app=app) as service:
        assert (await service.ask(request("GET", "/slash"))).status == 308
        await service.says({"GET _unmatched 308": 1})


async def test_match_that_takes_long() -> None:
    """A request whose route is still being looked for is in progress, and then under its route."""

    class Slow(web.UrlDispatcher):
        async def resolve(self, request: web.Request) -> Any:
            await service.gate("match").wait()
            return await super().resolve(request)

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=BODY)

    with pytest.warns(DeprecationWarning, match="router"):
        app = web.Application(router=Slow())
    app.router.add_get("/ok", handler)
    app.router.add_get("/users/{id}", handler)
    app[GATES] = Gates()
    async with serving(app=app) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/ok"))
        gate = await service.entered("match")
        in_progress = service.seen().in_progress
        assert list(in_progress.values()) == [1]
        gate.opened.set()
        assert (await wire.answer()).status == 200
        await service.says({"GET /ok 200": 1})


async def test_match_that_fails() -> None:
    """An exception while a route is looked for is a 500 of the request's own method."""

    class Broken(web.UrlDispatcher):
        async def resolve(self, request: web.Request) -> Any:
            raise LookupError(request.path)

    with pytest.warns(DeprecationWarning, match="router"):
        app = web.Application(router=Broken())
    async with serving(app=app) as service:
        assert (await service.ask(request("GET", "/ok"))).status == 500
        await service.says(
            {"GET _unmatched 500": 1},
            failures={"GET _unmatched exception": 1},
            exceptions={"_unmatched LookupError": 1},
        )


async def test_handler_that_reads_its_own_metrics() -> None:
    """A handler that scrapes the registry finds itself in progress, and is counted once after."""
    found: list[dict[str, int]] = []

    async def handler(_request: web.Request) -> web.Response:
        found.append(service.seen().in_progress)
        return web.Response()

    async with serving(web.get("/self", handler)) as service:
        await service.ask(request("GET", "/self"))
        assert found == [{"GET /self": 1}]
        await service.says({"GET /self 200": 1})


async def test_response_with_the_status_changed_on_the_way() -> None:
    """A status that on_response_prepare put in place is the one sent, and so the one counted."""

    async def change(_request: web.Request, response: web.StreamResponse) -> None:
        response._set_status(202, None)

    app = make_app()
    app.on_response_prepare.append(change)
    async with serving(app=app) as service:
        assert (await service.ask(request("GET", "/ok"))).status == 202
        await service.says({"GET /ok 202": 1})


async def test_request_cloned_by_a_middleware() -> None:
    """A middleware that hands a clone of the request on changes nothing of what is counted."""

    @web.middleware
    async def clone(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request.clone(rel_url="/elsewhere"))

    async with serving(middlewares=[clone]) as service:
        assert (await service.ask(request("GET", "/users/7"))).status == 200
        await service.says({"GET /users/{id} 200": 1})


async def test_method_override() -> None:
    """A clone with another method does not change the method that the client sent."""

    @web.middleware
    async def override(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request.clone(method="DELETE"))

    async with serving(middlewares=[override]) as service:
        assert (await service.ask(request("GET", "/users/7"))).status == 200
        await service.says({"GET /users/{id} 200": 1})
