"""
Redis's lists, sorted sets and streams as queues; `redisengines` has what engines make of them.

    obs.watch_queue(RedisStream(client, "orders", group="workers"), name="orders")
    obs.watch_queue(RedisList("redis://localhost:6379/0", "mails"), name="mails")

Rule: Redis deletes what is empty, so a key that is not there is a queue without items; a key of
another type is an error.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiosvc import validation
from aiosvc.brokers.redisclient import Command, Plan, RedisClient
from aiosvc.brokers.redisreplies import entry_time, following, pairs, scored, text, time_of
from aiosvc.brokers.state import QueueState
from aiosvc.errors import ConfigError, did_you_mean

__all__ = ["RedisList", "RedisQueue", "RedisSortedSet", "RedisStream", "age", "due", "streamed"]

log = logging.getLogger("aiosvc.brokers")

#: Entries of a stream that one batch brings to be counted, and how many are counted at most.
PAGE: Final = 50
CAP: Final = 1000

#: How many units of a score are a second.
UNITS: Final = {"s": 1.0, "ms": 1000.0}


class RedisQueue:
    """
    What all queues in Redis have in common: a client, or a URL, and a plan of what to ask.

    Raises ConfigError where *client* is neither. Of a cluster, each key may be on any server.
    """

    backend = "redis"

    def __init__(self, client: object) -> None:
        try:
            self._client = RedisClient(client)
        except ConfigError as error:
            raise ConfigError(f"{type(self).__name__}: {error}") from error.__cause__

    def plan(self, now: float) -> Plan[QueueState]:
        """Yield batches of commands and return the state; *now* is the server's Unix time."""
        raise NotImplementedError

    async def sample(self) -> QueueState:
        """Return how the queue is now."""
        return await self._client.run(self.plan)

    async def close(self) -> None:
        """Close the connection if it was made for a URL."""
        await self._client.close()


class RedisList(RedisQueue):
    """
    A list, or several that are one queue, such as one for each priority.

    Items in a list say nothing about their age. Where yours do, *queued_at* takes one, as bytes, and
    returns the Unix time at which it was queued, or None; it is given the item that is taken next,
    which is at the `tail` unless *oldest* says `head`. What was popped has left the list, so in
    flight is unknown.
    """

    backend = "redis_list"

    def __init__(
        self,
        client: object,
        *keys: str,
        queued_at: Callable[[bytes], float | None] | None = None,
        oldest: str = "tail",
    ) -> None:
        super().__init__(client)
        if not keys:
            raise ConfigError("RedisList: no key given; expected the key of the list")
        validation.one_of("oldest", oldest, ("head", "tail"))
        self._keys = keys
        self._queued_at = queued_at
        self._place = 0 if oldest == "head" else -1

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for the lengths, and for the next items where they say their age."""
        asked: list[Command] = [("LLEN", key) for key in self._keys]
        if self._queued_at is not None:
            asked += [("LINDEX", key, self._place) for key in self._keys]
        replies = yield asked
        lengths, items = replies[: len(self._keys)], replies[len(self._keys) :]
        oldest_age: float | None = 0
        if sum(lengths):
            oldest_age = age(now, [self._time(item) for item in items if item is not None])
        return QueueState(ready=sum(lengths), oldest_age=oldest_age)

    def _time(self, item: bytes) -> float | None:
        return None if self._queued_at is None else self._queued_at(item)


class RedisSortedSet(RedisQueue):
    """
    A sorted set whose scores are the times at which items become due, in *unit*: `s` or `ms`.

    Items that are due are ready, the others are scheduled.
    """

    backend = "redis_zset"

    def __init__(self, client: object, key: str, *, unit: str = "s") -> None:
        super().__init__(client)
        validation.one_of("unit", unit, tuple(UNITS))
        self._key = key
        self._units = UNITS[unit]

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for both counts, and for the first item."""
        return (yield from due(self._key, now, self._units))


