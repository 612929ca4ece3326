"""
One observed service: its registry, request metrics, sampler and queues, started and stopped as one.

Rule: the only place that knows all of these together; adapters for a framework, the runner and the
demo use this object and wire nothing themselves.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, Unpack

from prometheus_client import CollectorRegistry

from aiosvc import catalogue
from aiosvc.brokers import BrokerQueue, SharedQueues
from aiosvc.catalogue import CATALOGUE, QUEUES
from aiosvc.collector import collector_of
from aiosvc.config import Settings
from aiosvc.errors import ConfigError
from aiosvc.eventloop import Stall
from aiosvc.health import Health
from aiosvc.jobs import JobQueue
from aiosvc.jobs.ledger import Ledger
from aiosvc.labels import LabelPolicy
from aiosvc.queues import JobTracker, PoolKeywords, Queues, WorkerPool, check_name
from aiosvc.readings import Readings
from aiosvc.requests import CLASSIC_FAMILIES, OTEL_FAMILIES, RequestMetrics
from aiosvc.runtime import Runtime
from aiosvc.sampling import Sampler
from aiosvc.scrape import Scraper

__all__ = ["Observer"]

#: The metrics that get the user's labels.
LABELLED = (
    *CLASSIC_FAMILIES,
    *OTEL_FAMILIES,
    catalogue.HTTP_RESPONSE_START,
    catalogue.HTTP_FAILURES,
)

Q = TypeVar("Q")
T = TypeVar("T")


class Observer:
    """
    What `aiosvc.setup` returns.

    `registry` is the prometheus_client registry that everything is in; `sampler` takes sources of
    your own; `health` takes checks that /readyz asks; `settings` are the options in force;
    `admin_url` is where the admin server is while it runs. With *of_loop* False the loop that it is
    started on is none of the service's, so nothing is told of that loop. With *of_requests* False
    the program serves none that are measured here: the names of their metrics stay free for its own,
    and those of queues until one is watched.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        settings: Settings,
        health: Health | None = None,
        *,
        of_loop: bool = True,
        of_requests: bool = True,
    ) -> None:
        self.registry = registry
        self.settings = settings
        self.health = Health() if health is None else health
        self.admin_url: str | None = None
        self.collector = collector_of(registry, CATALOGUE if of_requests else ())
        labels = LabelPolicy(settings.labels, self.collector.error)
        self.collector.claim("request duration buckets", settings.duration_bounds)
        self.collector.claim("response start buckets", settings.response_start_bounds)
        self.collector.claim("WebSocket buckets", settings.websocket_bounds)
        self.collector.claim("labels", labels.names)
        for spec in LABELLED:
            self.collector.extend(spec, labels.names)
        self.requests = RequestMetrics(settings, labels)
        self.scraper = Scraper(registry, settings)
        self.sampler = Sampler(
            interval=settings.sample_interval,
            timeout=settings.sample_timeout,
            keep=settings.sample_keep,
            on_error=self.collector.error,
        )
        self._queues = Queues(self.collector.error)
        self._shared = SharedQueues(self.sampler, self._queues.has, samples=settings.sample_brokers)
        self._runtime = Runtime(self.collector, self.sampler, settings, of_loop=of_loop)

    def watch_queue(
        self,
        queue: Q,
        *,
        name: str | None = None,
        waits: bool = True,
        interval: float | None = None,
        timeout: float | None = None,
    ) -> Q:
        """
        Export how *queue* is doing as *name*, in place, and return it unchanged.

        It may be a queue of asyncio, queue or janus or of a subclass, an anyio memory object stream
        or CapacityLimiter, an aiojobs.Scheduler, an executor, or an asyncio.Semaphore. It is held
        weakly. Of the queues also is measured how long items wait, and the age of the oldest; items
        that are there already count as no older than this call, and in no wait. With *waits* False
        items are only counted, which costs less.

        Or it is one of `aiosvc.brokers`, or any other `BrokerQueue`, which is asked every *interval*
        seconds (10) and has *timeout* seconds to answer. While it does not, `aiosvc_source_up` of
        the source *name* is 0, and its metrics go after a few intervals.

        Or it is an `aiosvc.JobQueue`, which has a name already.

        Raises ConfigError for anything else, and where another queue has the name or it holds
        anything but letters, digits, '_', '-' and '.'.
        """
        self._own_queues()
        if isinstance(queue, JobQueue):
            self._watch_jobs(queue, name, interval, timeout)
            return queue
        name = check_name(name)
        if isinstance(queue, BrokerQueue) and not isinstance(queue, type):
            self._shared.watch(queue, name, interval=interval, timeout=timeout)
            return queue
        if interval is not None or timeout is not None:
            raise ConfigError(
                f"queue {name!r}: interval and timeout are for a broker's queue; what is in the "
                "process is read at each scrape"
            )
        self._shared.refuse(name)
        return self._queues.watch(queue, name, waits=waits)

    def _watch_jobs(
        self, queue: JobQueue, name: str | None, interval: float | None, timeout: float | None
    ) -> None:
        if name not in (None, queue.name):
            raise ConfigError(f"name: {name!r} given; the job queue's own name is {queue.name!r}")
        if queue.queue is None:
            self._shared.watch(queue, queue.name, interval=interval, timeout=timeout)
        else:
            self._shared.refuse(queue.name)
            self._queues.watch(queue.queue, queue.name)
        self._queues.include(queue.ledger)

    def track_jobs(
        self, name: str, *, jobs: Iterable[str] = (), slots: int | None = None
    ) -> JobTracker:
        """
        Return what counts and times the jobs of queue *name* that workers of your own process.

        *jobs* are the names that become label values; without any, the first fifty do. *slots* is
        how many jobs can run at once, where that is known. Raises ConfigError for a wrong name.
        """
        self._own_queues()
        return self._queues.track(name, jobs, slots)

    def count_jobs(self, ledger: Ledger) -> None:
        """Export what *ledger* counts, for an adapter of an engine that is not ours."""
        self._own_queues()
        self._queues.include(ledger)

    def worker_pool(
        self,
        queue: Any,
        handler: Callable[[T], Awaitable[object]],
        *,
        name: str,
        **options: Unpack[PoolKeywords],
    ) -> WorkerPool:
        """
        Watch *queue* as *name* and return a pool that calls *handler* with each of its items.

        Start it with `start()`, or with `async with`, which also stops it. The options are the
        fields of `aiosvc.queues.PoolOptions`. Raises ConfigError for a wrong one, and as
        `watch_queue` does.
        """
        self._own_queues()
        return self._queues.pool(queue, handler, name, **options)

    def _own_queues(self) -> None:
        collector_of(self.registry, QUEUES)

    def stalls(self) -> list[Stall]:
        """
        Return the last times that the event loop was held up, at most 100, oldest first.

        Each says when and for how long, and in which line of code; see `aiosvc.eventloop.Stall`.
        One that is under way is the last, so another thread is told while it lasts.
        """
        return self._runtime.stalls()

    def count_connections(self, count: Callable[[], int]) -> None:
        """Sample `active_connections` from *count*, which an adapter calls once."""

        def read() -> Readings:
            readings = Readings()
            readings.number(catalogue.ACTIVE_CONNECTIONS, count())
            return readings

        self.sampler.add_source("connections", read, on_loop=True)

    def begin(self) -> None:
        """Begin sampling on the running loop and be part of the registry's scrapes."""
        self.collector.attach(self.requests)
        self.collector.attach(self._queues)
        self.collector.attach(self.sampler)
        self.collector.attach(self.scraper)
        self._runtime.start()
        self.sampler.start()

    async def start(self) -> None:
        """Begin, and wait a moment for the first sample."""
        self.begin()
        # So that the first scrape has everything.
        await self._runtime.known()

    def abandon(self) -> None:
        """Forget an event loop, or a process, that ended without `stop`; what is counted stays."""
        self.sampler.abandon()
        self._runtime.stop()
        self.scraper.abandon()

    def collect_late(self) -> None:
        """Keep what was counted after the stop, of a request that outlived its server."""
        self.collector.attach(self.requests)
        self.collector.retire(self.requests)
        self.requests.forget()

    async def stop(self) -> None:
        """Stop sampling; what was counted stays in the registry, gauges leave it."""
        await self.sampler.stop()
        self._runtime.stop()
        self.scraper.close()
        self.collector.retire(self.sampler)
        self.collector.retire(self.scraper)
        self.collector.retire(self.requests)
        self.collector.retire(self._queues)
        self.requests.forget()
        self.sampler.forget()
        self._queues.forget()
        self.scraper.forget()
