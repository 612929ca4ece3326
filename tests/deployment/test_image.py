"""
deploy/Dockerfile: its rules, and its steps carried out where there is no Docker.

Rule: the steps are read from the file, so what is tried is what would be built; only its folders are
others, and the interpreter is this machine's.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from processes import DEADLINE, REPOSITORY, Process, free_port, poll, require

from deployment.manifests import DEPLOY

FILE = DEPLOY / "Dockerfile"
IGNORED = DEPLOY / "Dockerfile.dockerignore"
NOBODY = 65534


class Step(NamedTuple):
    """An instruction of a Dockerfile and what follows it; RUN's and COPY's stage counts from 0."""

    stage: int
    word: str
    rest: str


def steps() -> list[Step]:
    """Return the Dockerfile's instructions."""
    found: list[Step] = []
    stage = -1
    text = re.sub(r"(?m)^\s*#.*\n", "", FILE.read_text()).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        word, rest = line.strip().split(maxsplit=1)
        stage += word == "FROM"
        found.append(Step(stage, word, rest))
    return found


def only(word: str) -> str:
    """Return what follows the one instruction of its kind."""
    (found,) = (step.rest for step in steps() if step.word == word)
    return found


def copied() -> list[str]:
    """Return what goes from the repository into the image's build."""
    copies = [
        s.rest.split() for s in steps() if s.word == "COPY" and not s.rest.startswith("--from")
    ]
    return [source for *sources, _ in copies for source in sources]


def test_hadolint_finds_nothing() -> None:
    """The linter of Dockerfiles is silent, with every rule on."""
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = str(beside) if beside.exists() else require("hadolint")
    done = subprocess.run([hadolint, str(FILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_image_is_small_and_not_roots() -> None:
    """Two stages from a pinned slim base; the last one builds nothing and runs as a number."""
    bases = [step.rest.split()[0] for step in steps() if step.word == "FROM"]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base) for base in bases)
    assert len(set(bases)) == 1
    assert not [step for step in steps() if step.word == "RUN" and step.stage == 1]
    user, _, group = only("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_image_runs_no_shell() -> None:
    """Entry point, command and health check are lists, so signals reach the service."""
    assert json.loads(only("ENTRYPOINT")) == ["aiosvc"]
    assert json.loads(only("CMD"))[0] == "demo"
    assert json.loads(only("HEALTHCHECK").partition("CMD ")[2])[0] == "python"


def test_build_keeps_no_cache() -> None:
    """Whatever pip downloads does not stay in a layer."""
    installs = [step.rest for step in steps() if step.word == "RUN" and "pip install" in step.rest]
    assert installs
    assert all("--no-cache-dir" in each for each in installs)


def test_builder_gets_what_it_needs_only() -> None:
    """The ignore file lets through exactly what is copied, and all of that exists."""
    lines = [line for line in IGNORED.read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    assert [line[1:] for line in lines if line.startswith("!")] == copied()
    assert all((REPOSITORY / name).exists() for name in copied())


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """Carry out the steps of the first stage in a clean folder that everybody may read."""
    folder = Path(tempfile.mkdtemp(prefix="aiosvc-image-"))
    try:
        folder.chmod(0o755)
        (folder / "src").mkdir()
        for name in copied():
            source = REPOSITORY / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder / "src" / name, ignore=ignored)
            else:
                shutil.copy(source, folder / "src" / name)
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(_everybodys_python())
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        for step in steps():
            if step.word == "RUN":
                command = step.rest.replace("/opt/aiosvc", str(folder / "opt"))
                done = subprocess.run(
                    command, shell=True, cwd=folder / "src", env={**clean, "PATH": path},
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert done.returncode == 0, done.stdout + done.stderr
        yield folder
    finally:
        shutil.rmtree(folder)


def _everybodys_python() -> str:
    """Return an interpreter that a user without rights may run; that of the tests may be root's."""
    for each in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", str(each)]
        if (
            os.geteuid()
            or not subprocess.run(
                [*command, "-c", "import venv"], capture_output=True, check=False
            ).returncode
        ):
            return str(each)
    pytest.skip("there is no interpreter that a user without rights may run")


def test_image_holds_no_development_tools(built: Path) -> None:
    """What is installed is aiosvc, its dependencies and two extras, and the dashboards are in it."""
    listed = subprocess.run(
        [built / "opt/bin/pip", "list", "--format=json", "--disable-pip-version-check"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"aiosvc", "aiohttp", "prometheus_client", "psutil", "isal", "bcrypt", "pyyaml"} <= names
    assert not names & {
        "pytest",
        "mypy",
        "ruff",
        "grafana-foundation-sdk",
        "grafana_foundation_sdk",
    }
    shown = subprocess.run(
        [built / "opt/bin/aiosvc", "dashboards", "--output", built / "dashboards"],
        capture_output=True, text=True, check=True, cwd=built,
    )  # fmt: skip
    assert len(shown.stdout.splitlines()) == 3


async def test_image_serves(built: Path, tmp_path: Path) -> None:
    """Its entry point, started by a user without rights, is found healthy and stops on SIGTERM."""
    port, admin = str(free_port()), str(free_port())
    here = {"8000": port, "9100": admin, "0.0.0.0": "127.0.0.1"}
    command = [here.get(word, word) for word in json.loads(only("CMD"))]
    entry = [str(built / "opt" / "bin" / word) for word in json.loads(only("ENTRYPOINT"))]
    check = json.loads(only("HEALTHCHECK").partition("CMD ")[2])
    check = [str(built / "opt/bin/python"), *(w.replace("8000", port) for w in check[1:])]
    drop: list[str] = []
    if os.geteuid() == 0:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

    def healthy() -> bool:
        return not subprocess.run(
            [*drop, *check], capture_output=True, check=False, timeout=DEADLINE, env={}
        ).returncode

    async def ask() -> bool:
        return healthy()

    assert not healthy()
    clean = {"PYTHONPATH": "", "AIOSVC_PORT": port}
    # The working directory is the tests' own, which such a user may not even look into.
    async with Process([*drop, *entry, *command], tmp_path, clean) as process:
        await poll(ask, bool, "health")
        assert psutil.Process(process.pid).uids().effective != 0
        assert await process.stop() == 0
    assert not healthy()
