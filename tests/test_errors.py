"""The errors: one tree, each also the builtin that a caller would catch."""

import inspect
import re

import pytest

import aiosvc
from aiosvc import errors
from aiosvc.check import SourceError
from aiosvc.errors import AiosvcError, BindError, ConfigError, ImportStringError, did_you_mean
from aiosvc.jobs import NotEnqueuedError
from aiosvc.queues import PoolClosedError

ALL = [each for name, each in inspect.getmembers(errors, inspect.isclass) if name.endswith("Error")]

#: Those that stand beside what raises them.
OTHERS = [SourceError, NotEnqueuedError, PoolClosedError]


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (ImportStringError, ValueError),
        (BindError, OSError),
        (SourceError, OSError),
        (PoolClosedError, RuntimeError),
    ],
)
def test_each_error_is_ours_and_a_builtin(
    error: type[AiosvcError], builtin: type[Exception]
) -> None:
    """Who catches AiosvcError gets all of them, who catches the builtin gets its own."""
    assert issubclass(error, AiosvcError)
    assert issubclass(error, builtin)


def is_public(error: type[Exception]) -> bool:
    """Return whether an error is one of the package's, and not a test's."""
    return error.__module__.startswith("aiosvc.")


@pytest.mark.parametrize("error", ALL)
def test_each_error_is_in_the_package(error: type[AiosvcError]) -> None:
    """Every error can be caught by a name of the package itself."""
    assert getattr(aiosvc, error.__name__) is error
    assert error.__name__ in aiosvc.__all__
    assert error.__name__ in errors.__all__


def test_tree_in_the_docstring() -> None:
    """The tree that the docstring draws names every class, and its builtin."""
    drawn = re.findall(
        r"^\s+(?:[├└]── )?(\w+Error)(?: \((\w+)\))?", errors.__doc__ or "", re.MULTILINE
    )
    classes = {each.__name__: {base.__name__ for base in each.__bases__} for each in ALL + OTHERS}
    ours = [each.__name__ for each in AiosvcError.__subclasses__() if is_public(each)]
    assert set(ours) == set(classes) - {"AiosvcError"}
    assert {name for name, _ in drawn} == set(classes)
    for name, builtin in drawn:
        assert not builtin or builtin in classes[name]


@pytest.mark.parametrize("error", ALL)
def test_message_is_the_text(error: type[AiosvcError]) -> None:
    """What was said when it was raised is what a user reads, no errno or type around it."""
    assert str(error("port 80 is taken")) == "port 80 is taken"


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ("prot", ["host", "port"], "; did you mean 'port'?"),
        ("sample-interval", ["sample_interval", "path"], "; did you mean 'sample_interval'?"),
        ("port", ["ports", "port"], "; did you mean 'port'?"),
        ("zzz", ["host", "port"], ""),
        ("", ["host"], ""),
        ("port", [], ""),
        ("port", iter(["ports"]), "; did you mean 'ports'?"),
    ],
)
def test_did_you_mean(given: str, known: list[str], expected: str) -> None:
    """The closest known name is suggested; where none is close, nothing is."""
    assert did_you_mean(given, known) == expected
