"""Databases as sources, with a real PostgreSQL and each client library."""

import asyncio
import os
import re
import signal
import textwrap
from collections.abc import AsyncIterator, Iterable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from postgres import Postgres
from processes import DEADLINE, poll, until
from prometheus_client import Metric

from aiosvc.errors import ConfigError
from aiosvc.sources import database
from aiosvc.sources.database import Database, Query

from .sampled import Series, Service, values

asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is not installed")
psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg_pool is not installed")
sqlalchemy_asyncio = pytest.importorskip(
    "sqlalchemy.ext.asyncio", reason="SQLAlchemy is not installed"
)

#: Connections that each pool of the tests may have.
MOST = 2

ORDERS = Query(
    "select status, count(*) as orders, sum(total) as amount from orders group by status;",
    {"shop_orders": "orders", "shop_orders_amount": "amount"},
    labels=("status",),
)


class Client:
    """One library's pool, and how its user takes a connection of it."""

    def __init__(self, kind: str, pool: Any) -> None:
        self.kind = kind
        self.pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Hold a connection."""
        takers = {"asyncpg": "acquire", "psycopg": "connection"}
        async with getattr(self.pool, takers.get(self.kind, "connect"))() as connection:
            yield connection

    async def run(self, sql: str) -> None:
        """Run statements, and keep what they did."""
        async with self.connection() as connection:
            if self.kind.startswith("sqlalchemy"):
                for statement in sql.split(";"):
                    await connection.exec_driver_sql(statement)
                await connection.commit()
            else:
                await connection.execute(sql)


@asynccontextmanager
async def opened(kind: str, server: Postgres, **login: str) -> AsyncIterator[Client]:
    """Give a pool with at most `MOST` connections."""
    if kind == "asyncpg":
        pool = asyncpg.create_pool(server.url(**login), min_size=0, max_size=MOST)
        async with pool:
            yield Client(kind, pool)
    elif kind == "psycopg":
        pool = psycopg_pool.AsyncConnectionPool(
            server.url(**login), min_size=1, max_size=MOST, open=False, reconnect_timeout=30
        )
        try:
            await pool.open()
            yield Client(kind, pool)
        finally:
            await pool.close()
    else:
        scheme = "postgresql+" + kind.rpartition(" ")[2]
        engine = sqlalchemy_asyncio.create_async_engine(
            server.url(scheme, **login), pool_size=1, max_overflow=MOST - 1
        )
        try:
            yield Client(kind, engine)
        finally:
            await engine.dispose()


KINDS = ("asyncpg", "psycopg", "sqlalchemy asyncpg", "sqlalchemy psycopg")


@pytest.fixture(params=KINDS)
async def client(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[Client]:
    """Return a pool of each library in turn."""
    async with opened(request.param, postgres) as made:
        yield made


@pytest.fixture
async def simple(postgres: Postgres) -> AsyncIterator[Client]:
    """Return a pool of asyncpg, for what is the same with every library."""
    async with opened("asyncpg", postgres) as made:
        yield made


@asynccontextmanager
async def orders(client: Client) -> AsyncIterator[None]:
    """Have a table of orders."""
    await client.run(
        "drop table if exists orders; create table orders (status text, total numeric); "
        "insert into orders values ('open', 10.5), ('open', 2), ('paid', 7), ('lost', null)"
    )
    yield


async def answer(client: Client, *queries: Query, **options: Any) -> list[Metric]:
    """Return what the queries' source says."""
    return await Database(client.pool, name="shop", queries=queries, **options).queries()


def states(series: dict[tuple[str, ...], float] | None) -> dict[str, float]:
    """Return a pool's numbers by state."""
    assert series is not None
    return {state: value for (_, state), value in series.items()}


async def test_rows_become_series(client: Client) -> None:
    """Label columns, several value columns, numeric sums and NULL come out as they are."""
    async with orders(client):
        found = await answer(client, ORDERS)
    assert values(found, "shop_orders") == {
        ("shop", "open"): 2.0, ("shop", "paid"): 1.0, ("shop", "lost"): 1.0,
    }  # fmt: skip
    assert values(found, "shop_orders_amount") == {("shop", "open"): 12.5, ("shop", "paid"): 7.0}
    assert values(found, "db_active_queries") == {("shop",): 0.0}


