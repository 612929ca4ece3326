"""What goes to a Pushgateway, and how often it is tried."""

import base64
import socket
import threading
from typing import Any

import pytest
from gateways import fake_gateway

from aiosvc import pushgateway
from aiosvc.errors import ConfigError
from aiosvc.pushgateway import Gateway, PushError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for milliseconds only between two attempts."""
    monkeypatch.setattr(pushgateway, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(pushgateway, "LAST_PAUSE", 0.002)


@pytest.mark.parametrize(
    ("url", "job", "key", "expected"),
    [
        ("gw:9091", "backup", {}, "http://gw:9091/metrics/job/backup"),
        ("https://gw/", "backup", {}, "https://gw/metrics/job/backup"),
        ("http://gw/prefix/", "b", {"z": "1", "a": "2"}, "http://gw/prefix/metrics/job/b/a/2/z/1"),
        ("http://me:secret@gw:1", "b", {}, "http://gw:1/metrics/job/b"),
        ("[::1]:9091", "b", {}, "http://[::1]:9091/metrics/job/b"),
        ("gw", "a/b", {"x": ""}, "http://gw/metrics/job@base64/YS9i/x@base64/="),
        ("gw", "..", {"x": "é ?#"}, "http://gw/metrics/job@base64/Li4=/x@base64/w6kgPyM="),
    ],
)
def test_url(url: str, job: str, key: dict[str, str], expected: str) -> None:
    """Job and labels are the path of the group, in base64 where they are no plain text."""
    assert Gateway(url, job, key).url == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", "b"), "gateway: '' given; expected a URL like"),
        (("ftp://gw", "b"), "gateway: 'ftp://gw' given"),
        (("http://gw:port", "b"), "gateway: 'http://gw:port' given"),
        (("http://gw?x=1", "b"), "gateway: "),
        (("http:// gw", "b"), "gateway: "),
        ((None, "b"), "gateway: None given"),
        (("gw", ""), "job: '' given"),
        (("gw", None), "job: None given"),
        (("gw", "b", {"job": "x"}), "grouping_key: 'job' given"),
        (("gw", "b", {"a-b": "x"}), "grouping_key: 'a-b' given"),
        (("gw", "b", {"__a": "x"}), "grouping_key: '__a' given"),
        (("gw", "b", {"a": 1}), "grouping_key: a: 1 given; expected a string"),
    ],
)
def test_mistakes(arguments: Any, says: str) -> None:
    """What can't work is said before the job begins."""
    with pytest.raises(ConfigError) as raised:
        Gateway(*arguments)
    assert says in str(raised.value)
    with pytest.raises(ConfigError, match="password given without username"):
        Gateway("gw", "b", password="x")


def test_push() -> None:
    """The body goes by the method that is asked for, as Prometheus text, with the user's name."""
    with fake_gateway() as server:
        there = Gateway(server.url, "b", username="me", password="p:w")
        there.push("PUT", b"a 1\n", seconds=1)
        by_url = Gateway(server.url.replace("//", "//m%40e:p@"), "b")
        by_url.push("POST", b"a 2\n", seconds=1)
    put, post = server.pushed
    assert (put.method, put.path, put.body) == ("PUT", "/metrics/job/b", "a 1\n")
    assert put.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert put.headers["Authorization"] == f"Basic {base64.b64encode(b'me:p:w').decode()}"
    assert (post.method, post.body) == ("POST", "a 2\n")
    assert post.headers["Authorization"] == f"Basic {base64.b64encode(b'm@e:p').decode()}"


def test_what_may_be_temporary_is_tried_again() -> None:
    """Failures of the server, too many requests and a broken connection are tried again."""
    with fake_gateway([503, 429, 0, 500]) as server:
        Gateway(server.url, "b").push("PUT", b"a 1\n", seconds=30)
    assert len(server.pushed) == 5


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_final(status: int) -> None:
    """What another attempt can't change is not tried again, and the answer is quoted."""
    with (
        fake_gateway([status]) as server,
        pytest.raises(PushError, match=rf"/metrics/job/b: answered {status}: because"),
    ):
        Gateway(server.url, "b").push("PUT", b"a 1\n", seconds=30)
    assert len(server.pushed) == 1


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_refusal(status: int, method: str) -> None:
    """What is asked for elsewhere, with the password, would be no push: it is told where to."""
    with (
        fake_gateway([status]) as server,
        pytest.raises(PushError, match=f"answered {status}: /login"),
    ):
        Gateway(server.url, "b", username="me", password="x").push(method, b"a 1\n", seconds=30)
    assert [each.method for each in server.pushed] == [method]


def test_the_deadline() -> None:
    """When time is up the last failure is told; one attempt is made in any case."""
    times = iter([0.0, 1.0, 1.0, 2.0, 2.0, 9.999, 10.5, 11.0])
    with (
        fake_gateway([503] * 10) as server,
        pytest.raises(PushError, match="answered 503: because"),
    ):
        Gateway(server.url, "b", clock=lambda: next(times)).push("PUT", b"", seconds=10)
    assert 2 <= len(server.pushed) <= 4
    with fake_gateway([503] * 10) as server, pytest.raises(PushError):
        Gateway(server.url, "b").push("PUT", b"", seconds=0)
    assert len(server.pushed) == 1


def test_nobody_is_there() -> None:
    """A refused connection is a PushError that says so."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        there = Gateway(f"127.0.0.1:{sock.getsockname()[1]}", "b")
        with pytest.raises(PushError, match="refused"):
            there.push("PUT", b"", seconds=0.05)


def test_stop() -> None:
    """Whoever waits for the next attempt can be told to leave it."""
    stop = threading.Event()
    stop.set()
    with fake_gateway([503] * 10) as server, pytest.raises(PushError):
        Gateway(server.url, "b").push("PUT", b"", seconds=1000, stop=stop)
    assert len(server.pushed) == 1
