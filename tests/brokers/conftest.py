"""A database that all tests of brokers share; a test that stops one starts its own."""

import asyncio
from collections.abc import Iterator

import pytest
from postgres import Postgres, cluster


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
