"""`aiosvc check`: an endpoint, a file or stdin is judged, and the exit code says how."""

import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from processes import Program, run_to_end

from aiosvc import check as checking
from aiosvc.cli import main
from aiosvc.errors import ConfigError

CLEAN = '# HELP a_total A.\n# TYPE a_total counter\na_total{x="1"} 1\na_total{x="2"} 1\n'
WRONG = "# TYPE requestCount counter\nrequestCount 1\n"


@contextmanager
def serving(
    body: bytes | Iterator[bytes], status: int = 200
) -> Iterator[tuple[str, list[tuple[str, Any, Any]]]]:
    """Serve a body, and give the URL and what was asked: path, Accept and Authorization."""
    asked: list[tuple[str, Any, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Accept"], self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()
            with suppress(ConnectionError):  # of a client that has seen enough
                for chunk in (body,) if isinstance(body, bytes) else body:
                    self.wfile.write(chunk)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_clean_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing wrong is exit code 0, and what there is is counted."""
    path = tmp_path / "scrape.txt"
    path.write_text(CLEAN)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == "2 series in 1 families: a_total 2\nno problems\n"


def test_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Problems are exit code 1, a line each, in promtool's words."""
    path = tmp_path / "scrape.txt"
    path.write_text(WRONG + CLEAN)
    assert main(["check", "--max-series=1", str(path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "a_total 2 series, expected 1 at most; values by label: x 2",
        'requestCount counter metrics should have "_total" suffix',
        "requestCount metric names should be written in 'snake_case' not 'camelCase'",
        "requestCount no help text",
        "3 series in 2 families: a_total 2, requestCount 1",
        "4 problems",
    ]


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For machines there is one JSON object."""
    path = tmp_path / "scrape.txt"
    path.write_text("# TYPE a gauge\na 1\n")
    assert main(["check", "--format=json", str(path)]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "problems": [{"metric": "a", "rule": "help", "text": "no help text"}],
        "series": 1,
        "families": {"a": 1},
    }


def test_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """'-' is stdin; nothing at all is no problem."""
    for text, code in ((CLEAN, 0), (WRONG, 1), ("", 0)):
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["check", "-"]) == code
    assert capsys.readouterr().out.endswith("0 series in 0 families\nno problems\n")


def test_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    """An endpoint is asked for what Prometheus' text is; without a path, for /metrics."""
    with serving(CLEAN.encode()) as (url, asked):
        for path in ("", "/", "/metrics", "/m?x=1"):
            assert main(["check", url + path]) == 0
    assert [path for path, *_ in asked] == ["/metrics", "/metrics", "/metrics", "/m?x=1"]
    assert asked[0][1].startswith("text/plain")
    assert "no problems" in capsys.readouterr().out


def test_a_url_with_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    """User and password in a URL are sent, and shown to nobody."""
    with serving(CLEAN.encode()) as (url, asked):
        there = url.replace("//", "//me:p%40ss:w@")
        assert main(["check", there]) == 0
    assert [authorization for *_, authorization in asked] == ["Basic bWU6cEBzczp3"]
    with serving(b"<html>\n") as (url, _):
        assert main(["check", url.replace("//", "//me:secret@")]) == 2
    assert main(["check", url.replace("//", "//me:secret@")]) == 2
    said = capsys.readouterr()
    assert "secret" not in said.err + said.out


def test_an_answer_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    """A stream that goes on for ever, an event source's for example, is left in time."""

    def forever() -> Iterator[bytes]:
        while True:
            yield b": still here\n" * 1000

    with serving(forever()) as (url, _):
        assert main(["check", "--fetch-timeout=0.1", url]) == 2
    assert "timed out; no whole answer within 0.1 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"<html>\n", 200, "line 1: expected a name, labels and a number: <html>; expected the "),
        (b"a 1", 200, "the last line has no end"),
        (b'a{b="\xff"} 1\n', 200, "can't decode byte 0xff"),
        (b"", 404, "answered 404 Not Found"),
        (b"", 401, "answered 401 Unauthorized"),
    ],
)
def test_what_can_not_be_read(
    capsys: pytest.CaptureFixture[str], body: bytes, status: int, says: str
) -> None:
    """An answer that is no scrape is one line on stderr, and exit code 2."""
    with serving(body, status) as (url, _):
        assert main(["check", f"{url}/metrics"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"aiosvc check: {url}/metrics: ")
    assert says in said.err
    assert said.err.count("\n") == 1


def test_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused connection, a silent endpoint, a missing file and a wrong URL are exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert main(["check", "--fetch-timeout=0.05", f"http://127.0.0.1:{port}"]) == 2
    assert "timed out; no whole answer within 0.05 s" in capsys.readouterr().err
    assert main(["check", f"http://127.0.0.1:{port}"]) == 2
    assert "refused" in capsys.readouterr().err
    for source, says in (
        (str(tmp_path / "nothing"), "No such file or directory; expected a file, '-', or a URL"),
        (str(tmp_path), "Is a directory"),
        ("ftp://x/y", "expected a URL like http://host:8000/metrics"),
        ("http://", "expected a URL like"),
    ):
        assert main(["check", source]) == 2
        assert says in capsys.readouterr().err


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for a scrape is not read whole."""
    monkeypatch.setattr(checking, "LIMIT", 1 << 20)
    path = tmp_path / "large"
    path.write_bytes(b"a" * ((1 << 20) + 1))
    with pytest.raises(checking.SourceError, match="more than 1 MiB"):
        checking.check(str(path), checking.CheckOptions())


@pytest.mark.parametrize(
    "options", [{"max_series": -1}, {"max_series": 1.5}, {"format": "xml"}, {"fetch_timeout": 0}]
)
def test_wrong_options(options: dict[str, Any]) -> None:
    """A wrong option is a ConfigError that names it."""
    with pytest.raises(ConfigError, match=f"^{next(iter(options))}: "):
        checking.CheckOptions(**options)


def test_as_a_command(tmp_path: Path) -> None:
    """The command's exit codes are those that --help promises."""
    (tmp_path / "clean").write_text(CLEAN)
    (tmp_path / "wrong").write_text(WRONG)
    assert run_to_end("check", "clean", directory=tmp_path).code == 0
    ended = run_to_end("check", "wrong", directory=tmp_path)
    assert (ended.code, ended.stderr) == (1, "")
    ended = run_to_end("check", "missing", directory=tmp_path)
    assert (ended.code, ended.stdout) == (2, "")
    assert "Exit codes: 0" in run_to_end("check", "--help", directory=tmp_path).stdout


def judged(promtool: str, text: bytes) -> tuple[int, bytes]:
    """Return promtool's exit code, and what it says."""
    command = [promtool, "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, check=False)
    return done.returncode, done.stderr


async def test_our_own_demo(tmp_path: Path, promtool: str) -> None:
    """The demo's scrape under load is clean, to us and to promtool."""
    async with Program("demo", "--port=0", "--load=50", directory=tmp_path) as program:
        await program.says("its metrics are at")
        ended = run_to_end("check", program.url, directory=tmp_path)
        assert ended.code == 0, ended.stdout
        async with ClientSession() as session, session.get(f"{program.url}/metrics") as response:
            text = await response.read()
    assert judged(promtool, text) == (0, b"")
