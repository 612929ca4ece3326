"""The files of deploy/, parsed."""

from typing import Any

import yaml
from processes import REPOSITORY

__all__ = ["DEPLOY", "load", "load_all"]

DEPLOY = REPOSITORY / "deploy"


def load(name: str) -> Any:
    """Return the one document of a file of deploy/."""
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def load_all(name: str) -> list[Any]:
    """Return every document of a file of deploy/."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))
