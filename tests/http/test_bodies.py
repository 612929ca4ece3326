"""How many bytes of body are counted, and how long a response that has one takes."""

import asyncio
import gzip
import io
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData, MultipartWriter, StreamReader, web
from situations import BODY, CHUNK, Service, make_app, serving, until, write_files
from wire import Wire, chunked, request

TEXT = b"all work and no play " * 2000


async def sizes(service: Service, endpoint: str, method: str = "GET") -> tuple[float, float]:
    """Return the bytes received and sent of an endpoint, once its requests are finished."""
    await service.quiet()
    labels = {"method": method, "endpoint": endpoint}
    received = service.value("http_request_size_bytes_sum", **labels)
    sent = service.value("http_response_size_bytes_sum", **labels)
    assert received is not None
    assert sent is not None
    return received, sent


async def duration(service: Service, endpoint: str, method: str = "GET") -> float:
    """Return the seconds counted for an endpoint, once its requests are finished."""
    await service.quiet()
    found = service.value("http_request_duration_seconds_sum", method=method, endpoint=endpoint)
    assert found is not None
    return found


# -- Requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "body", "size"),
    [
        ({}, b"", 0),
        ({}, CHUNK, 10),
        ({}, bytes(1_000_000), 1_000_000),
        ({"Transfer-Encoding": "chunked"}, chunked(CHUNK, CHUNK, b"x"), 21),
        ({"Transfer-Encoding": "chunked"}, chunked(*[b"x" * 999] * 300), 299_700),
        ({"Transfer-Encoding": "chunked"}, chunked(), 0),
    ],
)
async def test_request_size(fields: dict[str, str], body: bytes, size: int) -> None:
    """A request's size is its body's, chunk framing left out."""
    app = make_app(client_max_size=2_000_000)
    async with serving(app=app) as service:
        answer = await service.ask(request("POST", "/echo", headers=fields, body=body))
        assert len(answer.body) == size
        await service.says({"POST /echo 200": 1})
        assert await sizes(service, "/echo", "POST") == (size, size)


@pytest.mark.parametrize("form", ["length", "chunks"])
async def test_size_of_a_compressed_request(form: str) -> None:
    """A compressed body counts as it came over the wire, not as it is read."""
    if form == "chunks" and not hasattr(StreamReader, "total_raw_bytes"):
        pytest.skip("this aiohttp does not tell")
    packed = gzip.compress(TEXT, mtime=0)
    fields = {"Content-Encoding": "gzip"}
    body = packed
    if form == "chunks":
        fields["Transfer-Encoding"] = "chunked"
        body = chunked(packed[:50], packed[50:])
    async with serving() as service:
        answer = await service.ask(request("POST", "/echo", headers=fields, body=body))
        assert answer.body == TEXT
        await service.says({"POST /echo 200": 1})
        assert await sizes(service, "/echo", "POST") == (len(packed), len(TEXT))


async def test_body_that_the_handler_does_not_read() -> None:
    """A body that came in counts, though its handler answered without reading it."""
    async with serving() as service:
        wire = await service.connect()
        for body in (CHUNK, bytes(1_000_000)):
            answer = await wire.ask(request("PUT", "/unread", body=body))
            assert (answer.status, answer.body) == (200, BODY)
        await wire.ask(request("GET", "/ok"))
        await service.says({"PUT /unread 200": 2, "GET /ok 200": 1})
        assert (await sizes(service, "/unread", "PUT"))[0] == 1_000_010


async def test_body_that_comes_after_the_answer() -> None:
    """What the server reads of a body after it has answered belongs to that request."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(request("PUT", "/unread", headers={"Content-Length": "1000"}))
        assert (await wire.answer()).status == 200
        await wire.send(bytes(1000))
        await wire.ask(request("GET", "/ok"))
        await service.says({"PUT /unread 200": 1, "GET /ok 200": 1})
        assert await sizes(service, "/unread", "PUT") == (1000, len(BODY))
        assert await sizes(service, "/ok") == (0, len(BODY))


async def test_body_that_is_too_large() -> None:
    """A body past client_max_size is aiohttp's 413; what came in of it is counted."""
    async with serving() as service:
        wire = await service.connect()
        body = bytes(1_100_000)
        await wire.send(request("POST", "/echo", body=body))
        assert (await wire.answer()).status == 413
        await wire.ask(request("GET", "/ok"))
        await service.says({"POST /echo 413": 1, "GET /ok 200": 1})
        received, _ = await sizes(service, "/echo", "POST")
        assert received == len(body)


