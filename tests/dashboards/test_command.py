"""`aiosvc dashboards`, and the options of what it writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_to_end

from aiosvc.dashboards import DashboardOptions, dashboards, write_dashboards
from aiosvc.errors import ConfigError

FILES = ["aiosvc-eventloop.json", "aiosvc-queues.json", "aiosvc-service.json"]


def test_command_writes_the_dashboards(tmp_path: Path) -> None:
    """The command makes the directory, writes one file for each dashboard and says which."""
    ended = run_to_end("dashboards", "--output", "made/here", directory=tmp_path)
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [f"made/here/{name}" for name in FILES]
    written = [json.loads((tmp_path / "made/here" / name).read_text()) for name in FILES]
    assert written == [board for _, board in dashboards("classic")]


def test_command_writes_the_preset(tmp_path: Path) -> None:
    """Flag, variable and file say which names the service uses; the files' names are the same."""
    ended = run_to_end("dashboards", directory=tmp_path, environment={"AIOSVC_PRESET": "otel"})
    assert ended.code == 0
    written = json.loads((tmp_path / "dashboards" / FILES[2]).read_text())
    assert written["uid"] == "aiosvc-service-otel"
    (tmp_path / "pyproject.toml").write_text('[tool.aiosvc]\npreset = "otel"\n')
    assert run_to_end("dashboards", "--preset=classic", directory=tmp_path).code == 0
    written = json.loads((tmp_path / "dashboards" / FILES[2]).read_text())
    assert written["uid"] == "aiosvc-service"
    ended = run_to_end("dashboards", "--preset=otell", directory=tmp_path)
    assert (ended.code, ended.stderr) == (
        2, "aiosvc dashboards: preset: 'otell' given; expected classic or otel; did you mean 'otel'?\n"
    )  # fmt: skip


def test_runbooks_are_where_they_are_said_to_be(tmp_path: Path) -> None:
    """The address that is given is what every runbook's link begins with, without its last slash."""
    options = DashboardOptions(output=str(tmp_path), runbooks="https://docs.example.com/runbooks/")
    for path in write_dashboards(options, "otel"):
        variables = json.loads(path.read_text())["templating"]["list"]
        (runbooks,) = (each for each in variables if each["name"] == "runbooks")
        assert runbooks["query"] == "https://docs.example.com/runbooks"


def test_dashboards_are_written_over(tmp_path: Path) -> None:
    """Writing again replaces what is there, and leaves other files alone."""
    other = tmp_path / "mine.json"
    other.write_text("{}")
    (tmp_path / FILES[0]).write_text("old")
    write_dashboards(DashboardOptions(output=str(tmp_path)), "classic")
    assert json.loads((tmp_path / FILES[0]).read_text())["uid"] == "aiosvc-eventloop"
    assert other.read_text() == "{}"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("output", "", "output: '' given; expected the name of a directory"),
        ("runbooks", "docs/runbooks", "runbooks: 'docs/runbooks' given; expected an address like"),
        ("runbooks", "javascript:alert(1)", "runbooks: 'javascript:alert(1)' given; expected an"),
        ("runbooks", "https://[", "runbooks: 'https://[' given; expected an address like"),
        ("runbooks", "/$job", "runbooks: '/$job' given; expected an address like"),
    ],
)
def test_wrong_options_are_refused(name: str, value: str, message: str) -> None:
    """A wrong option is told with what was given and what is expected."""
    with pytest.raises(ConfigError) as raised:
        DashboardOptions(**{name: value})
    assert str(raised.value).startswith(message)


def test_directory_that_is_none_is_told(tmp_path: Path) -> None:
    """Where nothing can be written, one line says so and the exit code is 2."""
    (tmp_path / "taken").write_text("a file")
    ended = run_to_end("dashboards", "--output=taken", directory=tmp_path)
    assert ended.code == 2
    assert ended.stderr.startswith("aiosvc dashboards: output: 'taken' given; can't write there")
    assert "Traceback" not in ended.stderr


def test_writing_needs_no_sdk() -> None:
    """The dashboards are written where Grafana's SDK is not installed."""
    code = (
        "import sys; sys.modules['grafana_foundation_sdk'] = None;"
        "from aiosvc.dashboards import dashboards; print(len(list(dashboards('otel'))))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "3\n"
