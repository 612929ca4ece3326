"""
The connection pools that a database source understands: asyncpg's, psycopg's and SQLAlchemy's.

Rule: depends on the object that is handed over and imports no library. Rule: what a pool can't say
is None. How many requests wait for a connection is public at psycopg only; the other two keep
them in an asyncio.Queue, whose waiters are counted where it is found there, and not else.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from aiosvc.errors import ConfigError

__all__ = ["Counts", "Fetch", "Pool", "pool_of"]


@dataclass(frozen=True, slots=True)
class Counts:
    """
    A pool's connections, the requests that wait for one, and how many there may be.

    *opening* are those that are neither idle nor active yet, but have their place taken.
    """

    idle: int | None = None
    active: int | None = None
    waiting: int | None = None
    maximum: int | None = None
    opening: int = 0

    @property
    def free(self) -> bool:
        """Whether a connection is to be had without waiting, as far as is known."""
        if self.maximum is None or self.active is None or self.idle:
            return True
        return self.active + self.opening < self.maximum


#: Runs a statement; gives the names of its columns, and at most so many of its rows.
Fetch = Callable[[str, int], Awaitable[tuple[Sequence[str], Sequence[Sequence[Any]]]]]


class Pool(Protocol):
    """What the source needs of a pool."""

    #: Whether it is PostgreSQL that is connected to.
    postgres: bool
    #: Whether `reading` has a connection; set as soon as it has, reset by whoever reads.
    holding: bool

    def counts(self) -> Counts:
        """Return what the pool says now; takes no connection."""

    def reading(self, wait: float, limit: float) -> AbstractAsyncContextManager[Fetch]:
        """
        Give a way to run statements, in a transaction that changes nothing.

        A connection is waited for *wait* seconds, each statement may take *limit* seconds.
        """


def pool_of(client: object) -> Pool:
    """Return the pool that *client* is; raises ConfigError where it is none of the three."""
    for kind, names in KINDS:
        if all(hasattr(client, name) for name in names):
            return kind(client)
    raise ConfigError(
        f"pool: {client!r} given; expected a pool of asyncpg, an AsyncConnectionPool of "
        "psycopg_pool or an AsyncEngine of SQLAlchemy"
    )


class _Asyncpg:
    postgres = True
    holding = False

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def counts(self) -> Counts:
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        maximum, queue = self._pool.get_max_size(), getattr(self._pool, "_queue", None)
        opening = 0
        if isinstance(queue, asyncio.Queue):  # of the places that are not taken
            opening = max(0, maximum - queue.qsize() - (size - idle))
        return Counts(idle, size - idle, _waiting(queue), maximum, opening)

    @asynccontextmanager
    async def reading(self, wait: float, limit: float) -> AsyncIterator[Fetch]:
        async def fetch(sql: str, rows: int) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
            statement = await connection.prepare(sql)
            columns = [column.name for column in statement.get_attributes()]
            cursor = await statement.cursor()
            return columns, await cursor.fetch(rows)

        async with self._pool.acquire(timeout=wait) as connection:
            self.holding = True
            try:
                async with connection.transaction(readonly=True):
                    await connection.execute(_timeout(limit))
                    yield fetch
            finally:
                # Before 0.32 the pool never gets back the place of a connection that broke under a
                # statement, unless it is told. One that was given back already can't be asked.
                with suppress(Exception):
                    if connection.is_closed():
                        connection.terminate()


class _Psycopg:
    postgres = True
    holding = False

    def __init__(self, pool: Any) -> None:
        if not inspect.iscoroutinefunction(pool.getconn):
            raise ConfigError(f"pool: {pool!r} given; expected psycopg_pool's AsyncConnectionPool")
        self._pool = pool

    def counts(self) -> Counts:
        said = self._pool.get_stats()
        size, idle = said.get("pool_size"), said.get("pool_available")
        active = None if size is None or idle is None else size - idle
        return Counts(idle, active, said.get("requests_waiting"), said.get("pool_max") or None)

    @asynccontextmanager
    async def reading(self, wait: float, limit: float) -> AsyncIterator[Fetch]:
        async def fetch(sql: str, rows: int) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
            # A cursor of the server's: any other brings all rows before one is looked at.
            async with connection.cursor(name="aiosvc", row_factory=lambda _: tuple) as cursor:
                await cursor.execute(sql)
                columns = [column.name for column in cursor.description or ()]
                return columns, await cursor.fetchmany(rows)

        async with self._pool.connection(timeout=wait) as connection:
            self.holding = True
            async with connection.transaction():
                await connection.execute("set transaction read only")
                await connection.execute(_timeout(limit))
                yield fetch


class _SqlAlchemy:
    holding = False

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.postgres = engine.dialect.name == "postgresql"

    def counts(self) -> Counts:
        pool = self._engine.pool  # another one after each dispose()
        if not all(hasattr(pool, name) for name in ("checkedin", "checkedout", "size")):
            return Counts()  # a NullPool or StaticPool counts nothing
        overflow = getattr(pool, "_max_overflow", -1)
        maximum = pool.size() + overflow if overflow >= 0 else None
        waiting = _waiting(getattr(getattr(pool, "_pool", None), "_queue", None))
        return Counts(pool.checkedin(), pool.checkedout(), waiting, maximum)

    @asynccontextmanager
    async def reading(self, wait: float, limit: float) -> AsyncIterator[Fetch]:
        # On the server's side, as above; and no parameters, so that a % is only that.
        options = {"stream_results": True, "no_parameters": True}

        async def fetch(sql: str, rows: int) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
            def run(sync: Any) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
                result = sync.exec_driver_sql(sql, execution_options=options)
                try:
                    return list(result.keys()), result.fetchmany(rows)
                finally:
                    result.close()

            found: tuple[Sequence[str], Sequence[Sequence[Any]]] = await connection.run_sync(run)
            return found

        async with AsyncExitStack() as stack:  # its end rolls back
            async with asyncio.timeout(wait):
                connection = await stack.enter_async_context(self._engine.connect())
            self.holding = True
            if self.postgres:
                # An engine in autocommit mode has no transaction that the next two could be about.
                await connection.execution_options(isolation_level="READ COMMITTED")
                await connection.exec_driver_sql("set transaction read only")
                await connection.exec_driver_sql(_timeout(limit))
            yield fetch


KINDS: tuple[tuple[Callable[[Any], Pool], tuple[str, ...]], ...] = (
    (_Asyncpg, ("acquire", "get_size", "get_idle_size", "get_max_size")),
    (_Psycopg, ("connection", "getconn", "get_stats")),
    (_SqlAlchemy, ("sync_engine", "connect", "pool", "dialect")),
)


def _timeout(seconds: float) -> str:
    return f"set local statement_timeout = {max(1, round(seconds * 1000))}"


def _waiting(queue: object) -> int | None:
    getters = getattr(queue, "_getters", None) if isinstance(queue, asyncio.Queue) else None
    return None if getters is None else sum(not getter.done() for getter in getters)
