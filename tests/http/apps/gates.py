"""
Where handlers of another process wait until a test lets them on: files in a directory.

Rule: a gate is used once; a request names the one that it waits in.
"""

import asyncio
import os
import time
from pathlib import Path

__all__ = ["BODY", "CHUNK", "await_gate", "wait_at_gate"]

BODY = b"all is well"
CHUNK = b"0123456789"

_PAUSE = 0.005  # seconds between two looks
_LIMIT = 20.0  # seconds after which nobody opens it any more


def _gate(name: str) -> Path:
    return Path(os.environ["GATES"], name)


def wait_at_gate(name: str) -> None:
    """Say that a handler is in the gate, and wait until it is opened."""
    _gate(f"{name}.entered").touch()
    end = time.monotonic() + _LIMIT
    while not _gate(f"{name}.open").exists() and time.monotonic() < end:
        time.sleep(_PAUSE)


async def await_gate(name: str) -> None:
    """Do the same, and let the event loop turn."""
    _gate(f"{name}.entered").touch()
    end = time.monotonic() + _LIMIT
    while not _gate(f"{name}.open").exists() and time.monotonic() < end:  # noqa: ASYNC110 - a file
        await asyncio.sleep(_PAUSE)
