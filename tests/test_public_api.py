"""What the package promises."""

import ast
import importlib
import pkgutil
from pathlib import Path
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


def imported_names() -> list[tuple[str, str, str]]:
    """Return who imports which name from which module of the package."""
    root = Path(aiosvc.__file__).parent
    return [
        (str(path.relative_to(root)), node.module, alias.name)
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("aiosvc")
        for alias in node.names
    ]


def test_what_modules_import_of_each_other_is_exported() -> None:
    """`__all__` names all that others use, so whatever is not there can be changed alone."""
    modules = {"aiosvc", *public_modules()}
    hidden = [
        (who, module, name)
        for who, module, name in imported_names()
        if f"{module}.{name}" not in modules
        and name not in getattr(importlib.import_module(module), "__all__", ())
    ]
    assert hidden == []
