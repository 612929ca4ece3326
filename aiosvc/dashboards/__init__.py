"""
The Grafana dashboards that come with the package, and the command that writes them out.

Rule: what is written is what is in this folder, rendered by deploy/dashboards; only where the
runbooks are is filled in. A file `NAME.PRESET.json` is for one preset of the metric names.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiosvc.errors import ConfigError

__all__ = ["DashboardOptions", "dashboards", "write_dashboards"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DashboardOptions:
    """Where `aiosvc dashboards` writes, and what the dashboards link to."""

    output: str = field(
        default="dashboards", metadata={"help": "directory for the files; made when missing"}
    )
    runbooks: str = field(
        default="/public/runbooks",
        metadata={
            "help": "address of the folder of runbooks that the panels link to, a URL or a path on "
            "the Grafana server"
        },
    )

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if not isinstance(self.output, str) or not self.output:
            raise ConfigError(f"output: {self.output!r} given; expected the name of a directory")
        if not isinstance(self.runbooks, str) or not _is_address(self.runbooks):
            raise ConfigError(
                f"runbooks: {self.runbooks!r} given; expected an address like "
                "'https://docs.example.com/runbooks' or '/public/runbooks'"
            )


def dashboards(preset: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each dashboard of *preset*: a name that stays, like 'service', and the parsed JSON."""
    for file in sorted(files(__name__).iterdir(), key=lambda each: each.name):
        name, _, kind = file.name.partition(".")
        if kind in ("json", f"{preset}.json"):
            yield name, json.loads(file.read_text(encoding="utf-8"))


def write_dashboards(options: DashboardOptions, preset: str) -> list[Path]:
    """
    Write the dashboards of *preset*, one file each, over what is there, and return the files.

    Raises ConfigError where they can't be written.
    """
    directory = Path(options.output)
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, board in dashboards(preset):
            _link(board, options.runbooks.rstrip("/"))
            path = directory / f"aiosvc-{name}.json"
            path.write_text(json.dumps(board, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise ConfigError(
            f"output: {options.output!r} given; can't write there ({error.strerror}), expected a "
            "directory"
        ) from None
    return written


def _link(board: dict[str, Any], runbooks: str) -> None:
    for variable in board["templating"]["list"]:
        if variable["name"] == "runbooks":
            variable["query"] = runbooks


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    if any(c in text for c in " $\"'<>\\"):
        return False
    return (parts.scheme in ("http", "https") and bool(parts.hostname)) or text.startswith("/")
