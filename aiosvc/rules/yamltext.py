"""
YAML as text: what a rule file is made of, and no more of the language.

Rule: every string is quoted, or a block when it has several lines, so that none is read as anything
else; a key is plain only where it can be nothing but a name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

__all__ = ["yaml_text"]

Value = str | int | Sequence["Value"] | Mapping[str, "Value"]

PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

#: What YAML reads as something else, in one version or another.
RESERVED: Final = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

ESCAPES: Final = {'"': r"\"", "\\": r"\\", "\n": r"\n"}


def yaml_text(value: Value) -> str:
    """Return *value* as a YAML document: mappings, lists, strings and whole numbers."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Value) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _entry(f"{_key(key)}:", each)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for each in value:
            first, *rest = _lines(each)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _entry(key: str, value: Value) -> Iterator[str]:
    if isinstance(value, str) and _is_block(value):
        yield f"{key} |-"
        yield from (f"  {line}" for line in value.split("\n"))
    elif isinstance(value, str | int) or not value:
        yield f"{key} {_scalar(value)}"
    else:
        yield key
        yield from (f"  {line}" for line in _lines(value))


def _is_block(text: str) -> bool:
    """Say whether *text* has several lines that a block leaves as they are."""
    lines = text.split("\n")
    return (
        len(lines) > 1
        and text.isascii()
        and all(line and line.isprintable() and line == line.rstrip() for line in lines)
        and not lines[0].startswith(" ")
    )


def _scalar(value: Value) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int):
        return str(value)
    return "{}" if isinstance(value, Mapping) else "[]"


def _key(key: str) -> str:
    return key if PLAIN.fullmatch(key) and key.lower() not in RESERVED else _quoted(key)


def _quoted(text: str) -> str:
    if '"' in text and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    written = (ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text)
    return f'"{"".join(written)}"'
