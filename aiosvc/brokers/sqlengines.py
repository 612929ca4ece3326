"""
Queues of the engines that keep their work in PostgreSQL, by their tables.

    obs.watch_queue(Procrastinate(pool, "mails"), name="mails")

Rule: what waits for its time is not ready, and an age begins when it was due. Rule: a statement
reads what is unfinished, by the engine's own partial indexes; history, which only grows, is counted
only where *dead* asks for it, since that reads the whole table.
"""

from aiosvc.brokers.sql import LIMIT, SqlQueue, literal, table

__all__ = ["Oban", "PgQueuer", "Procrastinate", "SAQPostgres"]


class Procrastinate(SqlQueue):
    """A procrastinate queue (3.x); with *dead* its failed jobs too, at the cost of a full scan."""

    backend = "procrastinate"

    def __init__(
        self,
        pool: object,
        queue: str = "default",
        *,
        schema: str | None = None,
        dead: bool = False,
        limit: float = LIMIT,
    ) -> None:
        jobs, events = table("procrastinate_jobs", schema), table("procrastinate_events", schema)
        name = literal(queue)
        due = "status = 'todo' and (scheduled_at is null or scheduled_at <= now())"
        failed = (
            f", (select count(*) from {jobs} where status = 'failed' and queue_name = {name}) as dead"
            if dead
            else ""
        )
        # A job without a time is due since the event of its making; the first has the lowest id.
        super().__init__(
            pool,
            f"""
            select ready, scheduled, in_flight, extract(epoch from now() - least(since, (
                select min(at) from {events} where job_id = first and type = 'deferred'
            ))) as oldest_age{failed}
            from (
                select count(*) filter (where {due}) as ready,
                    count(*) filter (where status = 'todo' and scheduled_at > now()) as scheduled,
                    count(*) filter (where status = 'doing') as in_flight,
                    min(scheduled_at) filter (where {due}) as since,
                    min(id) filter (where status = 'todo' and scheduled_at is null) as first
                from {jobs} where status in ('todo', 'doing') and queue_name = {name}
            ) as unfinished
            """,
            limit=limit,
        )


class PgQueuer(SqlQueue):
    """
    What PgQueuer (1.x) has for one entrypoint, or for all of them.

    With *dead* the jobs that failed and are held too, at the cost of a full scan.
    """

    backend = "pgqueuer"

    def __init__(
        self,
        pool: object,
        entrypoint: str | None = None,
        *,
        schema: str | None = None,
        prefix: str = "",
        dead: bool = False,
        limit: float = LIMIT,
    ) -> None:
        jobs = table(f"{prefix}pgqueuer", schema)
        which = "" if entrypoint is None else f" and entrypoint = {literal(entrypoint)}"
        queued = f"from {jobs} where status = 'queued'{which} and execute_after"
        failed = (
            f", (select count(*) from {jobs} where status = 'failed'{which}) as dead"
            if dead
            else ""
        )
        super().__init__(
            pool,
            f"""
            select (select count(*) {queued} <= now()) as ready,
                (select count(*) {queued} > now()) as scheduled,
                (select count(*) from {jobs} where status = 'picked'{which}) as in_flight,
                (select extract(epoch from now() - min(execute_after)) {queued} <= now())
                    as oldest_age{failed}
            """,
            limit=limit,
        )


class SAQPostgres(SqlQueue):
    """A SAQ queue in PostgreSQL; the workers that have reported in are consumers."""

    backend = "saq"

    def __init__(
        self,
        pool: object,
        queue: str = "default",
        *,
        schema: str | None = None,
        jobs_table: str = "saq_jobs",
        stats_table: str = "saq_stats",
        limit: float = LIMIT,
    ) -> None:
        jobs, stats, name = table(jobs_table, schema), table(stats_table, schema), literal(queue)
        now = "extract(epoch from now())"
        queued = f"from {jobs} where status = 'queued' and queue = {name} and scheduled"
        super().__init__(
            pool,
            f"""
            select (select count(*) {queued} <= {now}) as ready,
                (select count(*) {queued} > {now}) as scheduled,
                (select count(*) from {jobs}
                    where status in ('active', 'aborting') and queue = {name}) as in_flight,
                (select count(*) from {stats}
                    where queue_key = {name} and expire_at >= {now}) as consumers,
                (select {now} - min(scheduled) {queued} <= {now}) as oldest_age
            """,
            limit=limit,
        )


class Oban(SqlQueue):
    """An Oban queue, of Elixir or Python; discarded jobs, until they are pruned, are dead."""

    backend = "oban"

    def __init__(
        self,
        pool: object,
        queue: str = "default",
        *,
        schema: str | None = None,
        limit: float = LIMIT,
    ) -> None:
        jobs, name = table("oban_jobs", schema), literal(queue)
        now = "timezone('utc', now())"  # its columns have no zone
        counted = f"select count(*) from {jobs} where queue = {name} and state"
        later = f"in ('scheduled', 'retryable') and scheduled_at > {now}"
        waiting = "in ('available', 'scheduled', 'retryable')"
        super().__init__(
            pool,
            f"""
            select ({counted} {waiting} and scheduled_at <= {now}) as ready,
                ({counted} {later}) as scheduled,
                ({counted} = 'executing') as in_flight,
                ({counted} = 'discarded') as dead,
                (select extract(epoch from {now} - min(scheduled_at)) from {jobs}
                    where queue = {name} and state {waiting} and scheduled_at <= {now})
                    as oldest_age
            """,
            limit=limit,
        )