async def test_a_pool_says_how_many_are_idle_active_and_waiting(client: Client) -> None:
    """The numbers are those of the service's own use, whatever the observer has in hand."""
    shop = Database(client.pool, name="shop")
    async with AsyncExitStack() as stack:
        for _ in range(MOST):
            await stack.enter_async_context(client.connection())
        waiting = asyncio.create_task(client.run("select 1"))
        await asyncio.sleep(0)
        found: list[Metric] = []

        async def read() -> dict[str, float]:
            found[:] = await shop.pool()
            return states(values(found, "db_connection_pool_size"))

        full = {"idle": 0.0, "active": float(MOST), "waiting": 1.0}
        await poll(read, lambda now: now == full, "a pool that is full")
        assert values(found, "db_connection_pool_max_size") == {("shop",): MOST}
    await waiting
    after = await poll(read, lambda now: now["active"] == 0, "a pool that rests")
    assert after["waiting"] == 0
    assert after["idle"] >= 1


async def test_a_saturated_pool_is_seen_and_left_alone(client: Client) -> None:
    """With no connection to be had the pool's numbers stay, and no request is put behind ours."""
    shop = Database(client.pool, name="shop", acquire_timeout=0.1)
    async with Service(pool=shop.pool, sql=shop.queries) as service:
        await service.until_up("sql", 1)
        async with AsyncExitStack() as stack:
            for _ in range(MOST):
                await stack.enter_async_context(client.connection())
            await service.until_up("sql", 0)
            await service.until_series("db_active_queries", None)
            full: Series = {
                ("shop", "idle"): 0.0,
                ("shop", "active"): MOST,
                ("shop", "waiting"): 0.0,
            }
            await service.until_series("db_connection_pool_size", full)
            for _ in range(20):
                assert await service.series("db_connection_pool_size") == full
            assert await service.up("pool") == 1
            with pytest.raises(TimeoutError, match=r"'shop': no connection was free within 0\.1 s"):
                await shop.queries()
        await service.until_up("sql", 1)


async def test_a_killed_server_is_seen_and_its_return_too(
    client: Client, postgres: Postgres
) -> None:
    """The series go with the server, the pool's stay, and both are back with the same pool."""
    shop = Database(client.pool, name="shop")
    async with Service(pool=shop.pool, sql=shop.queries) as service:
        await service.until_series("db_active_queries", {("shop",): 0.0})
        postgres.send(signal.SIGKILL)
        await postgres.ended()
        await service.until_up("sql", 0)
        await service.until_series("db_active_queries", None)
        assert await service.up("pool") == 1
        assert states(await service.series("db_connection_pool_size"))["waiting"] == 0
        await postgres.again()
        await service.until_up("sql", 1)
        await service.until_series("db_active_queries", {("shop",): 0.0})
    async with asyncio.timeout(DEADLINE), AsyncExitStack() as stack:
        for _ in range(MOST):  # every place of the pool is still there for the service
            await stack.enter_async_context(client.connection())


async def test_a_server_that_stands_still_costs_a_scrape_nothing(
    client: Client, postgres: Postgres
) -> None:
    """While every process of the server is stopped the sample times out and scrapes go on."""
    backends = await _stopped(client, postgres)
    shop = Database(client.pool, name="shop")
    try:
        async with Service(timeout=0.3, sql=shop.queries) as service:
            await service.until_up("sql", 0)
            for _ in range(20):
                await service.scrape()
            assert service.slowest < 5
            for pid in backends:
                _send(pid, signal.SIGCONT)
            await service.until_up("sql", 1)
    finally:
        for pid in backends:
            _send(pid, signal.SIGCONT)


async def test_a_statement_has_its_time(client: Client) -> None:
    """A query that takes too long is ended by the server, and the error names it."""
    slow = Query("select 1 as one from pg_sleep(30)", {"slow": "one"})
    with pytest.raises(RuntimeError, match=r"'shop': query 'select 1 as one .*statement timeout"):
        await answer(client, slow, statement_timeout=1.0)
    assert await answer(client)


