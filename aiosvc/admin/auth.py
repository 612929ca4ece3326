"""
The Authorization header, and whether it lets one in.

Rule: whatever stands in it, the answer is yes or no and never an error. Rule: nothing of it is
logged or repeated.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from aiosvc.admin.passwords import PasswordChecker

__all__ = ["challenges", "is_let_in"]

REALM = "aiosvc"


async def is_let_in(
    given: Sequence[str],
    users: Mapping[str, str],
    token: str | None,
    passwords: PasswordChecker,
) -> bool:
    """
    Return whether the Authorization headers *given* let one in.

    *users* are names and bcrypt hashes, *token* is a bearer token; where there are both, either
    will do, and where there is neither, everybody is let in.
    """
    if not users and token is None:
        return True
    if len(given) != 1:
        return False
    scheme, _, credentials = given[0].partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer" and token is not None:
        return _is_token(credentials, token)
    if scheme.lower() == "basic" and users:
        try:
            plain = base64.b64decode(credentials, validate=True)
        except (binascii.Error, ValueError):
            return False
        user, colon, password = plain.partition(b":")
        return bool(colon) and await passwords.is_right(users, user, password)
    return False


def challenges(users: Mapping[str, str], token: str | None) -> list[str]:
    """Return the WWW-Authenticate headers that say what will do."""
    found = [f'Basic realm="{REALM}", charset="UTF-8"'] if users else []
    return [*found, f'Bearer realm="{REALM}"'] if token is not None else found


def _is_token(given: str, token: str) -> bool:
    # Digests, because the comparison takes as long as what it compares.
    ours, theirs = (
        hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (token, given)
    )
    return hmac.compare_digest(ours, theirs)
