"""docs/operations.md names what there is, and its examples work."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from processes import REPOSITORY, require, run_to_end

from deployment.manifests import DEPLOY, load

PAGE = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the page's code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_files_are_there() -> None:
    """Each file and folder of deploy/ that the page names exists, or is made by a command on it."""
    named = set(re.findall(r"\bdeploy/[\w./-]*\w", PAGE))
    made = set(re.findall(r"> (deploy/\S+?\.yml)", PAGE))
    assert len(named) > 8
    assert {name for name in named - made if not (REPOSITORY / name).exists()} == set()


def test_flags_are_there(tmp_path: Path) -> None:
    """Each flag of `aiosvc dashboards`, `rules` and `run` on the page is one."""
    flags = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    known = {
        flag
        for command in ("dashboards", "rules", "run")
        for flag in re.findall(
            r"--[a-z][a-z-]+", run_to_end(command, "--help", directory=tmp_path).stdout
        )
    }
    others = {"--build", "--wait", "--no-cache-dir", "--chown", "--receive"}
    assert flags - others <= known


def test_remote_write_example_is_valid(tmp_path: Path) -> None:
    """What the page shows of remote write is valid, and the same as in the complete example."""
    (text,) = blocks("yaml")
    path = tmp_path / "prometheus.yml"
    path.write_text(text)
    command = [require("promtool"), "check", "config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown, whole = yaml.safe_load(text), load("prometheus/remote-write.yml")
    assert shown["global"]["external_labels"] == whole["global"]["external_labels"]
    (short,), (long,) = shown["remote_write"], whole["remote_write"]
    assert short.items() <= long.items()


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD", "USER"])
def test_own_image_is_run_like_ours(word: str) -> None:
    """The example of an image of one's own ends as the image does that it is made from."""
    (text,) = blocks("dockerfile")
    base = (DEPLOY / "Dockerfile").read_text()
    if word == "USER":
        assert text.rindex("USER 10001:10001") > text.rindex("USER 0:0")
        assert "USER 10001:10001" in base
    elif word == "CMD":
        assert re.search(r'CMD (\["run", "shop.web:app", .*\])', text)[1] in base  # type: ignore[index]
    else:
        assert "ENTRYPOINT" not in text