async def test_trailers() -> None:
    """Trailers after a chunked body are no part of it, and no request."""
    async with serving() as service:
        fields = {"Transfer-Encoding": "chunked"}
        body = chunked(CHUNK, trailers=b"X-Sum: 7\r\n")
        wire = await service.connect()
        assert (await wire.ask(request("POST", "/echo", headers=fields, body=body))).body == CHUNK
        assert (await wire.ask(request("GET", "/ok"))).status == 200
        await service.says({"POST /echo 200": 1, "GET /ok 200": 1})
        assert await sizes(service, "/echo", "POST") == (10, 10)


# -- Responses -------------------------------------------------------------------------------------


def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    """Return an asynchronous iterator over the pieces."""

    async def generate() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return generate()


def form() -> Any:
    """Return the payload of a form."""
    data = FormData()
    data.add_field("name", "value", filename="name.txt")
    return data()


def parts() -> MultipartWriter:
    """Return a payload of two parts."""
    writer = MultipartWriter()
    writer.append("one")
    writer.append("two")
    return writer


RESPONSES: dict[str, Callable[[], web.Response]] = {
    "nothing": web.Response,
    "bytes": lambda: web.Response(body=CHUNK),
    "text": lambda: web.Response(text="ü" * 10),
    "bytearray": lambda: web.Response(body=bytearray(CHUNK)),
    "json": lambda: web.json_response({"a": 1}),
    "big": lambda: web.Response(body=bytes(3_000_000)),
    "file object": lambda: web.Response(body=io.BytesIO(CHUNK * 10_000)),
    "text file": lambda: web.Response(body=io.StringIO("a text")),
    "pieces": lambda: web.Response(body=in_pieces(CHUNK, b"", CHUNK * 1000)),
    "no pieces": lambda: web.Response(body=in_pieces()),
    "form": lambda: web.Response(body=form()),
    "parts": lambda: web.Response(body=parts()),
    "no content": lambda: web.Response(status=204),
    "empty text": lambda: web.Response(text=""),
}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", RESPONSES)
async def test_response_size(kind: str, method: str, version: str) -> None:
    """A response's size is its body as the client got it, whatever made the body."""

    async def handler(_request: web.Request) -> web.Response:
        return RESPONSES[kind]()

    async with serving(web.get("/body", handler)) as service:
        wire = await service.connect()
        data = request(method, "/body", version=version, headers={"Connection": "close"})
        answer = await wire.ask(data, to=method)
        assert await wire.rest() == b""
        await service.says({f"{method} /body {answer.status}": 1})
        assert (await sizes(service, "/body", method))[1] == len(answer.body)


STATUSES_WITHOUT_BODY = (204, 205, 304)


@pytest.mark.parametrize("status", STATUSES_WITHOUT_BODY)
async def test_body_of_a_status_that_has_none(status: int) -> None:
    """A body that a handler gives to a status without one is not sent, and not counted."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=CHUNK)

    async with serving(web.get("/none", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/none", headers={"Connection": "close"}))
        received = await wire.rest()
        await service.says({f"GET /none {status}": 1})
        body = received.partition(b"\r\n\r\n")[2]
        assert (await sizes(service, "/none"))[1] == len(body)


@pytest.mark.parametrize("declared", [0, 4, 10, 15])
@pytest.mark.parametrize("kind", ["response", "payload", "stream"])
async def test_declared_length_that_is_wrong(kind: str, declared: int) -> None:
    """The size counted is that of the bytes sent, whatever length the handler declared."""

    async def response(_request: web.Request) -> web.Response:
        return web.Response(body=CHUNK, headers={"Content-Length": str(declared)})

    async def payload(_request: web.Request) -> web.Response:
        return web.Response(body=io.BytesIO(CHUNK), headers={"Content-Length": str(declared)})

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(declared)})
        await response.prepare(request)
        await response.write(CHUNK)
        return response

    handlers = {"response": response, "payload": payload, "stream": stream}
    async with serving(web.get("/wrong", handlers[kind])) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/wrong", headers={"Connection": "close"}))
        body = (await wire.rest()).partition(b"\r\n\r\n")[2]
        await service.quiet()
        assert (await sizes(service, "/wrong"))[1] == len(body)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_stream_size(method: str, declared: bool, version: str) -> None:
    """A stream's size is what was written, chunk framing left out."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if declared:
            response.content_length = 12_010
        await response.prepare(request)
        if request.method != "HEAD":
            await response.write(CHUNK)
            await response.write(b"")
            await response.write(memoryview(bytes(8000)).cast("I"))
            await response.write(bytearray(3000))
            await response.write_eof(bytes(1000))
        return response

    async with serving(web.get("/stream", handler)) as service:
        wire = await service.connect()
        await wire.ask(request(method, "/stream", version=version), to=method)
        await service.says({f"{method} /stream 200": 1})
        expected = 12_010 if method == "GET" else 0
        assert (await sizes(service, "/stream", method))[1] == expected


