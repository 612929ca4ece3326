"""
From a command line, the environment and a TOML file to the option dataclasses.

Rule: nothing is written twice. A field `sample_interval` is the flag `--sample-interval`, the
variable `AIOSVC_SAMPLE_INTERVAL` and the key `sample_interval` in `[tool.aiosvc]` of pyproject.toml,
or at the top of the file given with `--config`. The flag wins over the variable, that over the file.
"""

import argparse
import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiosvc.config import make
from aiosvc.errors import ConfigError, did_you_mean

__all__ = ["add_flags", "read_options"]

PREFIX = "AIOSVC_"


def add_flags(
    parser: argparse.ArgumentParser, *kinds: type, also: Iterable[tuple[type, str]] = ()
) -> None:
    """
    Add a flag for every field of the dataclasses *kinds*, and `--config`.

    *also* are single fields of other dataclasses. A field may have a shorter flag, its `alias`.
    """
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="TOML file with options; without it [tool.aiosvc] of ./pyproject.toml is read",
    )
    every = [(kind, field.name) for kind in kinds for field in dataclasses.fields(kind)]
    for kind, name in (*every, *also):
        field = next(each for each in dataclasses.fields(kind) if each.name == name)
        plain = isinstance(field.default, str | int | float)
        default = f" (default: {field.default})" if plain else ""
        flags = [name.replace("_", "-"), *filter(None, [field.metadata.get("alias")])]
        parser.add_argument(
            *(f"--{flag}" for flag in flags),
            dest=name,
            metavar=_metavar(kind, name),
            default=argparse.SUPPRESS,
            help=field.metadata["help"].replace("%", "%%") + default,
        )


def read_options(
    arguments: argparse.Namespace,
    kinds: Sequence[type],
    every: Iterable[type],
    environment: Mapping[str, str] = os.environ,
) -> list[Any]:
    """
    Return one instance of each dataclass in *kinds* from flags, *environment* and file.

    A name in the file that is a field of none of *every* is a ConfigError, and so is a value that
    does not fit. Variables of other names are left alone: Kubernetes makes some of its own for a
    service called aiosvc.
    """
    known = {field.name for kind in every for field in dataclasses.fields(kind)}
    given = _from_file(arguments.config or environment.get(f"{PREFIX}CONFIG"))
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{name} in the file: there is no such option{did_you_mean(name, sorted(known))}"
            )
    origins = {name: f"{name} in the file" for name in given}
    for name in known:
        variable = PREFIX + name.upper()
        text = environment.get(variable, "")
        if text and not text.startswith("tcp://"):  # AIOSVC_PORT as Kubernetes sets it
            given[name], origins[name] = text, variable
        if name in vars(arguments):
            given[name], origins[name] = getattr(arguments, name), "--" + name.replace("_", "-")
    return [_make(kind, given, origins) for kind in kinds]


def _make(kind: type, given: Mapping[str, Any], origins: Mapping[str, str]) -> Any:
    hints = {name: _plain(hint) for name, hint in typing.get_type_hints(kind).items()}
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in given:
            value = given[field.name]
            if isinstance(value, str):
                value = _parse(value, hints[field.name], origins[field.name])
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return make(kind, values)


def _plain(hint: Any) -> Any:
    """Return the type of an option that may be missing, or the type that it is anyway."""
    kinds = [each for each in typing.get_args(hint) if each is not type(None)]
    return kinds[0] if isinstance(hint, types.UnionType) and len(kinds) == 1 else hint


def _parse(text: str, wanted: Any, origin: str) -> Any:
    try:
        if wanted is int:
            return int(text)
        if wanted is float:
            return float(text)
        if typing.get_origin(wanted) is tuple:
            of = typing.get_args(wanted)[0]
            return tuple(of(part.strip()) for part in text.split(",") if part.strip())
        if typing.get_origin(wanted) is Mapping:
            return dict(part.strip().split("=", 1) for part in text.split(",") if part.strip())
        if wanted is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                text.lower()
            ]
    except KeyError:
        raise ConfigError(f"{origin}: {text!r} given; expected true or false") from None
    except ValueError:
        kind = "a whole number" if wanted is int else "a number"
        if typing.get_origin(wanted) is tuple:
            kind = "numbers with commas between"
        if typing.get_origin(wanted) is Mapping:
            kind = "names and values, like region=eu,zone=b"
        raise ConfigError(f"{origin}: {text!r} given; expected {kind}") from None
    return text


def _from_file(path: str | None) -> dict[str, Any]:
    if path is None:
        try:
            tables = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # there is none, or it is somebody else's, and theirs to complain about
        tools = tables.get("tool")
        options = tools.get("aiosvc", {}) if isinstance(tools, dict) else {}
        if not isinstance(options, dict):
            raise ConfigError("aiosvc in pyproject.toml: expected a table, [tool.aiosvc]")
        return options
    try:
        return dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"--config: {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--config: {path}: not TOML: {error}") from None


def _metavar(kind: type, name: str) -> str:
    wanted = _plain(typing.get_type_hints(kind)[name])
    if wanted in (int, float):
        return "N"
    if wanted is bool:
        return "true|false"
    if typing.get_origin(wanted) is Mapping:
        return "NAME=VALUE,..."
    if typing.get_origin(wanted) is tuple:
        return "N,N,..." if typing.get_args(wanted)[0] is float else "TEXT,..."
    return "TEXT"
