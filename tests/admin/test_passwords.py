"""Passwords, their hashes and what is remembered of them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import bcrypt
import pytest
from processes import DEADLINE

from aiosvc.admin.passwords import KEPT, PasswordChecker


def hashed(password: str, cost: int = 4) -> str:
    """Return a hash as a file has it; the cost is low so that the tests are quick."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


USERS = {"alice": hashed("alice123"), "bob": hashed("bob123", 5)}


@pytest.fixture
async def passwords() -> AsyncIterator[PasswordChecker]:
    """Return a checker."""
    made = PasswordChecker()
    yield made
    made.close()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Return what bcrypt is asked, as it is asked it."""
    asked: list[tuple[bytes, bytes]] = []
    check = bcrypt.checkpw

    def note(password: bytes, hashed_password: bytes) -> bool:
        asked.append((password, hashed_password))
        return check(password, hashed_password)

    monkeypatch.setattr(bcrypt, "checkpw", note)
    return asked


@pytest.mark.parametrize(
    ("user", "password", "right"),
    [
        (b"alice", b"alice123", True),
        (b"bob", b"bob123", True),
        (b"alice", b"bob123", False),
        (b"alice", b"", False),
        (b"alice", b"alice123\x00", False),
        (b"", b"", False),
        (b"mallory", b"fakepassword", False),
        (b"\xff\xfe", b"\xff", False),
        (b"alice", b"x" * 5000, False),
    ],
)
async def test_right_and_wrong(
    passwords: PasswordChecker, user: bytes, password: bytes, right: bool
) -> None:
    """Only a user's own password is right, the first time and the second."""
    for _ in range(2):
        assert await passwords.is_right(USERS, user, password) is right


async def test_other_letters(passwords: PasswordChecker) -> None:
    """Names and passwords may have any letters."""
    users = {"j\u00fcrgen": hashed("p\u00e4ss")}
    assert await passwords.is_right(users, "j\u00fcrgen".encode(), "p\u00e4ss".encode())


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
async def test_prefixes(passwords: PasswordChecker, prefix: str) -> None:
    """The hashes of all programs that make them are known."""
    users = {"alice": prefix + hashed("x")[4:]}
    assert await passwords.is_right(users, b"alice", b"x")


async def test_long_password(passwords: PasswordChecker) -> None:
    """Of a password bcrypt takes 72 bytes, as it does for the exporters."""
    users = {"alice": hashed("x" * 72)}
    assert await passwords.is_right(users, b"alice", b"x" * 72)
    assert await passwords.is_right(users, b"alice", b"x" * 100)
    assert not await passwords.is_right(users, b"alice", b"x" * 71)


async def test_right_one_is_remembered(
    passwords: PasswordChecker, compared: list[tuple[bytes, bytes]]
) -> None:
    """A right password costs bcrypt once, a wrong one each time."""
    for _ in range(3):
        assert await passwords.is_right(USERS, b"alice", b"alice123")
        assert not await passwords.is_right(USERS, b"alice", b"wrong")
    assert [password for password, _ in compared] == [b"alice123", *[b"wrong"] * 3]


async def test_changed_hash(passwords: PasswordChecker) -> None:
    """A password that was right is not so any more when the file has another hash, or no user."""
    assert await passwords.is_right(USERS, b"alice", b"alice123")
    assert not await passwords.is_right({**USERS, "alice": hashed("new")}, b"alice", b"alice123")
    assert not await passwords.is_right({"bob": USERS["bob"]}, b"alice", b"alice123")


async def test_memory_is_bounded(passwords: PasswordChecker) -> None:
    """As many right passwords are remembered as are allowed, the latest of them."""
    users = {f"user{n}": USERS["alice"] for n in range(KEPT + 50)}
    for name in users:
        assert await passwords.is_right(users, name.encode(), b"alice123")
    assert len(passwords._right) == KEPT
    for _ in range(KEPT + 50):
        assert not await passwords.is_right(users, b"user1", b"wrong")
    assert len(passwords._right) == KEPT
    assert passwords._asked == {}
    assert len(passwords._decoys) <= len(USERS)


