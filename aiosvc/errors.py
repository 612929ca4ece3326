"""
What can go wrong by the caller's hand, as one tree.

    AiosvcError
    ├── ConfigError (ValueError)        an option, or an app that can't be instrumented as asked
    ├── ImportStringError (ValueError)  'package.module:attribute' that leads to nothing to run
    ├── BindError (OSError)             an address that can't be listened on
    ├── SourceError (OSError)           metrics that `aiosvc check` can't read
    ├── NotEnqueuedError                a job that its queue did not take in
    └── PoolClosedError (RuntimeError)  an item for a pool of workers that has begun to stop

Every message says what was given, what was expected and what to do. An error also is the builtin
that a caller would catch. Rule: the first three, which are here, are raised before requests are
served and never while; the others stand beside what raises them.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["AiosvcError", "BindError", "ConfigError", "ImportStringError", "did_you_mean"]


class AiosvcError(Exception):
    """The base of all errors that a caller of aiosvc may see."""


class ConfigError(AiosvcError, ValueError):
    """Raised when an option is wrong, or an application can't be instrumented as asked."""


class ImportStringError(AiosvcError, ValueError):
    """Raised when 'package.module:attribute' leads to no application, or to no job queue."""


class BindError(AiosvcError, OSError):
    """Raised when the address to listen on is taken, not allowed or not of this machine."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name closest to the given one, or ""."""
    close = get_close_matches(given, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
