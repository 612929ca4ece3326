"""
A queue of RabbitMQ by AMQP: what a passive declaration says, on a channel of our own.

    obs.watch_queue(RabbitMQ(connection, "orders"), name="orders")

Rule: passive means that nothing is made. A queue that does not exist closes the channel that asked,
so the channel is ours and never one that the service works with; and a robust channel would answer
from memory. Rule: AMQP says how many are ready and how many consumers there are, and no more than
that; `RabbitMQManagement` knows the rest.
"""

from functools import partial
from typing import Any

from aiosvc.brokers.clients import library, scheme_of
from aiosvc.brokers.state import QueueState
from aiosvc.errors import ConfigError

__all__ = ["RabbitMQ"]


class RabbitMQ:
    """
    A queue by its name, with those that belong to it where the engine has some.

    *connection* is one of aio-pika, robust or not, or an `amqp://` URL. *scheduled* and *dead* name
    the queues in which messages wait for their time or were given up on, such as `orders.DQ` and
    `orders.XQ` of dramatiq, or `taskiq.delay` and `taskiq.dead_letter` of taskiq. A queue that
    nobody has declared yet is empty. How long a message waits is unknown unless none does.

    Raises ConfigError where *connection* is neither.
    """

    backend = "rabbitmq"

    def __init__(
        self,
        connection: object,
        queue: str,
        *,
        scheduled: str | None = None,
        dead: str | None = None,
    ) -> None:
        self._connection: Any = None
        self._connect: Any = None
        if isinstance(connection, str):
            scheme_of(connection, ("amqp", "amqps"), "amqp://guest:guest@localhost:5672/")
            # What aio-pika is built on; of that, a connection that fails leaves a task behind.
            amqp = library("aiormq", "rabbitmq", "a RabbitMQ queue")
            self._connect = partial(amqp.connect, connection)
        elif hasattr(connection, "transport") and hasattr(connection, "channel"):
            self._connection = connection
        else:
            raise ConfigError(
                f"RabbitMQ: {type(connection).__module__}.{type(connection).__qualname__} given; "
                "expected a connection of aio_pika, such as connect_robust() gives, or a URL like "
                "'amqp://guest:guest@localhost:5672/'"
            )
        self._queues = (queue, scheduled, dead)
        self._channel: Any = None

    async def sample(self) -> QueueState:
        """Return what the broker says now; raises ConnectionError while there is no connection."""
        queue, scheduled, dead = self._queues
        ready, consumers = await self._declared(queue)
        return QueueState(
            ready=ready,
            consumers=consumers,
            oldest_age=None if ready else 0,
            scheduled=None if scheduled is None else (await self._declared(scheduled))[0],
            dead=None if dead is None else (await self._declared(dead))[0],
        )

    async def close(self) -> None:
        """Close the channel, and the connection if it was made for a URL."""
        channel, self._channel = self._channel, None
        if self._connect is not None:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.close()  # with its channel
        elif channel is not None:
            await channel.close()

    async def _declared(self, queue: str) -> tuple[int, int]:
        channel = await self._open()
        try:
            declared = await channel.queue_declare(queue=queue, passive=True)
        except Exception as error:
            self._channel = None  # closed, by the broker or by the client
            # By name, for the class is the library's: the broker's 404.
            if type(error).__name__ == "ChannelNotFoundEntity":
                return 0, 0
            raise
        return declared.message_count, declared.consumer_count

    async def _open(self) -> Any:
        connection = await self._connected()
        channel = self._channel
        if channel is None or channel.is_closed or channel.connection is not connection:
            self._channel = None
            self._channel = await connection.channel()
        return self._channel

    async def _connected(self) -> Any:
        if self._connect is None:
            # The one below a robust connection, whose channels would come back by themselves.
            transport = self._connection.transport
            if transport is None or transport.connection.is_closed:
                raise ConnectionError("the connection to RabbitMQ is not open")
            return transport.connection
        if self._connection is None or self._connection.is_closed:
            try:
                self._connection = await self._connect()
            except Exception as error:
                if type(error).__name__ in ("InvalidFrameError", "AMQPInternalError"):
                    raise ConnectionError(
                        "RabbitMQ closes the connection at once; is the virtual host of the URL "
                        "there, and may the user use it?"
                    ) from error
                raise
        return self._connection
