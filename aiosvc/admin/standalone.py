"""
Metrics of a program that is no aiohttp application: one call, and it serves them.

Rule: the program's own threads and event loops, if it has any, are left alone; the sampler runs in
the admin server's.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Unpack

from prometheus_client import REGISTRY, CollectorRegistry

from aiosvc import validation
from aiosvc.admin.options import AdminOptions, ProtectionOptions
from aiosvc.admin.server import AdminServer
from aiosvc.config import Settings, make
from aiosvc.endpoint import metrics_handler
from aiosvc.health import Health
from aiosvc.scrape import Scraper
from aiosvc.service import Observer

__all__ = ["MetricsServer", "start_metrics_server"]


class MetricsServer:
    """
    What `start_metrics_server` returns.

    `url` and `port` are where it listens, `observer` takes queues and sources to watch, `health`
    takes checks. Like what prometheus_client's `start_http_server` returns, it can be taken apart
    into a server, which has `shutdown`, and a thread.
    """

    def __init__(self, server: AdminServer, observer: Observer, scraper: Scraper) -> None:
        self.observer = observer
        self.health = server.health
        self.port = self.server_port = server.port
        self.url = server.url
        self._server = server
        self._scraper = scraper
        self._running = True

    @property
    def thread(self) -> threading.Thread:
        """The thread that serves; it does not keep the program from ending."""
        assert self._server.thread is not None
        return self._server.thread

    def stop(self) -> None:
        """Stop serving and sampling; a second time changes nothing."""
        if self._running:
            self._running = False
            self.health.set_draining()
            with contextlib.suppress(RuntimeError):  # it ended by itself
                self._server.call(self.observer.stop())
            self._server.stop()
            self._scraper.close()
            self.observer.collector.retire(self._scraper)
            self.observer.collector.retire(self._server)
            self.observer.admin_url = None

    shutdown = server_close = stop

    def __iter__(self) -> Iterator["MetricsServer | threading.Thread"]:
        yield self
        yield self.thread


def start_metrics_server(
    port: int,
    addr: str = "127.0.0.1",
    *,
    registry: CollectorRegistry = REGISTRY,
    settings: Settings | None = None,
    health: Health | None = None,
    **options: Unpack[ProtectionOptions],
) -> MetricsServer:
    """
    Serve the metrics in *registry* at http://*addr*:*port*/metrics, and return when it does.

    Port 0 takes a free one, which the result has as `port`. Everything is done in a thread of its
    own. The options are the fields of `aiosvc.admin.AdminOptions` that concern protection, such as
    *web_config*, a file with TLS and users as Prometheus's exporters have it.

    The program's own metrics may have the names that aiosvc gives to requests and queues; those of a
    queue that the observer is to watch may not.

    Raises BindError where the address is not to be had, and ConfigError for a wrong option.
    """
    # Under the names that they have here.
    validation.whole("port", port, at_least=0, at_most=65535)
    if not isinstance(addr, str) or not addr:
        raise validation.wrong("addr", addr, "an address like '127.0.0.1'")
    admin = make(AdminOptions, {"admin_port": port, "admin_host": addr, **options})
    settings = Settings() if settings is None else settings
    if health is None:
        health = Health(live_timeout=admin.live_timeout)
    # The loop that samples and serves here is free when the program's own is blocked: what is true
    # of it says nothing of the program, and would be taken for it.
    observer = Observer(registry, settings, health, of_loop=False, of_requests=False)
    scraper = Scraper(registry, settings, aside=True)
    server = AdminServer(
        metrics_handler(scraper, observer.collector.refresh),
        health,
        admin,
        on_error=observer.collector.error,
        names=("addr", "port"),
    )
    server.start()
    try:
        server.call(observer.start())
    except BaseException:
        server.stop()
        raise
    observer.collector.attach(scraper)
    observer.collector.attach(server)
    observer.admin_url = server.url
    health.set_ready()
    return MetricsServer(server, observer, scraper)
