"""
Queues as the engines make them in PostgreSQL.

The tables have the columns and types that the engine of the version named makes and the statements
read; beside the engines themselves, with their own schemas and workers, the numbers were compared
with what they say.
"""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from postgres import Postgres

from aiosvc.brokers import Oban, PgQueuer, Procrastinate, SAQPostgres, SqlQueue

ABOUT = 9


@pytest.fixture
async def pool(postgres: Postgres) -> AsyncIterator[Any]:
    """Return a pool of a database without tables."""
    async with asyncpg.create_pool(postgres.url(), min_size=1, max_size=2) as pool:
        await pool.execute("drop schema public cascade; create schema public")
        yield pool


async def counts(queue: SqlQueue) -> tuple[float | None, ...]:
    """Return how many are ready, in flight, scheduled and dead."""
    state = await queue.sample()
    return state.ready, state.in_flight, state.scheduled, state.dead


async def procrastinate(pool: Any, schema: str = "public") -> None:
    """Make what procrastinate 3.10 makes."""
    await pool.execute(f"""
        set search_path to {schema};
        create type procrastinate_job_status as enum
            ('todo', 'doing', 'succeeded', 'failed', 'cancelled', 'aborting', 'aborted');
        create type procrastinate_job_event_type as enum ('deferred', 'started', 'retried');
        create table procrastinate_jobs (
            id bigserial primary key,
            queue_name character varying(128) not null,
            status procrastinate_job_status default 'todo' not null,
            scheduled_at timestamp with time zone
        );
        create table procrastinate_events (
            id bigserial primary key,
            job_id bigint not null references procrastinate_jobs on delete cascade,
            type procrastinate_job_event_type,
            at timestamp with time zone default now()
        );
        reset search_path;
    """)


async def job(pool: Any, status: str = "todo", due: int | None = None, ago: int = 0) -> None:
    """Make a job of procrastinate: *due* in so many seconds, made so many seconds ago."""
    await pool.execute(
        "with job as (insert into procrastinate_jobs (queue_name, status, scheduled_at) values"
        " ('it''s', $1::text::procrastinate_job_status, now() + make_interval(secs => $2))"
        " returning id) insert into procrastinate_events (job_id, type, at)"
        " select id, 'deferred', now() - make_interval(secs => $3) from job",
        status, due, ago,
    )  # fmt: skip


async def test_procrastinate(pool: Any) -> None:
    """Procrastinate 3.10: jobs by status, their time, and the event of their making."""
    await procrastinate(pool)
    queue = Procrastinate(pool, "it's")
    assert await counts(queue) == (0, 0, 0, None)
    await job(pool, due=600)
    await job(pool, "doing", ago=500)
    await job(pool, "failed", ago=900)
    await job(pool, "succeeded", ago=900)
    assert await counts(queue) == (0, 1, 1, None)
    assert (await queue.sample()).oldest_age == 0
    await job(pool, ago=60)
    await job(pool, ago=10)
    assert await counts(queue) == (2, 1, 1, None)
    assert (await queue.sample()).oldest_age == pytest.approx(60, abs=ABOUT)
    await job(pool, due=-120, ago=9000)  # a job that was put off waits since then
    assert (await queue.sample()).oldest_age == pytest.approx(120, abs=ABOUT)
    assert await counts(Procrastinate(pool, "it's", dead=True)) == (3, 1, 1, 1)
    assert await counts(Procrastinate(pool, "other", dead=True)) == (0, 0, 0, 0)


async def test_procrastinate_in_a_schema_of_its_own(pool: Any) -> None:
    """The schema may be named where it is not in the search path."""
    await pool.execute('drop schema if exists "my jobs" cascade; create schema "my jobs"')
    await procrastinate(pool, '"my jobs"')
    assert await counts(Procrastinate(pool, schema="my jobs")) == (0, 0, 0, None)
    with pytest.raises(RuntimeError, match="does not exist"):
        await Procrastinate(pool).sample()


async def test_pgqueuer(pool: Any) -> None:
    """PgQueuer 1.6: one table; what failed and is held stays in it."""
    await pool.execute("""
        create type pgqueuer_status as enum
            ('queued', 'picked', 'successful', 'exception', 'canceled', 'deleted', 'failed');
        create table pgqueuer (
            id bigserial primary key,
            entrypoint text not null,
            status pgqueuer_status not null,
            execute_after timestamp with time zone not null default now()
        );
        insert into pgqueuer (entrypoint, status, execute_after)
        select entrypoint, status::pgqueuer_status, now() + make_interval(secs => due)
        from (values ('mail', 'queued', -60), ('mail', 'queued', -5), ('mail', 'queued', 600),
            ('mail', 'picked', -900), ('mail', 'failed', -900), ('sms', 'queued', -300)
        ) as jobs (entrypoint, status, due);
    """)
    queue = PgQueuer(pool, "mail", dead=True)
    assert await counts(queue) == (2, 1, 1, 1)
    assert (await queue.sample()).oldest_age == pytest.approx(60, abs=ABOUT)
    assert await counts(PgQueuer(pool)) == (3, 1, 1, None)
    assert await counts(PgQueuer(pool, "nothing")) == (0, 0, 0, None)


async def test_saq(pool: Any) -> None:
    """SAQ 0.26: times are whole seconds since 1970; workers have an end of their time."""
    await pool.execute("""
        create table saq_jobs (key text primary key, queue text not null, status text not null,
            scheduled bigint not null default extract(epoch from now()));
        create table saq_stats (worker_id text primary key, queue_key text, expire_at bigint);
        insert into saq_jobs (key, queue, status, scheduled)
        select key, 'mails', status, floor(extract(epoch from now())) + due
        from (values ('a', 'queued', -60), ('b', 'queued', 0), ('c', 'queued', 600),
            ('d', 'active', -9), ('e', 'aborting', -9), ('f', 'complete', -99)
        ) as jobs (key, status, due);
        insert into saq_stats select id, 'mails', extract(epoch from now()) + due
        from (values ('a', 60), ('gone', -60)) as workers (id, due);
    """)
    state = await SAQPostgres(pool, "mails").sample()
    assert (state.ready, state.in_flight, state.scheduled, state.consumers) == (2, 2, 1, 1)
    assert state.oldest_age == pytest.approx(60, abs=ABOUT)


async def test_oban(pool: Any) -> None:
    """Oban (Python 0.7, Elixir alike): UTC without a zone, in whatever zone the session is."""
    await pool.execute("""
        create type oban_job_state as enum ('available', 'scheduled', 'suspended', 'executing',
            'retryable', 'completed', 'discarded', 'cancelled');
        create table oban_jobs (
            id bigserial primary key,
            state oban_job_state not null default 'available',
            queue text not null default 'default',
            scheduled_at timestamp without time zone not null default timezone('UTC', now())
        );
        insert into oban_jobs (state, scheduled_at)
        select state::oban_job_state, timezone('UTC', now()) + make_interval(secs => due)
        from (values ('available', -60), ('available', -5), ('scheduled', 600),
            ('retryable', 60), ('retryable', -3), ('executing', -900), ('discarded', -900),
            ('completed', -900), ('suspended', -900)
        ) as jobs (state, due);
        alter database postgres set timezone to 'Asia/Kathmandu';
    """)
    await pool.expire_connections()
    state = await Oban(pool).sample()
    assert (state.ready, state.in_flight, state.scheduled, state.dead) == (3, 1, 2, 1)
    assert state.oldest_age == pytest.approx(60, abs=ABOUT)
