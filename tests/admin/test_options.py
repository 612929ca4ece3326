"""The options of the admin server: defaults, limits and refusals."""

import dataclasses
import math
import typing
from typing import Any

import pytest

from aiosvc.admin.options import AdminOptions, ProtectionOptions
from aiosvc.config import make
from aiosvc.errors import ConfigError


def test_defaults() -> None:
    """By default there is no admin server, and one that is asked for is for this machine only."""
    assert dataclasses.asdict(AdminOptions()) == {
        "admin_port": None,
        "admin_host": "127.0.0.1",
        "web_config": None,
        "bearer_token": None,
        "bearer_token_file": None,
        "auth_exempt": (),
        "live_timeout": 5.0,
        "admin_connections": 512,
        "admin_header_timeout": 10.0,
        "admin_keepalive_timeout": 65.0,
        "admin_write_timeout": 60.0,
    }


def test_every_option_has_help() -> None:
    """Each field says what it is for."""
    for field in dataclasses.fields(AdminOptions):
        assert field.metadata["help"]


def test_options_of_the_standalone_server() -> None:
    """`start_metrics_server` takes every field but the address, none of them required."""
    names = [field.name for field in dataclasses.fields(AdminOptions)]
    assert list(ProtectionOptions.__annotations__) == names[2:]
    assert ProtectionOptions.__required_keys__ == frozenset()
    wanted, given = typing.get_type_hints(AdminOptions), typing.get_type_hints(ProtectionOptions)
    assert {n: t for n, t in given.items() if n != "auth_exempt"} == {
        n: t for n, t in wanted.items() if n in names[2:] and n != "auth_exempt"
    }


def test_secrets_are_not_shown() -> None:
    """A token is in no representation of the options."""
    assert "hush" not in repr(AdminOptions(bearer_token="hush"))


def test_frozen_and_keyword_only() -> None:
    """An option can be given only by name, and not be changed once it was checked."""
    with pytest.raises(TypeError):
        AdminOptions(0)  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        AdminOptions().admin_port = 1  # type: ignore[misc]


PORT = "expected a whole number, 0 to 65535"
SECONDS = "expected seconds, 0.1 or more"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("admin_port", -1, PORT),
        ("admin_port", 65536, PORT),
        ("admin_port", "9000", PORT),
        ("admin_port", 80.0, PORT),
        ("admin_port", True, PORT),
        ("admin_host", "", "expected an address like '127.0.0.1'"),
        ("admin_host", None, "expected an address like '127.0.0.1'"),
        ("web_config", "", "expected the name of a file"),
        ("web_config", 3, "expected the name of a file"),
        ("bearer_token_file", "", "expected the name of a file"),
        ("auth_exempt", "/livez", "expected paths, like ('/livez', '/readyz')"),
        ("auth_exempt", 3, "expected paths, like ('/livez', '/readyz')"),
        ("live_timeout", 0, SECONDS),
        ("live_timeout", math.inf, SECONDS),
        ("live_timeout", math.nan, SECONDS),
        ("live_timeout", "5", SECONDS),
        ("live_timeout", True, SECONDS),
        ("admin_connections", 0, "expected a whole number, 1 or more"),
        ("admin_connections", 1.5, "expected a whole number, 1 or more"),
        ("admin_header_timeout", 0.05, SECONDS),
        ("admin_keepalive_timeout", None, SECONDS),
        ("admin_write_timeout", -1, SECONDS),
    ],
)
def test_wrong_option(name: str, value: object, expected: str) -> None:
    """An option that can't work is refused with its name, what was given and what is expected."""
    with pytest.raises(ConfigError) as caught:
        make(AdminOptions, {name: value})
    assert str(caught.value) == f"{name}: {value!r} given; {expected}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auth_exempt": ["livez"]}, "auth_exempt: 'livez' given; expected a path like '/livez'"),
        ({"bearer_token": ""}, "bearer_token: expected a text that is not empty"),
        ({"bearer_token": 5}, "bearer_token: expected a text that is not empty"),
        (
            {"bearer_token": "a", "bearer_token_file": "b"},
            "bearer_token and bearer_token_file given; give one or the other",
        ),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    """What is wrong with a token is said without the token."""
    with pytest.raises(ConfigError) as caught:
        make(AdminOptions, options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value"), [("admin_port", 0), ("admin_port", 65535), ("live_timeout", 0.1)]
)
def test_option_at_its_limit(name: str, value: object) -> None:
    """What can just work is taken."""
    assert getattr(make(AdminOptions, {name: value}), name) == value


def test_paths_become_a_tuple() -> None:
    """Any iterable of paths will do."""
    assert make(AdminOptions, {"auth_exempt": iter(["/livez"])}).auth_exempt == ("/livez",)
