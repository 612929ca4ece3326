"""What the package promises."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import aiosvc


def public_modules() -> list[str]:
    """Return the names of all modules of the package."""
    return [
        info.name
        for info in pkgutil.walk_packages(aiosvc.__path__, "aiosvc.")
        if not info.name.endswith("__main__")
    ]


def test_all_is_sorted_and_true() -> None:
    """`aiosvc.__all__` names what is there, in order."""
    assert list(aiosvc.__all__) == sorted(set(aiosvc.__all__))
    for name in aiosvc.__all__:
        assert hasattr(aiosvc, name)


@pytest.mark.parametrize("name", public_modules())
def test_every_module_says_what_it_exports(name: str) -> None:
    """A module has a docstring, and an `__all__` of names that it has."""
    module: ModuleType = importlib.import_module(name)
    assert module.__doc__
    for exported in getattr(module, "__all__", ()):
        assert hasattr(module, exported)
