"""What is in force, and what changes of the files change."""

import logging
import os
import sys
import time
from pathlib import Path

import pytest

from aiosvc.admin import AdminOptions
from aiosvc.admin.webfile import WebFile
from aiosvc.errors import ConfigError

from .certificates import Authority, replace
from .test_webconfig import HASH, TLS

USERS = f"basic_auth_users:\n  dave: {HASH}\n"


def age(*paths: Path) -> None:
    """Make files look as if they had been written some time ago."""
    for path in paths:
        then = path.stat().st_mtime - 100
        os.utime(path, (then, then))


@pytest.fixture
def web_yml(tmp_path: Path) -> Path:
    """Return a file with a user."""
    path = tmp_path / "web.yml"
    path.write_text(USERS)
    return path


def web_file(path: Path, **options: str) -> WebFile:
    """Return what reads the file at *path*."""
    return WebFile(AdminOptions(web_config=str(path), **options))  # type: ignore[arg-type]


def test_without_any_file() -> None:
    """Without options nothing is protected, and nothing is read."""
    found = WebFile(AdminOptions()).current()
    assert found.guards == frozenset()
    assert not found.knows_clients


def test_read_once_while_nothing_changes(web_yml: Path) -> None:
    """A file that stays as it is is not read again."""
    age(web_yml)
    found = web_file(web_yml)
    first = found.current()
    assert found.current() is first


