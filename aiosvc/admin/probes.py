"""
aiohttp handlers for /livez and /readyz, on the admin server and on an application's own port.

Rule: 200 or 503 and a line that says why, in plain text. Rule: why a check failed may hold what is
nobody else's business, so only the admin server tells it.
"""

from aiohttp import web
from aiohttp.typedefs import Handler

from aiosvc.health import Health, Verdict

__all__ = ["livez", "readyz"]


def livez(health: Health) -> Handler:
    """Return a handler that answers whether the service is alive."""

    async def handle_livez(_request: web.Request) -> web.StreamResponse:
        return _response(health.live(), reasons=False)

    return handle_livez


def readyz(health: Health, *, reasons: bool = False) -> Handler:
    """Return a handler that answers whether the service is ready, and with *reasons* why not."""

    async def handle_readyz(_request: web.Request) -> web.StreamResponse:
        return _response(await health.ready(), reasons=reasons)

    return handle_readyz


def _response(verdict: Verdict, *, reasons: bool) -> web.Response:
    return web.Response(
        status=verdict.status,
        text=verdict.text(reasons=reasons),
        headers={"Cache-Control": "no-store"},
    )
