"""gunicorn with several processes, with and without --preload: each counts, and samples, for itself."""

import sys
from pathlib import Path

import pytest
from contract import APPS
from processes import Process, free_port, poll
from wire import Answer, Wire, request


async def ask(port: int, target: str) -> Answer:
    """Return the answer to one request."""
    wire = await Wire.connect(port)
    try:
        return await wire.ask(request("GET", target))
    finally:
        wire.close()


def value(text: str, name: str) -> float:
    """Return the value of the sample that begins so, 0 where there is none."""
    lines = [line for line in text.splitlines() if line.startswith(name)]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


@pytest.mark.parametrize("arguments", [[], ["--preload"]], ids=["", "preload"])
@pytest.mark.parametrize("worker", ["sync", "gthread"])
async def test_each_process_has_its_own_numbers(
    arguments: list[str], worker: str, tmp_path: Path
) -> None:
    """Every process answers with whole numbers of its own, begun after the fork."""
    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2",
        "--worker-class", worker, "--threads", "4", "--no-control-socket", *arguments,
        "guide_flask:app",
    ]  # fmt: skip
    if worker == "sync":
        del command[command.index("--threads") : command.index("--threads") + 2]
    environment = {"PYTHONPATH": f"{APPS}:{APPS.parents[2]}"}
    async with Process(command, tmp_path, environment) as process:

        async def answers() -> bool:
            try:
                return (await ask(port, "/livez")).status == 200
            except OSError:
                return False

        await poll(answers, bool, f"an answer of {process}")
        total = 40
        for number in range(total):
            assert (await ask(port, f"/api/users/{number}")).status == 200
        found: dict[float, float] = {}

        async def count() -> dict[float, float]:
            text = (await ask(port, "/metrics")).body.decode()
            assert value(text, 'aiosvc_source_up{source="process"}') == 1
            assert value(text, "aiosvc_instrumentation_errors_total") == 0
            counted = 'http_requests_total{endpoint="/api/users/{id}",method="GET",status="200"}'
            # Each process started at a moment of its own.
            found[value(text, "process_start_time_seconds")] = value(text, counted)
            return found

        await poll(count, lambda found: sum(found.values()) == total, "all requests")
        assert 1 <= len(found) <= 2
        if len(found) == 2 or worker == "sync":
            assert "several processes" in process.stderr
        assert await process.stop() == 0
        assert "Traceback" not in process.stderr
