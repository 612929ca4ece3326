"""A server that answers a push as it is told, in a thread; and a real Pushgateway."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from aiohttp import ClientError, ClientSession, TCPConnector
from processes import Process, free_port, poll, require

__all__ = ["FakeGateway", "Pushed", "Pushgateway", "fake_gateway"]


class Pushed(NamedTuple):
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


class FakeGateway:
    """What came, and where."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pushed: list[Pushed] = []


@contextmanager
def fake_gateway(statuses: Sequence[int] = ()) -> Iterator[FakeGateway]:
    """Answer with these statuses in turn, 0 for none, then with 202."""
    answers = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            gateway.pushed.append(Pushed(self.command, self.path, dict(self.headers), body))
            status = answers.pop(0) if answers else 202
            if status:
                self.send_response(status)
                if status // 100 == 3:
                    self.send_header("Location", "/login")
                self.end_headers()
                self.wfile.write(b"because")

        do_GET = do_POST = do_PUT  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gateway = FakeGateway(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Pushgateway(Process):
    """A real Pushgateway, with a web configuration file if there is one."""

    def __init__(self, directory: Path, *, web_config: Path | None = None) -> None:
        port = free_port()
        scheme = "http" if web_config is None else "https"
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.auth: str | None = None
        command = [
            require("prometheus-pushgateway"),
            f"--web.listen-address=127.0.0.1:{port}",
            "--persistence.file=",
            "--log.level=error",
        ]
        if web_config is not None:
            command.append(f"--web.config.file={web_config}")
        super().__init__(command, directory)

    async def ready(self) -> None:
        """Wait until it answers."""
        await poll(self._answers, bool, "the Pushgateway")

    async def metrics(self) -> str:
        """Return what it exposes."""
        headers = {} if self.auth is None else {"Authorization": self.auth}
        async with (
            ClientSession(connector=TCPConnector(ssl=False), headers=headers) as session,
            session.get(f"{self.url}/metrics") as response,
        ):
            assert response.status == 200
            return await response.text()

    async def _answers(self) -> bool:
        async with ClientSession(connector=TCPConnector(ssl=False)) as session:
            try:
                async with session.get(f"{self.url}/-/ready") as response:
                    return response.status in (200, 401)
            except ClientError:
                return False
