"""
Renders the dashboards that the package ships: `python deploy/dashboards/build.py`.

Rule: Grafana's SDK is needed here and nowhere else; what is rendered is committed, and a test
renders it again and compares.
"""

import argparse
import json
from pathlib import Path

from board import Board
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from loop import EVENTLOOP
from overview import CLASSIC, OTEL, overview
from workers import QUEUES

PACKAGE = Path(__file__).resolve().parents[2] / "aiosvc" / "dashboards"

#: Files by name; those of one preset only have it in their name.
BOARDS = {
    "service.classic.json": overview(CLASSIC),
    "service.otel.json": overview(OTEL),
    "eventloop.json": EVENTLOOP,
    "queues.json": QUEUES,
}


def render(board: Board) -> str:
    """Return the dashboard as JSON, the same text whenever it is the same dashboard."""
    return json.dumps(board.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write every dashboard."""
    parser = argparse.ArgumentParser(description="Render the dashboards that the package ships.")
    parser.add_argument("--output", type=Path, default=PACKAGE, help="directory for the files")
    output = parser.parse_args().output
    for name, board in BOARDS.items():
        (output / name).write_text(render(board), encoding="utf-8")


if __name__ == "__main__":
    main()
