"""
From what a file asks of TLS to the context that serves it, and the check of a client's names.

Rule: a context is made once for each state of the files and never changed; who replaces a
certificate gets a new context for the connections after that.
"""

import ipaddress
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiosvc.admin.tlsnames import CIPHERS, CLIENT_AUTH, CURVES, VERSIONS
from aiosvc.admin.webconfig import Pem, TlsConfig
from aiosvc.errors import ConfigError

__all__ = ["is_allowed_client", "make_context"]


def make_context(config: TlsConfig) -> ssl.SSLContext:
    """
    Return a server's context with the certificates that *config* names.

    Raises ConfigError, with the key, for a file that is not there or not what it should be, and for
    ciphers or curves that this machine's OpenSSL does not have.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[config.min_version] or ssl.TLSVersion.TLSv1_2
    context.maximum_version = VERSIONS[config.max_version] or ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0  # a client proves who it is on every connection
    if not config.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _choose_ciphers(context, config)
    _choose_curves(context, config.curve_preferences)
    _load_certificate(context, config.cert, config.key)
    context.verify_mode = CLIENT_AUTH[config.client_auth]
    # Whoever is listed is vouched for, be it no root; as in Go.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if config.client_ca is not None:
        _load_client_ca(context, config.client_ca)
    elif config.client_auth in ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert"):
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    elif config.allowed_sans is None:
        context.verify_mode = ssl.CERT_NONE  # asked for and not looked at
    return context


def is_allowed_client(certificate: Mapping[str, Any] | None, allowed: tuple[str, ...]) -> bool:
    """
    Say whether a client's verified *certificate* has one of the names in *allowed*.

    The names are DNS names, addresses, e-mail addresses and URIs, compared as they are written, as
    exporter-toolkit does. *certificate* is what `ssl.SSLSocket.getpeercert` gives.
    """
    for kind, name in (certificate or {}).get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI") and name in allowed:
            return True
        if kind == "IP Address" and str(ipaddress.ip_address(name.strip())) in allowed:
            return True
    return False


def _choose_ciphers(context: ssl.SSLContext, config: TlsConfig) -> None:
    if not config.cipher_suites:
        return
    names = [name for suite in config.cipher_suites if (name := CIPHERS[suite]) is not None]
    path = "tls_server_config.cipher_suites"
    if not names:
        if context.maximum_version == ssl.TLSVersion.TLSv1_2:
            raise ConfigError(f"{path}: all of them are of TLS 1.3, but max_version is TLS12")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    try:
        context.set_ciphers(":".join(names))
    except ssl.SSLError:
        raise ConfigError(f"{path}: this machine's OpenSSL has none of them") from None


def _choose_curves(context: ssl.SSLContext, curves: tuple[str, ...]) -> None:
    # All of them is what OpenSSL offers by itself. Of fewer, Python can set one: the first.
    if curves and set(curves) != set(CURVES):
        try:
            context.set_ecdh_curve(CURVES[curves[0]])
        except (ValueError, ssl.SSLError):
            raise ConfigError(
                f"tls_server_config.curve_preferences: this machine's OpenSSL has no {curves[0]}"
            ) from None


def _load_certificate(context: ssl.SSLContext, cert: Pem, key: Pem) -> None:
    for pem in (cert, key):
        _read(pem)
    # OpenSSL reads these from files only; a directory of tempfile's is its owner's alone.
    with tempfile.TemporaryDirectory(prefix="aiosvc-") as directory:
        names = []
        for pem, name in ((cert, "cert.pem"), (key, "key.pem")):
            path = Path(directory, name) if pem.path is None else pem.path
            if pem.text is not None:
                path.write_text(pem.text, encoding="utf-8")
            names.append(str(path))
        try:
            context.load_cert_chain(names[0], names[1], password=_no_password)
        except _EncryptedError:
            raise ConfigError(
                f"{key.key}: the key is encrypted; expected one that is not"
            ) from None
        except (OSError, ValueError) as error:
            apart = any(each in str(error) for each in ("MISMATCH", "NO_CERTIFICATE_ASSIGNED"))
            why = "they do not belong together" if apart else "not PEM"
            raise ConfigError(f"{cert.key}, {key.key}: no certificate and its key: {why}") from None


def _load_client_ca(context: ssl.SSLContext, client_ca: Pem) -> None:
    text = _read(client_ca)
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"{client_ca.key}: no certificate in it; expected PEM") from None


def _read(pem: Pem) -> str:
    if pem.path is None:
        return pem.text or ""
    try:
        return pem.path.read_text(encoding="ascii", errors="ignore")
    except OSError as error:
        raise ConfigError(f"{pem.key}: {pem.path}: {error.strerror}") from None


class _EncryptedError(Exception):
    """Raised for a key with a password, for which nobody is there to be asked."""


def _no_password() -> str:
    raise _EncryptedError
