"""TLS as the web configuration file asks for it, spoken with real clients."""

import contextlib
import dataclasses
import http.client
import socket
import ssl
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from processes import DEADLINE

from aiosvc.admin import AdminServer
from aiosvc.admin.tls import is_allowed_client, make_context
from aiosvc.admin.tlsnames import CIPHERS, CURVES
from aiosvc.admin.webconfig import Pem, parse_web_config
from aiosvc.errors import ConfigError

from .certificates import Authority, client_context, replace
from .servers import BODY, ask, ask_raw, basic, running
from .test_webconfig import HASH, TLS

REFUSED = (ssl.SSLError, ConnectionError, http.client.BadStatusLine)
IF_GIVEN = "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.pem\n"
REQUIRED = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"


def serving(
    pems: Path, more: str = "", **options: Any
) -> contextlib.AbstractContextManager[AdminServer]:
    """Start a server that speaks TLS with *more* in its configuration file."""
    path = pems / "web.yml"
    path.write_text(TLS + more)
    return running(web_config=str(path), **options)


def shaken(server: AdminServer, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a connection whose handshake is done."""
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


def test_https(pems: Path, authority: Authority) -> None:
    """With a certificate the server speaks HTTPS, and says so in its URL."""
    with serving(pems) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        reply = ask(server, context=client_context(authority))
        assert (reply.status, reply.text) == (200, BODY)


def test_inline_certificate(
    pems: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificate, key and authority may be written out in the file; no copy of them is left."""
    (pems / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(pems / "temporary"))
    (pems / "web.yml").write_text(
        "tls_server_config:\n  client_auth_type: VerifyClientCertIfGiven\n"
        + "".join(
            f"  {key}: |\n"
            + "".join(f"    {line}\n" for line in (pems / name).read_text().split("\n"))
            for key, name in (
                ("cert", "server.crt"),
                ("key", "server.key"),
                ("client_ca", "ca.pem"),
            )
        )
    )
    with running(web_config=str(pems / "web.yml")) as server:
        good = client_context(authority, authority.issue("inline-client"))
        assert ask(server, context=good).status == 200
        assert list((pems / "temporary").iterdir()) == []


def test_plain_http_to_the_https_port(pems: Path) -> None:
    """Who forgets the s is told so, in plain HTTP."""
    with serving(pems) as server:
        answer = ask_raw(server, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert answer.endswith(b"This port speaks HTTPS; the request came in plain HTTP.\n")


def test_garbage_to_the_https_port(pems: Path, authority: Authority) -> None:
    """What is neither TLS nor HTTP is hung up on, and the next one is served."""
    with serving(pems) as server:
        for junk in (b"\x16\x03\x01\x00\x05junk!", b"\x00" * 100, b"\x80\x2e\x01", b"\x16"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as sock:
                sock.sendall(junk)
                sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    while sock.recv(4096):
                        pass
        assert ask(server, context=client_context(authority)).status == 200


def test_https_to_the_plain_port(authority: Authority) -> None:
    """A TLS client finds no TLS where there is none, and does not wait for it."""
    with running() as server, pytest.raises(REFUSED):
        ask(server, context=client_context(authority))


def test_tls_1_1_is_refused(pems: Path, authority: Authority) -> None:
    """A client that knows nothing newer than TLS 1.1 is turned away."""
    context = client_context(authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with serving(pems, "  min_version: TLS10\n") as server, pytest.raises(REFUSED):
        ask(server, context=context)


@pytest.mark.parametrize(
    ("more", "client", "version"),
    [
        ("", ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        ("", ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ("  max_version: TLS12\n", None, "TLSv1.2"),
        ("  min_version: TLS13\n", None, "TLSv1.3"),
        ("  min_version: TLS13\n", ssl.TLSVersion.TLSv1_2, None),
        ("  max_version: TLS12\n", ssl.TLSVersion.TLSv1_3, None),
        ("  cipher_suites: [TLS_AES_128_GCM_SHA256]\n", None, "TLSv1.3"),
        ("  cipher_suites: [TLS_AES_128_GCM_SHA256]\n", ssl.TLSVersion.TLSv1_2, None),
    ],
)
def test_versions(
    pems: Path, authority: Authority, more: str, client: ssl.TLSVersion | None, version: str | None
) -> None:
    """The versions that the file names are spoken, and no others."""
    context = client_context(authority)
    if client is not None:
        context.minimum_version = context.maximum_version = client
    with serving(pems, more) as server:
        if version is None:
            with pytest.raises(REFUSED):
                shaken(server, context)
        else:
            with shaken(server, context) as sock:
                assert sock.version() == version


SUITES = "  max_version: TLS12\n  cipher_suites: [{}]\n"
AES128, AES256 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"


@pytest.mark.parametrize(
    ("more", "client", "used"),
    [
        (SUITES.format(", ".join(CIPHERS)), None, ""),
        (SUITES.format(f"{AES128}, {AES256}"), [AES128], AES128),
        (SUITES.format(f"{AES128}, {AES256}"), [AES256], AES256),
        (SUITES.format(f"{AES128}, {AES256}"), [AES256, AES128], AES128),
        (SUITES.format(f"{AES256}, {AES128}"), [AES128, AES256], AES256),
        (
            SUITES.format(f"{AES256}, {AES128}") + "  prefer_server_cipher_suites: false\n",
            [AES128, AES256],
            AES128,
        ),
        (SUITES.format(AES128), ["TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"], None),
    ],
)
def test_cipher_suites(
    pems: Path, authority: Authority, more: str, client: list[str] | None, used: str | None
) -> None:
    """Go's names choose the suites; the server's order counts unless the file says otherwise."""
    context = client_context(authority)
    if client is not None:
        context.set_ciphers(":".join(str(CIPHERS[name]) for name in client))
    with serving(pems, more) as server:
        if used is None:
            with pytest.raises(REFUSED):
                shaken(server, context)
            return
        with shaken(server, context) as sock:
            cipher = sock.cipher()
    assert cipher is not None
    assert used == "" or cipher[0] == CIPHERS[used]


@pytest.mark.parametrize(
    ("server_curves", "client_curve", "works"),
    [
        (", ".join(CURVES), "CurveP256", True),
        (", ".join(CURVES), "CurveP521", True),
        ("CurveP521", "CurveP521", True),
        ("CurveP521", "CurveP384", False),
        ("CurveP384, X25519", "CurveP384", True),
        ("CurveP384, X25519", "CurveP256", False),
        ("X25519", "X25519", True),
    ],
)
def test_curves(
    pems: Path, authority: Authority, server_curves: str, client_curve: str, works: bool
) -> None:
    """No curve is used that the file does not name."""
    context = client_context(authority)
    context.set_ecdh_curve(CURVES[client_curve])
    expected = contextlib.nullcontext() if works else pytest.raises(REFUSED)
    with serving(pems, f"  curve_preferences: [{server_curves}]\n") as server, expected:
        assert ask(server, context=context).status == 200


@pytest.fixture(scope="module")
def clients(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ssl.SSLContext]:
    """Return clients with a certificate that will do, one of another authority, and none."""
    other = Authority(tmp_path_factory.mktemp("other"), "other")
    sans = (
        "DNS:scraper.example,email:ops@example.org,URI:spiffe://x/prometheus,IP:10.0.0.7,IP:fd00::7"
    )
    return {
        "good": client_context(authority, authority.issue("client", sans)),
        "stranger": client_context(authority, other.issue("stranger", sans)),
        "none": client_context(authority),
    }


@pytest.mark.parametrize(
    ("more", "served"),
    [
        (REQUIRED, {"good"}),
        (
            "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.pem\n",
            {"good", "none"},
        ),
        ("  client_auth_type: RequireAnyClientCert\n  client_ca_file: ca.pem\n", {"good"}),
        ("  client_auth_type: RequestClientCert\n", {"good", "stranger", "none"}),
        ("  client_auth_type: NoClientCert\n", {"good", "stranger", "none"}),
        ("  client_auth_type: RequireAndVerifyClientCert\n", set()),
        (REQUIRED + "  client_allowed_sans: [scraper.example]\n", {"good"}),
        (REQUIRED + "  client_allowed_sans: [nobody, ops@example.org]\n", {"good"}),
        (REQUIRED + "  client_allowed_sans: ['spiffe://x/prometheus']\n", {"good"}),
        (REQUIRED + "  client_allowed_sans: [10.0.0.7]\n", {"good"}),
        (REQUIRED + "  client_allowed_sans: ['fd00::7']\n", {"good"}),
        (REQUIRED + "  client_allowed_sans: [client, example, '*.example']\n", set()),
        (
            IF_GIVEN + "  client_allowed_sans: [scraper.example]\n",
            {"good"},
        ),
    ],
)
def test_client_certificates(
    pems: Path, clients: dict[str, ssl.SSLContext], more: str, served: set[str]
) -> None:
    """Who shows no certificate, another authority's, or one without the name is not served."""
    with serving(pems, more) as server:
        found = set()
        for name, context in clients.items():
            with contextlib.suppress(*REFUSED):
                assert ask(server, context=context).status == 200
                found.add(name)
        connections = server.connections
    assert found == served
    assert connections is not None
    assert len(connections) == 0


def test_names_are_said_once(
    pems: Path, clients: dict[str, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    """That a certificate has none of the names is logged once, and counted each time."""
    with serving(pems, REQUIRED + "  client_allowed_sans: [nobody]\n") as server:
        for _ in range(3):
            with pytest.raises(REFUSED):
                ask(server, context=clients["good"])
        assert server.connections is not None
        assert server.connections.unwelcome == 3
    (record,) = caplog.records
    assert "has none of client_allowed_sans" in record.getMessage()


def test_certificate_that_vouches_for_itself(pems: Path, authority: Authority) -> None:
    """A client's own certificate may stand in the place of an authority."""
    own = authority.self_signed("lonely", "DNS:lonely")
    (pems / "ca.pem").write_bytes(own[0].read_bytes())
    with serving(pems, REQUIRED) as server:
        assert ask(server, context=client_context(authority, own)).status == 200


def serial(sock: ssl.SSLSocket) -> object:
    """Return the serial number of the server's certificate."""
    found = sock.getpeercert()
    assert found is not None
    return found["serialNumber"]


def test_certificate_that_is_replaced(pems: Path, authority: Authority) -> None:
    """New connections get the new certificate, old ones go on, and a broken one changes nothing."""
    context = client_context(authority)
    with serving(pems) as server, shaken(server, context) as first:
        old = serial(first)
        certificate, key = authority.issue("replacement")
        replace(pems / "server.crt", certificate)
        with shaken(server, context) as second:
            assert serial(second) == old  # the key does not belong to it yet
        replace(pems / "server.key", key)
        with shaken(server, context) as third:
            new = serial(third)
        assert new != old
        (pems / "server.crt").write_text("-----BEGIN CERTIFICATE-----\njunk")
        with shaken(server, context) as fourth:
            assert serial(fourth) == new
        first.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert first.recv(4096).startswith(b"HTTP/1.1 200 OK")
        assert server.web_file is not None
        assert server.web_file.failures == 2


def test_users_over_tls(pems: Path, authority: Authority) -> None:
    """Users and TLS go together."""
    context = client_context(authority)
    users = f"basic_auth_users:\n  dave: {HASH}\n"
    with serving(pems, users) as server:
        assert ask(server, context=context).status == 401
        assert ask(server, context=context, headers=basic("dave", "dave123")).status == 200


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "server.crt",
            "",
            "tls_server_config.cert_file, tls_server_config.key_file: no certificate",
        ),
        ("server.key", "junk", "tls_server_config.cert_file, tls_server_config.key_file: no cert"),
        ("ca.pem", "junk", "tls_server_config.client_ca_file: no certificate in it; expected PEM"),
        ("ca.pem", "", "tls_server_config.client_ca_file: no certificate in it; expected PEM"),
        (
            "ca.pem",
            "\u00fc\x00",
            "tls_server_config.client_ca_file: no certificate in it; expected",
        ),
    ],
)
def test_files_that_are_not_what_they_should_be(
    pems: Path, name: str, content: str, message: str
) -> None:
    """A file that holds something else is named by its key."""
    (pems / name).write_text(content)
    with pytest.raises(ConfigError) as caught, serving(pems, REQUIRED):
        pass
    assert message in str(caught.value)


def test_key_of_another_certificate(pems: Path, authority: Authority) -> None:
    """A key that belongs to another certificate is refused as just that."""
    (pems / "server.key").write_bytes(authority.issue("another", kind="rsa")[1].read_bytes())
    with pytest.raises(ConfigError, match="they do not belong together"), serving(pems):
        pass


def test_encrypted_key(pems: Path, authority: Authority) -> None:
    """A key with a password is refused; nobody is asked for it on a terminal."""
    encrypted = authority.encrypt(pems / "server.key")
    encrypted.replace(pems / "server.key")
    with pytest.raises(ConfigError, match="key_file: the key is encrypted"), serving(pems):
        pass


def test_ciphers_that_openssl_does_not_have(pems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites of which this machine has none, and those of 1.3 without 1.3, are refused."""
    config = parse_web_config((TLS + f"  cipher_suites: [{AES128}]\n").encode(), pems).tls
    assert config is not None
    make_context(config)
    none = dataclasses.replace(config, cipher_suites=("TLS_AES_128_GCM_SHA256",))
    with pytest.raises(ConfigError, match=r"of TLS 1\.3, but max_version is TLS12"):
        make_context(dataclasses.replace(none, max_version="TLS12"))
    monkeypatch.setattr("aiosvc.admin.tls.CIPHERS", {AES128: "NO-SUCH-CIPHER"})
    with pytest.raises(ConfigError, match="this machine's OpenSSL has none of them"):
        make_context(config)
    monkeypatch.setattr("aiosvc.admin.tls.CURVES", {"X": "no-such-curve", "Y": ""})
    with pytest.raises(ConfigError, match="this machine's OpenSSL has no X"):
        make_context(dataclasses.replace(config, cipher_suites=(), curve_preferences=("X",)))


def test_names_of_no_certificate() -> None:
    """Without a certificate, or names in it, nobody is allowed."""
    assert not is_allowed_client(None, ("a",))
    assert not is_allowed_client({}, ("a",))
    assert not is_allowed_client({"subject": ((("commonName", "a"),),)}, ("a",))


def test_pem_does_not_show_its_text() -> None:
    """The representation of a key that is written out does not show it."""
    assert "hush" not in repr(Pem("tls_server_config.key", None, "hush"))
