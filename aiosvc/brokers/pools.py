"""
The connection pools that a SQL queue is read by: asyncpg's, psycopg's and SQLAlchemy's.

Rule: depends on the object that is handed over and imports no library. Rule: a statement runs in a
transaction that changes nothing and with a limit of time, and the pool has its connection back as
it was.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from aiosvc.errors import ConfigError

__all__ = ["Fetch", "Pool", "pool_of"]

#: Runs a statement; gives the names of its columns, and at most so many of its rows.
Fetch = Callable[[str, int], Awaitable[tuple[Sequence[str], Sequence[Sequence[Any]]]]]


class Pool(Protocol):
    """What is needed of a pool."""

    def reading(self, wait: float, limit: float) -> AbstractAsyncContextManager[Fetch]:
        """
        Give a way to run statements.

        A connection is waited for *wait* seconds, each statement may take *limit* seconds.
        """


def pool_of(client: object) -> Pool:
    """Return the pool that *client* is; raises ConfigError where it is none of the three."""
    for kind, names in KINDS:
        if all(hasattr(client, name) for name in names):
            return kind(client)
    raise ConfigError(
        f"pool: {type(client).__module__}.{type(client).__qualname__} given; expected a pool of "
        "asyncpg, an AsyncConnectionPool of psycopg_pool or an AsyncEngine of SQLAlchemy"
    )


class _Asyncpg:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @asynccontextmanager
    async def reading(self, wait: float, limit: float) -> AsyncIterator[Fetch]:
        async def fetch(sql: str, rows: int) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
            statement = await connection.prepare(sql)
            columns = [column.name for column in statement.get_attributes()]
            cursor = await statement.cursor()
            return columns, await cursor.fetch(rows)

        async with (
            self._pool.acquire(timeout=wait) as connection,
            connection.transaction(readonly=True),
        ):
            await connection.execute(_limit(limit))
            yield fetch


class _Psycopg:
    def __init__(self, pool: Any) -> None:
        if not inspect.iscoroutinefunction(pool.getconn):
            raise ConfigError(f"pool: {pool!r} given; expected psycopg_pool's AsyncConnectionPool")
        self._pool = pool

    @asynccontextmanager
    async def reading(self, wait: float, limit: float) -> AsyncIterator[Fetch]:
        async def fetch(sql: str, rows: int) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
            # A cursor of the server's: any other brings all rows before one is looked at.
            async with connection.cursor(name="aiosvc", row_factory=lambda _: tuple) as cursor:
                await cursor.execute(sql)
                columns = [column.name for column in cursor.description or ()]
                return columns, await cursor.fetchmany(rows)

        async with self._pool.connection(timeout=wait) as connection, connection.transaction():
            await connection.execute("set transaction read only")
            await connection.execute(_limit(limit))
            yield fetch


class _SqlAlchemy:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @asynccontextmanager
    async def reading(self, wait: float, limit: float) -> AsyncIterator[Fetch]:
        # A % in a statement is only that.
        options = {"no_parameters": True}

        async def fetch(sql: str, rows: int) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
            result = await connection.exec_driver_sql(sql, execution_options=options)
            return list(result.keys()), result.fetchmany(rows)

        async with AsyncExitStack() as stack:  # its end rolls back
            async with asyncio.timeout(wait):
                connection = await stack.enter_async_context(self._engine.connect())
            if self._engine.dialect.name == "postgresql":
                # An engine in autocommit mode has no transaction that the next two could be about.
                await connection.execution_options(isolation_level="READ COMMITTED")
                await connection.exec_driver_sql("set transaction read only")
                await connection.exec_driver_sql(_limit(limit))
            yield fetch


KINDS: tuple[tuple[Callable[[Any], Pool], tuple[str, ...]], ...] = (
    (_Asyncpg, ("acquire", "get_size", "get_idle_size", "get_max_size")),
    (_Psycopg, ("connection", "getconn", "get_stats")),
    (_SqlAlchemy, ("sync_engine", "connect", "pool", "dialect")),
)


def _limit(seconds: float) -> str:
    return f"set local statement_timeout = {max(1, round(seconds * 1000))}"
