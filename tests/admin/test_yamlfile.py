"""YAML as texts, lists and mappings."""

import sys

import pytest

from aiosvc.admin.yamlfile import load_yaml
from aiosvc.errors import ConfigError


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", None),
        (b"# nothing\n", None),
        (b"a: 1", {"a": "1"}),
        (b"on: yes\n1: ~\n2: null", {"on": "yes", "1": "~", "2": "null"}),
        (b"a: !!int 3", {"a": "3"}),
        (b"a: 2024-01-01", {"a": "2024-01-01"}),
        (b"a: [1, x]\nb: {c: d}", {"a": ["1", "x"], "b": {"c": "d"}}),
        (b"a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        (b"a: &x {b: c}\nd: *x", {"a": {"b": "c"}, "d": {"b": "c"}}),
        ("a: \u00fc".encode(), {"a": "\u00fc"}),
    ],
)
def test_reading(content: bytes, found: object) -> None:
    """Everything that is no list and no mapping is the text that was written."""
    assert load_yaml(content) == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\na: 2", "line 2: 'a' is there twice"),
        (b"x:\n  a: 1\n  b: 1\n  a: 2", "line 4: 'a' is there twice"),
        (b"a: b: c", "not YAML: line 1: mapping values are not allowed here"),
        (b"a: [1", "not YAML: line 1: expected ',' or ']', but got '<stream end>'"),
        (b"a: 1\n---\nb: 1", "not YAML: line 2: but found another document"),
        (b"a: \xff\xfe", "not YAML: ReaderError"),
        (b"\x00", "not YAML: ReaderError"),
        (b"? [a]\n: b", "not YAML: line 1: found unhashable key"),
        (b"a: &x [*x]", "not YAML: line 1: found unconstructable recursive node"),
        (b"[" * 5000, "not YAML: RecursionError"),
        (b"a: *nowhere", "not YAML: line 1: found undefined alias 'nowhere'"),
    ],
)
def test_refusals(content: bytes, message: str) -> None:
    """What is not YAML, or says something twice, is refused with the line and without the text."""
    with pytest.raises(ConfigError) as caught:
        load_yaml(content)
    assert str(caught.value) == message


def test_python_objects_are_not_made() -> None:
    """A tag that asks for an object gets none."""
    assert load_yaml(b"a: !!python/name:os.system x") == {"a": "x"}


def test_without_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML is missing, the message says what to install."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError) as caught:
        load_yaml(b"a: 1")
    assert str(caught.value) == "PyYAML is needed to read it; pip install 'aiosvc[web]'"
