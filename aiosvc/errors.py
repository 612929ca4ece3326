"""
What can go wrong by the caller's hand, as one tree.

    AiosvcError
    ├── ConfigError (ValueError)        an option, or an app that can't be instrumented as asked
    ├── ImportStringError (ValueError)  'package.module:attribute' that leads to no application
    └── BindError (OSError)             an address that can't be listened on

Every message says what was given, what was expected and what to do. Each error also is the builtin
that a caller would catch. Rule: nothing here is raised while requests are served.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["AiosvcError", "BindError", "ConfigError", "ImportStringError", "did_you_mean"]


class AiosvcError(Exception):
    """The base of all errors that aiosvc raises."""


class ConfigError(AiosvcError, ValueError):
    """Raised when an option is wrong, or an application can't be instrumented as asked."""


class ImportStringError(AiosvcError, ValueError):
    """Raised when 'package.module:attribute' does not lead to an aiohttp application."""


class BindError(AiosvcError, OSError):
    """Raised when the address to listen on is taken, not allowed or not of this machine."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name closest to the given one, or ""."""
    close = get_close_matches(given, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
