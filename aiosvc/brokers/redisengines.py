"""
Queues of the engines that keep their work in Redis, by the keys and types that each one uses.

    obs.watch_queue(Celery(client, "celery"), name="mails")

Rule: an engine is read about, never imported, and what it does not keep apart is said here. Rule: a
job that waits for its time is scheduled until then, and ready from then on, even where no worker is
alive to move it; that is when it matters.
"""

from functools import reduce
from operator import add
from typing import Any, Final

from aiosvc import validation
from aiosvc.brokers.redis import RedisList, RedisQueue, RedisStream, due, streamed
from aiosvc.brokers.redisclient import Command, Plan, together
from aiosvc.brokers.redisreplies import document, scored, text, time_of
from aiosvc.brokers.state import QueueState
from aiosvc.errors import ConfigError

__all__ = [
    "RQ",
    "SAQ",
    "Arq",
    "BullMQ",
    "Celery",
    "Docket",
    "Dramatiq",
    "Streaq",
    "TaskiqList",
    "TaskiqStream",
]

#: Jobs, or workers, that are looked at one by one, and at how many in one round trip.
CAP: Final = 300
PAGE: Final = 50

MS: Final = 1000.0


class Arq(RedisQueue):
    """
    An arq queue; *queue* is its key.

    arq leaves a running job where it waited and marks it by a key of its own. The first 300 due
    jobs are looked at for that, and workers take the first ones first: with more than that running,
    the rest count as ready.
    """

    backend = "arq"

    def __init__(self, client: object, queue: str = "arq:queue") -> None:
        super().__init__(client)
        self._queue = queue

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for the sorted set, and for the marks of those of its jobs that are due."""
        limit = ("-inf", repr(now * MS))
        state, [jobs] = yield from together(
            due(self._queue, now, MS),
            _asked(("ZRANGEBYSCORE", self._queue, *limit, "WITHSCORES", "LIMIT", 0, CAP)),
        )
        marks: list[int] = []
        looked_at = scored(jobs)
        for place in range(0, len(looked_at), PAGE):
            page = looked_at[place : place + PAGE]
            marks += yield [("EXISTS", f"arq:in-progress:{job}") for job, _ in page]
        waiting = [score for (_, score), mark in zip(looked_at, marks, strict=True) if not mark]
        running = sum(marks)
        return QueueState(
            ready=(state.ready or 0) - running,
            in_flight=running,
            scheduled=state.scheduled,
            oldest_age=_since(
                now, (state.ready or 0) - running, time_of(min(waiting, default=None), MS)
            ),
        )


class RQ(RedisQueue):
    """An RQ queue; what failed and is kept is dead, and workers that listen are consumers."""

    backend = "rq"

    def __init__(self, client: object, queue: str = "default", *, prefix: str = "rq") -> None:
        super().__init__(client)
        self._queue = queue
        self._prefix = prefix

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for the list, the registries and the first job."""
        name, prefix = self._queue, self._prefix
        later, (waiting, running, failed, workers, first) = yield from together(
            due(f"{prefix}:scheduled:{name}", now, 1.0),
            _asked(
                ("LLEN", f"{prefix}:queue:{name}"),
                ("ZCARD", f"{prefix}:wip:{name}"),
                ("ZCARD", f"{prefix}:failed:{name}"),
                ("SCARD", f"{prefix}:workers:{name}"),
                ("LINDEX", f"{prefix}:queue:{name}", 0),
            ),
        )
        queued_at = None
        if first is not None:
            [queued_at] = yield [("HGET", f"{prefix}:job:{text(first)}", "enqueued_at")]
        state = QueueState(
            ready=waiting,
            in_flight=running,
            dead=failed,
            consumers=workers,
            oldest_age=_since(now, waiting, time_of(queued_at)),
        )
        return _sum(state, later)