def test_change_is_seen_at_once(web_yml: Path) -> None:
    """A changed file is in force with the next request, be it as long and as old as before."""
    found = web_file(web_yml)
    assert list(found.current().config.users) == ["dave"]
    before = web_yml.stat()
    for name in ("fran", "gail"):
        web_yml.write_text(USERS.replace("dave", name))
        os.utime(web_yml, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert list(found.current().config.users) == [name]


def test_old_file_that_is_replaced(web_yml: Path) -> None:
    """A file that is replaced by an older one is seen as well."""
    age(web_yml)
    found = web_file(web_yml)
    other = web_yml.with_name("other.yml")
    other.write_text(USERS.replace("dave", "fran"))
    age(other)
    replace(web_yml, other)
    age(web_yml)
    assert list(found.current().config.users) == ["fran"]


@pytest.mark.parametrize(
    "content", ["junk", USERS + "x: y\n", "basic_auth_users: {a: b}", "a: [", None]
)
def test_broken_file_changes_nothing(
    web_yml: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    """A file that breaks, or goes, keeps the old one in force; it is counted and said once."""
    found = web_file(web_yml)
    caplog.set_level(logging.INFO)
    if content is None:
        web_yml.unlink()
    else:
        web_yml.write_text(content)
    for _ in range(5):
        assert list(found.current().config.users) == ["dave"]
    assert found.failures == 1
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().endswith("what was in force before stays in force")
    web_yml.write_text(USERS.replace("dave", "fran"))
    assert list(found.current().config.users) == ["fran"]
    assert caplog.records[-1].getMessage() == f"{web_yml} is right again, and in force"
    assert found.failures == 1


def test_broken_in_several_ways(web_yml: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each new way in which a file is broken is said and counted."""
    found = web_file(web_yml)
    for content in ("junk", "a: [", "junk"):
        web_yml.write_text(content)
        found.current()
        found.current()
    assert found.failures == 3
    assert len(caplog.records) == 3


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        ("", "basic_auth_users or bearer_token, client_allowed_sans, client_auth_type, tls_server"),
        (USERS, "client_allowed_sans, client_auth_type, tls_server_config"),
        ("{tls}{ca}{sans}", "basic_auth_users or bearer_token"),
        ("{tls}" + USERS, "client_allowed_sans, client_auth_type"),
        ("{tls}{ca}" + USERS, "client_allowed_sans"),
    ],
)
def test_no_file_opens_what_was_closed(pems: Path, content: str, lost: str) -> None:
    """A file that lost a part, as one that is being written has, takes no protection away."""
    parts = {
        "tls": TLS,
        "ca": "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n",
        "sans": "  client_allowed_sans: [one]\n",
    }
    path = pems / "web.yml"
    path.write_text("".join(parts.values()) + USERS)
    found = web_file(path)
    before = found.current()
    path.write_text(content.format(**parts))
    assert found.current() is before
    assert found.failures == 1
    assert web_file(path).current().guards < before.guards  # with a restart it does


def test_what_is_lost_is_said(web_yml: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says which protection a file would have ended, and how to end it."""
    found = web_file(web_yml)
    web_yml.write_text("")
    found.current()
    assert "basic_auth_users or bearer_token: to end this takes a restart" in caplog.text


def test_tls_that_begins_later(pems: Path) -> None:
    """A server that speaks plain HTTP goes on with it until it is restarted."""
    path = pems / "web.yml"
    path.write_text(USERS)
    found = web_file(path)
    path.write_text(TLS + USERS)
    assert found.current().context is None
    assert found.failures == 1


def test_certificate_that_is_replaced(pems: Path, authority: Authority) -> None:
    """A new certificate and key make a new context, but not before they belong together."""
    path = pems / "web.yml"
    path.write_text(TLS)
    age(path, pems / "server.crt", pems / "server.key")
    found = web_file(path)
    first = found.current().context
    assert found.current().context is first
    certificate, key = authority.issue("renewed")
    replace(pems / "server.crt", certificate)
    assert found.current().context is first
    assert found.failures == 1
    replace(pems / "server.key", key)
    assert found.current().context not in (None, first)
    assert found.failures == 1


def test_rate_limit_is_kept_over_changes(web_yml: Path) -> None:
    """A change elsewhere in the file gives nobody a new burst; a new limit does."""
    web_yml.write_text("rate_limit: {interval: 1h, burst: 1}")
    found = web_file(web_yml)
    first = found.current().bucket
    web_yml.write_text("rate_limit: {interval: 1h, burst: 1}\n" + USERS)
    assert found.current().bucket is first
    assert found.current().config.users
    web_yml.write_text("rate_limit: {interval: 1h, burst: 2}\n" + USERS)
    assert found.current().bucket is not first


def test_token_file(tmp_path: Path) -> None:
    """A token is what its file holds, without the space around it, and changes with it."""
    path = tmp_path / "token"
    path.write_text(" s3cret==\n")
    found = WebFile(AdminOptions(bearer_token_file=str(path)))
    assert found.current().token == "s3cret=="
    path.write_text("other\n")
    assert found.current().token == "other"
    path.write_text("\n")
    assert found.current().token == "other"
    assert found.failures == 1


def test_token_of_the_web_file(tmp_path: Path) -> None:
    """A token may be in the file, or in one that it names; an option goes before it."""
    (tmp_path / "token").write_text("from-file")
    path = tmp_path / "web.yml"
    for content, expected in (
        ("bearer_token: hush", "hush"),
        ("bearer_token_file: token", "from-file"),
    ):
        path.write_text(content)
        assert web_file(path).current().token == expected
        assert web_file(path, bearer_token="mine").current().token == "mine"
        file = str(tmp_path / "token")
        assert web_file(path, bearer_token_file=file).current().token == "from-file"


@pytest.mark.parametrize("token", ["two words", "\u00fcmlaut", "a\x00b", 'quote"'])
def test_wrong_token(token: str) -> None:
    """A token that no header can carry is refused, without being repeated."""
    with pytest.raises(ConfigError) as caught:
        WebFile(AdminOptions(bearer_token=token))
    assert str(caught.value) == (
        "the options: bearer_token: expected one word of letters, digits and any of -._~+/="
    )


def test_exempt_paths_of_both(tmp_path: Path) -> None:
    """Paths in the file and in the options are exempt."""
    path = tmp_path / "web.yml"
    path.write_text("auth_exempt: [/livez]")
    options = AdminOptions(web_config=str(path), auth_exempt=("/readyz",))
    assert WebFile(options).current().exempt == {"/livez", "/readyz"}


def test_notes_are_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the author of the file should know is a warning when it is read first."""
    path = tmp_path / "web.yml"
    path.write_text("http_server_config: {http2: true}")
    web_file(path)
    assert "HTTP/2 is not available here; HTTP/1.1 is served" in caplog.text


def test_users_without_bcrypt(web_yml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bcrypt is missing, a file with users is refused with what to install."""
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    with pytest.raises(ConfigError) as caught:
        web_file(web_yml)
    assert str(caught.value).endswith("bcrypt is needed for them; pip install 'aiosvc[web]'")


def test_clock_that_jumps(web_yml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is seen whatever the clock of the machine says."""
    found = web_file(web_yml)
    for name, now in (("fran", 0.0), ("gail", 1e10)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        web_yml.write_text(USERS.replace("dave", name))
        assert list(found.current().config.users) == [name]
