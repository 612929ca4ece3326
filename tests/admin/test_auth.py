"""The Authorization header."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.admin.auth import challenges, is_let_in
from aiosvc.admin.passwords import PasswordChecker

from .servers import basic
from .test_passwords import USERS


@pytest.fixture
async def passwords() -> AsyncIterator[PasswordChecker]:
    """Return a checker."""
    made = PasswordChecker()
    yield made
    made.close()


RIGHT = basic("alice", "alice123")["Authorization"]
ENCODED = RIGHT.removeprefix("Basic ")


@pytest.mark.parametrize(
    ("headers", "let_in"),
    [
        ([RIGHT], True),
        ([f"basic {ENCODED}"], True),
        ([f"BASIC   {ENCODED} "], True),
        (["Bearer t0ken"], True),
        (["bearer t0ken"], True),
        ([], False),
        ([RIGHT, RIGHT], False),
        ([RIGHT, "Bearer t0ken"], False),
        ([""], False),
        (["Basic"], False),
        (["Basic "], False),
        (["Basic %%%"], False),
        (["Basic " + ENCODED[:-3]], False),
        (["Basic \u00fc\u00fc\u00fc="], False),
        (["Basic \udcff\udcfe"], False),
        (["Basic bm9jb2xvbg=="], False),  # nocolon
        (["Basic Og=="], False),  # :
        (["Basic " + "A" * 1_000_000], False),
        ([ENCODED], False),
        ([f"Digest {ENCODED}"], False),
        ([basic("alice", "wrong")["Authorization"]], False),
        ([basic(b"\xff", b"\xfe")["Authorization"]], False),
        (["Bearer"], False),
        (["Bearer "], False),
        (["Bearer t0ke"], False),
        (["Bearer t0ken1"], False),
        (["Bearer \udcff"], False),
        (["Bearer " + "t" * 1_000_000], False),
        (["t0ken"], False),
    ],
)
async def test_headers(passwords: PasswordChecker, headers: Sequence[str], let_in: bool) -> None:
    """One header with the right user or token lets in; whatever else there is does not."""
    assert await is_let_in(headers, USERS, "t0ken", passwords) is let_in


async def test_what_is_not_asked_for_does_not_help(passwords: PasswordChecker) -> None:
    """A token is no use where only users are known, nor a user where only a token is."""
    assert not await is_let_in(["Bearer t0ken"], USERS, None, passwords)
    assert not await is_let_in([RIGHT], {}, "t0ken", passwords)
    assert not await is_let_in(["Bearer None"], USERS, None, passwords)


async def test_everybody(passwords: PasswordChecker) -> None:
    """Where there is neither user nor token, everybody is let in, whatever header they send."""
    for headers in ([], [RIGHT], ["junk"], ["a", "b"]):
        assert await is_let_in(headers, {}, None, passwords)


def test_challenges() -> None:
    """A client is told what will do."""
    basic_one, bearer = 'Basic realm="aiosvc", charset="UTF-8"', 'Bearer realm="aiosvc"'
    assert challenges(USERS, None) == [basic_one]
    assert challenges({}, "t0ken") == [bearer]
    assert challenges(USERS, "t0ken") == [basic_one, bearer]


@given(st.lists(st.text(alphabet=st.characters(), max_size=60), max_size=3))
def test_any_header(headers: list[str]) -> None:
    """Whatever is sent, the answer is no, and never an error."""

    async def ask() -> bool:
        checker = PasswordChecker()
        try:
            given_ = [f"Basic {headers[0]}", *headers[1:]] if headers else []
            basic_one = await is_let_in(given_, USERS, "t0ken", checker)
            return basic_one or await is_let_in(headers, USERS, "t0ken", checker)
        finally:
            checker.close()

    assert asyncio.run(ask()) is False
