"""Web configuration files: those that Prometheus's exporters take, and those that they refuse."""

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.admin import AdminOptions, AdminServer
from aiosvc.admin.tlsnames import CIPHERS, CURVES
from aiosvc.admin.webconfig import RateLimit, WebConfig, parse_web_config
from aiosvc.admin.webfile import WebFile
from aiosvc.errors import ConfigError
from aiosvc.health import Health

from .servers import metrics

HASH = "$2y$10$2UXri9cIDdgeKjBo4Rlpx.U3ZLDV8X1IxKmsfOvhcM5oXQt/mLmXq"  # dave123
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"

#: The files that exporter-toolkit's own tests expect to be refused: name, content, message.
BROKEN = [
    ("structure", "a line\nand another", "the file: expected keys and values"),
    (
        "unknown key",
        "tls_server_config:\n  cert_filse: server.crt\n",
        "tls_server_config.cert_filse: there is no such key; did you mean 'cert_file'?",
    ),
    (
        "empty certificate path",
        "tls_server_config:\n  cert_file: ''\n  key_file: server.key\n",
        "tls_server_config.cert_file: missing; expected one of cert or cert_file",
    ),
    (
        "empty certificate",
        "tls_server_config:\n  cert: ''\n  key_file: server.key\n",
        "tls_server_config.cert_file: missing; expected one of cert or cert_file",
    ),
    (
        "empty key path",
        "tls_server_config:\n  cert_file: server.crt\n  key_file: ''\n",
        "tls_server_config.key_file: missing; expected one of key or key_file",
    ),
    (
        "empty key",
        "tls_server_config:\n  cert_file: server.crt\n  key: ''\n",
        "tls_server_config.key_file: missing; expected one of key or key_file",
    ),
    (
        "neither",
        "tls_server_config:\n  cert_file: ''\n  key_file: ''\n  client_auth_type: x\n",
        "tls_server_config.cert_file: missing; expected one of cert or cert_file",
    ),
    (
        "no such certificate",
        "tls_server_config:\n  cert_file: somefile\n  key_file: server.key\n",
        "tls_server_config.cert_file: {directory}/somefile: No such file or directory",
    ),
    (
        "no such key",
        "tls_server_config:\n  cert_file: server.crt\n  key_file: somefile\n",
        "tls_server_config.key_file: {directory}/somefile: No such file or directory",
    ),
    (
        "no such files",
        "tls_server_config:\n  cert_file: somefile\n  key_file: somefile\n",
        "tls_server_config.cert_file: {directory}/somefile: No such file or directory",
    ),
    (
        "authority without policy",
        TLS + "  client_ca_file: /dev/null\n",
        "tls_server_config.client_ca_file: without effect while client_auth_type is NoClientCert",
    ),
    (
        "no such authority",
        TLS + "  client_ca_file: somefile\n  client_auth_type: RequireAndVerifyClientCert\n",
        "tls_server_config.client_ca_file: {directory}/somefile: No such file or directory",
    ),
    (
        "password in clear",
        TLS + "basic_auth_users:\n  john: doe\n",
        "basic_auth_users.john: expected the password as a bcrypt hash",
    ),
    (
        "invented cipher",
        TLS + "  cipher_suites:\n  - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA2048\n",
        "tls_server_config.cipher_suites: 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA2048' given;",
    ),
    (
        "invented curve",
        TLS + "  curve_preferences:\n  - CurveP257\n",
        "tls_server_config.curve_preferences: 'CurveP257' given; expected some of",
    ),
    (
        "invented version",
        TLS + "  min_version: TLS111\n",
        "tls_server_config.min_version: 'TLS111' given; expected one of TLS10, TLS11, TLS12, TLS13",
    ),
    (
        "value that is none of the header's",
        "http_server_config:\n  headers:\n    X-Content-Type-Options: sniff\n",
        "http_server_config.headers.X-Content-Type-Options: 'sniff' given; expected nosniff",
    ),
    (
        "value that is none of the other header's",
        "http_server_config:\n  headers:\n    X-Frame-Options: foo\n",
        "http_server_config.headers.X-Frame-Options: 'foo' given; expected deny or sameorigin",
    ),
    (
        "header that may not be set",
        "http_server_config:\n  headers:\n    Content-Type: foo\n",
        "http_server_config.headers.Content-Type: there is no such key",
    ),
]

