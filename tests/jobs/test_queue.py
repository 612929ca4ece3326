"""Mistakes with a job queue, each said where it is made; and whose cancellation it was."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiosvc.errors import ConfigError
from aiosvc.jobs import JobQueue, NotEnqueuedError
from aiosvc.jobs.message import Message


async def send(address: str) -> None:
    """Do nothing."""
    del address


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "a b"}, "queue name 'a b': may hold only letters"),
        ({"url": "reddis://localhost"}, "expected one that begins with .*did you mean 'redis'"),
        ({"url": "ftp://user:secret@host/0"}, r"queue URL '\.\.\.@host/0': expected one"),
        ({"url": None}, "queue URL None: expected one"),
        ({"maxsize": -1}, "maxsize: -1 given; expected a whole number, 0 or more"),
        ({"visibility": 0}, "visibility: 0 given; expected seconds, 0.1 or more"),
        ({"send_timeout": "long"}, "send_timeout: 'long' given; expected seconds"),
        ({"jobs": ["send"]}, "jobs: not an option of a job queue, which knows its jobs"),
        ({"concurrency": 0}, "concurrency: 0 given; expected a whole number, 1 or more"),
        ({"workers": 1}, "no option named 'workers'"),
    ],
)
def test_mistakes_in_the_options(options: dict[str, Any], says: str) -> None:
    """A wrong option is refused when the queue is made, and no password is repeated."""
    with pytest.raises(ConfigError, match=says) as raised:
        JobQueue(**{"name": "email", **options})
    assert "secret" not in str(raised.value)


def test_mistakes_with_jobs() -> None:
    """A job is an async function under a name of its own."""
    queue = JobQueue(name="email")
    queue.job(send)
    with pytest.raises(ConfigError, match="job 'send': the queue has one of that name; give"):
        queue.job(send)
    with pytest.raises(ConfigError, match="has no name; give it one with name="):
        queue.job(functools.partial(send, "a@example.com"))
    queue.job(functools.partial(send, "a@example.com"), name="send_to_a")  # type: ignore[call-overload]
    blocking: Any = lambda: None  # noqa: E731 - what somebody may hand over
    with pytest.raises(ConfigError, match="expected an async function; put what blocks"):
        queue.job(blocking)


async def test_a_job_that_the_queue_does_not_have() -> None:
    """A name that is mistyped is an error of the caller's, and says which was meant."""
    queue = JobQueue(name="email")
    queue.job(send)
    with pytest.raises(ConfigError, match="no job is named 'sned'; did you mean 'send'"):
        await queue.enqueue("sned", "a@example.com")


class Client:
    """A broker's library that waits, and does something else than its duty when it is cancelled."""

    def __init__(self, then: Callable[[], Awaitable[None]], *, starts: bool) -> None:
        self.stops = 0
        self._then = then
        self._starts = starts

    async def start(self, *, workers: bool) -> None:
        """Connect, at once if that is what it does."""
        del workers
        if not self._starts:
            await self._wait()

    async def put(self, message: Message, data: bytes) -> None:
        """Send."""
        del message, data
        await self._wait()

    async def stop(self) -> int:
        """Disconnect."""
        self.stops += 1
        return 0

    async def _wait(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self._then()


async def drop() -> None:
    """Go on, as if the answer had come."""


async def fail() -> None:
    """Make another error of it."""
    raise ConnectionError("closed")


def queue_with(client: Client, send_timeout: float = 60.0) -> JobQueue:
    """Return a queue whose broker is talked to by *client*."""
    queue = JobQueue("redis://127.0.0.1:1", name="email", send_timeout=send_timeout)
    queue.job(send)
    queue._engine = client
    return queue


@pytest.mark.parametrize(("then", "enqueued", "dropped"), [(drop, 1, 0), (fail, 0, 1)])
async def test_a_cancellation_that_a_library_keeps_to_itself(
    then: Callable[[], Awaitable[None]], enqueued: int, dropped: int
) -> None:
    """Whoever is cancelled while enqueueing is, and the job is counted as what became of it."""
    queue = queue_with(Client(then, starts=True))
    await queue.start()
    task = asyncio.create_task(queue.enqueue("send", "a@example.com"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert queue.ledger.enqueued == enqueued
    assert queue.ledger.rejected == {"full": 0, "shutdown": 0, "error": 0, "cancelled": dropped}


@pytest.mark.parametrize("then", [drop, fail])
async def test_a_start_that_is_cancelled(then: Callable[[], Awaitable[None]]) -> None:
    """It leaves nothing open, and the caller is cancelled, whatever the library makes of it."""
    client = Client(then, starts=False)
    queue = queue_with(client)
    task = asyncio.create_task(queue.start())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.stops == 1
    with pytest.raises(NotEnqueuedError, match="queue email is not running"):
        await queue.enqueue("send", "a@example.com")


async def test_a_time_limit_is_no_cancellation() -> None:
    """A caller whose broker was too slow is told so, also where it was cancelled before and went on."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    queue = queue_with(Client(fail, starts=True), send_timeout=0.01)
    await queue.start()
    with pytest.raises(NotEnqueuedError, match="ConnectionError: closed"):
        await queue.enqueue("send", "a@example.com")
    task.uncancel()