async def test_nothing_of_a_password_is_kept(passwords: PasswordChecker) -> None:
    """What is remembered is a digest, by a key that is another one in each process."""
    assert await passwords.is_right(USERS, b"alice", b"alice123")
    (kept,) = passwords._right
    assert len(kept) == 32
    other = PasswordChecker()
    assert await other.is_right(USERS, b"alice", b"alice123")
    assert other._right.keys() != passwords._right.keys()
    other.close()


async def test_names_and_passwords_that_run_together(passwords: PasswordChecker) -> None:
    """No user's entry can be made by another name and password (CVE-2022-46146)."""
    stored = USERS["alice"]
    assert not await passwords.is_right(USERS, f"alice{stored}".encode(), b"fakepassword")
    assert not await passwords.is_right(USERS, b"alice", f"{stored}fakepassword".encode())
    assert await passwords.is_right(USERS, b"alice", b"alice123")
    for user, password in ((b"alic", b"ealice123"), (b"alicea", b"lice123"), (b"", b"alice123")):
        assert not await passwords.is_right(USERS, user, password)


async def test_unknown_users_cost_what_known_ones_do(
    passwords: PasswordChecker, compared: list[tuple[bytes, bytes]]
) -> None:
    """Each unknown name is compared to a hash with the cost of some user's, always the same."""
    names = [f"user{n}".encode() for n in range(60)]
    costs = []
    for _ in range(2):
        compared.clear()
        for name in names:
            assert not await passwords.is_right(USERS, name, b"guess")
        costs.append([stored[:7] for _, stored in compared])
    assert costs[0] == costs[1]
    assert set(costs[0]) == {stored[:7].encode() for stored in USERS.values()}


async def test_no_password_fits_a_decoy(passwords: PasswordChecker) -> None:
    """The hash that stands in for an unknown user's is nobody's, and of no known password."""
    decoy = passwords._decoy(b"mallory", {"bob": USERS["bob"]})
    assert len(decoy) == len(USERS["bob"])
    assert not bcrypt.checkpw(b"fakepassword", decoy.encode())
    other = PasswordChecker()
    assert other._decoy(b"mallory", {"bob": USERS["bob"]}) != decoy
    other.close()


async def test_one_at_a_time(passwords: PasswordChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask, one thread compares, and who asks the same shares one comparison."""
    together, most, asked = 0, 0, []
    lock = threading.Lock()

    def check(password: bytes, _hashed: bytes) -> bool:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
            asked.append(password)
        threading.Event().wait(0.01)
        with lock:
            together -= 1
        return password == b"right"

    monkeypatch.setattr(bcrypt, "checkpw", check)
    given: list[Any] = [b"right", b"wrong"] * 100 + [f"guess{n}".encode() for n in range(10)]
    async with asyncio.timeout(DEADLINE):
        found = await asyncio.gather(*(passwords.is_right(USERS, b"alice", each) for each in given))
    assert found == [each == b"right" for each in given]
    assert most == 1
    assert sorted(asked) == sorted(set(given))


async def test_asker_that_leaves(passwords: PasswordChecker) -> None:
    """A client that leaves takes nothing from another one that gave the same password."""
    leaving = asyncio.create_task(passwords.is_right(USERS, b"alice", b"alice123"))
    staying = asyncio.create_task(passwords.is_right(USERS, b"alice", b"alice123"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying


async def test_askers_that_all_leave(
    passwords: PasswordChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody waits for any more is not compared, so a crowd that left costs nothing."""
    begun, release = threading.Event(), threading.Event()
    asked: list[bytes] = []

    def check(password: bytes, _hashed: bytes) -> bool:
        asked.append(password)
        begun.set()
        release.wait(DEADLINE)
        return False

    monkeypatch.setattr(bcrypt, "checkpw", check)
    guesses = [f"guess{n}".encode() for n in range(500)]
    crowd = [asyncio.create_task(passwords.is_right(USERS, b"alice", each)) for each in guesses]
    assert await asyncio.to_thread(begun.wait, DEADLINE)
    for each in crowd:
        each.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    latecomer = asyncio.create_task(passwords.is_right(USERS, b"alice", b"late"))
    await asyncio.sleep(0)
    release.set()
    assert not await latecomer
    assert asked == [b"guess0", b"late"]
    assert passwords._asked == {}
