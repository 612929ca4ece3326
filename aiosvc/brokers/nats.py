"""
A durable consumer of a NATS JetStream stream, by the JetStream API itself.

    obs.watch_queue(NatsConsumer(js, "ORDERS", "workers"), name="orders")

Rule: three small requests at most, which any client can send; a stream that nobody has made yet is
empty. Rule: what redelivers, acknowledges or pulls is not for an observer.
"""

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from aiosvc.brokers.clients import has_coroutines, library, scheme_of
from aiosvc.brokers.state import QueueState
from aiosvc.errors import ConfigError

__all__ = ["NatsConsumer"]

log = logging.getLogger("aiosvc.brokers")

#: Codes of the API's errors: https://github.com/nats-io/nats-server, server/errors.json.
NO_CONSUMER: Final = 10014
NO_STREAM: Final = 10059
NO_MESSAGE: Final = 10037

#: Seconds of one request; the sampler's timeout comes first.
LONG: Final = 60.0

#: Subjects of a consumer's filter that are asked for the age.
SUBJECTS: Final = 8

#: A name may hold nothing that is part of a subject's syntax.
NAME: Final = re.compile(r"[^\s.*>/\\]+")


class NatsConsumer:
    """
    The messages of *stream* that *consumer*, a durable one, has not been given yet: those are ready.

    *client* is nats-py's client or its JetStream context, or a `nats://` URL. Delivered and not
    acknowledged ones are in flight, those that a worker pulled ahead and those that wait for their
    redelivery included. What the stream holds is retained. Where the consumer does not exist, all
    of that is ready. *prefix* is that of the JetStream API, for a domain `$JS.<domain>.API`; a
    context brings its own. The age costs one more request, which brings the next message whole;
    `age=False` leaves it out.

    Raises ConfigError where *client* is none of these, or a name is none.
    """

    backend = "nats"

    def __init__(
        self,
        client: object,
        stream: str,
        consumer: str,
        *,
        prefix: str = "$JS.API",
        age: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name in (stream, consumer):
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise ConfigError(
                    f"NatsConsumer: {name!r} given; expected a name without '.', '*', '>' and space"
                )
        self._connect: Any = None
        self._client: Any = None
        self._prefix = prefix
        # A JetStream context keeps its client and its prefix to itself.
        inner = getattr(client, "_nc", None)
        if isinstance(client, str):
            scheme_of(client, ("nats", "tls", "ws", "wss"), "nats://localhost:4222")
            nats = library("nats", "nats", "a NATS consumer")
            self._connect = partial(_connected, nats, client)
        elif has_coroutines(client, "request"):
            self._client = client
        elif has_coroutines(inner, "request"):
            self._client = inner
            self._prefix = getattr(client, "_prefix", prefix)
        else:
            raise ConfigError(
                f"NatsConsumer: {type(client).__module__}.{type(client).__qualname__} given; "
                "expected nats-py's client, its JetStream context, or a URL like "
                "'nats://localhost:4222'"
            )
        self._stream = stream
        self._consumer = consumer
        self._wants_age = age
        self._clock = clock
        self._told = False

    async def sample(self) -> QueueState:
        """Return how the consumer is now; raises ConnectionError while there is no connection."""
        await self._open()
        stream = await self._ask(f"STREAM.INFO.{self._stream}")
        consumer = await self._ask(f"CONSUMER.INFO.{self._stream}.{self._consumer}")
        if stream is None:
            return QueueState(ready=0, in_flight=0, retained=0, oldest_age=0)
        retained = stream["state"]["messages"]
        if consumer is None:
            if retained and not self._told:
                self._told = True
                log.warning(
                    "stream %r: no consumer %r; all of it is waiting", self._stream, self._consumer
                )
            consumer = {"num_pending": retained, "num_ack_pending": 0, "delivered": {}}
        ready = consumer["num_pending"]
        return QueueState(
            ready=ready,
            in_flight=consumer["num_ack_pending"],
            retained=retained,
            oldest_age=await self._age(consumer) if ready else 0,
        )

    async def close(self) -> None:
        """Close the connection if it was made for a URL."""
        if self._connect is not None and self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _open(self) -> None:
        if self._connect is not None and (self._client is None or self._client.is_closed):
            self._client = await self._connect()
        if not self._client.is_connected:
            raise ConnectionError("the connection to NATS is not open")

    async def _age(self, consumer: dict[str, Any]) -> float | None:
        """Return the seconds since the next message was stored; None where that can't be known."""
        config = consumer.get("config", {})
        subjects = config.get("filter_subjects") or [config.get("filter_subject") or ">"]
        if not self._wants_age or len(subjects) > SUBJECTS:
            return None
        after = consumer["delivered"].get("stream_seq", 0) + 1
        messages = [
            await self._ask(
                f"STREAM.MSG.GET.{self._stream}", {"seq": after, "next_by_subj": subject}
            )
            for subject in subjects
        ]
        times = [_unix(found["message"]["time"]) for found in messages if found is not None]
        # Newer servers say what time it is for them.
        now = _unix(consumer["ts"]) if "ts" in consumer else self._clock()
        return max(0.0, now - min(times)) if times else None

    async def _ask(self, what: str, request: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Return an answer of the API; None where what it is about does not exist."""
        body = b"" if request is None else json.dumps(request).encode()
        try:
            answer = await self._client.request(f"{self._prefix}.{what}", body, timeout=LONG)
        except Exception as error:
            if type(error).__name__ == "NoRespondersError":
                raise ConnectionError("JetStream is not enabled at the NATS server") from error
            raise
        found: dict[str, Any] = json.loads(answer.data)
        refusal = found.get("error")
        if refusal is None:
            return found
        if refusal.get("err_code") in (NO_CONSUMER, NO_STREAM, NO_MESSAGE):
            return None
        raise RuntimeError(f"JetStream: {what}: {refusal.get('description')}")


def _unix(written: str) -> float:
    """Return a time in RFC 3339, to the nanosecond, as a Unix time."""
    moment, _, fraction = written.rstrip("Z").partition(".")
    if "+" in fraction or "-" in fraction:  # a server in a zone of its own
        return datetime.fromisoformat(written).timestamp()
    seconds = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    return seconds + float(f"0.{fraction or 0}")


async def _connected(nats: Any, url: str) -> Any:
    """Return a client that is connected; one that is lost is replaced, not reconnected."""
    client = nats.NATS()
    try:
        await client.connect(url, allow_reconnect=False, error_cb=_ignore)
    except BaseException:
        await client.close()  # which a client that was refused does not do by itself
        raise
    return client


async def _ignore(_: Exception) -> None:
    """Take the client's report of an error; the sample that fails says it."""