class Celery(RedisQueue):
    """
    A queue of Celery, or of anything else on kombu, in Redis.

    kombu keeps one list for each priority step. What workers have taken is in one hash for all
    queues of the database, those with an ETA or countdown included: give *unacked* its key,
    `unacked` unless you changed it, where this is the database's only queue; in flight is unknown
    otherwise. How long a task waits is not in its message.
    """

    backend = "celery"

    def __init__(
        self,
        client: object,
        queue: str = "celery",
        *,
        unacked: str | None = None,
        priorities: tuple[int, ...] = (0, 3, 6, 9),
        separator: str = "\x06\x16",
        prefix: str = "",
    ) -> None:
        super().__init__(client)
        if not priorities:
            raise ConfigError("Celery: priorities: () given; expected the steps, like (0, 3, 6, 9)")
        self._keys = [
            f"{prefix}{queue}{separator}{step}" if step else f"{prefix}{queue}"
            for step in priorities
        ]
        self._unacked = None if unacked is None else f"{prefix}{unacked}"

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for the lengths of all priorities' lists."""
        del now  # no message says when it was sent
        lengths = yield [("LLEN", key) for key in self._keys]
        taken = None
        if self._unacked is not None:
            [taken] = yield [("HLEN", self._unacked)]
        ready = sum(lengths)
        return QueueState(ready=ready, in_flight=taken, oldest_age=None if ready else 0)


class Dramatiq(RedisQueue):
    """
    A dramatiq queue with its delayed and dead letters.

    Workers take delayed messages into their memory before they are due; these are scheduled too.
    With more than 300 workers, in flight and scheduled are unknown.
    """

    backend = "dramatiq"

    def __init__(
        self, client: object, queue: str = "default", *, namespace: str = "dramatiq"
    ) -> None:
        super().__init__(client)
        self._queue = queue
        self._namespace = namespace

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for the lists and the workers, then for what each one holds."""
        space, name = self._namespace, self._queue
        waiting, delayed, dead, workers, first = yield [
            ("LLEN", f"{space}:{name}"),
            ("LLEN", f"{space}:{name}.DQ"),
            ("ZCARD", f"{space}:{name}.XQ"),
            ("ZRANGE", f"{space}:__heartbeats__", 0, CAP),
            ("LINDEX", f"{space}:{name}", 0),
        ]
        acks = [f"{space}:__acks__.{text(worker)}" for worker in workers]
        moment = held = held_delayed = None
        if first is not None:
            [message] = yield [("HGET", f"{space}:{name}.msgs", first)]
            moment = _dramatiq_time(document(message))
        if len(acks) <= CAP:
            held = held_delayed = 0
            for place in range(0, len(acks), PAGE):
                page = acks[place : place + PAGE]
                held += sum((yield [("SCARD", f"{each}.{name}") for each in page]))
                held_delayed += sum((yield [("SCARD", f"{each}.{name}.DQ") for each in page]))
        return QueueState(
            ready=waiting,
            in_flight=held,
            scheduled=None if held_delayed is None else delayed + held_delayed,
            dead=dead,
            oldest_age=_since(now, waiting, moment),
        )


class BullMQ(RedisQueue):
    """
    A BullMQ queue, of Node.js or Python; jobs of a paused queue are ready, failed ones are dead.

    The age is that of the job that is next, unless there are prioritized jobs or it is a retry:
    these do not say since when they wait.
    """

    backend = "bullmq"

    def __init__(self, client: object, queue: str, *, prefix: str = "bull") -> None:
        super().__init__(client)
        self._key = f"{prefix}:{queue}:"

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for every state's list or sorted set, and for the next job."""
        key = self._key
        # A delayed job's score is its time in ms, times 4096, and a part of a counter.
        limit = str(int(now * MS) * 4096 + 4095)
        wait, paused, prioritized, overdue, later, active, failed, done, parents, first = yield [
            ("LLEN", f"{key}wait"),
            ("LLEN", f"{key}paused"),
            ("ZCARD", f"{key}prioritized"),
            ("ZCOUNT", f"{key}delayed", "-inf", limit),
            ("ZCOUNT", f"{key}delayed", f"({limit}", "+inf"),
            ("LLEN", f"{key}active"),
            ("ZCARD", f"{key}failed"),
            ("ZCARD", f"{key}completed"),
            ("ZCARD", f"{key}waiting-children"),
            ("LINDEX", f"{key}wait", -1),
        ]
        ready = wait + paused + prioritized + overdue
        moment = None
        if first is not None and ready == wait:
            [job] = yield [("HMGET", f"{key}{text(first)}", "timestamp", "opts", "atm")]
            moment = _bullmq_time(*job)
        return QueueState(
            ready=ready,
            in_flight=active,
            scheduled=later,
            dead=failed,
            retained=ready + later + active + failed + done + parents,
            oldest_age=_since(now, ready, moment),
        )


