"""
What protects the admin server now: options and web configuration file, re-read when they change.

Rule: a server starts with files that are right or not at all; after that, a file that is broken
changes nothing: what was in force stays so, which is counted and said once. Rule: a file that lost a
part opens nothing. A file that is empty for a moment is how many programs write one, so to end TLS,
authentication, or the check of clients' certificates takes a restart.
"""

import hashlib
import logging
import os
import ssl
import string
import time
from dataclasses import dataclass, field
from pathlib import Path

from aiosvc.admin.options import AdminOptions
from aiosvc.admin.passwords import require_bcrypt
from aiosvc.admin.ratelimit import TokenBucket
from aiosvc.admin.tls import make_context
from aiosvc.admin.webconfig import RateLimit, WebConfig, parse_web_config
from aiosvc.errors import ConfigError

__all__ = ["InForce", "WebFile"]

log = logging.getLogger("aiosvc.admin")

#: Seconds for which a file may be written again without a change of its times.
CLOCK_TICK = 2.0

#: What a bearer token may hold (RFC 6750, section 2.1).
TOKEN_LETTERS = frozenset(string.ascii_letters + string.digits + "-._~+/=")

#: What tells one state of a file from another.
Stamps = dict[Path, object]


@dataclass(frozen=True, slots=True)
class InForce:
    """One consistent reading of all files."""

    config: WebConfig
    context: ssl.SSLContext | None
    bucket: TokenBucket | None
    token: str | None = field(repr=False)
    exempt: frozenset[str]

    @property
    def guards(self) -> frozenset[str]:
        """What keeps strangers out, by the keys that it comes from."""
        tls = self.config.tls
        has = {
            "tls_server_config": tls is not None,
            "basic_auth_users or bearer_token": bool(self.config.users) or self.token is not None,
            "client_auth_type": self.context is not None
            and self.context.verify_mode == ssl.CERT_REQUIRED,
            "client_allowed_sans": tls is not None and tls.allowed_sans is not None,
        }
        return frozenset(key for key, there in has.items() if there)

    @property
    def knows_clients(self) -> bool:
        """Say whether clients have to show who they are, by whatever means."""
        return bool(self.guards - {"tls_server_config"})


class WebFile:
    """
    Reads the files that *options* name, and again when they change.

    Raises ConfigError where they are wrong, when made; `current` never does.
    """

    def __init__(self, options: AdminOptions) -> None:
        self.failures = 0  # times that what had changed was broken
        self._options = options
        self._name = options.web_config or options.bearer_token_file or "the options"
        self._broken: str | None = None
        self._stamps: Stamps = {}
        try:
            self._in_force = _load(options, self._stamps, None)
        except ConfigError as error:
            raise ConfigError(f"{self._name}: {error}") from None
        for note in self._in_force.config.notes:
            log.warning("%s: %s", self._name, note)

    @property
    def is_broken(self) -> bool:
        """Say whether the files, as they are now, are wrong, so that what was in force stays."""
        return self._broken is not None

    def current(self) -> InForce:
        """Return what is in force now, having looked at the files' times."""
        if any(_stamp(path) != stamp for path, stamp in self._stamps.items()):
            stamps: Stamps = {}
            try:
                now = _load(self._options, stamps, self._in_force.bucket)
                _refuse_opening(self._in_force, now)
            except ConfigError as error:
                self._stamps |= stamps  # so that it is read again when it changes, not before
                self._note_broken(str(error))
            else:
                self._stamps, self._in_force = stamps, now
                if self._broken is not None:
                    log.info("%s is right again, and in force", self._name)
                self._broken = None
        return self._in_force

    def _note_broken(self, why: str) -> None:
        if why != self._broken:
            self._broken = why
            self.failures += 1
            log.error("%s: %s; what was in force before stays in force", self._name, why)


def _load(options: AdminOptions, stamps: Stamps, bucket: TokenBucket | None) -> InForce:
    """Read everything; *stamps* is filled on the way, each before its file is read."""
    config = WebConfig()
    if options.web_config is not None:
        path = Path(options.web_config)
        config = parse_web_config(_read("web_config", path, stamps), path.parent)
    if config.users:
        require_bcrypt()
    context = None
    if config.tls is not None:
        for pem in (config.tls.cert, config.tls.key, config.tls.client_ca):
            if pem is not None and pem.path is not None:
                stamps[pem.path] = _stamp(pem.path)
        context = make_context(config.tls)
    exempt = frozenset(config.auth_exempt) | frozenset(options.auth_exempt)
    token = _token(options, config, stamps)
    return InForce(config, context, _bucket(config.rate_limit, bucket), token, exempt)


def _token(options: AdminOptions, config: WebConfig, stamps: Stamps) -> str | None:
    token, file = options.bearer_token, None
    if options.bearer_token_file is not None:
        file = Path(options.bearer_token_file)
    if token is None and file is None:
        token, file = config.bearer_token, config.bearer_token_file
    if file is not None:
        token = _read("bearer_token_file", file, stamps).decode("utf-8", "replace").strip()
    if token is not None and (not token or not TOKEN_LETTERS.issuperset(token)):
        raise ConfigError("bearer_token: expected one word of letters, digits and any of -._~+/=")
    return token


def _bucket(limit: RateLimit | None, before: TokenBucket | None) -> TokenBucket | None:
    if limit is None:
        return None
    return before if before is not None and before.limit == limit else TokenBucket(limit)


def _refuse_opening(before: InForce, now: InForce) -> None:
    lost = before.guards - now.guards
    if lost:
        raise ConfigError(f"{', '.join(sorted(lost))}: to end this takes a restart")
    if before.context is None and now.context is not None:
        raise ConfigError("tls_server_config: to begin with TLS takes a restart")


def _read(key: str, path: Path, stamps: Stamps) -> bytes:
    stamps[path] = _stamp(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None


def _stamp(path: Path) -> object:
    try:
        found = os.stat(path)  # noqa: PTH116 - as cheap as can be: it is done at each request
        if time.time() - found.st_mtime < CLOCK_TICK:
            return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
