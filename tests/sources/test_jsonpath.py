"""The language of paths in a JSON document."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.errors import ConfigError
from aiosvc.sources.jsonpath import JsonPath, Missing

DOCUMENT = {
    "active": 5,
    "pool": {"idle": 1, "used": 2},
    "items": [{"name": "a", "size": 1}, {"name": "b", "size": 2}],
    "404": {"x-y": 6},
    "http.server": {'a "quoted" key': 7},
    "nothing": None,
}


def found(text: str, document: Any = DOCUMENT) -> list[Any]:
    """Return the values at a path."""
    return [value for _, value in JsonPath(text).find(document)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("active", [5]),
        ("$.active", [5]),
        ("pool.idle", [1]),
        ("pool.{state}", [1, 2]),
        ("pool.*", [1, 2]),
        ("pool[*]", [1, 2]),
        ("items[0].size", [1]),
        ("items[-1].size", [2]),
        ("items[*].size", [1, 2]),
        ("items.{place}.size", [1, 2]),
        ("404.x-y", [6]),
        (r'"http.server"."a \"quoted\" key"', [7]),
        ("nothing", [None]),
        ("nothing.below[*].it", []),
        ("nothing.below[0]", [None]),
        ("gone", [Missing("gone")]),
        ("gone.below[*].it", [Missing("gone")]),
        ("items[2].size", [Missing("items[2]")]),
        ("items[*].gone", [Missing("items[0].gone"), Missing("items[1].gone")]),
        ('"http.server".gone', [Missing('"http.server".gone')]),
    ],
)
def test_paths_find_values(text: str, expected: list[Any]) -> None:
    """A path gives every value that it stands for, or what is missing."""
    assert found(text) == expected


def test_the_document_itself() -> None:
    """A document that is a number or a list has a path too."""
    assert found("$", 3) == [3]
    assert found("$[1]", [1, 2]) == [2]
    assert found("[*].a", [{"a": 1}]) == [1]


def test_keys_become_labels() -> None:
    """What a {label} stood for is given with each value, and can be put in again."""
    path = JsonPath("{group}[*].{kind}")
    document = {"g": [{"k": 1}, {"l": 2}]}
    assert list(path.find(document)) == [(("g", 0, "k"), 1), (("g", 1, "l"), 2)]
    assert path.labels == ("group", "kind")
    assert [path.key_of(label) for label in path.labels] == [0, 2]
    assert path.written(("g", 1, "l")) == "g[1].l"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("active.x", "active: a number; expected an object"),
        ("pool[0]", "pool: an object; expected a list"),
        ("items.name", "items: a list; expected an object"),
        ("items[*].name.x", r"items\[0\].name: a string; expected an object"),
        ("active[*]", "active: a number; expected a list or an object"),
    ],
)
def test_another_shape_is_an_error(text: str, message: str) -> None:
    """A document of another shape than the path's is told by its place."""
    with pytest.raises(ValueError, match=message):
        found(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".a",
        "a.",
        "a..b",
        "a[",
        "a[x]",
        "a.[0]",
        "a b",
        "$a",
        "{}",
        "{a b}",
        '"a',
        r'"\x"',
        "a[1.5]",
    ],
)
def test_what_is_no_path(text: str) -> None:
    """A path that can't be understood is refused, with what may be written."""
    with pytest.raises(ConfigError, match="write keys with dots"):
        JsonPath(text)


def test_where_a_path_is_not_understood() -> None:
    """The error shows the place."""
    with pytest.raises(ConfigError, match=r"path 'pool\.\?': '\.\?' at character 5"):
        JsonPath("pool.?")


def test_a_path_beside_another() -> None:
    """A relative path begins at the element of the other, one with $ at the document."""
    values = JsonPath("groups[*].items[*].size")
    document = {"groups": [{"name": "g", "items": [{"name": "i", "size": 1}]}]}
    [(keys, _)] = values.find(document)
    assert JsonPath("name").under(values).at(document, keys) == "i"
    assert JsonPath("$.groups[*].name").under(values).at(document, keys) == "g"
    assert JsonPath("$.groups[0].name").under(values).at(document, keys) == "g"
    assert JsonPath("other").under(values).at(document, keys) == Missing("groups[0].items[0].other")
    for many in ("names[*]", "$.names[*]", "$.groups[*].names[*]"):
        with pytest.raises(ConfigError, match="must stand where"):
            JsonPath(many).under(values)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.lists(st.text() | st.integers(-3, 3), max_size=4),
)
def test_any_key_of_any_document_has_a_path(document: Any, keys: list[str | int]) -> None:
    """Whatever the document and the keys, a path finds the value, or tells why not."""
    text = "$" + "".join(
        f"[{key}]" if isinstance(key, int) else "." + json.dumps(key) for key in keys
    )
    expected: Any = document
    try:
        for key in keys:
            if isinstance(expected, str):
                raise TypeError("a text has no elements")  # noqa: TRY301 - as a number has none
            expected = None if expected is None else expected[key]
    except (LookupError, TypeError):
        expected = Missing
    try:
        [value] = found(text, document)
    except ValueError:
        assert expected is Missing
    else:
        assert isinstance(value, Missing) if expected is Missing else value == expected
