"""
One mapping of a configuration file, read key by key.

Rule: what is wrong is a ConfigError that names the key by its full path, and a key that nobody asked
for is wrong too.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from aiosvc.errors import ConfigError, did_you_mean

__all__ = ["Section"]

#: How YAML writes nothing, beside not writing anything.
NOTHING = ("", "~", "null", "Null", "NULL")

#: How YAML 1.1 writes a truth value.
TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

DURATION = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h)")
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Section:
    """
    A mapping from keys to texts, lists and further sections.

    *path* is what leads to it, "" for the whole file; *known* are the keys that it may have.
    """

    def __init__(self, values: object, known: tuple[str, ...], path: str = "") -> None:
        if values is None or (isinstance(values, str) and values in NOTHING):
            values = {}
        if not isinstance(values, Mapping):
            where = path or "the file"
            raise ConfigError(f"{where}: expected keys and values, like {known[0]}: ...")
        self._values = values
        self._path = path
        for key in values:
            if key not in known:
                raise ConfigError(
                    f"{self.path_of(str(key))}: there is no such key"
                    f"{did_you_mean(str(key), known)}; known: {', '.join(known)}"
                )

    def path_of(self, key: str) -> str:
        """Return the full path of a key."""
        return f"{self._path}.{key}" if self._path else key

    def wrong(self, key: str, expected: str, *, secret: bool = False) -> ConfigError:
        """Return the error that the value of *key* is; a *secret* one is not repeated."""
        given = "" if secret else f"{self._values.get(key)!r} given; "
        return ConfigError(f"{self.path_of(key)}: {given}expected {expected}")

    def missing(self, key: str, expected: str) -> ConfigError:
        """Return the error that the lack of *key* is."""
        return ConfigError(f"{self.path_of(key)}: missing; expected {expected}")

    def section(self, key: str, known: tuple[str, ...]) -> "Section":
        """Return the section under *key*, empty where there is none."""
        return Section(self._values.get(key), known, self.path_of(key))

    def has(self, key: str) -> bool:
        """Say whether *key* has a value."""
        value = self._values.get(key, "")
        return not (isinstance(value, str) and value in NOTHING)

    def text(self, key: str) -> str | None:
        """Return the text under *key*, None where there is none."""
        if not self.has(key):
            return None
        value = self._values[key]
        if not isinstance(value, str):
            raise self.wrong(key, "a text", secret=True)
        return value

    def file(self, key: str, directory: Path) -> Path | None:
        """Return the file under *key*, relative ones being in *directory*."""
        name = self.text(key)
        return None if name is None else directory / name

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Return the list under *key*, None where there is none."""
        if not self.has(key):
            return None
        value = self._values[key]
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def truth(self, key: str, *, default: bool) -> bool:
        """Return whether *key* is true."""
        text = self.text(key)
        if text is None:
            return default
        if text.lower() not in TRUTHS:
            raise self.wrong(key, "true or false")
        return TRUTHS[text.lower()]

    def whole(self, key: str, default: int) -> int:
        """Return the whole number under *key*, 0 or more."""
        text = self.text(key)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit()):
            raise self.wrong(key, "a whole number, 0 or more")
        return int(text)

    def seconds(self, key: str, default: float) -> float:
        """Return the duration under *key*, which is written as in Go: 500ms, 1m30s, 0."""
        text = self.text(key)
        if text is None:
            return default
        parts = DURATION.findall(text)
        if "".join(parts) == text:
            return sum(float(p.rstrip("nuµmsh")) * UNITS[p.lstrip("0123456789.")] for p in parts)
        if text.isascii() and text.isdigit():
            return int(text) * UNITS["ns"]
        raise self.wrong(key, "a duration like 1s or 500ms")

    def one_of(self, key: str, known: Mapping[str, object]) -> str | None:
        """Return the text under *key*, which must be one of *known*."""
        text = self.text(key)
        if text is not None and text not in known:
            hint = did_you_mean(text, known)
            raise self.wrong(key, f"one of {', '.join(known)}{hint}")
        return text

    def some_of(self, key: str, known: Mapping[str, object]) -> tuple[str, ...]:
        """Return the list under *key*, all of which must be in *known*."""
        texts = self.texts(key) or ()
        for text in texts:
            if text not in known:
                hint = did_you_mean(text, known)
                path = self.path_of(key)
                raise ConfigError(
                    f"{path}: {text!r} given; expected some of {', '.join(known)}{hint}"
                )
        return texts

    def secrets(self, key: str) -> dict[str, str]:
        """Return the names and secret texts under *key*."""
        path = self.path_of(key)
        values = {} if not self.has(key) else self._values[key]
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path}: expected names and values")
        for name, value in values.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise ConfigError(f"{path}.{name}: expected a text")
        return dict(values)