@pytest.mark.parametrize("kind", ["response", "stream", "pieces", "big"])
async def test_size_of_a_compressed_response(kind: str) -> None:
    """A compressed response counts as it went over the wire, not as the handler gave it."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse
        if kind == "response":
            response = web.Response(body=TEXT)
        elif kind == "big":
            response = web.Response(body=TEXT * 100, zlib_executor_size=100_000)
        elif kind == "pieces":
            response = web.Response(body=in_pieces(TEXT, TEXT))
        else:
            response = web.StreamResponse()
        response.enable_compression()
        if kind == "stream":
            await response.prepare(request)
            await response.write(TEXT[:100])
            await response.write(TEXT[100:])
            await response.write_eof()
        return response

    async with serving(web.get("/packed", handler)) as service:
        wire = await service.connect()
        answer = await wire.ask(request("GET", "/packed", headers={"Accept-Encoding": "gzip"}))
        times = {"big": 100, "pieces": 2}.get(kind, 1)
        assert zlib.decompress(answer.body, 31) == TEXT * times
        await service.says({"GET /packed 200": 1})
        assert (await sizes(service, "/packed"))[1] == len(answer.body)


# -- Files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("name", "fields", "status", "size"),
    [
        ("page.txt", {}, 200, len(BODY)),
        ("big.bin", {}, 200, 300_000),
        ("big.bin", {"Range": "bytes=10-109"}, 206, 100),
        ("big.bin", {"Range": "bytes=-100"}, 206, 100),
        ("big.bin", {"Range": "bytes=300000-"}, 416, 0),
        ("big.bin", {"Range": "lines=7"}, 416, 0),
        ("page.txt", {"If-Modified-Since": "Fri, 31 Dec 2100 23:59:59 GMT"}, 304, 0),
        ("page.txt", {"If-Match": '"other"'}, 412, 0),
        ("empty.txt", {}, 200, 0),
        ("nothing.txt", {}, 404, None),
        ("", {}, 403, None),
    ],
)
async def test_static_files(
    tmp_path: Path, name: str, fields: dict[str, str], status: int, size: int | None, method: str
) -> None:
    """A static file counts under its prefix, with the status and the bytes that were sent."""
    (tmp_path / "empty.txt").touch()
    app = make_app(web.static("/files", write_files(tmp_path)))
    async with serving(app=app) as service:
        answer = await service.ask(request(method, f"/files/{name}", headers=fields), to=method)
        assert answer.status == status
        if method == "GET" and size is not None:
            assert len(answer.body) == size
        await service.says({f"{method} /files {status}": 1})
        assert (await sizes(service, "/files", method))[1] == len(answer.body)


@pytest.mark.parametrize("how", ["returned", "compressed", "precompressed"])
async def test_file_response(tmp_path: Path, how: str) -> None:
    """A file that a handler sends counts with its bytes, whoever copied them to the socket."""
    path = write_files(tmp_path) / "big.bin"
    (tmp_path / "big.bin.gz").write_bytes(gzip.compress(bytes(300_000)))

    async def handler(_request: web.Request) -> web.FileResponse:
        response = web.FileResponse(path)
        if how == "compressed":
            response.enable_compression()
        return response

    async with serving(web.get("/file", handler)) as service:
        wire = await service.connect()
        fields = {}
        if how == "precompressed":
            fields["Accept-Encoding"] = "gzip"
        elif how == "compressed":
            fields["Accept-Encoding"] = "deflate"
        for _ in range(2):
            answer = await wire.ask(request("GET", "/file", headers=fields))
        await service.says({"GET /file 200": 2})
        assert (await sizes(service, "/file"))[1] == 2 * len(answer.body)


#: A file of the kernel's that has less in it than its size says, like one that is cut meanwhile.
SHORT_FILE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not SHORT_FILE.exists(), reason="this system has no such file")
async def test_file_that_is_shorter_than_it_says() -> None:
    """Of a file that ends before its size, what was sent is counted."""

    async def handler(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(SHORT_FILE)

    async with serving(web.get("/file", handler)) as service:
        wire = await service.connect()
        await wire.send(request("GET", "/file", headers={"Connection": "close"}))
        body = (await wire.rest()).partition(b"\r\n\r\n")[2]
        await service.quiet()
        assert (await sizes(service, "/file"))[1] == len(body)


async def test_file_response_that_the_handler_prepares(tmp_path: Path) -> None:
    """A file that was sent whole within the handler counts whole; aiohttp can't send it twice."""
    path = write_files(tmp_path) / "big.bin"

    async def handler(request: web.Request) -> web.FileResponse:
        response = web.FileResponse(path)
        await response.prepare(request)
        return response

    async with serving(web.get("/file", handler)) as service:
        wire = await service.connect()
        answer = await wire.ask(request("GET", "/file"))
        assert len(answer.body) == 300_000
        wire.finish()
        await wire.rest()
        await service.quiet()
        assert service.seen().requests == {"GET /file 200": 1}
        assert (await sizes(service, "/file"))[1] == 300_000


