"""
Queues that live in a broker or a database, read from outside.

Each class says how one kind of queue is, by the client object that the service has anyway or by a
URL; `obs.watch_queue(RedisStream(client, "orders", group="workers"), name="orders")` exports it.
Replicas that watch the same queue tell the same number: `queue_info` says so by scope="shared", and
rules take the maximum of them, not the sum. Whatever else has `backend` and an async `sample`, which
returns a `QueueState`, can be watched as well.
"""

from aiosvc.brokers.nats import NatsConsumer
from aiosvc.brokers.rabbitmanagement import RabbitMQManagement
from aiosvc.brokers.rabbitmq import RabbitMQ
from aiosvc.brokers.redis import RedisList, RedisSortedSet, RedisStream
from aiosvc.brokers.redisengines import (
    RQ,
    SAQ,
    Arq,
    BullMQ,
    Celery,
    Docket,
    Dramatiq,
    Streaq,
    TaskiqList,
    TaskiqStream,
)
from aiosvc.brokers.sql import SqlQueue
from aiosvc.brokers.sqlengines import Oban, PgQueuer, Procrastinate, SAQPostgres
from aiosvc.brokers.state import QueueState
from aiosvc.brokers.watching import BrokerQueue, SharedQueues

__all__ = [
    "RQ",
    "SAQ",
    "Arq",
    "BrokerQueue",
    "BullMQ",
    "Celery",
    "Docket",
    "Dramatiq",
    "NatsConsumer",
    "Oban",
    "PgQueuer",
    "Procrastinate",
    "QueueState",
    "RabbitMQ",
    "RabbitMQManagement",
    "RedisList",
    "RedisSortedSet",
    "RedisStream",
    "SAQPostgres",
    "SharedQueues",
    "SqlQueue",
    "Streaq",
    "TaskiqList",
    "TaskiqStream",
]
