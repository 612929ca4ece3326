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

#: Seconds that the end of a thread is waited for; one that hangs is left to itself.
PATIENCE = 0.05

Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class InThread:
    """Calls a blocking function in a daemon thread of its own, started at the first call."""

    def __init__(self, name: str, read: Callable[[], Any]) -> None:
        self._name = name
        self._read = read
        self._calls: queue.SimpleQueue[Call | None] | None = None
        self._thread: threading.Thread | None = None

    def read(self) -> asyncio.Future[Any]:
        """Return a future of the function's result; cancelling it does not end the function."""
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            # A daemon: a function that hangs for ever must not keep the process from ending.
            self._thread = threading.Thread(
                target=self._serve,
                args=(self._calls,),
                name=f"aiosvc source {self._name}",
                daemon=True,
            )
            self._thread.start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._calls.put((loop, answer))
        return answer

    def close(self) -> None:
        """End the thread, when the function returns if it runs; a later call starts another."""
        if self._calls is not None and self._thread is not None:
            self._calls.put(None)
            self._thread.join(PATIENCE)
            self._calls = self._thread = None

    def abandon(self) -> None:
        """Forget a thread that a fork has left in another process."""
        self._calls = self._thread = None

    def _serve(self, calls: "queue.SimpleQueue[Call | None]") -> None:
        # Nothing of a call stays in this frame while it waits for the next one.
        while self._serve_one(calls.get()):
            pass

    def _serve_one(self, call: Call | None) -> bool:
        if call is None:
            return False
        loop, answer = call
        result: Any = None
        failure: BaseException | None = None
        try:
            result = self._read()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            failure = error
        try:
            loop.call_soon_threadsafe(_settle, answer, result, failure)
        except RuntimeError:
            return False  # the loop was closed while the function ran
        finally:
            failure = None  # it refers to this frame, which would keep it
        return True


def _settle(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if not answer.done():
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)
