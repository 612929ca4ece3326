"""The options themselves: defaults, what is refused, and that nothing is written twice."""

import dataclasses
import math
import typing
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

import aiosvc
from aiosvc.config import Options, ServeOptions, Settings, make
from aiosvc.errors import ConfigError


def test_options_are_the_fields_of_settings() -> None:
    """The keyword arguments of setup() are exactly the fields of Settings, none of them required."""
    assert list(Options.__annotations__) == [field.name for field in dataclasses.fields(Settings)]
    assert Options.__required_keys__ == frozenset()


def test_types_of_options_are_those_of_settings() -> None:
    """An option has the type of its field; what is a tuple there may be any iterable."""
    options, settings = typing.get_type_hints(Options), typing.get_type_hints(Settings)
    for name, wanted in settings.items():
        if typing.get_origin(wanted) is tuple:
            assert options[name] == Iterable[typing.get_args(wanted)[0]]  # type: ignore[misc]
        else:
            assert options[name] == wanted
    assert options.keys() == settings.keys()


def test_defaults() -> None:
    """The defaults are those that the documentation promises."""
    assert dataclasses.asdict(Settings()) == {
        "path": "/metrics",
        "sample_interval": 1.0,
        "sample_timeout": 5.0,
        "sample_keep": 3,
        "sample_brokers": True,
        "loop_probe": "auto",
        "stall_threshold": 0.1,
        "task_groups": {},
        "max_endpoints": 500,
        "exclude": (),
        "count_own": False,
        "labels": {},
        "preset": "classic",
        "buckets": (),
        "slo": (),
        "response_start": False,
        "response_start_buckets": (),
        "websocket_buckets": (),
        "exemplars": "off",
        "slow": 1.0,
        "max_scrapes": 16,
        "scrape_timeout": 10.0,
        "scrape_slice": 0.0005,
        "scrape_strict": False,
    }
    assert dataclasses.asdict(ServeOptions()) == {
        "host": "127.0.0.1",
        "port": 8000,
        "access_log": False,
        "shutdown_timeout": 60.0,
    }


@pytest.mark.parametrize("kind", [Settings, ServeOptions])
def test_options_are_frozen_and_keyword_only(kind: Callable[..., Any]) -> None:
    """An option can be given only by name, and not be changed once it was checked."""
    with pytest.raises(TypeError):
        kind("/metrics")
    made = kind()
    first = dataclasses.fields(made)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, first, "x")
    with pytest.raises((AttributeError, TypeError)):
        made.no_such_option = 1


PATH = "expected a plain path like '/metrics'"
SECONDS = "expected seconds, 0.01 or more"
BOUNDS = "expected rising numbers, like (0.1, 0.5, 1)"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("path", "metrics", PATH),
        ("path", "", PATH),
        ("path", "/", PATH),
        ("path", "/{name}", PATH),
        ("path", "/metrics?x=1", PATH),
        ("path", "/metrics#x", PATH),
        ("path", "/a b", PATH),
        ("path", "/a%20b", PATH),
        ("path", "/metrics\n", PATH),
        ("path", b"/metrics", PATH),
        ("sample_interval", 0, SECONDS),
        ("sample_interval", -1.0, SECONDS),
        ("sample_interval", 0.001, SECONDS),
        ("sample_interval", math.inf, SECONDS),
        ("sample_interval", math.nan, SECONDS),
        ("sample_interval", "1", SECONDS),
        ("sample_interval", True, SECONDS),
        ("sample_timeout", 0, SECONDS),
        ("sample_timeout", None, SECONDS),
        ("loop_probe", "selector", "expected auto or heartbeat or off"),
        ("loop_probe", None, "expected auto or heartbeat or off"),
        ("stall_threshold", 0.049, "expected seconds, 0.05 or more"),
        ("stall_threshold", math.nan, "expected seconds, 0.05 or more"),
        ("max_endpoints", 0, "expected a whole number, 1 or more"),
        ("max_endpoints", 1.0, "expected a whole number, 1 or more"),
        ("max_endpoints", True, "expected a whole number, 1 or more"),
        (
            "task_groups",
            "a=b",
            "expected names and patterns, like {'consumers': 'consume_*|drain'}",
        ),
        (
            "task_groups",
            ("a",),
            "expected names and patterns, like {'consumers': 'consume_*|drain'}",
        ),
        ("buckets", (1.0, 0.5), BOUNDS),
        ("buckets", (1.0, 1.0), BOUNDS),
        ("buckets", (math.nan,), BOUNDS),
        ("buckets", (-math.inf, 1.0), BOUNDS),
        ("buckets", (math.inf, math.inf), BOUNDS),
        ("buckets", ("fast",), BOUNDS),
        ("buckets", (None,), BOUNDS),
        ("buckets", "0.1,0.5", BOUNDS),
        ("buckets", 0.5, BOUNDS),
    ],
)
def test_wrong_setting(name: str, value: object, expected: str) -> None:
    """A setting that can't work is refused with its name, what was given and what is expected."""
    with pytest.raises(ConfigError) as caught:
        make(Settings, {name: value})
    assert str(caught.value) == f"{name}: {value!r} given; {expected}"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"_other": "x"}, "group '_other' given; expected letters, digits, '_', '-' and '.', and"),
        ({"": "x"}, "group '' given; expected letters"),
        ({"a b": "x"}, "group 'a b' given; expected letters"),
        ({1: "x"}, "group 1 given; expected letters"),
        (
            {"a": ""},
            "a: '' given; expected a pattern like 'consume_*', or several with '|' between",
        ),
        ({"a": "x||y"}, "a: 'x||y' given; expected a pattern"),
        ({"a": ("x", "y")}, "a: ('x', 'y') given; expected a pattern"),
    ],
)
def test_wrong_task_groups(groups: object, message: str) -> None:
    """A group with a name that is no label value, or without a pattern, is refused."""
    with pytest.raises(ConfigError) as caught:
        make(Settings, {"task_groups": groups})
    assert str(caught.value).startswith(f"task_groups: {message}")


