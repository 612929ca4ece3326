"""
Blocking functions, called for an event loop in threads of their own.

Rule: a function that hangs costs its own thread and nothing else; the process can still end.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["InThread"]


class InThread:
    """Calls a blocking function in a daemon thread of its own, started at the first call."""

    def __init__(self, name: str, read: Callable[[], Any]) -> None:
        self._name = name
        self._read = read
        self._calls: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]]
        self._calls = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def read(self) -> asyncio.Future[Any]:
        """Return a future of the function's result; cancelling it does not end the function."""
        if self._thread is None:
            # A daemon: a function that hangs for ever must not keep the process from ending.
            self._thread = threading.Thread(
                target=self._serve, name=f"aiosvc source {self._name}", daemon=True
            )
            self._thread.start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._calls.put((loop, answer))
        return answer

    def _serve(self) -> None:
        while True:
            loop, answer = self._calls.get()
            result: Any = None
            failure: BaseException | None = None
            try:
                result = self._read()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                failure = error
            try:
                loop.call_soon_threadsafe(_settle, answer, result, failure)
            except RuntimeError:
                return  # the loop was closed while the function ran


def _settle(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if not answer.done():
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)
