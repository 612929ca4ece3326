"""
The numbers of requests that the application makes of others.

Rule: knows no framework; names, seconds and states in, numbers out. Rule: no label grows: a host is
one of the list it was given, or `_other`; a method, a status and an error one of a closed set.

Theory of operation. A request that is under way is a `Call`, which its client keeps for as long as
there is something to come. Here it is known by a weak reference only, so a call whose end nobody
tells leaves the gauges when it is collected, and nothing can leak. What has ended is in plain
numbers, written by the threads of the clients' event loops and read from any; a histogram's sum may
be ahead of its buckets by what is just being added.
"""

from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final
from weakref import ref

from yarl import URL

from aiosvc import catalogue
from aiosvc.errors import ConfigError
from aiosvc.readings import Distribution, Readings
from aiosvc.series import OTHER

__all__ = ["CONNECTED", "STARTED", "WAITING", "Call", "Hosts", "Outbound"]

METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
)
#: The registered ones, nginx's and Cloudflare's.
STATUSES: Final = {
    status: str(status) for status in (*map(int, HTTPStatus), 444, 499, *range(520, 528), 530)
}

#: Hosts whose label is kept; others are looked for again.
KNOWN_HOSTS: Final = 1000

FAMILIES: Final = (
    catalogue.CLIENT_DURATION,
    catalogue.CLIENT_RESPONSE_START,
    catalogue.CLIENT_IN_PROGRESS,
    catalogue.CLIENT_REDIRECTS,
    catalogue.CLIENT_CONNECT,
    catalogue.CLIENT_DNS,
    catalogue.CLIENT_REUSED,
)

STARTED: Final = 0
WAITING: Final = 1
CONNECTED: Final = 2


class Call:
    """One request that is under way: who is asked, since when, and how far it has come."""

    __slots__ = ("__weakref__", "begun", "host", "method", "since", "state")

    def __init__(self) -> None:
        self.method = ""
        self.host = ""
        self.begun = 0.0
        #: When the last of what is measured within it began.
        self.since = 0.0
        self.state = STARTED


class Hosts:
    """
    The labels of hosts: exact names, and groups like '*.example.com', which are labels themselves.

    '*.example.com' stands for every host below example.com. Raises ConfigError for anything else.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        if isinstance(allowed, str):
            raise ConfigError(f"hosts: {allowed!r} given; expected a list, like [{allowed!r}]")
        self.allowed = tuple(allowed)
        names = [(_name_of(each), each) for each in self.allowed]
        self._exact = {name: each for name, each in names if not each.startswith("*.")}
        groups = [(f".{name}", each) for name, each in names if each.startswith("*.")]
        # The longest is the closest.
        self._groups = sorted(groups, key=lambda group: -len(group[0]))
        self._known: dict[str, str] = {}

    def label(self, host: str | None) -> str:
        """Return the label of *host*."""
        if not host:
            return OTHER
        known = self._known.get(host)
        if known is None:
            known = self._found(_plain(host))
            if len(self._known) < KNOWN_HOSTS:
                self._known[host] = known
        return known

    def _found(self, host: str) -> str:
        exact = self._exact.get(host)
        if exact is not None:
            return exact
        return next((label for end, label in self._groups if host.endswith(end)), OTHER)


class _Times:
    """A histogram's numbers."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.sum += seconds
        self.counts[bisect_left(self.bounds, seconds)] += 1

    def read(self) -> Distribution:
        return Distribution(self.bounds, tuple(self.counts), self.sum)


