"""
Orders on a broker, while processes and the broker are killed: what was accepted is sent.

What is sent is counted in the outbox, which each worker appends to; who was told 202 is counted by
the client.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout
from brokers.kept import KEPT, settle
from brokers.servers import Broker, Redis
from processes import DEADLINE, Program, free_port, poll, until

VALID = {"user_id": 1, "item": "book", "quantity": 1}


class Client:
    """Somebody who orders all the time, and remembers which orders were accepted."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self.accepted: set[int] = set()
        self.statuses: Counter[int] = Counter()
        self.retry_after: set[str] = set()

    async def order(self, url: str) -> None:
        """Order once."""
        try:
            async with self._session.post(f"{url}/api/orders", json=VALID) as response:
                body = await response.json()
                self.statuses[response.status] += 1
                if response.status == 202:
                    self.accepted.add(body["id"])
                elif response.status == 503:
                    self.retry_after.add(response.headers["Retry-After"])
        except (ClientError, TimeoutError, OSError):
            self.statuses[0] += 1
            await asyncio.sleep(0.05)

    @asynccontextmanager
    async def ordering(self, url: str) -> AsyncIterator[None]:
        """Order all the time."""

        async def order() -> None:
            while True:
                await self.order(url)
                await asyncio.sleep(0.01)

        task = asyncio.create_task(order())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=DEADLINE)
            assert task.done(), "it goes on although it was cancelled"

    async def more(self, number: int) -> None:
        """Wait until so many more were accepted."""
        before = len(self.accepted)
        await until(lambda: len(self.accepted) >= before + number, f"{number} more accepted")


class Shop:
    """Web and worker processes on one queue, and one outbox."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.outbox = directory / "outbox.jsonl"
        self._environment = {
            "AIOSVC_QUEUE": url,
            "AIOSVC_OUTBOX": f"{self.outbox}",
            "AIOSVC_SEND_SECONDS": "0.02",
            "AIOSVC_FAILURE_RATE": "0",
        }

    def web(self, port: int = 0) -> Program:
        """Return a process that takes orders and sends nothing."""
        return Program(
            "demo", "--port", f"{port}", "--workers", "0",
            directory=self.directory, environment=self._environment,
        )  # fmt: skip

    def worker(self) -> Program:
        """Return a process that sends; its address is that of its metrics."""
        return Program(
            "worker", "aiosvc.demo:emails", "--admin-port", "0",
            directory=self.directory, environment=self._environment,
        )  # fmt: skip

    def sent(self) -> Counter[int]:
        """Return how often the e-mail of each order was sent."""
        text = self.outbox.read_text(encoding="utf-8") if self.outbox.exists() else ""
        return Counter(json.loads(line)["id"] for line in text.splitlines())


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Return a client."""
    async with ClientSession(timeout=ClientTimeout(total=5)) as session:
        yield Client(session)


@pytest.mark.parametrize(("make", "url_of"), KEPT)
async def test_what_was_accepted_is_sent(
    make: Callable[[Path], Broker], url_of: Callable[[Any], str], tmp_path: Path, client: Client
) -> None:
    """A worker, the web process and the broker are killed; every order of a 202 is in the outbox."""
    port = free_port()
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(make(tmp_path))
        url = url_of(broker)
        await settle(broker, url)
        shop = Shop(tmp_path, url)
        web = await stack.enter_async_context(shop.web(port))
        worker = await stack.enter_async_context(shop.worker())
        async with client.ordering(web.url):
            await client.more(20)
            await until(lambda: bool(shop.sent()), "an e-mail")

            await worker.kill()
            await client.more(10)
            await stack.enter_async_context(shop.worker())

            await web.kill()
            await stack.enter_async_context(shop.web(port))
            await client.more(10)

            client.statuses.clear()
            await broker.kill()
            await until(lambda: client.statuses[503] > 0, "an order refused")
            await broker.again()
            await client.more(10)
        await until(lambda: client.accepted <= set(shop.sent()), "every accepted order's e-mail")
    assert client.retry_after <= {"2"}
    assert client.retry_after
    assert len(client.accepted) >= 50


async def test_replicas_agree(tmp_path: Path, client: Client) -> None:
    """Two web replicas and a worker see one queue: each reports its depth, none a part of it."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Redis(tmp_path))
        shop = Shop(tmp_path, broker.url)
        webs = [await stack.enter_async_context(shop.web()) for _ in range(2)]
        for number in range(30):
            await client.order(webs[number % 2].url)
        assert len(client.accepted) == 30

        async with ClientSession() as session:

            async def depths() -> list[float]:
                found = []
                for each in webs:
                    async with session.get(f"{each.url}/metrics") as response:
                        text = await response.text()
                    lines = [line for line in text.splitlines() if line.startswith("queue_depth{")]
                    found += [float(line.rpartition(" ")[2]) for line in lines]
                return found

            await poll(depths, lambda found: found == [30.0, 30.0], "30 in each")
            worker = await stack.enter_async_context(shop.worker())
            await until(lambda: len(shop.sent()) == 30, "30 e-mails")
            await poll(depths, lambda found: found == [0.0, 0.0], "0 in each")
            async with session.get(f"{worker.url}/metrics") as response:
                text = await response.text()
            assert "\nemails_sent_total 30.0\n" in text
            assert 'queue_items_completed_total{job="send_confirmation",outcome="ok"' in text
            async with session.get(f"{worker.url}/readyz") as response:
                assert response.status == 200
        assert await worker.stop() == 0
        assert "0 jobs went back to the broker" in worker.stderr
        assert shop.sent() == dict.fromkeys(client.accepted, 1)


async def test_a_worker_that_nobody_watches_says_so(tmp_path: Path) -> None:
    """Without an admin port it works all the same, and one line says that nobody sees how."""
    async with Redis(tmp_path) as broker:
        worker = Program(
            "worker", "aiosvc.demo:emails",
            directory=tmp_path, environment={"AIOSVC_QUEUE": broker.url},
        )  # fmt: skip
        worker._start()
        try:
            await worker.says("aiosvc.demo:emails is worked on")
            assert worker.stderr.count("give --admin-port to serve metrics") == 1
            assert await worker.stop() == 0
        finally:
            await worker.kill()