#: Further ones, that are wrong for us.
WRONG = [
    ("[1, 2]", "the file: expected keys and values"),
    ("basic_auth_users: {a: x, a: y}", "line 1: 'a' is there twice"),
    ("tls_config: {}", "tls_config: there is no such key; did you mean 'tls_server_config'?"),
    ("basic_auth_users: alice", "basic_auth_users: expected names and values"),
    ("basic_auth_users: {alice: $2y$99$" + "a" * 53 + "}", "basic_auth_users.alice: expected the"),
    ("http_server_config: {http2: maybe}", "http_server_config.http2: 'maybe' given; expected tr"),
    (
        'http_server_config: {headers: {X-XSS-Protection: "1\\r\\nX: y"}}',
        "http_server_config.headers.X-XSS-Protection: '1\\r\\nX: y' given; expected one line",
    ),
    ("rate_limit: {interval: soon}", "rate_limit.interval: 'soon' given; expected a duration"),
    ("rate_limit: {interval: 1s, burst: -1}", "rate_limit.burst: '-1' given; expected a whole"),
    (TLS + "  client_auth_type: Sometimes\n", "tls_server_config.client_auth_type: 'Sometimes'"),
    (TLS + "  client_allowed_sans: [a]\n", "tls_server_config.client_allowed_sans: without effect"),
    (
        TLS + "  client_auth_type: RequireAnyClientCert\n",
        "tls_server_config.client_auth_type: 'RequireAnyClientCert' takes certificates that nobody",
    ),
    (
        TLS + "  client_auth_type: RequestClientCert\n  client_allowed_sans: [a]\n",
        "tls_server_config.client_auth_type: 'RequestClientCert' takes certificates that nobody",
    ),
    (
        TLS + "  max_version: TLS11\n",
        "tls_server_config.max_version: 'TLS11' given; expected TLS12",
    ),
    (
        TLS + "  min_version: TLS13\n  max_version: TLS12\n",
        "tls_server_config.min_version: 'TLS13' given; expected no later one than max_version",
    ),
    ("auth_exempt: [livez]", "auth_exempt: 'livez' given; expected a path like '/livez'"),
    ("bearer_token: a\nbearer_token_file: b\n", "bearer_token and bearer_token_file: give one"),
]


def parse(text: str) -> WebConfig:
    """Return what a file of this text asks for."""
    return parse_web_config(text.encode(), Path("/etc/prometheus"))


@pytest.mark.parametrize(
    ("content", "message"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN]
)
def test_files_that_exporters_refuse(pems: Path, content: str, message: str) -> None:
    """Each is refused when it is read, and when a server is to start with it, in the same words."""
    path = pems / "web.yml"
    path.write_text(content)
    options = AdminOptions(admin_port=0, web_config=str(path))
    for start in (lambda: WebFile(options), AdminServer(metrics, Health(), options).start):
        with pytest.raises(ConfigError) as caught:
            start()
        expected = f"{path}: {message.format(directory=pems)}"
        assert str(caught.value).startswith(expected)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """The name of a file that does not exist is refused."""
    options = AdminOptions(admin_port=0, web_config=str(tmp_path / "somefile"))
    with pytest.raises(ConfigError, match="somefile: No such file or directory"):
        AdminServer(metrics, Health(), options).start()


@pytest.mark.parametrize(("content", "message"), WRONG)
def test_further_refusals(content: str, message: str) -> None:
    """What can't be meant, or can't be done, is refused with the key it is about."""
    with pytest.raises(ConfigError) as caught:
        parse(content)
    assert str(caught.value).startswith(message)


def test_secrets_are_not_repeated() -> None:
    """Neither a message nor a representation shows a password, a hash, a key or a token."""
    for content in ("basic_auth_users: {john: hush}", "bearer_token: [hush]"):
        with pytest.raises(ConfigError) as caught:
            parse(content)
        assert "hush" not in str(caught.value)
    found = parse(f"basic_auth_users: {{dave: {HASH}}}\nbearer_token: hush\n")
    found = dataclasses.replace(found, tls=parse("tls_server_config: {cert: a, key: hush}").tls)
    assert "hush" not in repr(found)
    assert HASH not in repr(found)


@pytest.mark.parametrize("content", ["", "# nothing", "tls_server_config:\nbasic_auth_users:\n"])
def test_file_that_asks_for_nothing(content: str) -> None:
    """An empty file is right, and protects nothing."""
    assert parse(content) == WebConfig()


