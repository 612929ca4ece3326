"""What the package ships is what deploy/dashboards renders, and says what it is meant to."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import REPOSITORY

from aiosvc.dashboards import dashboards
from dashboards.boards import PRESETS, boards

SHIPPED = REPOSITORY / "aiosvc" / "dashboards"


def test_shipped_dashboards_are_rendered_ones(tmp_path: Path) -> None:
    """Rendering the dashboards again gives the very files that are shipped."""
    if find_spec("grafana_foundation_sdk") is None:
        reason = "grafana-foundation-sdk is not installed"
        assert os.environ.get("CI") != "true", reason
        pytest.skip(reason)
    build = REPOSITORY / "deploy" / "dashboards" / "build.py"
    subprocess.run([sys.executable, str(build), "--output", str(tmp_path)], check=True)
    rendered = {file.name: file.read_text() for file in tmp_path.iterdir()}
    shipped = {file.name: file.read_text() for file in SHIPPED.glob("*.json")}
    assert rendered == shipped, "run `python deploy/dashboards/build.py`"


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_has_the_same_dashboards(preset: str) -> None:
    """A preset is a matter of names: the dashboards and their panels are the same."""
    assert [name for name, _ in dashboards(preset)] == ["eventloop", "queues", "service"]


def test_presets_show_the_same_panels() -> None:
    """Each panel of one preset has its counterpart in the other, in the same place."""
    shown = [
        {name: [(p["title"], p["gridPos"]) for p in board["panels"]] for name, board in each}
        for each in (list(dashboards("classic")), list(dashboards("otel")))
    ]
    assert shown[0] == shown[1]


def test_uids_tell_dashboards_apart() -> None:
    """Both presets can be in one Grafana: what differs has another uid and title."""
    by_uid: dict[str, dict[str, object]] = {}
    for _, board in boards():
        assert by_uid.setdefault(board["uid"], board) == board
    assert set(by_uid) == {
        "aiosvc-service", "aiosvc-service-otel", "aiosvc-eventloop", "aiosvc-queues",
    }  # fmt: skip
    assert len({board["title"] for board in by_uid.values()}) == 4