class SAQ(RedisQueue):
    """A SAQ queue; the workers that have reported in are consumers."""

    backend = "saq"

    def __init__(self, client: object, queue: str = "default") -> None:
        super().__init__(client)
        self._queue = queue

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for the lists, for what is put off, and for the next job."""
        key = f"saq:{self._queue}:"
        later, (queued, active, workers, first) = yield from together(
            # The score of what is not put off is 0.
            due(f"{key}incomplete", now, 1.0, at_least="(0"),
            _asked(
                ("LLEN", f"{key}queued"),
                ("LLEN", f"{key}active"),
                ("ZCOUNT", f"{key}stats", repr(now * MS), "+inf"),
                ("LINDEX", f"{key}queued", 0),
            ),
        )
        moment = None
        if first is not None:
            [job] = yield [("GET", first)]
            found = document(job)
            # A time that something was put off to is in seconds, the others are in ms.
            times = [time_of(found.get("queued"), MS), time_of(found.get("scheduled"))]
            moment = max((each for each in times if each is not None), default=None)
        state = QueueState(
            ready=queued,
            in_flight=active,
            consumers=workers,
            oldest_age=_since(now, queued, moment),
        )
        return _sum(state, later)


class Streaq(RedisQueue):
    """A streaq queue, of all its *priorities*."""

    backend = "streaq"

    def __init__(
        self, client: object, queue: str = "default", *, priorities: tuple[str, ...] = ("default",)
    ) -> None:
        super().__init__(client)
        given: object = priorities  # a lone string would be a tuple of its letters
        if isinstance(given, str) or not priorities:
            raise validation.wrong("priorities", priorities, "a tuple, like ('high', 'low')")
        self._key = f"streaq:{queue}:queues:"
        self._priorities = priorities

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for each priority's stream and for what is put off."""
        states = yield from together(
            *(
                streamed(f"{self._key}{each}", "workers", now, deletes=True)
                for each in self._priorities
            ),
            *(due(f"{self._key}delayed:{each}", now, MS) for each in self._priorities),
        )
        return _sum(*states)


class Docket(RedisQueue):
    """A docket (pydocket) of this name."""

    backend = "docket"

    def __init__(self, client: object, name: str = "docket") -> None:
        super().__init__(client)
        # Of a cluster, docket keeps all keys in one slot.
        self._key = f"{{{name}}}" if self._client.is_cluster else name

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for the stream and for what is put off."""
        stream, later = yield from together(
            streamed(f"{self._key}:stream", "docket-workers", now, deletes=True),
            due(f"{self._key}:queue", now, 1.0),
        )
        return _sum(stream, later)


class TaskiqStream(RedisStream):
    """
    The stream of taskiq-redis's RedisStreamBroker.

    A worker fetches ahead, 100 tasks unless its broker has an `xread_count`: those count as in
    flight. The broker deletes nothing, so what is retained only grows without a `maxlen`.
    """

    backend = "taskiq"

    def __init__(self, client: object, queue: str = "taskiq", *, group: str = "taskiq") -> None:
        super().__init__(client, queue, group=group)


class TaskiqList(RedisList):
    """The list of taskiq-redis's ListQueueBroker, whose tasks say nothing about their age."""

    backend = "taskiq"

    def __init__(self, client: object, queue: str = "taskiq") -> None:
        super().__init__(client, queue)


def _asked(*commands: Command) -> Plan[list[Any]]:
    replies = yield commands
    return replies


def _sum(*states: QueueState) -> QueueState:
    return reduce(add, states)


def _since(now: float, ready: float, moment: float | None) -> float | None:
    """Return the age of what waits since *moment*: 0 where nothing is ready, None for unknown."""
    if ready <= 0:
        return 0.0
    return None if moment is None else max(0.0, now - moment)


def _dramatiq_time(message: dict[str, Any]) -> float | None:
    options = message.get("options")
    eta = options.get("eta") if isinstance(options, dict) else None
    times = [time_of(message.get("message_timestamp"), MS), time_of(eta, MS)]
    return max((each for each in times if each is not None), default=None)


def _bullmq_time(timestamp: Any, options: Any, attempts: Any) -> float | None:
    added = time_of(timestamp, MS)
    if added is None or int(attempts or 0):
        return None
    delay = document(options).get("delay")
    return added + (delay / MS if isinstance(delay, int | float) else 0)
