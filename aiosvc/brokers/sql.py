"""
A queue in a table: one statement, whose one row says how the queue is.

    obs.watch_queue(
        SqlQueue(
            pool,
            "select count(*) filter (where due <= now()) as ready,"
            " count(*) filter (where due > now()) as scheduled,"
            " extract(epoch from now() - min(due)) as oldest_age from outbox where sent_at is null",
        ),
        name="outbox",
    )

Rule: the service's database comes first: the statement has a limit of time, its transaction changes
nothing, and it holds one connection for as long as it runs; `sqlengines` has statements that the
engines' own indexes answer.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final, SupportsFloat

from aiosvc import validation
from aiosvc.brokers.clients import turns
from aiosvc.brokers.state import QueueState
from aiosvc.errors import ConfigError, did_you_mean
from aiosvc.sources.pools import pool_of

__all__ = ["LIMIT", "SqlQueue", "literal", "table"]

FIELDS: Final = tuple(field.name for field in fields(QueueState))

#: Seconds that a connection of the pool is waited for.
WAIT: Final = 2.0

#: Characters of a driver's error that are repeated.
SHOWN: Final = 200

#: Seconds that the statement may take; the database itself ends it.
LIMIT: Final = 2.0


class SqlQueue:
    """
    A queue that *sql* describes.

    *pool* is a pool of asyncpg, an AsyncConnectionPool of psycopg or an AsyncEngine of SQLAlchemy.
    The statement gives one row whose columns are named like the fields of `QueueState`: ready,
    in_flight, scheduled, dead, retained, oldest_age (seconds), consumers, capacity. NULL is unknown,
    but for the age of a queue with nothing ready, which is 0. It may take *limit* seconds, which
    PostgreSQL sees to; elsewhere it is only given up by the sampler's timeout.

    Raises ConfigError where *pool* is none of these.
    """

    backend = "sql"

    def __init__(self, pool: object, sql: str, *, limit: float = LIMIT, wait: float = WAIT) -> None:
        if not isinstance(sql, str) or not sql.strip():
            raise ConfigError(f"{type(self).__name__}: sql: {sql!r} given; expected a statement")
        validation.seconds("limit", limit, at_least=0.001)
        validation.seconds("wait", wait, at_least=0.001)
        self._pool = pool_of(pool)
        self._turns = turns(pool)
        self._sql = sql
        self._limit = limit
        self._wait = wait

    async def sample(self) -> QueueState:
        """
        Return what the statement says.

        Raises ValueError where it gives something else than one row of these columns, and
        RuntimeError with the driver's words where it fails or there is no connection.
        """
        try:
            async with self._turns, self._pool.reading(self._wait, self._limit) as fetch:
                columns, rows = await fetch(self._sql, 2)
        except Exception as error:
            raise RuntimeError(_said(error)) from error
        return _state(columns, rows)


def literal(value: str) -> str:
    """Return a text as a literal of PostgreSQL; raises ConfigError where it is no text of one."""
    if not isinstance(value, str) or "\0" in value:
        raise ConfigError(f"{value!r} given; expected the name of a queue")
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def table(name: str, schema: str | None) -> str:
    """Return a table's name, in *schema* unless that is None, as an identifier of PostgreSQL."""
    parts = (name,) if schema is None else (schema, name)
    if not all(isinstance(part, str) and part and "\0" not in part for part in parts):
        raise ConfigError(f"schema: {schema!r} given; expected the name of a schema, or None")
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _said(error: Exception) -> str:
    """Return the driver's first line, without the statement that SQLAlchemy writes after it."""
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines() or ["no connection in time"]
    return f"{type(original).__name__}: {lines[0][:SHOWN]}"


def _state(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> QueueState:
    for column in columns:
        if column not in FIELDS:
            raise ValueError(
                f"column {column!r}: expected {', '.join(FIELDS)}{did_you_mean(column, FIELDS)}"
            )
    if len(rows) != 1:
        raise ValueError(f"{'no row' if not rows else 'several rows'} came; expected one")
    found = dict(zip(columns, rows[0], strict=True))
    # A numeric of SQL is a Decimal; what is no number at all is left to be refused as it is.
    numbers = {n: float(v) if isinstance(v, SupportsFloat) else v for n, v in found.items()}
    if numbers.get("ready") == 0:
        numbers["oldest_age"] = 0
    return QueueState(**numbers)
