"""What every test of the event loop's probes has."""

from collections.abc import Iterator

import pytest

from .doubles import OTHERS, all_watchdogs


@pytest.fixture(autouse=True)
def _others() -> Iterator[None]:
    """Leave out the watchdogs of services that other tests never stopped."""
    OTHERS.update(all_watchdogs())
    yield
    OTHERS.clear()