def test_all_of_it() -> None:
    """A file with everything is read as it is meant, names relative to its directory."""
    found = parse(
        TLS
        + f"""\
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: /ca.pem
  client_allowed_sans: [one, two]
  min_version: TLS12
  max_version: TLS12
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP521]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=31536000; includeSubDomains
    X-Content-Type-Options: nosniff
    X-XSS-Protection: 1
    Content-Security-Policy: "default-src 'self' *.test.example.net"
basic_auth_users:
  dave: {HASH}
rate_limit:
  interval: 1s
  burst: 20
bearer_token_file: token
auth_exempt: [/livez]
"""
    )
    tls = found.tls
    assert tls is not None
    assert tls.cert.path == Path("/etc/prometheus/server.crt")
    assert tls.key.path == Path("/etc/prometheus/server.key")
    assert tls.client_ca is not None
    assert tls.client_ca.path == Path("/ca.pem")
    assert (tls.client_auth, tls.allowed_sans) == ("RequireAndVerifyClientCert", ("one", "two"))
    assert (tls.min_version, tls.max_version) == ("TLS12", "TLS12")
    assert tls.cipher_suites == ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",)
    assert tls.prefer_server_cipher_suites is False
    assert tls.curve_preferences == ("CurveP521",)
    assert found.headers == {
        "X-Frame-Options": "deny",
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
        "X-Content-Type-Options": "nosniff",
        "X-XSS-Protection": "1",
        "Content-Security-Policy": "default-src 'self' *.test.example.net",
    }
    assert found.users == {"dave": HASH}
    assert found.rate_limit == RateLimit(1.0, 20)
    assert found.bearer_token_file == Path("/etc/prometheus/token")
    assert found.auth_exempt == ("/livez",)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("http_server_config: {http2: true}", "HTTP/2 is not available here"),
        (TLS + "  min_version: TLS10\n", "versions before TLS12 are not served"),
        (TLS + "  curve_preferences: [CurveP384, X25519]\n", "only the first, CurveP384, is in"),
        ("tls_server_config: {min_version: TLS13}", "has no certificate, so there is no TLS"),
        ("rate_limit: {interval: 1s, burst: 0}", "0 would let no request pass; 1 is in force"),
        (
            TLS + "  client_auth_type: RequireAnyClientCert\n  client_ca_file: ca.pem\n",
            "a certificate that is presented is verified too",
        ),
    ],
)
def test_notes(content: str, note: str) -> None:
    """Where what is asked for is done in another way, the author of the file is told."""
    (found,) = parse(content).notes
    assert note in found


@pytest.mark.parametrize(
    "content",
    [
        TLS + "  cipher_suites: [" + ", ".join(CIPHERS) + "]\n",
        TLS + "  curve_preferences: [" + ", ".join(CURVES) + "]\n",
        TLS + "  client_auth_type: VerifyClientCertIfGiven\n",
        TLS + "  client_auth_type: RequireAndVerifyClientCert\n",
        TLS + "  client_auth_type: RequestClientCert\n",
        "rate_limit: {interval: 0, burst: 0}",
    ],
)
def test_files_that_exporters_take(content: str) -> None:
    """These are taken without a word."""
    assert parse(content).notes == ()


KEYS_AND_VALUES = st.sampled_from(
    [
        "tls_server_config", "cert_file", "key", "cipher_suites", "client_auth_type", "TLS12",
        "min_version", "http_server_config", "headers", "http2", "basic_auth_users", "rate_limit",
        "interval", "burst", "1s", "-1", "bearer_token", "auth_exempt", "/livez", "null", "", HASH,
    ]
)  # fmt: skip


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes(content: bytes) -> None:
    """Whatever is in the file, it is read or refused, and nothing else."""
    with contextlib.suppress(ConfigError):
        parse_web_config(content, Path())


@given(
    st.recursive(
        KEYS_AND_VALUES | st.text(max_size=5) | st.integers() | st.booleans() | st.none(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(KEYS_AND_VALUES, inner, max_size=5)
        ),
        max_leaves=20,
    )
)
def test_any_structure(content: object) -> None:
    """However keys and values are mixed up, the file is read or refused, and nothing else."""
    with contextlib.suppress(ConfigError):
        parse_web_config(json.dumps(content).encode(), Path())
