"""From 'package.module:attribute' to an application."""

import asyncio
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from aiosvc.errors import ImportStringError
from aiosvc.importer import import_target, make_application

WriteModule = Callable[[str, str], Path]

SHOP = """
from types import SimpleNamespace
app = "the application"
nested = SimpleNamespace(inner=SimpleNamespace(make="the factory"))
number = 5
options = {"app": 1}
_private = "hidden"


class Shelf:
    def __repr__(self):
        return "a shelf\\n" * 1000


shelf = Shelf()
"""


@pytest.fixture
def shop(write_module: WriteModule) -> Path:
    """Write the module `shop` into the current directory, and return its path."""
    return write_module("shop", SHOP)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("shop:app", "the application"),
        ("shop:nested.inner.make", "the factory"),
        ("shop:_private", "hidden"),
    ],
)
def test_found(shop: Path, target: str, found: str) -> None:
    """A module of the current directory is found, and attributes of attributes in it."""
    assert import_target(target) == found


def test_found_in_a_package(write_module: WriteModule) -> None:
    """A module in a package is named with dots."""
    write_module("store.__init__", "")
    write_module("store.web", "app = 'in a package'")
    assert import_target("store.web:app") == "in a package"


def test_current_directory_is_put_on_the_path_once(shop: Path) -> None:
    """The current directory comes first on the path, however often something is imported."""
    import_target("shop:app")
    import_target("shop:app")
    assert sys.path[0] == str(shop.parent)
    assert sys.path.count(str(shop.parent)) == 1


@pytest.mark.parametrize(
    "target", ["", "shop", "shop:", ":app", ":", "shop.web", ".shop:app", "..shop:app"]
)
def test_not_module_attribute(shop: Path, target: str) -> None:
    """What is not of the form module:attribute is refused with an example."""
    with pytest.raises(ImportStringError) as caught:
        import_target(target)
    assert str(caught.value) == (
        f"{target!r} is not module:attribute, for example shop.web:app or shop.web:make_app"
    )


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("shup:app", "shup"),
        ("nowhere.web:app", "nowhere"),
        ("shop.web:app", "shop.web"),
        ("shop/web.py:app", "shop/web"),
        ("a b:app", "a b"),
    ],
)
def test_no_such_module(shop: Path, target: str, missing: str) -> None:
    """A module that is not there is named, with the place where it was looked for."""
    with pytest.raises(ImportStringError) as caught:
        import_target(target)
    assert str(caught.value) == (
        f"{target!r}: there is no module {missing!r} here; the current directory is {shop.parent}"
    )


def test_no_such_attribute(shop: Path) -> None:
    """An attribute that is not there is named, with the likely one."""
    with pytest.raises(ImportStringError) as caught:
        import_target("shop:ap")
    message = str(caught.value)
    assert "has no attribute 'ap'; did you mean 'app'?" in message
    assert message.startswith("'shop:ap': <module 'shop'")


def test_private_names_are_not_suggested(shop: Path) -> None:
    """Nobody is sent to a private name."""
    with pytest.raises(ImportStringError) as caught:
        import_target("shop:private")
    assert str(caught.value).endswith("has no attribute 'private'")


@pytest.mark.parametrize("target", ["shop:number.app", "shop:options.app", "shop:app.make"])
def test_no_such_attribute_of_a_plain_value(shop: Path, target: str) -> None:
    """An attribute of a number, dict or string that is not there is the same clear mistake."""
    with pytest.raises(ImportStringError, match="has no attribute"):
        import_target(target)


def test_long_values_are_cut_where_an_attribute_is_missing(shop: Path) -> None:
    """The message about a missing attribute is one readable line, whatever the object looks like."""
    with pytest.raises(ImportStringError, match="has no attribute 'app'") as caught:
        import_target("shop:shelf.app")
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("1 / 0", ZeroDivisionError),
        ("import no_such_library", ModuleNotFoundError),
        ("from os import no_such_name", ImportError),
        ("raise ModuleNotFoundError('no name in here')", ModuleNotFoundError),
        ("def f(:", SyntaxError),
    ],
)
def test_error_inside_the_module(
    write_module: WriteModule, source: str, error: type[Exception]
) -> None:
    """An error that the module itself raises goes through unchanged."""
    write_module("broken", source)
    with pytest.raises(error) as caught:
        import_target("broken:app")
    assert not isinstance(caught.value, ImportStringError)


