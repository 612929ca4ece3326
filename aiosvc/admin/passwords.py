"""
Passwords against their bcrypt hashes; the one place that imports bcrypt.

Rule: what is kept of a password is a keyed digest, and only of one that was right. Rule: bcrypt is
made to be slow, so it runs in a thread, one at a time; who asks the same meanwhile shares the
answer. Rule: an unknown user costs what a known one does.

Theory of operation. A right password is remembered by an HMAC, under a key that is made anew in each
process, over user, hash and password with the length of each before it; no two different triples
make the same message (CVE-2022-46146 was a cache key where they did), and a changed hash in the file
is another triple. An unknown user is compared to a decoy: a hash that no password has, with the cost
of one of the real ones, always the same for the same name. So neither the time nor its spread over
many names tells who is a user.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from aiosvc.errors import ConfigError

__all__ = ["PasswordChecker", "require_bcrypt"]

#: Right passwords that are remembered.
KEPT = 100

#: Bytes of a password that bcrypt looks at.
BCRYPT_BYTES = 72

BCRYPT_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

#: Characters of a bcrypt hash after its salt.
DIGEST_LENGTH = 31


def require_bcrypt() -> None:
    """Raise ConfigError where bcrypt is not installed."""
    try:
        import bcrypt  # noqa: F401, PLC0415 - an extra, needed only by who has users
    except ImportError:
        raise ConfigError(
            "basic_auth_users: bcrypt is needed for them; pip install 'aiosvc[web]'"
        ) from None


class PasswordChecker:
    """Checks passwords for as long as a server runs."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._asked: dict[bytes, _Comparison] = {}
        self._decoys: dict[str, str] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aiosvc admin passwords")

    async def is_right(self, users: Mapping[str, str], user: bytes, password: bytes) -> bool:
        """Return whether *user* is one of *users* and this is the password; takes its time."""
        name = user.decode("utf-8", "surrogateescape")
        known = users.get(name)
        hashed = known or self._decoy(user, users)
        digest = self._digest(user, hashed.encode(), password)
        if digest in self._right:
            self._right.move_to_end(digest)
            return known is not None
        asked = self._asked.get(digest)
        if asked is None:
            asked = _Comparison(asyncio.create_task(self._compare(digest, hashed, password)))
            self._asked[digest] = asked
            asked.task.add_done_callback(lambda _: self._asked.pop(digest, None))
        return await asked.wait() and known is not None

    def close(self) -> None:
        """End the thread, when it has finished what it does now."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _compare(self, digest: bytes, hashed: str, password: bytes) -> bool:
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._thread, _is_right, hashed, password)
        if right:
            self._right[digest] = None
            if len(self._right) > KEPT:
                self._right.popitem(last=False)
        return right

    def _digest(self, *parts: bytes) -> bytes:
        message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._key, message, hashlib.sha256)

    def _decoy(self, user: bytes, users: Mapping[str, str]) -> str:
        costs = sorted(hashed[:7] for hashed in users.values())
        picked = int.from_bytes(self._digest(b"decoy", user), "big") % len(costs)
        prefix = costs[picked]
        decoy = self._decoys.get(prefix)
        if decoy is None:
            import bcrypt  # noqa: PLC0415 - there are users, so it is installed

            salt = bcrypt.gensalt(4).decode("ascii")[7:]
            digest = "".join(secrets.choice(BCRYPT_ALPHABET) for _ in range(DIGEST_LENGTH))
            decoy = self._decoys[prefix] = prefix + salt + digest
        return decoy


class _Comparison:
    """One comparison, and how many wait for it."""

    def __init__(self, task: asyncio.Task[bool]) -> None:
        self.task = task
        self._waiting = 0

    async def wait(self) -> bool:
        """Return its result; when everybody who waited has left, it is not made at all."""
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.task.cancel()


def _is_right(hashed: str, password: bytes) -> bool:
    import bcrypt  # noqa: PLC0415 - there are users, so it is installed

    try:
        return bcrypt.checkpw(password[:BCRYPT_BYTES], hashed.encode("ascii"))
    except ValueError:
        return False
