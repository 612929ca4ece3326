"""
One contract for every broker that keeps what it has: it stands still, is killed, and is back.

The queue object is the same from the beginning to the end, and nothing is restarted but the broker.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers.kept import KEPT, settle
from brokers.servers import Broker, Rabbit
from processes import DEADLINE, until

from aiosvc import JobQueue, NotEnqueuedError

#: Seconds that enqueueing may take, and those that a slow machine may add.
LIMIT, MARGIN = 1.0, 5.0


class Shop:
    """A queue, the orders that it took, and those that were run."""

    def __init__(self, url: str) -> None:
        self.queue = JobQueue(url, name="email", visibility=2.0, send_timeout=LIMIT, drain=2.0)
        self.taken: set[int] = set()
        self.refused: set[int] = set()
        self.ran: list[int] = []
        self.send = self.queue.job(name="send")(self._send)
        self._next = 0

    async def _send(self, order: int) -> None:
        await asyncio.sleep(0.01)
        self.ran.append(order)

    async def order(self) -> bool:
        """Enqueue one more, and say whether it was taken in; in time, whatever the broker does."""
        number = self._next = self._next + 1
        begun = time.monotonic()
        try:
            await self.send.enqueue(number)
        except NotEnqueuedError:
            self.refused.add(number)
            return False
        finally:
            assert time.monotonic() - begun < LIMIT + MARGIN
        self.taken.add(number)
        return True

    async def orders(self, number: int) -> None:
        """Enqueue so many, trying for as long as it takes."""
        async with asyncio.timeout(60):
            while number:
                number -= await self.order()
                await asyncio.sleep(0.01)


@asynccontextmanager
async def driving(shop: Shop) -> AsyncIterator[None]:
    """Enqueue all the time, as clients do that know nothing of the broker."""

    async def drive() -> None:
        while True:
            await shop.order()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(drive())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)
        assert task.done(), "it goes on although it was cancelled"


@pytest.mark.parametrize(("make", "url"), KEPT)
async def test_a_broker_may_stand_still_or_die(
    make: Callable[[Path], Broker], url: Callable[[Any], str], tmp_path: Path
) -> None:
    """What was taken in is run, what was not is refused in time; and it goes on by itself."""
    async with make(tmp_path) as broker:
        shop = Shop(url(broker))
        await settle(broker, url(broker))
        async with shop.queue:
            await shop.orders(5)
            async with driving(shop):
                broker.pause()
                await until(lambda: bool(shop.refused), "an order refused while it stands still")
                broker.resume()
                await shop.orders(5)

                shop.refused.clear()
                await broker.kill()
                await until(lambda: bool(shop.refused), "an order refused while it is gone")
                await broker.again()
                await shop.orders(5)
            await until(lambda: shop.taken <= set(shop.ran), "every order that was taken in")
            before = len(shop.ran)
            await shop.orders(5)
            await until(lambda: len(shop.ran) >= before + 5, "orders after all of it")
            assert (await shop.queue.sample()).ready == 0


async def test_a_job_under_way_while_the_broker_restarts(tmp_path: Path) -> None:
    """RabbitMQ hands out again what was in hand; the worker that has it runs it once, and settles."""
    async with Rabbit(tmp_path) as broker:
        queue = JobQueue(broker.url(), name="email", send_timeout=LIMIT)
        go = asyncio.Event()
        ran = []

        @queue.job
        async def send(order: int) -> None:
            ran.append(order)
            await go.wait()

        await settle(broker, broker.url())
        async with queue:
            await send.enqueue(1)
            await until(lambda: bool(ran), "its begin")
            await broker.kill()
            await broker.again()
            engine: Any = queue._engine
            await until(lambda: any(len(held) > 1 for held in engine._held.values()), "it anew")
            go.set()
            await until(lambda: not engine._held, "its end")
            assert ran == [1]
        async with queue:
            await asyncio.sleep(0.5)
            assert (await queue.sample()).ready == 0
        assert ran == [1]
