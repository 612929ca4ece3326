"""Certificates for tests, made with the openssl command."""

import shutil
import ssl
import subprocess
from pathlib import Path

from processes import require

__all__ = ["Authority", "client_context"]


class Authority:
    """A certificate authority in a directory of its own."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._openssl = require("openssl")
        self._directory = directory
        self._name = name
        self.path = directory / f"{name}.pem"
        self._make(name, "-x509", "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(
        self, name: str, sans: str = "DNS:localhost,IP:127.0.0.1", kind: str = "ec"
    ) -> tuple[Path, Path]:
        """Return a new certificate for *sans* and its key."""
        ca = ("-CA", str(self.path), "-CAkey", str(self.path.with_suffix(".key")))
        self._make(name, "-x509", *ca, "-addext", f"subjectAltName={sans}", kind=kind)
        path = self._directory / f"{name}.pem"
        return path, path.with_suffix(".key")

    def self_signed(self, name: str, sans: str) -> tuple[Path, Path]:
        """Return a certificate that nobody but itself vouches for, and its key."""
        self._make(name, "-x509", "-addext", f"subjectAltName={sans}")
        path = self._directory / f"{name}.pem"
        return path, path.with_suffix(".key")

    def encrypt(self, key: Path) -> Path:
        """Return a copy of a key with a password on it."""
        out = key.with_name(f"encrypted-{key.name}")
        self._run("pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(out))
        return out

    def _make(self, name: str, *arguments: str, kind: str = "ec") -> None:
        path = self._directory / f"{name}.pem"
        kinds = {"ec": ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"), "rsa": ("rsa:2048",)}
        key = ("-newkey", *kinds[kind], "-nodes", "-keyout", str(path.with_suffix(".key")))
        subject = ("-subj", f"/CN={name}", "-days", "2", "-out", str(path))
        self._run("req", *key, *subject, *arguments)

    def _run(self, *arguments: str) -> None:
        subprocess.run([self._openssl, *arguments], check=True, capture_output=True)


def client_context(
    authority: Authority, certificate: tuple[Path, Path] | None = None
) -> ssl.SSLContext:
    """Return a client's context that trusts *authority* and shows *certificate*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(authority.path))
    if certificate is not None:
        context.load_cert_chain(*map(str, certificate))
    return context


def replace(old: Path, new: Path) -> None:
    """Put *new* in the place of *old*, as a program that renews certificates does."""
    copy = old.with_name(f"{old.name}.new")
    shutil.copy(new, copy)
    copy.replace(old)