class RedisStream(RedisQueue):
    """
    A stream that the consumer group *group* reads.

    Items that the group has not been given yet are ready; those that it was given and has not
    acknowledged are in flight, which includes what a worker fetched ahead and what a dead one left.
    Everything that is in the stream is retained. Where the group does not exist, all of it is ready.

    How many are ready is the server's `lag` where that is known and true: servers before Redis 7
    don't have it, and it is unknown, or too large, after unread entries were deleted or trimmed.
    Then they are counted, up to *cap*, so a depth of *cap* means that many or more; it brings them
    over the wire, so give large entries a smaller one. A group whose workers delete what they
    acknowledge (*deletes*) needs no counting: what is there and is not in flight is ready.
    """

    backend = "redis_stream"

    def __init__(
        self, client: object, key: str, *, group: str, cap: int = CAP, deletes: bool = False
    ) -> None:
        super().__init__(client)
        validation.whole("cap", cap, at_least=1)
        validation.yes_or_no("deletes", deletes)
        self._key = key
        self._group = group
        self._cap = cap
        self._deletes = deletes
        self._told: set[str] = set()

    def plan(self, now: float) -> Plan[QueueState]:
        """Ask for the group and the length; and for the next item if there is one."""
        return (
            yield from streamed(
                self._key, self._group, now, cap=self._cap, deletes=self._deletes, tell=self._tell
            )
        )

    def _tell(self, kind: str, message: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            log.warning("stream %r: %s", self._key, message)


def due(key: str, now: float, units: float, *, at_least: str = "-inf") -> Plan[QueueState]:
    """
    Read a sorted set whose scores are times, *units* to the second.

    Items whose score is below *at_least*, in the syntax of ZCOUNT, are left out.
    """
    limit = repr(now * units)
    ready, scheduled, first = yield [
        ("ZCOUNT", key, at_least, limit),
        ("ZCOUNT", key, f"({limit}", "+inf"),
        ("ZRANGEBYSCORE", key, at_least, limit, "WITHSCORES", "LIMIT", 0, 1),
    ]
    times = [time_of(score, units) for _, score in scored(first)]
    return QueueState(ready=ready, scheduled=scheduled, oldest_age=age(now, times) if ready else 0)


def streamed(
    key: str,
    group: str,
    now: float,
    *,
    cap: int = CAP,
    deletes: bool = False,
    tell: Callable[[str, str], None] = lambda _kind, _message: None,
) -> Plan[QueueState]:
    """Read a stream as `RedisStream` says; *tell* gets what an operator should know."""
    groups, length = yield [("XINFO", "GROUPS", key), ("XLEN", key)]
    known = {text(each["name"]): each for each in map(pairs, groups or ())}
    found = known.get(group)
    if found is None:
        if length:
            names = ", ".join(sorted(known)) or "none"
            hint = did_you_mean(group, known)
            tell("group", f"no group {group!r} (there is {names}); all of it is waiting{hint}")
        found = {"pending": 0, "last-delivered-id": "0-0", "lag": length}
    pending, lag = int(found["pending"]), found.get("lag")
    if lag == 0:
        return QueueState(ready=0, in_flight=pending, retained=length, oldest_age=0)
    after = following(text(found["last-delivered-id"]))
    next_entries, described = yield [
        ("XRANGE", key, after, "+", "COUNT", 1),
        ("XINFO", "STREAM", key),
    ]
    if not next_entries or described is None:
        return QueueState(ready=0, in_flight=pending, retained=length, oldest_age=0)
    stream = pairs(described)
    length, first = int(stream["length"]), text(stream["first-entry"][0])
    upcoming = text(next_entries[0][0])
    lost = _lost(stream, found)
    if lost:
        tell("lost", f"{lost} or more entries were trimmed or deleted unread by group {group!r}")
    if first == upcoming:
        ready = length  # the group has not been given any of what is there
    elif deletes:
        ready = max(0, length - pending)
    elif lag is not None and not lost:
        ready = min(int(lag), length)
    else:
        ready = yield from _counted(key, after, min(cap, length))
    oldest_age = age(now, [entry_time(upcoming)])
    return QueueState(ready=ready, in_flight=pending, retained=length, oldest_age=oldest_age)


def _lost(stream: dict[str, Any], group: dict[str, Any]) -> int:
    # Of the entries that are no longer there, the group can't have read more than it read at all.
    added, read = stream.get("entries-added"), group.get("entries-read")
    if added is None or read is None:
        return 0
    return max(0, int(added) - int(stream["length"]) - int(read))


def _counted(key: str, after: str, cap: int) -> Plan[int]:
    counted = 0
    while counted < cap:
        [entries] = yield [("XRANGE", key, after, "+", "COUNT", min(PAGE, cap - counted))]
        if not entries:
            break
        counted += len(entries)
        after = following(text(entries[-1][0]))
    return counted


def age(now: float, times: Sequence[float | None]) -> float | None:
    """Return the seconds since the earliest of *times*; None where one of them is unknown, or none."""
    known = [moment for moment in times if moment is not None and math.isfinite(moment)]
    return max(0.0, now - min(known)) if known and len(known) == len(times) else None
