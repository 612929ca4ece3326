"""
What a queue is read by: a client object that is handed over, or a URL and a library of an extra.

Rule: the object is asked for what it can do, not for its class; a library is imported only for a
URL, where the connection is made. Rule: an error never repeats a URL, which may hold a password.
Rule: however many queues are watched by one client, they take one connection of it at a time; the
others are the service's.
"""

import asyncio
import importlib
import inspect
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from aiosvc.errors import ConfigError

__all__ = ["Turns", "has_coroutines", "library", "scheme_of", "turns"]


def scheme_of(url: str, schemes: tuple[str, ...], example: str) -> str:
    """Return the scheme of *url*; raises ConfigError where it is none of *schemes*."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            f"the URL given is no address that begins with {':// or '.join(schemes)}://; expected "
            f"something like {example!r}, with '/', '#' and '@' of a password written as %2F, %23 "
            "and %40"
        )
    return parts.scheme


def library(module: str, extra: str, what: str) -> Any:
    """Return the module that *extra* installs; raises ConfigError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{what} by its URL needs {module.partition('.')[0]!r}, which can't be imported "
            f"({error}): pip install 'aiosvc[{extra}]', or hand over a client object"
        ) from error


def has_coroutines(client: object, *names: str) -> bool:
    """Say whether *client* has all these methods, as async functions."""
    return all(inspect.iscoroutinefunction(getattr(client, name, None)) for name in names)


class Turns(asyncio.Lock):
    """The lock of those who watch by *client*, which it keeps for as long as one of them is there."""

    def __init__(self, client: object) -> None:
        super().__init__()
        self.client = client


_turns: WeakValueDictionary[int, Turns] = WeakValueDictionary()


def turns(client: object) -> Turns:
    """Return the lock of *client*, the same one for each of those who watch by it."""
    # By identity: not every client can be hashed, or referred to weakly.
    found = _turns.get(id(client))
    if found is None:
        found = _turns[id(client)] = Turns(client)
    return found
