"""
Blocking functions, called for an event loop in threads of their own.

Rule: a function that hangs costs its own thread and nothing else; the process can still end.
"""

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["InThread", "end"]

#: Seconds that the ends of threads are waited for; those that hang are left to themselves.
PATIENCE = 0.05

Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class InThread:
    """
    Calls a blocking function in a daemon thread of its own, started at the first call.

    The function is never entered twice at a time, whichever loops ask for it.
    """

    def __init__(self, name: str, read: Callable[[], Any]) -> None:
        self._name = name
        self._read = read
        # Held while it is decided whether a thread serves a call: where its loop was closed
        # meanwhile it ends, and the next call is another one's.
        self._deciding = threading.Lock()
        self._calls: queue.SimpleQueue[Call | None] | None = None
        self._thread: threading.Thread | None = None
        self._inside = False
        #: The process that the thread is in.
        self._pid = os.getpid()

    def read(self) -> asyncio.Future[Any]:
        """
        Return a future of the function's result; cancelling it does not end the function.

        Raises RuntimeError where the last call has not returned, or no thread is to be had.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        with self._deciding:
            if self._inside:
                raise RuntimeError("the last call has not returned yet")
            calls = self._calls or self._start()
            self._inside = True
            calls.put((loop, answer))
        return answer

    def close(self) -> threading.Thread | None:
        """
        Have the thread end, when the function returns if it runs; a later call starts another.

        Returns the thread, which need not have ended yet; None where there is none.
        """
        thread, self._thread = self._thread, None
        with self._deciding:
            calls, self._calls = self._calls, None
        if calls is not None:
            calls.put(None)
        return thread

    def _start(self) -> "queue.SimpleQueue[Call | None]":
        calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        # A daemon: a function that hangs for ever must not keep the process from ending.
        thread = threading.Thread(
            target=self._serve, args=(calls,), name=f"aiosvc source {self._name}", daemon=True
        )
        thread.start()
        self._calls, self._thread, self._pid = calls, thread, os.getpid()
        return calls

    def abandon(self) -> None:
        """Forget a thread that a fork has left in another process, with what it was in."""
        if self._pid != os.getpid():
            self._deciding = threading.Lock()
            self._inside = False
        self._calls = self._thread = None

    def _serve(self, calls: "queue.SimpleQueue[Call | None]") -> None:
        # Nothing of a call stays in this frame while it waits for the next one.
        while self._serve_one(calls.get(), calls):
            pass

    def _serve_one(self, call: Call | None, calls: "queue.SimpleQueue[Call | None]") -> bool:
        if call is None:
            return False
        loop, answer = call
        result: Any = None
        failure: BaseException | None = None
        try:
            result = self._read()
        except StopIteration as error:
            # No future takes one; a coroutine says it in the same words.
            failure = RuntimeError(f"raised StopIteration({error.value!r})")
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            failure = error
        try:
            with self._deciding:
                self._inside = False
                try:
                    loop.call_soon_threadsafe(_settle, answer, result, failure)
                except RuntimeError:  # the loop was closed while the function ran
                    if self._calls is calls:
                        self._calls = None
                    return False
        finally:
            failure = None  # it refers to this frame, which would keep it
        return True


def end(threads: Iterable[InThread]) -> None:
    """Close *threads*, and wait a moment, the same however many they are, until they have ended."""
    closed = [thread for each in threads if (thread := each.close()) is not None]
    until = time.monotonic() + PATIENCE
    for thread in closed:
        thread.join(max(0.0, until - time.monotonic()))


def _settle(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if not answer.done():
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)
