"""Waiting for what has no event of its own; imported by the tests beside it."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], *, pause: float = 0.0) -> None:
    """Let the loop turn until the condition holds, 10 seconds at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - numbers and lists are what is waited for
            await asyncio.sleep(pause)
