"""Fixtures for the tests of sources."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from postgres import Postgres, cluster


@pytest.fixture(scope="session")
def database_cluster() -> Iterator[Path]:
    """Return a directory with a database cluster."""
    with cluster() as directory:
        yield directory


@pytest.fixture
async def postgres(database_cluster: Path, tmp_path: Path) -> AsyncIterator[Postgres]:
    """Return a running PostgreSQL."""
    async with Postgres(database_cluster, tmp_path) as server:
        yield server
