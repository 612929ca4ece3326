"""A pytest plugin that runs asynchronous tests on uvloop; `test_variants` loads it."""

from collections.abc import Callable, Mapping

import pytest
import uvloop


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], uvloop.Loop]]:
    """Name the loop that pytest-asyncio makes for each test."""
    return {"uvloop": uvloop.new_event_loop}