async def test_a_lock_ends_the_sample_and_not_the_scrape(client: Client) -> None:
    """A query behind somebody's lock fails within its time, and works when the lock is gone."""
    async with orders(client):
        shop = Database(client.pool, name="shop", queries=[ORDERS], statement_timeout=0.1)
        async with Service(sql=shop.queries) as service:
            await service.until_up("sql", 1)
            async with client.connection() as connection:
                execute = getattr(connection, "exec_driver_sql", connection.execute)
                if client.kind == "asyncpg":
                    await execute("begin")
                await execute("lock table orders in access exclusive mode")
                await service.until_up("sql", 0)
                await service.until_series("shop_orders", None)
                await execute("rollback")
            await service.until_up("sql", 1)


async def test_nothing_can_be_changed(client: Client) -> None:
    """A statement that writes is refused by the server, be it hidden in a function."""
    async with orders(client):
        await client.run(
            "create or replace function spend() returns int language sql as "
            "'delete from orders where status is not null returning 1'"
        )
        with pytest.raises(RuntimeError, match="read-only transaction"):
            await answer(client, Query("select spend() as spent", {"spent": "spent"}))
        assert values(await answer(client, ORDERS), "shop_orders") != {}


async def test_what_is_left_out_is_counted(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A query with more rows than there may be series gives as many as there may be."""
    many = Query("select n from generate_series(1, 100000) n", {"numbers": "n"}, labels=["n"])
    shop = Database(client.pool, name="shop", queries=[many], max_series=5)
    found = await shop.queries()
    assert len(values(found, "numbers") or ()) == 5
    assert values(found, "aiosvc_label_overflow_total") == {("numbers", "database,n"): 1.0}
    assert "numbers: more than 5 series" in caplog.text


async def test_a_percent_sign_is_nothing_special(client: Client) -> None:
    """A statement goes to the server as it was written."""
    query = Query("select count(*) as n from pg_class where relname like 'pg_%'", {"n": "n"})
    series = values(await answer(client, query), "n")
    assert series is not None
    assert series["shop",] > 10


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query("select 1 as two", {"x": "tow"}), "no column 'tow'; it has two; did you mean 'two'"),
        (Query("select 1 as n where false", {"x": "m"}), "no column 'm'; it has n"),
        (Query("select 1 as n", {"x": "n"}, labels=["kind"]), "no column 'kind'; it has n"),
        (Query("select 1 as n, 2 as n", {"x": "n"}), "two columns are named 'n'"),
        (Query("select 'a' as n", {"x": "n"}), "column 'n': 'a' is no number"),
        (Query("select now() as n", {"x": "n"}), "column 'n': .*is no number"),
        (Query("select 1 as n from (values (1), (2)) v", {"x": "n"}), "two values for the labels"),
        (Query("select -1 as n", {"x_total": "n"}), "a counter can't be negative"),
        (Query("select array[1] as l, 1 as n", {"x": "n"}, labels=["l"]), "no label value"),
    ],
)
async def test_an_answer_of_another_kind_names_query_and_column(
    simple: Client, query: Query, message: str
) -> None:
    """What a query gives instead of what was said is told in one line."""
    with pytest.raises(ValueError, match=rf"^database 'shop': query 'select .*': .*{message}"):
        await answer(simple, query)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_statement_is_told_in_the_servers_words(
    kind: str, postgres: Postgres
) -> None:
    """A table that is not there fails with its name, in one line without the library's frills."""
    async with opened(kind, postgres) as client:
        with pytest.raises(RuntimeError, match='relation "nothing" does not exist') as caught:
            await answer(client, Query("select n from nothing", {"x": "n"}))
    assert str(caught.value).startswith("database 'shop': query 'select n from nothing': ")
    assert "\n" not in str(caught.value)
    assert "sqlalche.me" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_password_is_told_and_not_shown(kind: str, postgres: Postgres) -> None:
    """A pool that can't log in is down, and the password is in no message."""
    async with opened(kind, postgres, password="wrongsecret") as client:
        with pytest.raises(ConnectionError, match=r"^database 'shop': no connection: ") as caught:
            await answer(client)
    assert "wrongsecret" not in str(caught.value)
    if kind.endswith("asyncpg"):  # psycopg's pool connects in the background, and says it in a log
        assert "password authentication failed" in str(caught.value)


async def test_a_server_without_a_place_left(database_cluster: Path, tmp_path: Path) -> None:
    """When the server takes no more connections the source says so and comes back by itself."""
    async with Postgres(
        database_cluster, tmp_path, max_connections=3, superuser_reserved_connections=0
    ) as server:
        taken = [await asyncpg.connect(server.url()) for _ in range(3)]
        async with opened("asyncpg", server) as client:
            shop = Database(client.pool, name="shop")
            with pytest.raises(ConnectionError, match="too many clients already"):
                await shop.queries()
            async with Service(sql=shop.queries) as service:
                await service.until_up("sql", 0)
                await asyncio.gather(*(each.close() for each in taken))
                await service.until_up("sql", 1)


async def test_active_queries_are_those_of_others(client: Client) -> None:
    """Statements under way in the database count, idle sessions and our own do not."""
    shop = Database(client.pool, name="shop")
    async with Service(pool=shop.pool, sql=shop.queries) as service:
        await service.until_series("db_active_queries", {("shop",): 0.0})
        sleeping = asyncio.create_task(client.run("select pg_sleep(600)"))
        await service.until_series("db_active_queries", {("shop",): 1.0})

        async def active() -> float:
            return states(await service.series("db_connection_pool_size"))["active"]

        await poll(active, lambda now: now == 1, "one connection in use, ours left out")
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        await service.until_series("db_active_queries", {("shop",): 0.0})


async def test_a_role_that_may_not_see_all_is_told_so(
    postgres: Postgres, simple: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Statements that the role may not see are not counted, which is said once."""
    await simple.run("drop role if exists app; create role app login password 'not secret'")
    async with opened("asyncpg", postgres, user="app") as client, simple.connection():
        shop = Database(client.pool, name="shop")
        for _ in range(2):
            assert values(await shop.queries(), "db_active_queries") == {("shop",): 0.0}
    [said] = [r.message for r in caplog.records if "pg_read_all_stats" in r.message]
    assert said.startswith("database 'shop': db_active_queries counts the role's own statements")


async def test_the_observers_own_connection_does_not_count(simple: Client) -> None:
    """While the queries run their connection is neither active nor missing among the idle."""
    wait = Query("select 1 as one from pg_sleep(0.3)", {"slow": "one"})
    shop = Database(simple.pool, name="shop", queries=[wait])
    await simple.run("select 1")
    running = asyncio.create_task(shop.queries())
    await until(lambda: simple.pool.get_idle_size() == 0, "the query")
    await asyncio.sleep(0.05)
    found = states(values(await shop.pool(), "db_connection_pool_size"))
    assert not running.done()
    assert found == {"idle": 1.0, "active": 0.0, "waiting": 0.0}
    await running


async def test_two_databases_share_their_families(simple: Client, postgres: Postgres) -> None:
    """Several pools in one service are told apart by name, in one valid scrape."""
    async with opened("psycopg", postgres) as other:
        first = Database(simple.pool, name="orders")
        second = Database(other.pool, name="users")
        async with Service(
            a=first.pool, b=first.queries, c=second.pool, d=second.queries
        ) as service:
            await service.until_series("db_active_queries", {("orders",): 0.0, ("users",): 0.0})
            size = await service.series("db_connection_pool_size")
            assert {name for name, _ in size or ()} == {"orders", "users"}


async def test_a_database_of_another_kind_has_no_active_queries() -> None:
    """With SQLite SQL works and what only PostgreSQL knows is absent, also a pool's numbers."""
    pytest.importorskip("aiosqlite", reason="aiosqlite is not installed")
    null = pytest.importorskip("sqlalchemy.pool").NullPool
    engine = sqlalchemy_asyncio.create_async_engine("sqlite+aiosqlite://", poolclass=null)
    try:
        shop = Database(engine, name="files", queries=[Query("select 3 as n", {"shop_files": "n"})])
        found = await shop.queries()
        assert values(found, "shop_files") == {("files",): 3.0}
        assert values(found, "db_active_queries") is None
        assert await shop.pool() == []
    finally:
        await engine.dispose()


async def test_an_engine_in_autocommit_mode_has_its_limits_too(postgres: Postgres) -> None:
    """The transaction that changes nothing does not depend on how the engine was made."""
    engine = sqlalchemy_asyncio.create_async_engine(
        postgres.url("postgresql+asyncpg"), isolation_level="AUTOCOMMIT"
    )
    try:
        client = Client("sqlalchemy", engine)
        slow = Query("select 1 as one from pg_sleep(30)", {"slow": "one"})
        with pytest.raises(RuntimeError, match="statement timeout"):
            await answer(client, slow, statement_timeout=1.0)
    finally:
        await engine.dispose()


def test_the_example_of_the_docstring() -> None:
    """What the module's docstring shows can be written so."""
    example = re.findall(r"(?m)^    .*\n", (database.__doc__ or "").partition("`database.pool`")[0])
    observer = MagicMock()
    exec(textwrap.dedent("".join(example)), {**vars(database), "obs": observer, "pool": Pool()})
    names = [call.args[0] for call in observer.sampler.add.call_args_list]
    assert names == ["orders_pool", "orders_queries"]


class Pool:
    """Stands in for asyncpg's pool where no database is needed."""

    def acquire(self) -> AbstractAsyncContextManager[Any]:
        """Give nothing."""
        raise NotImplementedError

    get_size = get_idle_size = get_max_size = lambda _: 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"client": object()}, "expected a pool of asyncpg, an AsyncConnectionPool"),
        ({"name": "a b"}, "database name 'a b': may hold only letters"),
        ({"acquire_timeout": 0}, "acquire_timeout: 0 given; expected seconds"),
        ({"statement_timeout": float("inf")}, "statement_timeout: inf given"),
        ({"max_series": 0, "queries": [ORDERS]}, "max_series: 0 given"),
        ({"queries": ["select 1"]}, "expected aiosvc.sources.database.Query"),
        ({"queries": [ORDERS, ORDERS]}, "metric 'shop_orders' is made twice"),
        ({"queries": [Query("q", {"db_active_queries": "n"})]}, "is made twice"),
        (
            {"queries": [Query("q", {"queue_depth": "n"})]},
            "aiosvc exports a metric of that name itself",
        ),
        ({"queries": [Query("q", {"a-b": "n"})]}, "metric 'a-b': not a metric name; use letters"),
        ({"queries": [Query("q", {"a": "n"}, labels=["a b"])]}, "label 'a b': use letters"),
    ],
)
def test_what_can_not_work_is_refused(arguments: dict[str, Any], message: str) -> None:
    """A mistake in the arguments is an error at once, not a source that is down."""
    with pytest.raises(ConfigError, match=message):
        Database(**{"client": Pool(), "name": "shop", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sql": " "}, "expected a statement in SQL"),
        ({"gauges": {}}, "query 'select 1': gauges: {} given"),
        ({"gauges": {"x": 1}}, "1 given; expected the name of a column"),
        ({"labels": "status"}, "labels: 'status' given; expected a list of columns"),
        ({"labels": ["database"]}, "the label 'database' is the pool's name"),
    ],
)
def test_a_query_that_can_not_work_is_refused(arguments: dict[str, Any], message: str) -> None:
    """A query's own mistakes are found when it is made."""
    with pytest.raises(ConfigError, match=message):
        Query(**{"sql": "select 1", "gauges": {"x": "n"}, **arguments})


def test_pools_that_block_are_refused() -> None:
    """The synchronous pools and engines of the same libraries are not taken for async ones."""
    sync = psycopg_pool.ConnectionPool("host=127.0.0.1", open=False)
    with pytest.raises(ConfigError, match="AsyncConnectionPool"):
        Database(sync, name="shop")
    engine = pytest.importorskip("sqlalchemy").create_engine("sqlite://")
    with pytest.raises(ConfigError, match="AsyncEngine"):
        Database(engine, name="shop")
    engine.dispose()


async def _stopped(client: Client, postgres: Postgres) -> Iterable[int]:
    """Stop the server and its backends; return their process ids."""
    await client.run("select 1")
    assert postgres._popen is not None
    pids = [postgres._popen.pid, *_children(postgres._popen.pid)]
    for pid in pids:
        _send(pid, signal.SIGSTOP)
    return pids


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(each) for each in text.split()]


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # its client may have given it up
        os.kill(pid, number)
