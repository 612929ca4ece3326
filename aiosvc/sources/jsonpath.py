"""
Where a value is in a JSON document.

    pool.idle             the member idle of the member pool
    items[0].depth        of the first element of a list; [-1] is the last
    items[*].depth        of each element of a list, or of each member of an object
    queues.{queue}.depth  of each member, or element, whose key, or index, becomes the label queue
    "http.server".count   a key with other characters than letters, digits, '_' and '-'
    $                     the document itself; it may stand before any path: $.pool.idle, $[0]

Rule: a path is checked when it is made, so that what fails later is the document. Rule: null is
unknown, and so is whatever would be below it.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from aiosvc.errors import ConfigError

__all__ = ["Each", "JsonPath", "Missing"]

#: A key of an object or an index of a list: what an `Each` stood for.
Key = str | int

STEP: Final = re.compile(
    r"""(?P<dot>\.)?
    (?:(?P<key>[A-Za-z0-9_-]+) | (?P<quoted>"(?:[^"\\]|\\.)*") | \{(?P<label>[^{}]*)\} | (?P<any>\*)
    |\[(?:(?P<index>-?[0-9]{1,9})|(?P<all>\*))\])""",
    re.VERBOSE,
)
LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
HELP: Final = (
    "write keys with dots (pool.idle), elements as [0] or [*], members that become a label as "
    '{label}, and other characters in double quotes ("http.server".count)'
)


@dataclass(frozen=True, slots=True)
class Each:
    """A step to each element or member; its index or key is the label, if there is one."""

    label: str | None = None


Step = str | int | Each


@dataclass(frozen=True, slots=True)
class Missing:
    """What is found where nothing is; *place* says where that would be."""

    place: str


class JsonPath:
    """A path, parsed; raises ConfigError where *text* is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps = _parse(text)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that steps give."""
        return tuple(s.label for s in self.steps if isinstance(s, Each) and s.label is not None)

    def key_of(self, label: str) -> int:
        """Return the number of the `Each` that gives *label*."""
        return [s.label for s in self.steps if isinstance(s, Each)].index(label)

    def written(self, keys: tuple[Key, ...]) -> str:
        """Return the path to the value where the `Each` steps stand for *keys*."""
        return _written(self._fixed(len(self.steps), keys))

    def under(self, other: "JsonPath") -> "JsonPath":
        """
        Return this path seen from the element that the last `Each` of *other* stands for.

        A path that begins with $ is from the document. Raises ConfigError where this one has an
        `Each` that *other* has not at the same place: there would be many values for one.
        """
        steps = self.steps
        if not self.text.startswith("$"):
            steps = other.steps[: _last_each(other.steps) + 1] + steps
        through = _last_each(steps) + 1
        if steps[:through] != other.steps[:through]:
            raise ConfigError(
                f"path {self.text!r}: [*] and {{label}} must stand where {other.text!r} has them, "
                "for one value beside each of its values"
            )
        path = JsonPath(self.text)
        path.steps = steps
        return path

    def find(self, document: Any) -> Iterator[tuple[tuple[Key, ...], Any]]:
        """
        Give every value, or `Missing`, with the keys that its `Each` steps stood for.

        Raises ValueError where the document has another shape.
        """
        return self._find(document, 0, ())

    def at(self, document: Any, keys: tuple[Key, ...]) -> Any:
        """Return the value, or `Missing`, where the `Each` steps stand for *keys*."""
        steps = self._fixed(len(self.steps), keys)
        for place, step in enumerate(steps):
            document = self._step(document, step, steps[: place + 1])
            if document is None or isinstance(document, Missing):
                break
        return document

    def _find(
        self, value: Any, place: int, keys: tuple[Key, ...]
    ) -> Iterator[tuple[tuple[Key, ...], Any]]:
        while place < len(self.steps) and value is not None and not isinstance(value, Missing):
            step = self.steps[place]
            place += 1
            if isinstance(step, Each):
                if not isinstance(value, list | dict):
                    where = _written(self._fixed(place - 1, keys))
                    text = f"{where}: {_kind(value)}; expected a list or an object"
                    raise ValueError(text)  # noqa: TRY004 - it is the document's type
                members = value.items() if isinstance(value, dict) else enumerate(value)
                for key, member in members:
                    yield from self._find(member, place, (*keys, key))
                return
            value = self._step(value, step, self._fixed(place, keys))
        # What is unknown has no elements: without their keys there would be no labels.
        if isinstance(value, Missing) or _last_each(self.steps[place:]) < 0:
            yield keys, value

    def _step(self, value: Any, step: Key, taken: tuple[Key, ...]) -> Any:
        if isinstance(step, str) and isinstance(value, dict):
            return value[step] if step in value else Missing(_written(taken))
        if isinstance(step, int) and isinstance(value, list):
            inside = -len(value) <= step < len(value)
            return value[step] if inside else Missing(_written(taken))
        expected = "an object" if isinstance(step, str) else "a list"
        raise ValueError(f"{_written(taken[:-1])}: {_kind(value)}; expected {expected}")

    def _fixed(self, place: int, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        given = iter(keys)
        return tuple(next(given) if isinstance(s, Each) else s for s in self.steps[:place])


def _parse(text: object) -> tuple[Step, ...]:
    if not isinstance(text, str) or not text:
        raise ConfigError(f"path {text!r}: expected the place of a value; {HELP}")
    steps: list[Step] = []
    at = 1 if text.startswith("$") else 0
    while at < len(text):
        found = STEP.match(text, at)
        step = None if found is None else _step(found, first=at == 0)
        if found is None or step is None:
            raise ConfigError(
                f"path {text!r}: {text[at : at + 20]!r} at character {at + 1} is not understood; "
                f"{HELP}"
            )
        steps.append(step)
        at = found.end()
    return tuple(steps)


def _step(found: re.Match[str], *, first: bool) -> Step | None:
    kind, text = found.lastgroup, found[found.lastgroup or 0]
    bracket = kind in ("index", "all")
    step: Step | None = text
    if bool(found["dot"]) is (bracket or first):
        step = None  # a dot stands between keys, and nowhere else
    elif kind in ("any", "all"):
        step = Each()
    elif kind == "index":
        step = int(text)
    elif kind == "label":
        step = Each(text) if LABEL.fullmatch(text) else None
    elif kind == "quoted":
        with suppress(ValueError):
            return str(json.loads(text))
        step = None
    return step


def _last_each(steps: tuple[Step, ...]) -> int:
    return max((i for i, step in enumerate(steps) if isinstance(step, Each)), default=-1)


def _written(keys: tuple[Key, ...]) -> str:
    """Return the path to one place."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", key)
            text += ("." if text else "") + (key if plain else json.dumps(key[:60]))
    return text or "$"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
