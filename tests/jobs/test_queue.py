"""Mistakes with a job queue: each is said where it is made, with what to do."""

import functools
from typing import Any

import pytest

from aiosvc.errors import ConfigError
from aiosvc.jobs import JobQueue


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
