"""
What an option's value may be, said in the same words wherever an option is checked.

Rule: what refuses a value raises ConfigError with the option's name, what was given and what was
expected.
"""

import math
from typing import TypeGuard

from aiosvc.errors import ConfigError, did_you_mean

__all__ = ["is_number", "one_of", "seconds", "whole", "wrong", "yes_or_no"]


def wrong(name: str, value: object, expected: str) -> ConfigError:
    """Return the error for an option that has a wrong value."""
    return ConfigError(f"{name}: {value!r} given; expected {expected}")


def is_number(value: object) -> TypeGuard[float]:
    """Say whether *value* is a finite number, which True and False are not."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -math.inf < value < math.inf
    )


def seconds(name: str, value: object, *, at_least: float, below: float = math.inf) -> None:
    """Refuse what is no finite number of seconds, *at_least* so many and *below* so many."""
    if not is_number(value) or not at_least <= value < below:
        upper = "or more" if below == math.inf else f"to less than {below:g}"
        raise wrong(name, value, f"seconds, {at_least:g} {upper}")


def whole(name: str, value: object, *, at_least: int, at_most: int | None = None) -> None:
    """Refuse what is no whole number from *at_least* to *at_most*."""
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < at_least
        or (at_most is not None and value > at_most)
    ):
        upper = "or more" if at_most is None else f"to {at_most}"
        raise wrong(name, value, f"a whole number, {at_least} {upper}")


def yes_or_no(name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")


def one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse what is none of *known*."""
    if value not in known:
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise wrong(name, value, f"{' or '.join(known)}{hint}")
