"""
A database seen through the service's own connection pool, and the numbers that SQL gives.

    database = Database(
        pool,
        name="orders",
        queries=[
            Query(
                "select status, count(*) as orders from orders group by status",
                {"shop_orders": "orders"},
                labels=("status",),
            )
        ],
    )
    obs.sampler.add("orders_pool", database.pool)
    obs.sampler.add("orders_queries", database.queries, interval=15)

`database.pool` needs no connection, so it says how a pool is that has none left, or whose server is
gone. Its metrics, labelled `database` with the name given:

    db_connection_pool_size{state="idle"}     connections that are open and not in use
    db_connection_pool_size{state="active"}   connections in use; psycopg: being opened, too
    db_connection_pool_size{state="waiting"}  requests that wait for a connection
    db_connection_pool_max_size               connections that there may be

`database.queries` takes a connection, and adds to what the `Query` objects say, at PostgreSQL only:

    db_active_queries   statements that the database runs for clients now, this one left out, as
                        far as the role may see them: its own, or all with pg_read_all_stats

Rule: the client object is the user's, no library is imported; what it can't say is absent. Rule:
the service comes first: a connection is taken only when one is free, never in a queue before or
among its requests, for statements with a time limit, in a transaction that changes nothing.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Metric

from aiosvc import validation
from aiosvc.errors import ConfigError, did_you_mean
from aiosvc.naming import check_name, one_line
from aiosvc.sources.bounded import (
    MAX_SERIES,
    Bounded,
    label_text,
    number,
    overflow,
)
from aiosvc.sources.pools import Fetch, pool_of

__all__ = ["Database", "Query"]

log = logging.getLogger("aiosvc.sources")

#: Seconds between two looks whether a connection has become free.
PAUSE: Final = 0.02

#: Sessions of other roles show nothing but that they are there, without pg_read_all_stats.
ACTIVE: Final = """
select count(*) filter (where state = 'active' and backend_type = 'client backend') as active,
       count(*) filter (where query = '<insufficient privilege>') as hidden
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True)
class Query:
    """
    A statement whose rows become series.

    *gauges* maps metric names to the columns with their values; a name that ends in `_total` is a
    counter's. *labels* are columns too, and the names of the labels. NULL in a value's column means
    no series. *documentation* is for all its metrics.
    """

    sql: str
    gauges: Mapping[str, str]
    labels: Sequence[str] = ()
    documentation: str = ""

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if not isinstance(self.sql, str) or not self.sql.strip():
            raise ConfigError(f"query {self.sql!r}: expected a statement in SQL")
        if isinstance(self.labels, str):
            raise ConfigError(f"{self}: labels: {self.labels!r} given; expected a list of columns")
        if not isinstance(self.gauges, Mapping) or not self.gauges:
            raise ConfigError(
                f"{self}: gauges: {self.gauges!r} given; expected metric names and their columns, "
                "such as {'shop_orders': 'count'}"
            )
        for column in (*self.gauges.values(), *self.labels):
            if not isinstance(column, str):
                raise ConfigError(f"{self}: {column!r} given; expected the name of a column")
        if "database" in self.labels:
            raise ConfigError(f"{self}: the label 'database' is the pool's name; rename the column")

    def __str__(self) -> str:
        return f"query '{one_line(self.sql)[:60].rstrip()}'"