# -- Durations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["response", "stream", "file"])
async def test_duration_includes_the_write(tmp_path: Path, kind: str) -> None:
    """A big body to a slow reader takes until its last byte was handed to the transport."""
    size = 20_000_000
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(size)

    async def handler(request: web.Request) -> web.StreamResponse:
        if kind == "response":
            return web.Response(body=bytes(size))
        if kind == "file":
            return web.FileResponse(path)
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(20):
            await response.write(bytes(size // 20))
        return response

    async with serving(web.get("/big", handler)) as service:
        wire = await service.connect(receive_buffer=4096)
        await wire.send(request("GET", "/big"))
        await wire.head()
        await service.says({}, in_progress={"GET /big": 1})
        name = "http_request_oldest_in_progress_seconds"
        await until(lambda: (service.value(name) or 0) > 0.2, "that it takes a while")
        reading = asyncio.create_task(read_all(wire, size))
        await service.says({"GET /big 200": 1})
        assert await duration(service, "/big") > 0.2
        await reading
        assert await sizes(service, "/big") == (0, size)


async def read_all(wire: Wire, size: int) -> None:
    """Read so many bytes."""
    while size > 0:
        piece = min(size, 60_000)
        await wire.read(piece)
        size -= piece


async def test_duration_includes_the_request_body() -> None:
    """A slow upload takes from its head to the answer."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(request("POST", "/echo", headers={"Content-Length": "20"}) + CHUNK)
        name = "http_request_oldest_in_progress_seconds"
        await until(lambda: (service.value(name) or 0) > 0.1, "that it takes a while")
        await wire.send(CHUNK)
        await wire.answer()
        await service.says({"POST /echo 200": 1})
        assert await duration(service, "/echo", "POST") > 0.1


async def test_duration_excludes_the_wait_for_a_request() -> None:
    """A connection that is idle, or within a request's head, is no request yet."""
    async with serving() as service:
        wire = await service.connect()
        await wire.ask(request("GET", "/ok"))
        data = request("GET", "/users/7")
        await wire.send(data[:10])
        started = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > started + 0.15, "a while")
        await service.says({"GET /ok 200": 1})
        await wire.send(data[10:])
        await wire.answer()
        await service.says({"GET /ok 200": 1, "GET /users/{id} 200": 1})
        assert await duration(service, "/users/{id}") < 0.15


async def test_duration_excludes_the_rest_of_an_unread_body() -> None:
    """An answer's duration ends with the answer, though its request's body still comes in."""
    async with serving() as service:
        wire = await service.connect()
        await wire.send(request("PUT", "/unread", headers={"Content-Length": "20"}))
        await wire.answer()
        started = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > started + 0.15, "a while")
        await wire.send(CHUNK)
        await wire.send(CHUNK)
        await wire.ask(request("GET", "/ok"))
        await service.says({"PUT /unread 200": 1, "GET /ok 200": 1})
        assert await duration(service, "/unread", "PUT") < 0.15
        assert await duration(service, "/ok") < 0.15


async def test_durations_fall_into_their_buckets() -> None:
    """A duration is in every bucket from its own on, and buckets rise."""
    async with serving(options={"buckets": (1e-9, 0.1, 60.0)}) as service:
        await service.ask(request("GET", "/ok"))
        wire = await service.connect()
        await wire.send(request("GET", "/wait"))
        name = "http_request_oldest_in_progress_seconds"
        await until(lambda: (service.value(name) or 0) > 0.11, "that it takes a while")
        service.gate().opened.set()
        await wire.answer()
        await service.says({"GET /ok 200": 1, "GET /wait 200": 1})

        def buckets(endpoint: str) -> list[float | None]:
            labels = {"method": "GET", "endpoint": endpoint}
            return [
                service.value("http_request_duration_seconds_bucket", **labels, le=le)
                for le in ("1e-09", "0.1", "60.0", "+Inf")
            ]

        assert buckets("/ok") == [0, 1, 1, 1]
        assert buckets("/wait") == [0, 0, 1, 1]
