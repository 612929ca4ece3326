"""
An event loop in a thread of its own, for a program that has none.

Rule: a daemon that never keeps the process from ending. Rule: nothing of it survives a fork; a child
makes its own.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["BackgroundLoop"]

#: Seconds that the end of the thread is waited for.
PATIENCE = 5.0

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines on an event loop of its own; made running."""

    def __init__(self, name: str) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, args=(started,), name=name, daemon=True)
        self._thread.start()
        self._loop = started.result()

    def call(self, coroutine: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
        """
        Run *coroutine* and return its result.

        Raises RuntimeError where the loop has ended, TimeoutError after *timeout* seconds.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise
        return future.result(timeout)

    def iterate(self, body: AsyncGenerator[bytes, None], seconds: float) -> Iterator[bytes]:
        """Give what *body* gives, within *seconds*; raises TimeoutError past it."""

        async def step() -> bytes | None:
            return await anext(body, None)

        deadline = self._loop.time() + seconds
        try:
            while (chunk := self.call(_by(deadline, step()))) is not None:
                yield chunk
        finally:
            with contextlib.suppress(RuntimeError):
                self.call(_close(body))

    def stop(self) -> None:
        """End the loop and its thread."""
        if self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # it ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
            if self._thread is not threading.current_thread():
                self._thread.join(PATIENCE)

    def _run(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._wait(started))

    async def _wait(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        self._stopping = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()


async def _by(deadline: float, coroutine: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout_at(deadline):
        return await coroutine


async def _close(body: AsyncGenerator[bytes, None]) -> None:
    await body.aclose()
