"""
The built-in client: an open loop of requests, so that there is something to look at.

Rule: it knows the service only by its address, and nothing that the service answers, or fails to
answer, stops it.

An open loop sends at the times it drew (exponential gaps), however slow the answers are: a slow
service gets as many requests as a fast one, as it would from strangers. What would exceed 200
requests at a time is dropped and counted, never delayed. The rate counts every request.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from contextlib import suppress
from random import Random
from typing import NamedTuple

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from aiosvc.demo.orders import MAX_QUANTITY, USERS
from aiosvc.errors import ConfigError

__all__ = ["Load", "Planned", "run_load"]

logger = logging.getLogger("aiosvc.demo")

MAX_CONCURRENT = 200
_TIMEOUT = ClientTimeout(total=10.0)
_LAST_ANSWERS = 1.0  # seconds that requests under way are given when the load stops

_MIX = {"users": 20, "user": 30, "order": 35, "order_status": 10, "unknown": 5}
_INVALID_SHARE = 0.05  # of the orders
_ITEMS = ["book", "lamp", "chair", "kettle", "umbrella"]
_INVALID_BODIES = [
    b'{"user_id": 1, "item": "book", "quantity": 0}',
    b'{"user_id": true, "item": "book", "quantity": 1}',
    b'{"user_id": 1, "quantity": 1}',
    b'{"user_id": 1, "item": ',
]


class Planned(NamedTuple):
    """One request that is to be sent; `body` is JSON or pretends to be."""

    method: str
    path: str
    body: bytes | None = None


class Load:
    """
    The requests of one run and what came of them.

    `answers` counts responses by status, `errors` requests without one, `dropped` those not sent
    because too many were under way.
    """

    def __init__(self, session: ClientSession, base_url: str, rate: float, *, seed: int) -> None:
        if not 0 < rate < float("inf"):
            raise ConfigError(f"load: {rate!r} given; expected requests per second, above 0")
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._rate = rate
        self._rng = Random(seed)  # noqa: S311 - a simulation, nothing secret
        self._orders: deque[str] = deque(maxlen=50)
        self._under_way: set[asyncio.Task[None]] = set()
        self.answers: Counter[int] = Counter()
        self.errors = 0
        self.dropped = 0

    def plan(self) -> Planned:
        """Return the next request of the mix."""
        kind = self._rng.choices(list(_MIX), list(_MIX.values()))[0]
        if kind == "order":
            return Planned("POST", "/api/orders", self._order())
        if kind == "order_status" and self._orders:
            return Planned("GET", self._rng.choice(self._orders))
        if kind == "user":
            return Planned("GET", f"/api/users/{self._rng.randint(1, len(USERS) + 1)}")
        if kind == "unknown":
            return Planned("GET", f"/wp-{self._rng.randrange(10_000)}.php")
        return Planned("GET", "/api/users")

    def _order(self) -> bytes:
        if self._rng.random() < _INVALID_SHARE:
            return self._rng.choice(_INVALID_BODIES)
        item = self._rng.choice(_ITEMS)
        quantity = min(int(self._rng.paretovariate(1.5)), MAX_QUANTITY)
        user_id = self._rng.randint(1, len(USERS))
        return b'{"user_id": %d, "item": "%s", "quantity": %d}' % (user_id, item.encode(), quantity)

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests until `stop` is set, then wait shortly for the last answers."""
        due = time.monotonic()
        try:
            while not stop.is_set():
                due += self._rng.expovariate(self._rate)
                # A late arrival does not wait, but a deadline in the past still yields to the loop.
                with suppress(TimeoutError):
                    async with asyncio.timeout(due - time.monotonic()):
                        await stop.wait()
                if not stop.is_set():
                    self._send(self.plan())
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=_LAST_ANSWERS)
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    def _send(self, planned: Planned) -> None:
        if len(self._under_way) >= MAX_CONCURRENT:
            self.dropped += 1
            return
        task = asyncio.create_task(self._request(planned), name="demo-load")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _request(self, planned: Planned) -> None:
        url = self._base_url + planned.path
        headers = {"Content-Type": "application/json"} if planned.body else None
        try:
            async with self._session.request(
                planned.method, url, data=planned.body, headers=headers, allow_redirects=False
            ) as response:
                await response.read()
                self.answers[response.status] += 1
                location = response.headers.get("Location", "")
                if location.startswith("/"):
                    self._orders.append(location)
        except (ClientError, TimeoutError, OSError) as exc:
            self.errors += 1
            if self.errors == 1:
                logger.warning("load: %s %s failed (%r); going on", planned.method, url, exc)


async def run_load(base_url: str, rate: float, *, seed: int, stop: asyncio.Event) -> None:
    """
    Send `rate` requests per second to the demo at `base_url` until `stop` is set.

    Cancelling it is as good as setting `stop`, only that requests under way are not waited for.
    Raises ConfigError unless rate is above 0.
    """
    connector = TCPConnector(limit=MAX_CONCURRENT)
    async with ClientSession(connector=connector, timeout=_TIMEOUT) as session:
        load = Load(session, base_url, rate, seed=seed)
        await load.run(stop)
    logger.info(
        "load: %d answers, %d errors, %d dropped",
        load.answers.total(),
        load.errors,
        load.dropped,
    )
