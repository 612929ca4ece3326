"""
The web configuration file that Prometheus and its exporters share, from its bytes to its meaning.

Rule: the file is taken as it is written for them (prometheus/exporter-toolkit,
docs/web-configuration.md); a key or value that they refuse is refused here, with a message that names
it. Where Python's TLS can't do what one asks for, the strictest reading is in force and a note says
so; where there is none, the file is refused. Rule: nothing is read here but the bytes given.

Beyond theirs a file may have `bearer_token` or `bearer_token_file`, and `auth_exempt`, a list of
paths. Their programs refuse such a file, so a shared one has these as options of ours instead.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiosvc.admin.section import Section
from aiosvc.admin.tlsnames import CIPHERS, CLIENT_AUTH, CURVES, VERSIONS
from aiosvc.admin.yamlfile import load_yaml
from aiosvc.errors import ConfigError

__all__ = ["Pem", "RateLimit", "TlsConfig", "WebConfig", "parse_web_config"]

TLS_KEYS = (
    "cert_file", "key_file", "cert", "key", "client_auth_type", "client_ca_file", "client_ca",
    "client_allowed_sans", "min_version", "max_version", "cipher_suites",
    "prefer_server_cipher_suites", "curve_preferences",
)  # fmt: skip

#: The keys that switch TLS on.
TLS_SWITCHES = (*TLS_KEYS[:7],)

KEYS = (
    "tls_server_config", "http_server_config", "basic_auth_users", "rate_limit",
    "bearer_token", "bearer_token_file", "auth_exempt",
)  # fmt: skip

#: What takes a client's certificate without verifying it.
UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")

#: The headers that may be set, and their values where these are few.
HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}

BCRYPT = re.compile(r"\$2[aby]?\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")


@dataclass(frozen=True, slots=True)
class Pem:
    """A certificate or key: in a file, or written out; *key* is where the file says so."""

    key: str
    path: Path | None
    text: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsConfig:
    """What `tls_server_config` asks for, in its own words."""

    cert: Pem
    key: Pem
    client_ca: Pem | None
    client_auth: str
    allowed_sans: tuple[str, ...] | None
    min_version: str
    max_version: str
    cipher_suites: tuple[str, ...]
    prefer_server_cipher_suites: bool
    curve_preferences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One request each *interval* seconds, and *burst* at once."""

    interval: float
    burst: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WebConfig:
    """What a file asks for; `notes` are what its author should know about how it is read."""

    tls: TlsConfig | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    rate_limit: RateLimit | None = None
    bearer_token: str | None = field(default=None, repr=False)
    bearer_token_file: Path | None = None
    auth_exempt: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse_web_config(content: bytes, directory: Path) -> WebConfig:
    """
    Return what the file with this *content* asks for; relative names in it are in *directory*.

    Raises ConfigError for anything that it should not have.
    """
    notes: list[str] = []
    file = Section(load_yaml(content), KEYS)
    token, token_file = file.text("bearer_token"), file.file("bearer_token_file", directory)
    if token is not None and token_file is not None:
        raise ConfigError("bearer_token and bearer_token_file: give one or the other")
    exempt = file.texts("auth_exempt") or ()
    for path in exempt:
        if not path.startswith("/"):
            raise ConfigError(f"auth_exempt: {path!r} given; expected a path like '/livez'")
    return WebConfig(
        tls=_tls(file.section("tls_server_config", TLS_KEYS), directory, notes),
        headers=_headers(file.section("http_server_config", ("headers", "http2")), notes),
        users=_users(file),
        rate_limit=_rate_limit(file.section("rate_limit", ("interval", "burst")), notes),
        bearer_token=token,
        bearer_token_file=token_file,
        auth_exempt=exempt,
        notes=tuple(notes),
    )


