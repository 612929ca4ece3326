"""What an option's value may be, in the same words everywhere."""

import math

import pytest

from aiosvc.errors import ConfigError
from aiosvc.validation import is_number, one_of, seconds, whole, yes_or_no


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, True), (-1.5, True), (10**400, True), (True, False), ("1", False), (None, False),
        (math.nan, False), (math.inf, False), (-math.inf, False),
    ],
)  # fmt: skip
def test_numbers(value: object, expected: bool) -> None:
    """A number is finite, of any size, and no truth value."""
    assert is_number(value) is expected


def test_what_will_do() -> None:
    """The limits themselves will do, but for the one that a value must be below."""
    seconds("timeout", 0.5, at_least=0.5)
    seconds("timeout", 1, at_least=0.0, below=2.0)
    whole("workers", 1, at_least=1, at_most=1)
    yes_or_no("own", False)
    one_of("kind", "gauge", ("gauge", "counter"))


@pytest.mark.parametrize("value", [0.4, 2.0, math.nan, True, "1", None])
def test_wrong_seconds(value: object) -> None:
    """What is no time within the limits is refused, with the limits."""
    with pytest.raises(ConfigError) as raised:
        seconds("timeout", value, at_least=0.5, below=2.0)
    assert str(raised.value) == f"timeout: {value!r} given; expected seconds, 0.5 to less than 2"
    if value != 2.0:
        with pytest.raises(ConfigError, match=r"expected seconds, 0.5 or more"):
            seconds("timeout", value, at_least=0.5)


@pytest.mark.parametrize("value", [0, 4, 1.0, True, "1", None])
def test_wrong_whole_numbers(value: object) -> None:
    """What is no whole number within the limits is refused, with the limits."""
    with pytest.raises(ConfigError) as raised:
        whole("workers", value, at_least=1, at_most=3)
    assert str(raised.value) == f"workers: {value!r} given; expected a whole number, 1 to 3"
    if value != 4:
        with pytest.raises(ConfigError, match="expected a whole number, 1 or more"):
            whole("workers", value, at_least=1)


def test_wrong_answers() -> None:
    """Neither a number nor a word stands for a truth value."""
    for value in (0, 1, "yes", None):
        with pytest.raises(ConfigError, match=f"own: {value!r} given; expected true or false"):
            yes_or_no("own", value)


def test_a_word_that_is_none_of_those_known() -> None:
    """The known ones are named, and the nearest is asked for."""
    with pytest.raises(ConfigError, match=r"expected gauge or counter.*did you mean 'gauge'"):
        one_of("kind", "guage", ("gauge", "counter"))
    with pytest.raises(ConfigError, match=r"kind: 3 given; expected gauge or counter$"):
        one_of("kind", 3, ("gauge", "counter"))
