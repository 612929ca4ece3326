"""How a request of a gateway interface ended, from what an adapter saw of it."""

import asyncio

import pytest

from aiosvc.exchange import Exchange


class WebSocketDisconnect(Exception):  # noqa: N818 - Starlette's name
    """What Starlette tells an application whose client has left."""


@pytest.mark.parametrize(
    ("status", "complete", "left", "error", "expected"),
    [
        (200, True, False, None, (200, None)),
        (503, True, False, None, (503, None)),
        (500, True, False, ValueError(), (500, "exception")),
        (500, True, False, TimeoutError(), (500, "timeout")),
        (200, True, False, ValueError(), (200, None)),
        (0, False, False, None, (500, "exception")),
        (0, False, False, ValueError(), (500, "exception")),
        (0, False, False, TimeoutError(), (500, "timeout")),
        (0, False, False, ConnectionResetError(), (500, "exception")),
        (0, False, False, asyncio.CancelledError(), (499, "cancelled")),
        (200, False, False, asyncio.CancelledError(), (200, "cancelled")),
        (200, False, False, ValueError(), (200, "aborted")),
        (200, False, False, TimeoutError(), (200, "aborted")),
        (200, False, False, None, (200, "aborted")),
        (0, False, True, None, (499, "client_disconnected")),
        (0, True, True, None, (499, "client_disconnected")),
        (200, True, True, None, (200, "client_disconnected")),
        (200, False, True, BrokenPipeError(), (200, "client_disconnected")),
        (200, False, True, WebSocketDisconnect(), (200, "client_disconnected")),
        (0, False, True, asyncio.CancelledError(), (499, "client_disconnected")),
        (0, False, True, ValueError(), (499, "exception")),
        (200, False, True, ValueError(), (200, "aborted")),
    ],
)
def test_ending(
    status: int,
    complete: bool,
    left: bool,
    error: BaseException | None,
    expected: tuple[int, str | None],
) -> None:
    """The client comes before what its leaving caused, the rest before what was not complete."""
    exchange = Exchange("GET", {})
    exchange.status, exchange.left = status, left
    exchange.ended = exchange.begun + 0.25 if complete else None
    ending = exchange.ending(error)
    assert (ending.status, ending.reason) == expected
    assert not complete or ending.seconds == pytest.approx(0.25)
    if expected[1] in ("exception", "timeout", "aborted"):
        assert ending.raised is error


def test_exception_that_a_framework_answered() -> None:
    """An exception of which the adapter was told, not raised, is the one behind the 500."""
    exchange = Exchange("GET", {})
    exchange.status, exchange.ended = 500, exchange.begun
    exchange.raised = error = KeyError("no")
    ending = exchange.ending(None)
    assert (ending.reason, ending.raised) == ("exception", error)
