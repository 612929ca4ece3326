"""
Hostile texts in everything that a client sends: each answer is counted once, and nothing else.

What a server makes of a text, a 404 or a 400, is aiohttp's business. Whatever it answers is what
is counted, and no text makes a series of its own.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote

import pytest
from aiohttp import web
from hostile import CORPUS, SURROGATES
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from situations import Service, serving, until

import aiosvc
from aiosvc.requests import METHODS

TEXTS = [*CORPUS, *SURROGATES]
BATCH = 25
#: Names of exceptions that are told apart are fifty.
SOME = 40

#: What an application may say: halves of pairs become the same letter, so there is one of them.
NAMES = [text for text in [*CORPUS, "x\ud83dy"] if text]

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

#: Header fields that somebody has once made a label of.
FIELDS = (
    "User-Agent", "Referer", "Origin", "Cookie", "Accept", "Accept-Encoding", "Accept-Language",
    "Content-Type", "Authorization", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto",
    "X-Forwarded-Host", "X-Real-IP", "X-Request-ID", "X-Tenant", "traceparent", "tracestate", "b3",
    "X-HTTP-Method-Override", "Via", "If-None-Match", "Range", "Expect", "X-Made-Up",
)  # fmt: skip


def sent(line: str, *fields: str) -> bytes:
    """Return a request of these lines, the last of its connection."""
    lines = [line, *fields, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass")


def escaped(text: str) -> str:
    """Return a text as a client that means well sends it."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def in_path(text: str) -> bytes:
    """Return a request for a path that nobody has."""
    return sent(f"GET /nowhere/{escaped(text)} HTTP/1.1", "Host: x")


def in_template(text: str) -> bytes:
    """Return a request for a path that a template leaves open."""
    return sent(f"GET /users/{escaped(text)} HTTP/1.1", "Host: x")


def in_raw_path(text: str) -> bytes:
    """Return a request with the text as it is in its path."""
    return sent(f"GET /users/{text} HTTP/1.1", "Host: x")


def in_query(text: str) -> bytes:
    """Return a request with the text in its query, as a name and as a value."""
    return sent(f"GET /ok?{escaped(text)}={escaped(text)}&x[]={escaped(text)} HTTP/1.1", "Host: x")


def in_raw_query(text: str) -> bytes:
    """Return a request with the text as it is in its query."""
    return sent(f"GET /ok?{text} HTTP/1.1", "Host: x")


def in_method(text: str) -> bytes:
    """Return a request with the text for a method."""
    return sent(f"{text} /any HTTP/1.1", "Host: x")


def in_host(text: str) -> bytes:
    """Return a request with the text for a host."""
    return sent("GET /ok HTTP/1.1", f"Host: {text}")


def in_target(text: str) -> bytes:
    """Return a request with the text for a scheme and an authority."""
    return sent(f"GET {text}://{text}/ok HTTP/1.1", "Host: x")


def in_headers(text: str) -> bytes:
    """Return a request with the text in many headers, with its ends of lines left out."""
    line = "".join(text.split("\r")).replace("\n", "").replace("\0", "")
    return sent("GET /ok HTTP/1.1", "Host: x", *(f"{field}: {line}" for field in FIELDS))


def in_raw_header(text: str) -> bytes:
    """Return a request with the text as it is in a header, which may end there."""
    return sent("GET /ok HTTP/1.1", "Host: x", f"X-Tenant: {text}", f"traceparent: {TRACEPARENT}")


def in_name(text: str) -> bytes:
    """Return a request with the text for a header's name."""
    return sent("GET /ok HTTP/1.1", "Host: x", f"{text}: x")


@pytest.fixture(params=["classic", "otel"])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """Give a service with every option that looks at what a client sends."""
    options = {
        "preset": request.param,
        "exemplars": "all",
        "response_start": True,
        "labels": {
            "tenant": aiosvc.FromRequest(lambda each: each.headers.get("X-Tenant"), ["a"]),
            "kind": aiosvc.FromResponseHeader("Content-Type", ["text/plain; charset=utf-8"]),
        },
    }
    async with serving(options=options) as found:
        yield found


