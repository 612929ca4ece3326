"""What the manifests start is started, and asked what their probes ask."""

from pathlib import Path

import pytest
from aiohttp import ClientSession
from processes import Program, free_port

from deployment.manifests import load

(CONTAINER,) = load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"]
COMPOSE: list[str] = load("compose.yaml")["services"]["app"]["command"]
PROBES = [CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]


@pytest.mark.parametrize("command", [CONTAINER["args"], COMPOSE], ids=["kubernetes", "compose"])
async def test_command_serves_what_is_asked_for(command: list[str], tmp_path: Path) -> None:
    """With these arguments probes are answered, and the metrics are at the port that is scraped."""
    admin = str(free_port())
    arguments = [word.replace("0.0.0.0", "127.0.0.1").replace("9100", admin) for word in command]
    program = Program(*arguments, "--port=0", directory=tmp_path)
    async with program, ClientSession() as session:
        urls = {"http": program.url, "metrics": f"http://127.0.0.1:{admin}"}
        for probe in PROBES:
            async with session.get(urls[probe["port"]] + probe["path"]) as response:
                assert response.status == 200, probe
        async with session.get(f"{urls['metrics']}/metrics") as response:
            assert "\nqueue_depth{" in await response.text()