class Maker:
    """Makes applications in each of the ways that a factory may have."""

    def __init__(self) -> None:
        self.app = web.Application()
        self.given: Any = "nothing"

    def plain(self) -> web.Application:
        """Return it."""
        return self.app

    def with_list(self, argv: list[str]) -> web.Application:
        """Return it, after an argument was taken."""
        self.given = argv
        return self.app

    def with_any(self, *argv: list[str]) -> web.Application:
        """Return it, after arguments were taken."""
        (self.given,) = argv
        return self.app

    def with_keyword(self, *, debug: bool = False) -> web.Application:
        """Return it; no argument can be given by place."""
        return self.app

    async def slow(self) -> web.Application:
        """Return it a moment later."""
        await asyncio.sleep(0)
        return self.app

    async def slow_with_list(self, argv: list[str]) -> web.Application:
        """Return it a moment later, after an argument was taken."""
        await asyncio.sleep(0)
        return self.with_list(argv)

    async def __call__(self) -> web.Application:
        """Return it as an object that can be called does."""
        return await self.slow()


@pytest.mark.parametrize("name", ["plain", "with_keyword", "slow", "__call__"])
async def test_factory_without_argument(name: str) -> None:
    """A factory that takes nothing is called with nothing, whatever the command line holds."""
    maker = Maker()
    assert await make_application("m:f", getattr(maker, name), ["--debug"]) is maker.app


@pytest.mark.parametrize("name", ["with_list", "with_any", "slow_with_list"])
@pytest.mark.parametrize("arguments", [[], ["--debug", "x"]])
async def test_factory_with_argument(name: str, arguments: list[str]) -> None:
    """A factory that takes an argument gets all of them as one list, also an empty one."""
    maker = Maker()
    assert await make_application("m:f", getattr(maker, name), tuple(arguments)) is maker.app
    assert maker.given == arguments
    assert isinstance(maker.given, list)


async def test_other_callables() -> None:
    """Objects that can be called, partial functions and lambdas are factories too."""
    maker = Maker()
    for factory in (
        maker,
        functools.partial(maker.with_list, ["bound"]),
        functools.partial(maker.slow),
        lambda: maker.app,
        lambda argv: maker.app,
    ):
        assert await make_application("m:f", factory, []) is maker.app


async def test_application_is_taken_as_it_is() -> None:
    """An application can be called in some versions of aiohttp, and is not."""
    app = web.Application()
    assert await make_application("m:app", app, ["x"]) is app


async def test_awaitable_instead_of_a_function() -> None:
    """What already awaits an application is awaited."""
    app = web.Application()

    async def make() -> web.Application:
        return app

    assert await make_application("m:app", make(), []) is app


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (5, "is 5"),
        (None, "is None"),
        ("app", "is 'app'"),
        (SimpleNamespace(app=1), "is namespace(app=1)"),
        (lambda: None, "returned None"),
        (lambda: "app", "returned 'app'"),
        (lambda argv: argv, "returned ['x']"),
        (list, "returned []"),
        (lambda: web.Response, f"returned {web.Response!r}"),
    ],
)
async def test_no_application(found: Any, what: str) -> None:
    """What is or makes no application is refused, with what it was instead."""
    with pytest.raises(ImportStringError) as caught:
        await make_application("m:f", found, ["x"] if "['x']" in what else [])
    assert str(caught.value) == (
        f"'m:f' {what}; expected an aiohttp.web.Application, or a function that returns one"
    )


async def test_long_values_are_cut() -> None:
    """A message stays readable when the wrong value is huge or of many lines."""
    with pytest.raises(ImportStringError) as caught:
        await make_application("m:f", [["line\n" * 1000] * 10], [])
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


async def test_error_inside_the_factory() -> None:
    """An error that the factory itself raises goes through unchanged, a TypeError too."""

    def make(argv: list[str]) -> web.Application:
        raise TypeError("of the user's own")

    with pytest.raises(TypeError, match="of the user's own"):
        await make_application("m:f", make, [])
