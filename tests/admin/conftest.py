"""Fixtures for the admin server's tests."""

from pathlib import Path

import pytest

from .certificates import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a certificate authority."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> tuple[Path, Path]:
    """Return the server's certificate and key, an RSA one as the cipher names want."""
    return authority.issue("server", kind="rsa")


@pytest.fixture
def pems(tmp_path: Path, authority: Authority, certificate: tuple[Path, Path]) -> Path:
    """Return a directory with server.crt, server.key and ca.pem, as configuration files name them."""
    for source, name in zip(
        (*certificate, authority.path), ("server.crt", "server.key", "ca.pem"), strict=True
    ):
        (tmp_path / name).write_bytes(source.read_bytes())
    return tmp_path
