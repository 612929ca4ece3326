"""
The content codings that can be made here, each by the fastest library that is installed.

Rule: the one place that imports a compression library. gzip is always there: isal's where that is
installed (`pip install aiosvc[isal]`), else the standard library's. zstd is there from Python 3.14
on, or with `backports.zstd` or `zstandard`. All run at their fastest levels: a scrape is read once.
"""

import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol, cast

__all__ = ["Compressor", "available", "compressor"]

LEVEL: Final = 1
#: zlib's window of 32 KB, in a gzip frame.
GZIP_WINDOW: Final = 31


class Compressor(Protocol):
    """Makes one coded body, piece by piece; releases the GIL over large pieces."""

    def compress(self, data: bytes, /) -> bytes:
        """Return what can be sent after *data*, often nothing yet."""

    def flush(self) -> bytes:
        """Return the end of the body."""


def available() -> tuple[str, ...]:
    """Return the codings that `compressor` can make, the cheapest first."""
    return ("gzip",) if _zstd() is None else ("zstd", "gzip")


def compressor(coding: str) -> Compressor:
    """Return a new compressor; raises ValueError for a coding that is not `available`."""
    if coding == "gzip":
        return _gzip()()
    make = _zstd() if coding == "zstd" else None
    if make is None:
        raise ValueError(f"coding {coding!r}: expected one of {', '.join(available())}")
    return make()


@cache
def _gzip() -> Callable[[], Compressor]:
    isal = _import("isal.isal_zlib")
    deflate = zlib if isal is None else isal
    # isal's stub and zlib's name the type of a compressor differently.
    return lambda: cast("Compressor", deflate.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW))


@cache
def _zstd() -> Callable[[], Compressor] | None:
    for name in ("compression.zstd", "backports.zstd"):
        module = _import(name)
        if module is not None:
            return lambda: cast("Compressor", module.ZstdCompressor(LEVEL))
    module = _import("zstandard")
    if module is None:
        return None
    return lambda: cast("Compressor", module.ZstdCompressor(LEVEL).compressobj())


def _import(name: str) -> Any:
    """Return the module, None where it is not installed or can't run here."""
    try:
        return import_module(name)
    except (ImportError, OSError):
        return None
