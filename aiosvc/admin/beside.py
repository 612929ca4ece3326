"""
The admin server of an application that is measured: started and stopped with it.

Rule: knows no framework; whoever runs the application calls `start` and `stop`.
"""

import logging

from aiosvc.admin.options import AdminOptions
from aiosvc.admin.server import AdminServer
from aiosvc.endpoint import metrics_handler
from aiosvc.scrape import Scraper
from aiosvc.service import Observer

__all__ = ["AdminBeside"]

log = logging.getLogger("aiosvc")


class AdminBeside:
    """Serves what *observer* knows as *options* ask; without a port there, nothing."""

    def __init__(self, observer: Observer, options: AdminOptions) -> None:
        self._observer = observer
        self._options = options
        self._server: AdminServer | None = None
        self._scraper: Scraper | None = None

    def start(self) -> None:
        """Listen; raises BindError and ConfigError as the server does."""
        if self._options.admin_port is None or self._server is not None:
            return
        observer = self._observer
        scraper = Scraper(observer.registry, observer.settings, aside=True)
        server = AdminServer(
            metrics_handler(scraper, observer.collector.refresh),
            observer.health,
            self._options,
            on_error=observer.collector.error,
        )
        server.start()
        self._server, self._scraper = server, scraper
        observer.admin_url = server.url
        log.info("the admin server is at %s", server.url)
        observer.collector.attach(scraper)
        observer.collector.attach(server)

    def stop(self) -> None:
        """Stop listening; it may take seconds, so an event loop calls it in a thread."""
        server, scraper = self._server, self._scraper
        if server is None or scraper is None:
            return
        self._server = self._scraper = None
        server.stop()
        scraper.close()
        self._observer.collector.retire(scraper)
        self._observer.collector.retire(server)
        self._observer.admin_url = None

    def abandon(self) -> None:
        """Forget a server that a fork has left in another process."""
        if self._server is not None and self._scraper is not None:
            self._observer.collector.retire(self._scraper)
            self._observer.collector.retire(self._server)
        self._server = self._scraper = None
