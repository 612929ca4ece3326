"""The README's examples are true."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


async def test_the_worker_example_runs() -> None:
    """What is posted to the example's worker pool is worked off, and shown as the README shows."""
    example = blocks("python")[1]
    names: dict[str, object] = {"__name__": "workers"}
    exec(compile(ast.parse(example), "README.md", "exec"), names)
    app = names["app"]
    assert isinstance(app, web.Application)
    async with TestClient(TestServer(app)) as client:
        assert (await client.post("/welcome", data="ada@example.com")).status == 202
        text = await (await client.get("/metrics")).text()
    for line in blocks("text")[1].splitlines():
        name = line.split("{")[0]
        assert f"\n{name}" in text, name


async def test_the_library_example_runs() -> None:
    """The ten lines of library use are a service whose /metrics shows what the README shows."""
    example = blocks("python")[0]
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(ast.parse(example), "README.md", "exec"), names)
    app = names["app"]
    assert isinstance(app, web.Application)
    async with TestClient(TestServer(app)) as client:
        await client.get("/api/users/7")
        text = await (await client.get("/metrics")).text()
    for line in blocks("text")[0].splitlines():
        name = line.split("{")[0].split(" ")[0]
        assert f"\n{name}" in text, name


@pytest.mark.parametrize("which", [0, 1])
def test_the_examples_type_check(tmp_path: Path, which: int) -> None:
    """The same lines pass mypy in strict mode."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    example = tmp_path / "example.py"
    example.write_text(blocks("python")[which], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(example)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_commands_are_there() -> None:
    """Every make target and aiosvc command that the README names exists."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^(?:.*`)?make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    text = subprocess.run(
        [sys.executable, "-m", "aiosvc", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in set(re.findall(r"`?aiosvc (run|demo|top|check|rules|metrics)\b", README)):
        assert command in text
