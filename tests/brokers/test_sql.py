"""Queues in tables of a real PostgreSQL, by each of the drivers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import psycopg_pool
import pytest
from postgres import Postgres
from sqlalchemy.ext.asyncio import create_async_engine

from aiosvc import ConfigError
from aiosvc.brokers import QueueState, SqlQueue
from aiosvc.brokers.sql import literal, table
from brokers.observing import observed, said, says

DRIVERS = ["asyncpg", "psycopg", "sqlalchemy+asyncpg", "sqlalchemy+psycopg"]


async def opened(driver: str, postgres: Postgres, stack: AsyncExitStack) -> Any:
    """Return a pool of *driver*, which ends with *stack*."""
    if driver == "asyncpg":
        pool = asyncpg.create_pool(postgres.url(), min_size=1, max_size=2)
        return await stack.enter_async_context(pool)
    if driver == "psycopg":
        made = psycopg_pool.AsyncConnectionPool(
            postgres.url(), open=False, min_size=1, max_size=2, reconnect_timeout=1
        )
        return await stack.enter_async_context(made)
    engine = create_async_engine(postgres.url(scheme=f"postgresql+{driver.partition('+')[2]}"))
    stack.push_async_callback(engine.dispose)
    return engine


@pytest.fixture(params=DRIVERS)
async def pool(postgres: Postgres, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Return a pool of each kind."""
    async with AsyncExitStack() as stack:
        yield await opened(request.param, postgres, stack)


async def test_a_row_is_a_state(pool: Any) -> None:
    """Columns are the fields; decimals are numbers, NULL is unknown."""
    sql = (
        "select 3 as ready, 2.5::numeric as oldest_age, null::int as dead, 1.5::float8 as retained"
    )
    assert await SqlQueue(pool, sql).sample() == QueueState(ready=3, oldest_age=2.5, retained=1.5)


async def test_an_empty_queue_has_no_age(pool: Any) -> None:
    """The age of nothing is NULL in SQL, and 0 in the scrape."""
    sql = "select count(x) as ready, max(x) as oldest_age from (select 1 as x where false) as t"
    assert await SqlQueue(pool, sql).sample() == QueueState(ready=0, oldest_age=0)


async def test_a_percent_sign_and_a_colon_are_only_that(pool: Any) -> None:
    """A statement is sent as it was given, whatever the driver's parameters look like."""
    sql = "select 5 % 3 as ready, '3'::int as dead where 'a%s:b' like 'a%'"
    assert await SqlQueue(pool, sql).sample() == QueueState(ready=2, dead=3)


@pytest.mark.parametrize("name", ["plain", "it's", 'dou"ble', "back\\slash", "%s :x $1", "ü\n"])
async def test_a_name_is_quoted(pool: Any, name: str) -> None:
    """A queue's name is data, whatever it holds."""
    hexed = name.encode().hex()
    sql = f"select (convert_to({literal(name)}, 'UTF8') = decode('{hexed}', 'hex'))::int as ready"
    assert (await SqlQueue(pool, sql).sample()).ready == 1


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("select 1 as redy", "column 'redy': expected ready, .*; did you mean 'ready'?"),
        ("select 1 as ready where false", "no row came; expected one"),
        ("select generate_series(1, 9) as ready", "several rows came; expected one"),
        ("select 'many' as ready", "ready: 'many' given; expected a number, or None"),
        ("select 'NaN'::float8 as ready", "ready: nan given"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error(pool: Any, sql: str, text: str) -> None:
    """The error says what came and what was expected."""
    with pytest.raises(ValueError, match=text):
        await SqlQueue(pool, sql).sample()


async def test_the_drivers_error_is_one_line(pool: Any) -> None:
    """A table that is not there is named; the statement is not repeated."""
    with pytest.raises(RuntimeError, match='relation "nowhere" does not exist') as caught:
        await SqlQueue(pool, "select 1 as ready from nowhere").sample()
    assert "\n" not in str(caught.value)


async def test_nothing_can_be_changed(pool: Any, postgres: Postgres) -> None:
    """The transaction is read-only, whatever the statement is."""
    connection = await asyncpg.connect(postgres.url())
    await connection.execute("create sequence if not exists made")
    await connection.close()
    sql = "select nextval('made') as ready"
    with pytest.raises(RuntimeError, match="read-only transaction"):
        await SqlQueue(pool, sql).sample()
    # What was set for the transaction is gone with it.
    shown = SqlQueue(pool, "select (current_setting('statement_timeout') = '2s')::int as ready")
    assert (await shown.sample()).ready == 1


async def test_a_statement_has_a_limit_of_time(pool: Any) -> None:
    """The database itself ends one that takes longer, and the pool is as it was."""
    with pytest.raises(RuntimeError, match="statement timeout"):
        await SqlQueue(pool, "select pg_sleep(60), 1 as ready", limit=0.05).sample()
    assert (await SqlQueue(pool, "select 1 as ready").sample()).ready == 1


async def test_a_pool_without_a_free_connection_is_down(postgres: Postgres) -> None:
    """The service's requests have it; the observer waits a short time and leaves."""
    async with asyncpg.create_pool(postgres.url(), min_size=1, max_size=1) as pool:
        queue = SqlQueue(pool, "select 1 as ready", wait=0.05)
        async with pool.acquire():
            with pytest.raises(RuntimeError, match="no connection in time"):
                await queue.sample()
        assert (await queue.sample()).ready == 1


async def test_a_locked_table_costs_only_the_source(postgres: Postgres) -> None:
    """While somebody holds the table the queue is down; then it is back by itself."""
    async with asyncpg.create_pool(postgres.url(), min_size=1, max_size=3) as pool:
        await pool.execute("create table if not exists locked (); truncate locked")
        queue = SqlQueue(pool, "select count(*) as ready from locked", limit=0.05)
        async with observed(queue, interval=0.05) as observer:
            await says(observer, 0)
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("lock table locked in access exclusive mode")
                await says(observer, 0, "aiosvc_source_up")
                await says(observer, None)
            await says(observer, 0)
            assert said(observer, "aiosvc_source_up") == 1


@pytest.mark.parametrize("pool", [None, 7, object(), "postgresql://localhost", asyncio.Queue()])
def test_what_is_no_pool_is_refused(pool: object) -> None:
    """The error says what would do."""
    with pytest.raises(ConfigError, match=r"expected a pool of asyncpg, an AsyncConnectionPool"):
        SqlQueue(pool, "select 1 as ready")


def test_options_are_checked_at_once() -> None:
    """What makes no sense is said when the queue is made."""
    with pytest.raises(ConfigError, match="sql: ' ' given; expected a statement"):
        SqlQueue(None, " ")
    with pytest.raises(ConfigError, match="limit: 0 given"):
        SqlQueue(None, "select 1", limit=0)
    for name in (7, "a\0b"):
        with pytest.raises(ConfigError, match="expected the name of a queue"):
            literal(name)  # type: ignore[arg-type]
    assert table('a"b', None) == '"a""b"'
    assert table("a", "s.t") == '"s.t"."a"'
    with pytest.raises(ConfigError, match="schema: '' given"):
        table("a", "")
