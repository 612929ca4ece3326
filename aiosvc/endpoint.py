"""
The metrics endpoint as an aiohttp handler, on the application's own port and on the admin port.

Rule: decides nothing; the scraper does. A request's body is never read.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from aiohttp import web

from aiosvc.scrape import Answer, Scraper

__all__ = ["OWN_HANDLER", "metrics_handler"]

#: The attribute by which our handlers are known, in whatever application they are.
OWN_HANDLER: Final = "aiosvc_own_handler"


def metrics_handler(
    scraper: Scraper, refresh: Callable[[], None]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler for any method; *refresh* is called before a scrape is answered."""

    async def metrics(request: web.Request) -> web.StreamResponse:
        """Answer a scrape."""
        if request.method == "GET":
            refresh()
        accept = request.headers.getall("Accept", ())
        names = request.query.getall("name[]", ())
        return await _send(
            request, await scraper.respond(request.method, request.headers, accept, names)
        )

    setattr(metrics, OWN_HANDLER, True)
    return metrics


async def _send(request: web.Request, answer: Answer) -> web.StreamResponse:
    async with aclosing(answer.body) as body:
        first = await anext(body, b"")
        second = await anext(body, None)
        if second is None:
            return web.Response(status=answer.status, headers=answer.headers, body=first)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        async with asyncio.timeout(answer.seconds):
            await response.prepare(request)
            await response.write(first)
            await response.write(second)
            async for chunk in body:
                await response.write(chunk)
            await response.write_eof()
        return response
