"""
An HTTP client made of one socket, that does what no well-behaved client library does.

Rule: what is sent is the bytes given, and a connection ends the way that it was told to: by FIN, by
RST, or not at all. Rule: whatever is waited for has a deadline.
"""

import asyncio
import base64
import os
import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple, Self

__all__ = ["DEADLINE", "Answer", "Frame", "Wire", "chunked", "request"]

#: Seconds after which an answer that should have come has not come.
DEADLINE = 10.0

_NO_BODY = frozenset({204, 304})


class Answer(NamedTuple):
    """One response: its status, its headers (names in lower case) and its decoded body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Frame(NamedTuple):
    """One WebSocket frame."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """The code in a close frame."""
        return int(struct.unpack_from("!H", self.payload)[0])


def request(
    method: str = "GET",
    target: str = "/ok",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    version: str = "1.1",
) -> bytes:
    """Return a request; a body gets its Content-Length unless the headers say how it comes."""
    fields = {"Host": "service.test", **(headers or {})}
    if body and not {"Transfer-Encoding", "Content-Length"} & fields.keys():
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/{version}"]
    lines += [f"{name}: {text}" for name, text in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def chunked(*parts: bytes, trailers: bytes = b"") -> bytes:
    """Return a chunked body."""
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    return b"".join(chunks) + b"0\r\n" + trailers + b"\r\n"


class Wire:
    """One connection to a server on this machine."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None) -> Self:
        """Connect; a small *receive_buffer* makes a reader that the server has to wait for."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            async with asyncio.timeout(DEADLINE):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes) -> None:
        """Send the bytes."""
        async with asyncio.timeout(DEADLINE):
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def read(self, size: int) -> bytes:
        """Return exactly so many bytes."""
        while len(self._buffer) < size:
            await self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def some(self) -> bytes:
        """Return what came next, at least one byte."""
        if not self._buffer:
            await self._more()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def read_line(self) -> bytes:
        """Return the next line, without its end."""
        while b"\r\n" not in self._buffer:
            await self._more()
        return (await self.read(self._buffer.index(b"\r\n") + 2))[:-2]

    async def head(self) -> Answer:
        """Return the next response's status and headers, its body left to be read."""
        status = int((await self.read_line()).split(b" ", 2)[1])
        headers = {}
        while line := (await self.read_line()).decode():
            name, _, text = line.partition(":")
            headers[name.lower()] = text.strip()
        return Answer(status, headers, b"")

    async def answer(self, *, to: str = "GET") -> Answer:
        """Return the next final response, to a request with the method *to*."""
        head = await self.head()
        while head.status < 200 and head.status != 101:
            head = await self.head()
        if to == "HEAD" or head.status in _NO_BODY or head.status == 101:
            return head
        if head.headers.get("transfer-encoding") == "chunked":
            return head._replace(body=await self._chunks())
        if "content-length" in head.headers:
            return head._replace(body=await self.read(int(head.headers["content-length"])))
        return head._replace(body=await self.rest())

    async def ask(self, data: bytes, *, to: str = "GET") -> Answer:
        """Send a request and return the response."""
        await self.send(data)
        return await self.answer(to=to)

    async def rest(self) -> bytes:
        """Return all that comes until the server ends the connection, whichever way it does."""
        try:
            while True:
                await self._more()
        except ConnectionError:
            data = bytes(self._buffer)
            self._buffer.clear()
            return data

    def finish(self) -> None:
        """Send FIN, and go on reading."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def close(self) -> None:
        """End the connection; the system sends FIN, or RST where answers were left unread."""
        self._sock.close()

    async def upgrade(self, target: str = "/ws") -> None:
        """Make it a WebSocket."""
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        }
        answer = await self.ask(request("GET", target, headers=fields))
        assert answer.status == 101, answer

    async def send_frame(self, payload: bytes | str, *, opcode: int = 1) -> None:
        """Send one masked WebSocket frame of up to 125 bytes; *opcode* 1 is text, 8 is close."""
        data = payload.encode() if isinstance(payload, str) else payload
        assert len(data) <= 125
        await self.send(bytes([0x80 | opcode, 0x80 | len(data)]) + bytes(4) + data)

    async def send_close(self, code: int) -> None:
        """Send a close frame."""
        await self.send_frame(struct.pack("!H", code), opcode=8)

    async def frame(self) -> Frame:
        """Return the next WebSocket frame of up to 125 bytes."""
        first, size = await self.read(2)
        assert size <= 125
        return Frame(first & 0x0F, await self.read(size))

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.read_line(), 16):
            body += await self.read(size)
            assert await self.read_line() == b""
        assert await self.read_line() == b""
        return body

    async def _more(self) -> None:
        async with asyncio.timeout(DEADLINE):
            data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
        if not data:
            raise ConnectionError(f"the server closed the connection after {bytes(self._buffer)!r}")
        self._buffer += data
