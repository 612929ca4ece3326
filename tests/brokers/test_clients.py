"""What a queue is read by."""

import pytest

from aiosvc import ConfigError
from aiosvc.brokers.clients import has_coroutines, library, scheme_of, turns


@pytest.mark.parametrize("url", ["redis://h", "redis://:p%2Fw@h:6379/0", "rediss://h:1?x=y"])
def test_a_url_of_a_known_scheme_will_do(url: str) -> None:
    """The scheme comes back."""
    assert scheme_of(url, ("redis", "rediss"), "redis://h") == url.partition(":")[0]


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://secret@h", "redis://:pa/ss@h:6379", "redis://secret@h:x"]
)
def test_a_wrong_url_is_not_repeated(url: str) -> None:
    """It may hold a password, and what a parser makes of it may be part of that."""
    with pytest.raises(ConfigError) as caught:
        scheme_of(url, ("redis", "rediss"), "redis://localhost:6379/0")
    assert "begins with redis:// or rediss://" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "pa/ss" not in str(caught.value)


def test_a_missing_library_names_the_extra() -> None:
    """The error says what to install, and that a client object needs nothing."""
    with pytest.raises(ConfigError) as caught:
        library("no_such_library.asyncio", "redis", "a Redis queue")
    assert "a Redis queue by its URL needs 'no_such_library'" in str(caught.value)
    assert "pip install 'aiosvc[redis]', or hand over a client object" in str(caught.value)


def test_a_method_must_be_async() -> None:
    """A synchronous client has the same names, which is not enough."""

    class Client:
        def blocking(self) -> None: ...

        async def awaited(self) -> None: ...

    assert has_coroutines(Client(), "awaited")
    assert not has_coroutines(Client(), "awaited", "blocking")
    assert not has_coroutines(Client(), "absent")


def test_those_who_watch_by_one_client_take_turns() -> None:
    """The lock is the client's own, and goes with the last of them."""

    class Client:
        __slots__ = ()  # can't be referred to weakly, as asyncpg's pool

    one, other = Client(), Client()
    kept = turns(one)
    assert turns(one) is kept
    assert turns(other) is not kept
    assert kept.client is one