async def answers(service: Service, data: bytes) -> list[str]:
    """Return the statuses of all answers on a connection of its own."""
    wire = await service.connect()
    await wire.send(data)
    found: list[str] = []
    with contextlib.suppress(ConnectionError):
        while True:
            found.append(str((await wire.answer()).status))
    wire.close()
    return found


def counted(service: Service) -> Counter[str]:
    """Return how many requests were counted, by status."""
    found: Counter[str] = Counter()
    samples = service.samples()
    for labels, value in samples["http_requests_total"]:
        found[labels["status"]] += int(value)
    for labels, value in samples["http_server_request_duration_seconds_count"]:
        found[labels["http_response_status_code"]] += int(value)
    return +found


def values(service: Service) -> set[str]:
    """Return the values of the labels that could be a client's choice."""
    known = ("status", "http_response_status_code", "le", "reason")
    return {
        value
        for name, found in service.samples().items()
        if name.startswith("http_")
        for labels, _ in found
        for label, value in labels.items()
        if label not in known
    }


@pytest.mark.parametrize(
    "made",
    [
        in_path, in_template, in_raw_path, in_query, in_raw_query, in_method, in_host, in_target,
        in_headers, in_raw_header, in_name,
    ],
)  # fmt: skip
async def test_what_a_client_sends(service: Service, made: Callable[[str], bytes]) -> None:
    """Whatever stands there, each answer is counted once, under values that we know."""
    told: Counter[str] = Counter()
    for start in range(0, len(TEXTS), BATCH):
        batch = [answers(service, made(text)) for text in TEXTS[start : start + BATCH]]
        for found in await asyncio.gather(*batch):
            assert found, "there was no answer"
            told.update(found)
    await until(lambda: counted(service) == told, "all answers are counted")
    templates = {
        route.resource.canonical for route in service.app.router.routes() if route.resource
    }
    unchosen = {"", "_unmatched", "_other", "_OTHER", "http", "a", "text/plain; charset=utf-8"}
    # aiohttp's own 417 quotes what it can't write.
    assert values(service) <= templates | set(METHODS) | unchosen | {"UnicodeEncodeError"}
    errors = service.samples()["aiosvc_instrumentation_errors_total"]
    assert errors == []
    assert b"# EOF" in generate_openmetrics(service.observer.registry)  # type: ignore[no-untyped-call]


def failing(text: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that raises an exception of this name."""
    kind = type("Hostile", (Exception,), {"__qualname__": text})

    async def fail(_request: web.Request) -> web.Response:
        raise kind

    return fail


@pytest.mark.parametrize("start", range(0, len(NAMES), SOME))
async def test_what_an_application_says(start: int) -> None:
    """
    What comes from the application's own code comes back from a scrape as it was.

    Names of exceptions and jobs may be of any letters; a lone surrogate, which nobody can send, is
    replaced, and the scrape is not lost.
    """
    texts = NAMES[start : start + SOME]
    routes = [web.get(f"/t{number}/x", failing(text)) for number, text in enumerate(texts)]
    async with serving(*routes, options={"labels": {"region": "\n\\\"'{}"}}) as service:
        jobs = service.observer.track_jobs("mails", jobs=texts)
        for text in texts:
            with jobs.attempt(text):
                pass
        for number in range(len(texts)):
            await service.ask(f"GET /t{number}/x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: sum(counted(service).values()) == len(texts), "all are counted")
        registry = service.observer.registry
        generate_latest(registry)
        body: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        found: dict[str, set[str]] = {"exception": set(), "job": set(), "region": set()}
        parsed = text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
        for family in parsed:
            for sample in family.samples:
                for label in found.keys() & sample.labels.keys():
                    found[label].add(sample.labels[label])
    said = {re.sub("[\ud800-\udfff]", "\ufffd", text) for text in texts}
    assert found == {"exception": said, "job": said, "region": {"\n\\\"'{}"}}