def test_task_groups_can_not_change_afterwards() -> None:
    """The options have their own copy of what was given."""
    given = {"consumers": "consume_*|drain"}
    settings = Settings(task_groups=given)
    given["more"] = "x"
    assert settings.task_groups == {"consumers": "consume_*|drain"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("host", "", "expected an address like '127.0.0.1'"),
        ("host", None, "expected an address like '127.0.0.1'"),
        ("host", 127, "expected an address like '127.0.0.1'"),
        ("port", -1, "expected a whole number, 0 to 65535"),
        ("port", 65536, "expected a whole number, 0 to 65535"),
        ("port", "8000", "expected a whole number, 0 to 65535"),
        ("port", 80.0, "expected a whole number, 0 to 65535"),
        ("port", True, "expected a whole number, 0 to 65535"),
        ("access_log", 1, "expected true or false"),
        ("access_log", "no", "expected true or false"),
        ("shutdown_timeout", -0.1, "expected seconds, 0 or more"),
        ("shutdown_timeout", math.inf, "expected seconds, 0 or more"),
        ("shutdown_timeout", False, "expected seconds, 0 or more"),
    ],
)
def test_wrong_serve_option(name: str, value: object, expected: str) -> None:
    """An option of serving that can't work is refused in the same words."""
    with pytest.raises(ConfigError) as caught:
        make(ServeOptions, {name: value})
    assert str(caught.value) == f"{name}: {value!r} given; {expected}"


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"path": "/internal/metrics"}, "path", "/internal/metrics"),
        ({"sample_interval": 0.01}, "sample_interval", 0.01),
        ({"sample_interval": 1}, "sample_interval", 1),
        ({"max_endpoints": 1}, "max_endpoints", 1),
        ({"buckets": [0.1, 1]}, "buckets", (0.1, 1.0)),
        ({"buckets": (0.1, math.inf)}, "buckets", (0.1,)),
        ({"buckets": iter([0.5])}, "buckets", (0.5,)),
        ({"buckets": ()}, "buckets", ()),
    ],
)
def test_setting_at_its_limit(options: dict[str, Any], field: str, value: object) -> None:
    """What can just work is taken; buckets become a tuple of finite floats."""
    assert getattr(make(Settings, options), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [("port", 0), ("port", 65535), ("shutdown_timeout", 0), ("host", "::1"), ("access_log", False)],
)
def test_serve_option_at_its_limit(field: str, value: object) -> None:
    """What can just work is taken as it was given."""
    assert getattr(make(ServeOptions, {field: value}), field) == value


def test_make_refuses_unknown_names() -> None:
    """A name that is no option is refused with the likely one, and with all that there are."""
    with pytest.raises(ConfigError) as caught:
        make(Settings, {"sample_intervall": 2})
    message = str(caught.value)
    assert message.startswith("no option named 'sample_intervall'; did you mean 'sample_interval'?")
    known = ", ".join(field.name for field in dataclasses.fields(Settings))
    assert message.endswith(f"known: {known}")


def test_setup_refuses_unknown_names() -> None:
    """A mistyped option of setup() is a ConfigError like any other wrong one, not a TypeError."""
    options: dict[str, Any] = {"pth": "/m"}
    with pytest.raises(ConfigError, match="did you mean 'path'"):
        aiosvc.setup(web.Application(), registry=CollectorRegistry(), **options)


def test_setup_takes_settings_or_options() -> None:
    """Settings can be given whole or one by one, but not both."""
    registry = CollectorRegistry()
    whole = Settings(path="/m", buckets=(0.5,))
    assert aiosvc.setup(web.Application(), registry=registry, settings=whole).settings is whole
    single = aiosvc.setup(web.Application(), registry=registry, path="/m", buckets=[0.5])
    assert single.settings == whole
    with pytest.raises(ConfigError, match="settings and path given; give one or the other"):
        aiosvc.setup(web.Application(), registry=registry, settings=whole, path="/m")
