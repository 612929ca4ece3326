"""A queue's workers in a process of their own: what is run, and what is refused."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from brokers.servers import Redis
from prometheus_client import CollectorRegistry

from aiosvc import AdminOptions, ConfigError, ImportStringError, JobQueue, Settings
from aiosvc.cli import main
from aiosvc.service import Observer
from aiosvc.worker import make_queue, work

URL = "redis://127.0.0.1:1/0"


def queue() -> JobQueue:
    """Return a queue on a broker that is not there."""
    return JobQueue(URL, name="email", send_timeout=0.3)


async def aqueue() -> JobQueue:
    """Return the same, later."""
    await asyncio.sleep(0)
    return queue()


@pytest.mark.parametrize("found", [queue(), queue, aqueue], ids=["object", "function", "async"])
async def test_a_queue_in_every_way(found: Any) -> None:
    """A queue is one, or is returned by a function, async or not."""
    assert (await make_queue("shop:queue", found)).name == "email"


@pytest.mark.parametrize(
    ("found", "kind", "message"),
    [
        (7, ImportStringError, "'shop:queue' is 7; expected an aiosvc.JobQueue"),
        (lambda: None, ImportStringError, "'shop:queue' returned None; expected"),
        (JobQueue(name="email"), ConfigError, "queue email: it is in memory"),
    ],
)
async def test_what_is_no_queue(found: Any, kind: type[Exception], message: str) -> None:
    """Anything else is refused with what was found; a queue in memory with what to do."""
    with pytest.raises(kind, match=message):
        await make_queue("shop:queue", found)


def test_a_broker_that_is_not_there(
    write_module: Callable[[str, str], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says in one line which queue has no broker, and exits with 2."""
    write_module(
        "shopq", f'import aiosvc\nq = aiosvc.JobQueue("{URL}", name="email", send_timeout=0.3)\n'
    )
    assert main(["worker", "shopq:q"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("aiosvc worker: queue email: redis can't be reached")


async def test_signals_are_given_back(redis_server: Redis) -> None:
    """SIGTERM ends it, and afterwards the handler is who it was before."""
    got = []
    before = signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    registry = CollectorRegistry()
    email = JobQueue(redis_server.url, name="email-signals")
    seen: list[str | None] = []

    def started(observer: Observer) -> None:
        seen.append(observer.admin_url)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        admin = AdminOptions(admin_port=0)
        await work(email, Settings(), admin, registry=registry, started=started)
        assert not got
        os.kill(os.getpid(), signal.SIGTERM)
        assert got == [1]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen[0] is not None