class Outbound:
    """All requests of one client, or of several that go by the same *name*."""

    def __init__(self, name: str, hosts: Hosts, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.hosts = hosts
        self.bounds = bounds
        self._ended: dict[tuple[str, str, str, str], _Times] = {}
        self._started: dict[tuple[str, str], _Times] = {}
        self._connects: dict[str, _Times] = {}
        self._lookups: dict[str, _Times] = {}
        self._waits = _Times(catalogue.CLIENT_WAIT.buckets)
        self._redirects: dict[tuple[str, str], int] = {}
        self._reused: dict[str, int] = {}
        self._open: dict[int, ref[Call]] = {}
        self._pools: dict[int, ref[Any]] = {}

    def begin(self, call: Call, method: str, host: str | None, now: float) -> None:
        """Count *call* as under way from *now* on, in seconds of a monotonic clock."""
        call.method = method if method in METHODS else OTHER
        call.host = self.hosts.label(host)
        call.begun = call.since = now
        key, known = id(call), self._open
        known[key] = ref(call, lambda _: known.pop(key, None))

    def headers(self, call: Call, now: float) -> None:
        """Note that the headers of the last response are there."""
        key = call.method, call.host
        times = self._started.get(key)
        if times is None:
            times = self._started.setdefault(key, _Times(self.bounds))
        times.add(now - call.begun)

    def end(self, call: Call, status: int | None, error: str, now: float) -> None:
        """Count *call* as ended, once: with *status*, None without one, and how it failed, or ''."""
        if self._open.pop(id(call), None) is None:
            return
        known = "" if status is None else STATUSES.get(status, OTHER)
        key = call.method, call.host, known, error
        times = self._ended.get(key)
        if times is None:
            times = self._ended.setdefault(key, _Times(self.bounds))
        times.add(now - call.begun)

    def redirected(self, call: Call) -> None:
        """Count a redirect that is followed."""
        key = call.method, call.host
        self._redirects[key] = self._redirects.get(key, 0) + 1

    def waiting(self, call: Call, now: float) -> None:
        """Note that *call* waits for a connection."""
        call.state = WAITING
        call.since = now

    def waited(self, call: Call, now: float) -> None:
        """Note that it does no longer."""
        call.state = STARTED
        self._waits.add(now - call.since)

    def connecting(self, call: Call, pool: object, now: float) -> None:
        """Note that a connection is being opened, in *pool*, which has `limit` and `closed`."""
        call.state = CONNECTED
        call.since = now
        key, known = id(pool), self._pools
        if key not in known:
            known[key] = ref(pool, lambda _: known.pop(key, None))

    def connected(self, call: Call, now: float) -> None:
        """Note that the connection is open."""
        _times(self._connects, call.host).add(now - call.since)

    def reused(self, call: Call) -> None:
        """Note that an open connection was found."""
        call.state = CONNECTED
        self._reused[call.host] = self._reused.get(call.host, 0) + 1

    def resolved(self, call: Call, seconds: float) -> None:
        """Note how long it took to resolve the host's name."""
        _times(self._lookups, call.host).add(seconds)

    def report(self, readings: Readings) -> None:
        """Add what is known now."""
        readings.declare(*FAMILIES)
        for key, times in list(self._ended.items()):
            readings.distribution(catalogue.CLIENT_DURATION, times.read(), key)
        for pair, times in list(self._started.items()):
            readings.distribution(catalogue.CLIENT_RESPONSE_START, times.read(), pair)
        for pair, count in list(self._redirects.items()):
            readings.number(catalogue.CLIENT_REDIRECTS, count, pair)
        for host, times in list(self._connects.items()):
            readings.distribution(catalogue.CLIENT_CONNECT, times.read(), (host,))
        for host, times in list(self._lookups.items()):
            readings.distribution(catalogue.CLIENT_DNS, times.read(), (host,))
        for host, count in list(self._reused.items()):
            readings.number(catalogue.CLIENT_REUSED, count, (host,))
        readings.distribution(catalogue.CLIENT_WAIT, self._waits.read(), (self.name,))
        self._report_open(readings)

    def _report_open(self, readings: Readings) -> None:
        calls = [call for each in list(self._open.values()) if (call := each()) is not None]
        # A series that has been there stays, at 0.
        running = {(method, host): 0 for method, host, *_ in list(self._ended)}
        for call in calls:
            pair = call.method, call.host
            running[pair] = running.get(pair, 0) + 1
        for pair, count in running.items():
            readings.number(catalogue.CLIENT_IN_PROGRESS, count, pair)
        states = [call.state for call in calls]
        client = (self.name,)
        readings.number(catalogue.CLIENT_POOL_ACQUIRED, states.count(CONNECTED), client)
        readings.number(catalogue.CLIENT_POOL_WAITING, states.count(WAITING), client)
        pools = [pool for each in list(self._pools.values()) if (pool := each()) is not None]
        limits = [pool.limit for pool in pools if not pool.closed]
        if limits and all(limits):
            readings.number(catalogue.CLIENT_POOL_LIMIT, sum(limits), client)


def _times(known: dict[str, _Times], host: str) -> _Times:
    times = known.get(host)
    if times is None:
        times = known.setdefault(host, _Times(catalogue.DURATION_BUCKETS))
    return times


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def _name_of(allowed: object) -> str:
    """Return the name in one of the hosts that are *allowed*, as it is in an URL's `host`."""
    name = allowed.removeprefix("*.") if isinstance(allowed, str) else ""
    found = None
    if "*" not in name and not name.startswith(".") and _plain(name):
        with suppress(ValueError):
            found = URL.build(scheme="http", host=name).host
    if not found:
        raise ConfigError(
            f"hosts: {allowed!r} given; expected a host's name like 'api.example.com', or a group "
            "of them like '*.example.com', without scheme, port or path"
        )
    return _plain(found)
