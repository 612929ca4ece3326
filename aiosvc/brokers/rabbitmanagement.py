"""
A queue of RabbitMQ by its management API, which knows more than AMQP says.

    obs.watch_queue(
        RabbitMQManagement("http://monitor:secret@localhost:15672", "orders"), name="orders"
    )

Rule: the user and the password of the URL go into the Authorization header and nowhere else: no
error, no log and no repr has them, and no redirect gets them. Rule: what the API has no number for,
as in the first seconds of a queue's life, is absent.
"""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from aiosvc.brokers.clients import scheme_of
from aiosvc.brokers.state import QueueState
from aiosvc.naming import one_line

__all__ = ["RabbitMQManagement"]

#: Bytes of an answer that are read.
LONGEST: Final = 1_000_000

COLUMNS: Final = (
    "messages_ready,messages_unacknowledged,messages,consumers,head_message_timestamp,arguments,"
    "effective_policy_definition"
)

#: What there is none of where there is no queue.
EMPTY: Final = ("messages_ready", "messages_unacknowledged", "messages", "consumers")

#: Stands for an answer that is no JSON object.
NOTHING: Final[dict[str, Any]] = {}


class RabbitMQManagement:
    """
    A queue by its name, in *vhost*, with those that belong to it where the engine has some.

    *url* is where the management API is, with a user that has the tag `management` or `monitoring`;
    *session* is an `aiohttp.ClientSession` of yours, for a CA or a proxy of your own. *scheduled*
    and *dead* are as in `RabbitMQ`. A queue that nobody has declared yet is empty.

    The age is that of the first message's timestamp property, which publishers may set and most
    don't; it is unknown then. The API's numbers are up to 5 s old.
    """

    backend = "rabbitmq"

    def __init__(
        self,
        url: str,
        queue: str,
        *,
        vhost: str = "/",
        scheduled: str | None = None,
        dead: str | None = None,
        session: aiohttp.ClientSession | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        scheme_of(url, ("http", "https"), "http://monitor:secret@localhost:15672")
        given = URL(url)
        pair = f"{given.user or 'guest'}:{given.password or 'guest'}".encode()
        self._headers = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        self._base = str(given.with_user(None).with_query(None).with_fragment(None)).rstrip("/")
        self._queues = (queue, scheduled, dead)
        self._vhost = vhost
        self._given = session
        self._session: aiohttp.ClientSession | None = None
        self._clock = clock

    async def sample(self) -> QueueState:
        """
        Return what the API says now.

        Raises PermissionError where it refuses the user, and ConnectionError where it can't be
        reached or answers something else.
        """
        queue, scheduled, dead = self._queues
        found = await self._queue(queue)
        if found is None:
            found = dict.fromkeys(EMPTY, 0)
        return QueueState(
            ready=found.get("messages_ready"),
            in_flight=found.get("messages_unacknowledged"),
            retained=found.get("messages"),
            consumers=found.get("consumers"),
            oldest_age=self._age(found),
            capacity=_capacity(found),
            scheduled=await self._ready(scheduled),
            dead=await self._ready(dead),
        )

    async def close(self) -> None:
        """Close the session unless it is yours."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ready(self, queue: str | None) -> float | None:
        if queue is None:
            return None
        found = await self._queue(queue)
        return 0 if found is None else found.get("messages_ready")

    def _age(self, found: dict[str, Any]) -> float | None:
        ready, first = found.get("messages_ready"), found.get("head_message_timestamp")
        if ready == 0:
            return 0
        return None if ready is None or not first else max(0.0, self._clock() - first)

    async def _queue(self, queue: str) -> dict[str, Any] | None:
        """Return what is known of a queue; None where there is none of that name."""
        vhost = quote(self._vhost, safe="")
        status, found = await self._get(f"queues/{vhost}/{quote(queue, safe='')}?columns={COLUMNS}")
        if status == HTTPStatus.NOT_FOUND and found.get("error") == "Object Not Found":
            # It is the same answer where the virtual host does not exist.
            status, _ = await self._get(f"queues/{vhost}?page=1&page_size=1&columns=name")
            if status == HTTPStatus.OK:
                return None
            raise ConnectionError(f"RabbitMQ has no virtual host {self._vhost!r}, or not for us")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise PermissionError(
                "RabbitMQ's management API refuses the user: wrong password, or no tag "
                "'management' or 'monitoring'"
            )
        if status != HTTPStatus.OK or "error" in found or found is NOTHING:
            raise ConnectionError(
                f"{self._base} answers {status}; expected RabbitMQ's management API there"
            )
        return found

    async def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        session = self._given
        if session is None:
            if self._session is None:
                self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
            session = self._session
        url = URL(f"{self._base}/api/{path}", encoded=True)
        try:
            async with session.get(url, headers=self._headers, allow_redirects=False) as response:
                body = await _read(response)
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionError(
                f"{self._base}: {type(error).__name__}: {one_line(error)}"
            ) from error
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        return response.status, found if isinstance(found, dict) else NOTHING


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LONGEST:
            raise aiohttp.ClientPayloadError(f"more than {LONGEST} bytes")
        await asyncio.sleep(0)
    return body


def _capacity(found: dict[str, Any]) -> float | None:
    """Return the largest length that the queue's arguments and policies allow."""
    limits = [
        (found.get("arguments") or {}).get("x-max-length"),
        (found.get("effective_policy_definition") or {}).get("max-length"),
    ]
    return min((limit for limit in limits if isinstance(limit, int)), default=None)
