"""The configurations of Prometheus and Alertmanager, as their own programs see them."""

import asyncio
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from processes import Process, Prometheus, free_port, poll, require
from replicas import exposition

from deployment.manifests import DEPLOY, load

CONFIGURATIONS = sorted((DEPLOY / "prometheus").glob("*.yml"))
ROUTE = "--config.file=" + str(DEPLOY / "alertmanager" / "alertmanager.yml")


def output(*command: str) -> str:
    """Run a program that must succeed and return what it says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_promtool_accepts_the_configurations(path: Path) -> None:
    """Each configuration of Prometheus is valid, with the files that it names."""
    said = output(require("promtool"), "check", "config", str(path))
    assert "SUCCESS" in said
    assert "WARNING" not in said


def test_there_are_examples_of_discovery() -> None:
    """Replicas can be found by files, by HTTP and by DNS; each has an example to begin with."""
    jobs = [
        job for path in CONFIGURATIONS for job in load(f"prometheus/{path.name}")["scrape_configs"]
    ]
    kinds = {key for job in jobs for key in job if key.endswith("_sd_configs")}
    assert kinds == {"file_sd_configs", "http_sd_configs", "dns_sd_configs"}


def test_every_configuration_reads_the_rules() -> None:
    """Whichever is taken, the rules in the folder beside it are evaluated."""
    for path in CONFIGURATIONS:
        assert load(f"prometheus/{path.name}")["rule_files"] == ["rules/classic.yml"]


def test_amtool_accepts_the_configuration() -> None:
    """Alertmanager's configuration is valid, and all its receivers are there."""
    said = output(require("amtool"), "check-config", str(DEPLOY / "alertmanager/alertmanager.yml"))
    assert "SUCCESS" in said


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["severity=page", "alertname=AiosvcErrorBudgetBurnFast"], "pager"),
        (["severity=ticket", "alertname=AiosvcErrorBudgetBurnSlow"], "tickets"),
        (["alertname=SomebodyElses"], "tickets"),
    ],
)
def test_alerts_reach_who_they_are_for(labels: list[str], receiver: str) -> None:
    """Pages go to the pager, and everything else to the tickets."""
    said = output(require("amtool"), "config", "routes", "test", ROUTE, *labels)
    assert said.splitlines()[0] == receiver


async def test_alertmanager_starts_and_inhibits(tmp_path: Path) -> None:
    """With the real Alertmanager: a page about a budget keeps the ticket about the same one back."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        require("prometheus-alertmanager"),
        ROUTE,
        f"--storage.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    amtool = [require("amtool"), f"--alertmanager.url={url}", "alert"]

    async def run(*arguments: str) -> str | None:
        done = await asyncio.to_thread(
            subprocess.run, [*amtool, *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout if done.returncode == 0 else None

    async def raised(name: str, job: str, severity: str) -> bool:
        said = await run("add", f"alertname={name}", f"job={job}", f"severity={severity}")
        return said is not None

    async def told() -> set[tuple[str, str]]:
        alerts = json.loads(await run("query", "--active", "--output=json") or "[]")
        return {(a["labels"]["alertname"], a["labels"]["job"]) for a in alerts}

    fast, slow = "AiosvcErrorBudgetBurnFast", "AiosvcErrorBudgetBurnSlow"
    async with Process(command, tmp_path):
        await poll(partial(raised, slow, "shop", "ticket"), bool, "Alertmanager takes alerts")
        assert await raised(slow, "other", "ticket")
        await poll(told, lambda alerts: alerts == {(slow, "shop"), (slow, "other")}, "tickets")
        assert await raised(fast, "shop", "page")
        await poll(told, lambda alerts: alerts == {(fast, "shop"), (slow, "other")}, "inhibition")


async def test_replicas_in_files_are_scraped(tmp_path: Path) -> None:
    """A file put into targets/ is found without a restart, and its replicas are the job it names."""
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    text = (folder / "prometheus.yml").read_text()
    (folder / "prometheus.yml").write_text(
        text.replace("scrape_interval: 15s", "scrape_interval: 500ms").replace(
            "scrape_timeout: 10s", "scrape_timeout: 500ms"
        )
    )
    async with TestServer(exposition("queue_depth 3\n")) as server:
        prometheus = Prometheus(
            tmp_path, target_port=server.port or 0, config=folder / "prometheus.yml"
        )
        async with prometheus:
            assert await prometheus.query('up{job="shop"}') == []
            targets = f'- targets: ["127.0.0.1:{server.port}"]\n  labels: {{job: shop}}\n'
            (folder / "targets" / "shop.yml").write_text(targets)
            await prometheus.wait_for_value('queue_depth{job="shop"}', lambda depth: depth == 3)


async def test_replicas_in_a_registry_are_scraped(tmp_path: Path) -> None:
    """A service that lists replicas over HTTP is asked, as the example has it."""
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    async with TestServer(exposition("queue_depth 4\n")) as server:

        async def targets(_: web.Request) -> web.Response:
            found = [{"targets": [f"127.0.0.1:{server.port}"], "labels": {"job": "shop"}}]
            return web.json_response(found)

        registry = web.Application()
        registry.router.add_get("/v1/targets", targets)
        async with TestServer(registry) as listing:
            path = folder / "discovery.yml"
            text = path.read_text().replace("registry.example.com", f"127.0.0.1:{listing.port}")
            path.write_text(text.replace("scrape_interval: 15s", "scrape_interval: 500ms"))
            async with Prometheus(tmp_path, target_port=0, config=path) as prometheus:
                await prometheus.wait_for_value('queue_depth{job="shop"}', lambda depth: depth == 4)
