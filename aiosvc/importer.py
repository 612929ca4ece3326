"""
'package.module:attribute' to an aiohttp application that can be run.

Rule: a mistake in the string is one clear line; an error inside the user's module is the user's,
and goes through with its traceback.
"""

import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from aiosvc.errors import ImportStringError, did_you_mean

__all__ = ["import_target", "make_application"]


#: Characters of a value that a message shows.
SHOWN = 80


def import_target(target: str) -> Any:
    """
    Return what 'package.module:attribute' names; the current directory is on the path.

    Raises ImportStringError where it leads nowhere.
    """
    module_name, colon, attributes = target.partition(":")
    if not colon or not module_name or not attributes or module_name.startswith("."):
        raise ImportStringError(
            f"{target!r} is not module:attribute, for example shop.web:app or shop.web:make_app"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise  # the module was found, and something that it imports is missing
        raise ImportStringError(
            f"{target!r}: there is no module {missing!r} here; the current directory is {here}"
        ) from None
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            public = [name for name in dir(found) if not name.startswith("_")]
            raise ImportStringError(
                f"{target!r}: {_short(found)} has no attribute {attribute!r}"
                f"{did_you_mean(attribute, public)}"
            ) from None
    return found


async def make_application(target: str, found: Any, arguments: Sequence[str]) -> web.Application:
    """
    Return the application that *found* is or makes.

    A factory may be a function or a coroutine function. One that wants an argument gets the list
    *arguments*, as `python -m aiohttp.web` gives it; one that could do without gets it where there
    are any.

    Raises ImportStringError where the outcome is no aiohttp application.
    """
    made = found
    if callable(found) and not isinstance(found, web.Application):
        made = found(list(arguments)) if _takes(found, arguments) else found()
    if inspect.isawaitable(made):
        made = await made
    if not isinstance(made, web.Application):
        what = "is" if made is found else "returned"
        raise ImportStringError(
            f"{target!r} {what} {_short(made)}; expected an aiohttp.web.Application, "
            "or a function that returns one"
        )
    return made


def _takes(factory: Any, arguments: Sequence[str]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.default is p.empty for p in positional):
        return True
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    return bool(arguments) and bool(positional)


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
