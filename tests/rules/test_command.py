"""`aiosvc rules` and `aiosvc metrics`: from the command line to what is printed."""

from pathlib import Path

import pytest

from aiosvc.cli import main
from aiosvc.config import Settings
from aiosvc.reference import as_markdown, as_text
from aiosvc.rules import RulesOptions, render


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty directory the current one and return it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rules_without_options(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is the rule file, and nothing else."""
    assert main(["rules"]) == 0
    printed = capsys.readouterr()
    assert printed.out == render(RulesOptions(), Settings())
    assert printed.err == ""


def test_rules_with_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Flags are those of the options, short forms of some, and what the service was set up with."""
    flags = [
        "rules", "--slo=99.5", "--latency-slo=0.3:95,1:99", '--selector=job="shop"',
        "--preset=otel", "--buckets=0.3,1", "--queue-age=30", "--queue-ages=email=5,sms=1.5",
        "--alert-labels=team=shop", "--format=kubernetes", "--scale=0.5",
    ]  # fmt: skip
    assert main(flags) == 0
    options = RulesOptions(
        availability_slo=99.5, latency_slo=("0.3:95", "1:99"), selector='job="shop"',
        queue_age=30.0, queue_ages={"email": "5", "sms": "1.5"}, alert_labels={"team": "shop"},
        rules_format="kubernetes", time_scale=0.5,
    )  # fmt: skip
    assert capsys.readouterr().out == render(options, Settings(preset="otel", buckets=(0.3, 1.0)))


def test_a_file_serves_the_service_and_its_rules(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the service reads from the project's file (its `slo`, in seconds) the rules read too."""
    (here / "pyproject.toml").write_text(
        '[tool.aiosvc]\nslo = [0.3]\npreset = "otel"\navailability_slo = 99.5\n'
        'latency_slo = ["0.3:95"]\n'
    )
    assert main(["rules"]) == 0
    options = RulesOptions(availability_slo=99.5, latency_slo=("0.3:95",))
    assert capsys.readouterr().out == render(options, Settings(preset="otel", slo=(0.3,)))


def test_variables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """AIOSVC_SLO is the service's latency objective in seconds, not the rules' percentage."""
    monkeypatch.setenv("AIOSVC_SLO", "0.3")
    assert main(["rules", "--slo=99.5", "--latency-slo=0.3:99"]) == 0
    options = RulesOptions(availability_slo=99.5, latency_slo=("0.3:99",))
    assert capsys.readouterr().out == render(options, Settings(slo=(0.3,)))


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--slo=90", "availability_slo: 90 given; 14.4 * (1 - 0.9) = 1.44, and no share"),
        ("--latency-slo=0.3:99", "latency_slo: 0.3 s is no bucket of http_request_duration_"),
        ("--selector=", "selector: '' given; expected matchers without braces"),
        ("--queue-ages=email=soon", "queue_ages: email: 'soon' given; expected seconds"),
        ("--format=yml", "rules_format: 'yml' given; expected prometheus or kubernetes"),
        ("--slo=most", "--availability-slo: 'most' given; expected a number"),
    ],
)
def test_mistake(flag: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is one line that says what to do, exit code 2, and nothing that looks like rules."""
    assert main(["rules", flag]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"aiosvc rules: {message}")
    assert printed.err.count("\n") == 1


def test_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    """The reference comes as text, or as the page in docs/."""
    assert main(["metrics"]) == 0
    assert capsys.readouterr().out == as_text()
    assert main(["metrics", "--markdown"]) == 0
    assert capsys.readouterr().out == as_markdown()
