"""YAML as it is written here is what PyYAML, and so any reader, makes of it."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.rules.yamltext import Value, yaml_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXTS | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_is_read(value: Value) -> None:
    """Mappings, lists, texts of any characters and whole numbers come back as they were."""
    assert yaml.safe_load(yaml_text(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "a\nb", "a\n  b\nc", "a\n\nb", "a\n", "\na", " a\nb", "a\nb ", "a: b", "- a", "no", "5m",
        "1e3", "null", "'", '"', "'\"", "{{ $value }}", "\t", "a\\b", "\x7f", "\u2028", "\U0001f600",
        "#", "", "a\tb\nc", 'job=~"a\\\\.b"',
    ],
)  # fmt: skip
def test_texts_that_could_be_taken_for_something_else(text: str) -> None:
    """A text stays a text, as a value, in a list and as a key."""
    value = {"a": text, text: "a", "list": [text]}
    assert yaml.safe_load(yaml_text(value)) == value


def test_how_it_looks() -> None:
    """Names are plain, expressions of several lines are blocks, and a list is indented."""
    value: Value = {"groups": [{"name": "a", "rules": [{"expr": "x\nor\ny", "on": 'a="b"'}]}]}
    assert yaml_text(value) == (
        "groups:\n"
        '  - name: "a"\n'
        "    rules:\n"
        "      - expr: |-\n"
        "          x\n"
        "          or\n"
        "          y\n"
        '        "on": \'a="b"\'\n'
    )
