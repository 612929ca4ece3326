"""
The signals that stop a program in order, for an event loop: SIGTERM and SIGINT.

Rule: what is done at a stop is the caller's; the handlers that were there before are there again
afterwards.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["told_to_stop"]


@contextmanager
def told_to_stop() -> Iterator[asyncio.Event]:
    """
    Give an event that is set by the first of the signals; further ones change nothing.

    For the running event loop, within the block. Where a loop can't be told of signals, as on
    Windows, where Ctrl-C raises KeyboardInterrupt, or outside of the main thread, it is never set.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, stop.set)
        except (NotImplementedError, RuntimeError):  # Windows; or not the main thread
            break
        before[number] = handler
    try:
        yield stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)