def _tls(section: Section, directory: Path, notes: list[str]) -> TlsConfig | None:
    low, high = _versions(section, notes)
    sans = section.texts("client_allowed_sans")
    ciphers = section.some_of("cipher_suites", CIPHERS)
    curves = section.some_of("curve_preferences", CURVES)
    prefer = section.truth("prefer_server_cipher_suites", default=True)
    if not any(section.has(key) for key in TLS_SWITCHES):
        if any(section.has(key) for key in TLS_KEYS):
            notes.append("tls_server_config has no certificate, so there is no TLS")
        return None
    cert, key, client_ca = (_pem(section, name, directory) for name in ("cert", "key", "client_ca"))
    if cert is None:
        raise section.missing("cert_file", "one of cert or cert_file")
    if key is None:
        raise section.missing("key_file", "one of key or key_file")
    if 1 < len(curves) < len(CURVES):
        notes.append(f"curve_preferences: only the first, {curves[0]}, is in force")
    return TlsConfig(
        cert=cert,
        key=key,
        client_ca=client_ca,
        client_auth=_client_auth(section, client_ca, sans, notes),
        allowed_sans=sans,
        min_version=low,
        max_version=high,
        cipher_suites=ciphers,
        prefer_server_cipher_suites=prefer,
        curve_preferences=curves,
    )


def _versions(section: Section, notes: list[str]) -> tuple[str, str]:
    low = section.one_of("min_version", VERSIONS) or "TLS12"
    high = section.one_of("max_version", VERSIONS) or "TLS13"
    order = list(VERSIONS)
    if VERSIONS[high] is None:
        raise section.wrong("max_version", "TLS12 or TLS13; earlier versions are not safe")
    if order.index(low) > order.index(high):
        raise section.wrong("min_version", f"no later one than max_version, {high}")
    if VERSIONS[low] is None:
        notes.append(f"min_version {low}: versions before TLS12 are not served")
    return low, high


def _client_auth(
    section: Section, client_ca: Pem | None, sans: tuple[str, ...] | None, notes: list[str]
) -> str:
    auth = section.one_of("client_auth_type", CLIENT_AUTH) or "NoClientCert"
    if auth == "NoClientCert" and (client_ca is not None or sans is not None):
        key = "client_allowed_sans" if client_ca is None else client_ca.key.rpartition(".")[2]
        raise ConfigError(
            f"{section.path_of(key)}: without effect while client_auth_type is NoClientCert; "
            "set client_auth_type: RequireAndVerifyClientCert, or remove it"
        )
    if auth in UNVERIFIED and client_ca is None and (auth != "RequestClientCert" or sans):
        raise ConfigError(
            f"{section.path_of('client_auth_type')}: {auth!r} takes certificates that nobody "
            "vouches for, which Python's TLS can't; use RequireAndVerifyClientCert and "
            "client_ca_file"
        )
    if auth in UNVERIFIED and client_ca is not None:
        notes.append(f"client_auth_type {auth}: a certificate that is presented is verified too")
    return auth


def _pem(section: Section, name: str, directory: Path) -> Pem | None:
    path = section.file(f"{name}_file", directory)
    if path is not None:
        return Pem(section.path_of(f"{name}_file"), path, None)
    text = section.text(name)
    return None if text is None else Pem(section.path_of(name), None, text)


def _headers(section: Section, notes: list[str]) -> dict[str, str]:
    if section.has("http2") and section.truth("http2", default=True):
        notes.append("http_server_config.http2: HTTP/2 is not available here; HTTP/1.1 is served")
    wanted = section.section("headers", tuple(HEADERS))
    headers = {}
    for name, values in HEADERS.items():
        value = wanted.text(name)
        if value is None:
            continue
        if values and value not in values:
            raise wanted.wrong(name, " or ".join(values))
        if not value.isprintable():
            raise wanted.wrong(name, "one line of text")
        headers[name] = value
    return headers


def _users(file: Section) -> dict[str, str]:
    users = file.secrets("basic_auth_users")
    for name, password in users.items():
        if not BCRYPT.fullmatch(password):
            raise ConfigError(
                f"basic_auth_users.{name}: expected the password as a bcrypt hash, which "
                f"`htpasswd -nBC 10 {name}` makes"
            )
    return users


def _rate_limit(section: Section, notes: list[str]) -> RateLimit | None:
    interval, burst = section.seconds("interval", 0.0), section.whole("burst", 0)
    if not interval:
        return None
    if not burst:
        notes.append("rate_limit.burst: 0 would let no request pass; 1 is in force")
    return RateLimit(interval, max(burst, 1))
