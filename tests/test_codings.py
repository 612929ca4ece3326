"""The codings: what is compressed here can be read elsewhere, with and without the fast libraries."""

import gzip
import sys
import zlib
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from aiosvc import codings

BODY = b"".join(b'jobs_total{queue="%d"} %d.0\n' % (n, n * n) for n in range(20_000))


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    codings._gzip.cache_clear()
    codings._zstd.cache_clear()
    yield
    codings._gzip.cache_clear()
    codings._zstd.cache_clear()


def coded(coding: str) -> bytes:
    """Return the body, compressed in three pieces."""
    compressor = codings.compressor(coding)
    pieces = [compressor.compress(piece) for piece in (BODY[:10], b"", BODY[10:])]
    return b"".join([*pieces, compressor.flush()])


def test_gzip_is_always_there_and_can_be_read() -> None:
    """Gzip comes from whatever is installed, as one member, far smaller than the body."""
    assert "gzip" in codings.available()
    body = coded("gzip")
    reader = zlib.decompressobj(31)
    assert reader.decompress(body) == BODY
    assert reader.eof
    assert reader.unused_data == b""
    assert len(body) < len(BODY) / 4


def test_gzip_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without isal the standard library makes it, at its fastest level."""
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    assert gzip.decompress(coded("gzip")) == BODY
    made: list[Any] = []
    monkeypatch.setattr(zlib, "compressobj", lambda *a: made.append(a))
    codings.compressor("gzip")
    assert made == [(1, zlib.DEFLATED, 31)]


def test_gzip_with_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With isal it is isal's."""
    isal = ModuleType("isal")
    deflate = SimpleNamespace(compressobj=lambda *a: ("isal", *a))
    monkeypatch.setitem(sys.modules, "isal", isal)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", deflate)
    made: object = codings.compressor("gzip")
    assert made == ("isal", 1, zlib.DEFLATED, 31)


def test_zstd_where_it_is_installed() -> None:
    """Zstd is announced exactly where it can be made, and is a zstd frame then."""
    if "zstd" in codings.available():
        body = coded("zstd")
        assert body[:4] == b"\x28\xb5\x2f\xfd"
        assert len(body) < len(BODY) / 4
    else:
        with pytest.raises(ValueError, match=r"coding 'zstd': expected one of gzip"):
            codings.compressor("zstd")


@pytest.mark.parametrize("name", ["compression.zstd", "backports.zstd", "zstandard"])
def test_zstd_of_each_library(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each library that has zstd is used where it is the only one."""
    for each in ("compression.zstd", "backports.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, each, None)
    compressor = SimpleNamespace(compressobj=lambda: "a compressor")
    module = SimpleNamespace(ZstdCompressor=lambda level: compressor if level == 1 else None)
    monkeypatch.setitem(sys.modules, name.partition(".")[0], ModuleType(name.partition(".")[0]))
    monkeypatch.setitem(sys.modules, name, module)
    assert codings.available() == ("zstd", "gzip")
    made: object = codings.compressor("zstd")
    assert made == ("a compressor" if name == "zstandard" else compressor)


def test_no_library_of_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any, it is neither announced nor made."""
    for each in ("compression.zstd", "backports.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, each, None)
    assert codings.available() == ("gzip",)
    with pytest.raises(ValueError, match="coding 'br': expected one of gzip"):
        codings.compressor("br")


def test_a_library_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that can't be loaded here is as good as none."""

    def broken(name: str) -> ModuleType:
        raise OSError(f"{name}: wrong ELF class")

    monkeypatch.setattr(codings, "import_module", broken)
    assert codings.available() == ("gzip",)
    assert gzip.decompress(coded("gzip")) == BODY
