"""The same contract where aiohttp runs on other grounds: uvloop, and its pure-Python parser."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from processes import REPOSITORY, Process, until

HERE = Path(__file__).parent


async def check(directory: Path, arguments: list[str], environment: dict[str, str]) -> None:
    """Run test modules in a process of their own."""
    options = ["-q", "-p", "no:cacheprovider", "--no-header"]
    command = [sys.executable, "-m", "pytest", *options, f"--rootdir={REPOSITORY}"]
    command += ["-c", str(REPOSITORY / "pyproject.toml"), *arguments]
    path = os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))
    async with Process(command, directory, {**environment, "PYTHONPATH": path}) as process:
        await until(lambda: process.code is not None, "the end of the tests", deadline=400)
        lines = process.stdout.splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR ", "E  "))]
        assert process.code == 0, "\n".join(failed[:40] or lines[-20:])
        assert " passed" in process.stdout


async def test_on_uvloop(tmp_path: Path) -> None:
    """On uvloop requests, departures, bodies and sockets are counted the same way."""
    if importlib.util.find_spec("uvloop") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("uvloop is not installed; CI must have it")
        pytest.skip("uvloop is not installed")
    names = ["contract", "departures", "bodies", "sockets", "oddities", "tls"]
    modules = [str(HERE / f"test_{name}.py") for name in names]
    await check(tmp_path, ["-p", "on_uvloop", *modules], {})


async def test_without_extensions(tmp_path: Path) -> None:
    """With the pure-Python parser requests are counted the same way, odd methods too."""
    modules = [str(HERE / f"test_{name}.py") for name in ("contract", "malformed", "bodies")]
    await check(tmp_path, modules, {"AIOHTTP_NO_EXTENSIONS": "1"})
