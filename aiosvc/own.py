"""
Our own endpoints, /metrics and the probes, for an adapter that answers them by itself.

Rule: knows no server and no framework: a method, a path, headers and a query in, an `Answer` out.
"""

from collections.abc import Callable, Collection, Iterable
from urllib.parse import parse_qs

from multidict import CIMultiDict

from aiosvc.health import Health
from aiosvc.scrape import Answer, Scraper, pieces

__all__ = ["OwnEndpoints"]

LIVEZ = "/livez"
READYZ = "/readyz"


class OwnEndpoints:
    """
    Answers at *path*, if there is one, and at /livez and /readyz.

    *refresh* is called before a scrape is answered.
    """

    def __init__(
        self, path: str | None, scraper: Scraper, refresh: Callable[[], None], health: Health
    ) -> None:
        self._scraper = scraper
        self._refresh = refresh
        self._health = health
        #: The template of each path that is answered here.
        self.templates = {LIVEZ: LIVEZ, READYZ: READYZ}
        if path is not None:
            self.templates |= {path: path, f"{path}/": path}

    def leave(self, paths: Collection[str]) -> None:
        """Leave the probes at *paths* to the application, which has its own."""
        for path in (LIVEZ, READYZ):
            if path in paths:
                self.templates.pop(path, None)

    async def answer(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], query: str
    ) -> Answer:
        """Return the answer to a request for one of `templates`."""
        if path not in (LIVEZ, READYZ):
            if method == "GET":
                self._refresh()
            found = CIMultiDict(headers)
            names = parse_qs(query, max_num_fields=1000).get("name[]", ()) if query else ()
            return await self._scraper.respond(method, found, found.getall("Accept", ()), names)
        if method not in ("GET", "HEAD"):
            return _text(405, "probes are asked with GET\n", {"Allow": "GET, HEAD"})
        verdict = self._health.live() if path == LIVEZ else await self._health.ready()
        return _text(verdict.status, verdict.text(), {"Cache-Control": "no-store"})


def _text(status: int, text: str, headers: dict[str, str]) -> Answer:
    found = {"Content-Type": "text/plain; charset=utf-8", **headers}
    return Answer(status, found, pieces(text.encode()))
