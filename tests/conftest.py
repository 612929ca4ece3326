"""Fixtures that any test may ask for."""

import importlib
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers.servers import Nats, Rabbit, Redis, running
from processes import require

WriteModule = Callable[[str, str], Path]

#: Files that wait for real programs most of the time: begun first, so that the others fill the time.
LONGEST = (
    "jobs/test_outages.py",
    "demo/test_never_lost.py",
    "deployment/test_scale_out.py",
    "http/test_variants.py",
    "rules/test_under_prometheus.py",
    "jobs/test_engines.py",
    "brokers/test_outages.py",
    "deployment/test_image.py",
    "http/test_ten_thousand.py",
    "http/test_property.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest files go first; the order within a file stays."""
    places = {str(Path(__file__).parent / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Have every report be text that the process which runs the tests can send: logs may not be."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    """Return *value* with what UTF-8 can't say written out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_sendable, value))
    return value


@pytest.fixture(autouse=True)
def _no_options_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep AIOSVC_* variables of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith("AIOSVC_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Return a function that writes a module into the current directory, a new one of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)

    def write(name: str, source: str) -> Path:
        path = tmp_path / Path(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        return path

    yield write
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def promtool() -> str:
    """Return the path of promtool."""
    return require("promtool")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Return a Redis that all tests share; one that stops a broker starts its own."""
    with running(Redis(tmp_path_factory.mktemp("redis"))) as redis:
        yield redis


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """Return a NATS server."""
    with running(Nats(tmp_path_factory.mktemp("nats"))) as nats:
        yield nats


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """Return a RabbitMQ."""
    with running(Rabbit(tmp_path_factory.mktemp("rabbit"))) as rabbit:
        yield rabbit