class Database:
    """
    Two sources, `pool` and `queries`, of one connection pool or engine.

    *client* is a pool of asyncpg, an AsyncConnectionPool of psycopg_pool or an AsyncEngine of
    SQLAlchemy; *name* becomes the label `database` and must be another one for each. A free
    connection is waited for *acquire_timeout* seconds, each statement may take *statement_timeout*
    seconds (at PostgreSQL; elsewhere the sampler's timeout counts). A metric has at most
    *max_series* series. *active_queries* says whether db_active_queries is asked for.

    Raises ConfigError where an argument will not do.
    """

    def __init__(
        self,
        client: object,
        *,
        name: str,
        queries: Iterable[Query] = (),
        active_queries: bool = True,
        acquire_timeout: float = 0.5,
        statement_timeout: float = 2.0,
        max_series: int = MAX_SERIES,
    ) -> None:
        self._pool = pool_of(client)
        name = check_name(name, "database name")
        for option, value in (
            ("acquire_timeout", acquire_timeout),
            ("statement_timeout", statement_timeout),
        ):
            validation.seconds(option, value, at_least=0.001)
        self.name = name
        self._active_queries = active_queries and self._pool.postgres
        self._acquire_timeout = acquire_timeout
        self._statement_timeout = statement_timeout
        self._max_series = max_series
        self._tables = [_Table(query, max_series) for query in queries]
        names = [metric.name for table in self._tables for metric in table.metrics]
        twice = sorted({name for name in names if names.count(name) > 1 or name in FIXED})
        if twice:
            raise ConfigError(f"database {name!r}: metric {twice[0]!r} is made twice")
        self._came_from_idle = False
        self._told_hidden = False

    def __repr__(self) -> str:
        return f"Database({self.name!r})"

    async def pool(self) -> list[Metric]:
        """Return the pool's own numbers; asks the pool object, not the database."""
        counts = self._pool.counts()
        # The connection on which `queries` runs is not one that the service has in use.
        idle, active = counts.idle, counts.active
        if self._pool.holding and active:
            active -= 1
            idle = None if idle is None else idle + self._came_from_idle
        states = {"idle": idle, "active": active, "waiting": counts.waiting}
        size = Metric(POOL_SIZE, "Connections, and requests for one, by state.", "gauge")
        for state, count in states.items():
            if count is not None:
                size.add_sample(POOL_SIZE, {"database": self.name, "state": state}, count)
        most = Metric(POOL_MAX, "Connections that the pool may have.", "gauge")
        if counts.maximum is not None:
            most.add_sample(POOL_MAX, {"database": self.name}, counts.maximum)
        return [family for family in (size, most) if family.samples]

    async def queries(self) -> list[Metric]:
        """
        Return what the database says.

        Raises TimeoutError or ConnectionError where there is no connection to be had, and
        RuntimeError or ValueError, with the query, where a statement fails or gives something else
        than was said.
        """
        if not self._tables and not self._active_queries:
            return []
        await self._room()
        self._came_from_idle = bool(self._pool.counts().idle)
        families: list[Metric] = []
        try:
            async with self._pool.reading(self._acquire_timeout, self._statement_timeout) as fetch:
                if self._active_queries:
                    families.append(await self._active(fetch))
                for table in self._tables:
                    families += await table.read(fetch, self.name, self._max_series)
        except _Failed as error:
            kind = ValueError if error.wrong else RuntimeError
            raise kind(f"database {self.name!r}: {error}") from error.__cause__
        except Exception as error:
            what = "the connection failed" if self._pool.holding else "no connection"
            if isinstance(error, TimeoutError) and not self._pool.holding:
                text = f"no connection within {self._acquire_timeout:g} s"
                raise TimeoutError(f"database {self.name!r}: {text}") from error
            raise ConnectionError(f"database {self.name!r}: {what}: {_said(error)}") from error
        finally:
            self._pool.holding = False
        return families + overflow(metric for table in self._tables for metric in table.metrics)

    async def _room(self) -> None:
        deadline = time.monotonic() + self._acquire_timeout
        while not (counts := self._pool.counts()).free:
            if time.monotonic() >= deadline:
                waiting = "" if counts.waiting is None else f", {counts.waiting} requests wait"
                raise TimeoutError(
                    f"database {self.name!r}: no connection was free within "
                    f"{self._acquire_timeout:g} s: {counts.active} of {counts.maximum} are in use"
                    f"{waiting}"
                )
            await asyncio.sleep(PAUSE)

    async def _active(self, fetch: Fetch) -> Metric:
        _, rows = await _ask(fetch, "the query of pg_stat_activity", ACTIVE, 1)
        [[active, hidden]] = rows
        if hidden and not self._told_hidden:
            self._told_hidden = True
            log.warning(
                "database %r: %s counts the role's own statements only; grant it pg_read_all_stats "
                "for all",
                self.name, ACTIVE_QUERIES,
            )  # fmt: skip
        family = Metric(ACTIVE_QUERIES, "Statements that the database runs for clients.", "gauge")
        family.add_sample(ACTIVE_QUERIES, {"database": self.name}, active)
        return family


POOL_SIZE: Final = "db_connection_pool_size"
POOL_MAX: Final = "db_connection_pool_max_size"
ACTIVE_QUERIES: Final = "db_active_queries"
FIXED: Final = frozenset({POOL_SIZE, POOL_MAX, ACTIVE_QUERIES})


class _Failed(Exception):  # noqa: N818 - never leaves this module
    """A statement that failed, or whose answer is *wrong*."""

    def __init__(self, text: str, *, wrong: bool) -> None:
        super().__init__(text)
        self.wrong = wrong


class _Table:
    """One query and its metrics."""

    def __init__(self, query: object, max_series: int) -> None:
        if not isinstance(query, Query):
            raise ConfigError(f"queries: {query!r} given; expected aiosvc.sources.database.Query")
        self._query = query
        labels = ("database", *query.labels)
        self.metrics = [
            Bounded(name, query.documentation, labels, limit=max_series) for name in query.gauges
        ]

    async def read(self, fetch: Fetch, database: str, max_series: int) -> list[Metric]:
        """Run the query; one row more than there may be series shows that there are too many."""
        query = self._query
        columns, rows = await _ask(fetch, str(query), query.sql, max_series + 1)
        labels = [self._place(name, columns) for name in query.labels]
        families = []
        for metric, column in zip(self.metrics, query.gauges.values(), strict=True):
            place = self._place(column, columns)
            filling = metric.fill()
            try:
                for row in rows:
                    texts = (label_text(row[each]) for each in labels)
                    filling.add((database, *texts), number(row[place]))
            except ValueError as error:
                raise _Failed(f"{query}: column {column!r}: {error}", wrong=True) from None
            families.append(filling.family)
        return families

    def _place(self, column: str, columns: Sequence[str]) -> int:
        found = [place for place, name in enumerate(columns) if name == column]
        if len(found) == 1:
            return found[0]
        if found:
            raise _Failed(f"{self._query}: two columns are named {column!r}", wrong=True)
        raise _Failed(
            f"{self._query}: no column {column!r}; it has {', '.join(columns) or 'none'}"
            f"{did_you_mean(column, columns)}",
            wrong=True,
        )


async def _ask(
    fetch: Fetch, query: str, sql: str, rows: int
) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    try:
        return await fetch(sql, rows)
    except Exception as error:
        raise _Failed(f"{query}: {_said(error)}", wrong=False) from error


def _said(error: BaseException) -> str:
    """Return the driver's own words, without what SQLAlchemy writes around them."""
    original = getattr(error, "orig", None) or error
    return one_line(original) or type(original).__name__
