"""Stand-ins for replicas of a service: all that they do is to export a text."""

from aiohttp import web

__all__ = ["exposition"]


def exposition(text: str) -> web.Application:
    """Return a service that exports *text* at /metrics."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app
