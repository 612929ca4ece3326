"""Brokers that all tests of the session share; a test that stops one starts its own."""

import asyncio
from collections.abc import Iterator

import pytest
from postgres import Postgres, cluster

from brokers.servers import Nats, Rabbit, Redis, running


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Return a Redis."""
    with running(Redis(tmp_path_factory.mktemp("redis"))) as redis:
        yield redis


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """Return a NATS server."""
    with running(Nats(tmp_path_factory.mktemp("nats"))) as nats:
        yield nats


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """Return a RabbitMQ."""
    with running(Rabbit(tmp_path_factory.mktemp("rabbit"))) as rabbit:
        yield rabbit


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Return a PostgreSQL."""
    with (
        cluster() as directory,
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
    ):
        server = Postgres(directory, tmp_path_factory.mktemp("postgres"))
        runner.run(server.__aenter__())
        try:
            yield server
        finally:
            runner.run(server.__aexit__())
