"""
What every request to the admin server passes, and what every answer gets.

Rule: a request's body is never read; what asks for that is answered, and its connection closed.
Rule: whatever a handler raises, there is an answer. Rule: a path is what the router matched, so
nothing that is written differently gets around what holds for it.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from aiosvc.admin.auth import challenges, is_let_in
from aiosvc.admin.connections import CURRENT, Connection
from aiosvc.admin.passwords import PasswordChecker
from aiosvc.admin.webfile import InForce
from aiosvc.version import __version__

__all__ = ["Gate", "Page"]

#: What every answer has, unless it says otherwise itself.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """
    Something that the admin server serves.

    *says* is what the landing page says of it; without, it is not listed. *handler* gets requests
    of *methods* only, None being all. A probe is not *limited* by `rate_limit`: else a crowd could
    have the service restarted. A *lasting* one stays connected, so a stop does not wait for it.
    """

    path: str
    handler: Handler
    says: str = ""
    methods: tuple[str, ...] | None = ("GET", "HEAD")
    limited: bool = True
    lasting: bool = False


class Gate:
    """Wraps handlers; *in_force* gives the protection, *on_error* is told what handlers raise."""

    def __init__(
        self,
        in_force: Callable[[], InForce],
        passwords: PasswordChecker,
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self._in_force = in_force
        self._passwords = passwords
        self._on_error = on_error

    def guard(self, page: Page) -> Handler:
        """Return the page's handler behind the gate."""

        async def handle(request: web.Request) -> web.StreamResponse:
            connection = CURRENT.get()
            connection.begin(lasting=page.lasting)
            try:
                response: web.StreamResponse | None = await self._refusal(page, request)
                if response is None:
                    connection.admitted = True
                    response = await self._asked(page, request, connection)
                if request.body_exists and not response.prepared:
                    response.force_close()
                # Written here and not by aiohttp afterwards, so that the end of it is seen.
                with contextlib.suppress(ConnectionError):
                    await response.prepare(request)
                    await response.write_eof()
                return response
            finally:
                connection.end()

        return handle

    async def add_headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Give an answer the headers of all; a signal handler for `on_response_prepare`."""
        CURRENT.get().answering = True
        headers = response.headers
        headers["Server"] = f"aiosvc/{__version__}"
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers.update(self._in_force().config.headers)

    async def _refusal(self, page: Page, request: web.Request) -> web.Response | None:
        rules = self._in_force()
        wait = rules.bucket.wait() if rules.bucket is not None and page.limited else 0.0
        if wait:
            later = {"Retry-After": str(math.ceil(wait))}
            return web.Response(status=429, text="too many requests\n", headers=later)
        if page.path not in rules.exempt:
            users, token = rules.config.users, rules.token
            given = request.headers.getall("Authorization", ())
            if not await is_let_in(given, users, token, self._passwords):
                response = web.Response(status=401, text="unauthorized\n")
                for challenge in challenges(users, token):
                    response.headers.add("WWW-Authenticate", challenge)
                return response
        if page.methods is not None and request.method not in page.methods:
            allow = {"Allow": ", ".join((*page.methods, "OPTIONS"))}
            if request.method == "OPTIONS":
                return web.Response(status=204, headers=allow)
            return web.Response(status=405, text="method not allowed\n", headers=allow)
        return None

    async def _asked(
        self, page: Page, request: web.Request, connection: Connection
    ) -> web.StreamResponse:
        try:
            return await page.handler(request)
        except ConnectionError:
            raise
        except Exception as error:
            if connection.answering:
                # Half an answer must not look like a whole one; often its reader was too slow.
                connection.cut()
                raise ConnectionResetError("the answer was cut short") from error
            if isinstance(error, web.HTTPException):
                return web.Response(
                    status=error.status, reason=error.reason, body=error.body, headers=error.headers
                )
            self._on_error(f"admin server, {page.path}", error)
            return web.Response(status=500, text="internal error\n")
