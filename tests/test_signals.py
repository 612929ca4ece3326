"""The signals that stop a program, as an event."""

import asyncio
import os
import signal
import threading

import pytest

from aiosvc.signals import told_to_stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    """Either signal sets it, a second one changes nothing, and afterwards all is as it was."""
    got: list[int] = []
    before = signal.signal(number, lambda *_: got.append(1))
    try:
        with told_to_stop() as stop:
            assert not stop.is_set()
            for _ in range(2):
                os.kill(os.getpid(), number)
                async with asyncio.timeout(10):
                    await stop.wait()
        assert got == []
        os.kill(os.getpid(), number)
        assert got == [1]
    finally:
        signal.signal(number, before)


async def test_what_fails_within_gives_the_handlers_back_too() -> None:
    """An exception goes through, and the handlers are those that there were."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), told_to_stop():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_of_the_main_thread() -> None:
    """Where signals can't be had, the block runs all the same."""
    before = signal.getsignal(signal.SIGTERM)
    ran: list[bool] = []

    async def run() -> None:
        with told_to_stop() as stop:
            ran.append(stop.is_set())

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join(10)
    assert ran == [False]
    assert signal.getsignal(signal.SIGTERM) is before
