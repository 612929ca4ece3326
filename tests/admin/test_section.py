"""Reading one mapping of a configuration file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aiosvc.admin.section import Section
from aiosvc.errors import ConfigError

KNOWN = ("name", "names", "file", "yes", "count", "every", "inner", "users")


def section(**values: object) -> Section:
    """Return a section called s."""
    return Section(values, KNOWN, "s")


def test_values() -> None:
    """Each kind of value is read as what it is."""
    found = section(
        name="a", names=["x", "y"], file="b.pem", yes="on", count="12", inner={"name": "z"}
    )
    assert found.text("name") == "a"
    assert found.texts("names") == ("x", "y")
    assert found.file("file", Path("/etc")) == Path("/etc/b.pem")
    assert found.truth("yes", default=False) is True
    assert found.whole("count", 0) == 12
    assert found.section("inner", KNOWN).text("name") == "z"


@pytest.mark.parametrize("nothing", ["", "~", "null"])
def test_nothing(nothing: str) -> None:
    """A key without a value is as good as no key."""
    found = section(name=nothing, names=nothing, yes=nothing, count=nothing, every=nothing)
    for each in (found, section()):
        assert each.text("name") is None
        assert each.texts("names") is None
        assert each.truth("yes", default=True) is True
        assert each.whole("count", 3) == 3
        assert each.seconds("every", 1.5) == 1.5
        assert each.secrets("users") == {}
    assert Section(nothing, KNOWN).text("name") is None


def test_absolute_file() -> None:
    """An absolute name is not put into the directory."""
    assert section(file="/x/y").file("file", Path("/etc")) == Path("/x/y")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("1s", 1), ("500ms", 0.5), ("1m30s", 90), ("1.5h", 5400), (".5s", 0.5),
        ("10us", 1e-5), ("10µs", 1e-5), ("3ns", 3e-9), ("1000000000", 1.0), ("1h1m1s1ms", 3661.001),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    """Durations are written as in Go; a number alone is nanoseconds there."""
    assert section(every=text).seconds("every", 0.0) == pytest.approx(seconds)


def test_one_and_some_of() -> None:
    """A value may be restricted to names that are known."""
    known = {"a": 1, "b": 2}
    assert section(name="a").one_of("name", known) == "a"
    assert section().one_of("name", known) is None
    assert section(names=["b", "a"]).some_of("names", known) == ("b", "a")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: section(nmae="x"), "s.nmae: there is no such key; did you mean 'name'?; known:"),
        (lambda: Section({"x": 1}, KNOWN), "x: there is no such key; known:"),
        (lambda: Section("junk", KNOWN), "the file: expected keys and values, like name: ..."),
        (lambda: Section(["x"], KNOWN, "s"), "s: expected keys and values, like name: ..."),
        (lambda: section(name=["x"]).text("name"), "s.name: expected a text"),
        (lambda: section(names="x").texts("names"), "s.names: 'x' given; expected a list of texts"),
        (lambda: section(names=[{}]).texts("names"), "s.names: [{}] given; expected a list of"),
        (lambda: section(yes="1").truth("yes", default=True), "s.yes: '1' given; expected true or"),
        (lambda: section(count="-1").whole("count", 0), "s.count: '-1' given; expected a whole"),
        (lambda: section(count="1.5").whole("count", 0), "s.count: '1.5' given; expected a whole"),
        (lambda: section(count="\u0663").whole("count", 0), "s.count: '\u0663' given; expected"),
        (lambda: section(every="soon").seconds("every", 0),
         "s.every: 'soon' given; expected a duration like 1s or 500ms"),
        (lambda: section(every="-1s").seconds("every", 0), "s.every: '-1s' given; expected a dur"),
        (lambda: section(every="1s x").seconds("every", 0), "s.every: '1s x' given; expected a d"),
        (lambda: section(name="rsa1").one_of("name", {"rsa": 1}),
         "s.name: 'rsa1' given; expected one of rsa; did you mean 'rsa'?"),
        (lambda: section(names=["rsa", "rsa1"]).some_of("names", {"rsa": 1}),
         "s.names: 'rsa1' given; expected some of rsa; did you mean 'rsa'?"),
        (lambda: section(users="x").secrets("users"), "s.users: expected names and values"),
        (lambda: section(users={"x": ["hush"]}).secrets("users"), "s.users.x: expected a text"),
    ],
)  # fmt: skip
def test_refusals(read: Callable[[], object], message: str) -> None:
    """What is wrong is named by its full path, with what was given and what is expected."""
    with pytest.raises(ConfigError) as caught:
        read()
    assert str(caught.value).startswith(message)
