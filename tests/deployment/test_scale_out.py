"""Three replicas on one queue, found by file, with our rules and a real Alertmanager."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from brokers.servers import Redis
from processes import Process, Program, Prometheus, free_port, poll, require

from aiosvc.config import Settings
from aiosvc.rules import RulesOptions, render
from deployment.manifests import DEPLOY

#: Windows of an hour are 36 seconds.
FAST = RulesOptions(time_scale=0.01)

PATIENCE = 120.0
REPLICAS = 3
ORDERS = 60
ORDER = {"user_id": 1, "item": "book", "quantity": 1}

CONFIG = """
global: {{scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms}}
rule_files: ["rules.yml"]
alerting:
  alertmanagers:
    - static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]
scrape_configs:
  - job_name: aiosvc
    file_sd_configs: [{{files: ["targets/*.json"], refresh_interval: 1s}}]
"""


def alertmanager(directory: Path, port: int) -> Process:
    """Return an Alertmanager with the configuration that is deployed."""
    command = [
        require("prometheus-alertmanager"),
        f"--config.file={DEPLOY / 'alertmanager' / 'alertmanager.yml'}",
        f"--storage.path={directory / 'alerts'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    return Process(command, directory)


def replica(directory: Path, redis: Redis, port: int) -> Program:
    """Return a replica of the demo that takes orders and leaves them in the queue."""
    environment = {"AIOSVC_QUEUE": redis.url}
    return Program(
        "demo", f"--port={port}", "--workers=0", directory=directory, environment=environment
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory with one for the targets."""
    (tmp_path / "targets").mkdir()
    return tmp_path


async def test_three_replicas_on_one_queue(directory: Path) -> None:
    """Sums are the client's, the queue is counted once, and what breaks reaches Alertmanager."""
    ports = [free_port() for _ in range(REPLICAS)]
    alerts_port = free_port()
    (directory / "rules.yml").write_text(render(FAST, Settings()), encoding="utf-8")
    config = directory / "prometheus.yml"
    config.write_text(CONFIG.format(alertmanager=alerts_port), encoding="utf-8")
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(directory, kept=True))
        await stack.enter_async_context(alertmanager(directory, alerts_port))
        prometheus = Prometheus(directory, target_port=0, config=config)
        await stack.enter_async_context(prometheus)
        replicas = [
            await stack.enter_async_context(replica(directory, redis, port)) for port in ports
        ]
        session = await stack.enter_async_context(ClientSession())

        # Found by file, while Prometheus runs.
        targets = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
        (directory / "targets" / "shop.json").write_text(json.dumps(targets), encoding="utf-8")
        await prometheus.wait_for_value("sum(up)", lambda up: up == REPLICAS)

        # The sum over replicas is what the client counted; the shared queue is not tripled.
        tally = await _order(session, ports, ORDERS)
        assert tally == {202: ORDERS}
        accepted = 'sum(http_requests_total{endpoint="/api/orders", status="202"})'
        await prometheus.wait_for_value(accepted, lambda value: value == ORDERS)
        await prometheus.wait_for_query(
            'queue_depth{queue_name="email"}',
            lambda found: [each.value for each in found] == [ORDERS] * REPLICAS,
        )
        await prometheus.wait_for_value(
            'job_queue_name:queue_depth:sum_or_max{queue_name="email"}',
            lambda depth: depth == ORDERS,
        )

        async def active() -> set[str]:
            url = f"http://127.0.0.1:{alerts_port}/api/v2/alerts?active=true"
            async with session.get(url) as response:
                found: list[dict[str, Any]] = await response.json()
            return {alert["labels"]["alertname"] for alert in found}

        async def hears(*names: str) -> None:
            await poll(active, set(names).issubset, f"{names}", deadline=PATIENCE)

        async def hears_no_more(*names: str) -> None:
            await poll(active, set(names).isdisjoint, f"no {names}", deadline=PATIENCE)

        # One that is killed is down, and Alertmanager hears of it.
        await replicas[0].kill()
        await prometheus.wait_for_value("sum(up)", lambda up: up == REPLICAS - 1)
        await hears("AiosvcTargetDown")

        # With the others the service is gone, and that reaches it too, as does their return.
        await asyncio.gather(*(each.kill() for each in replicas[1:]))
        await hears("AiosvcServiceAbsent")
        again = [replica(directory, redis, port) for port in ports]
        await asyncio.gather(*(stack.enter_async_context(each) for each in again))
        await prometheus.wait_for_value("sum(up)", lambda up: up == REPLICAS)
        await hears_no_more("AiosvcServiceAbsent", "AiosvcTargetDown")

        # Without the broker every order is refused, which burns the budget.
        await redis.kill()
        refusing = asyncio.create_task(_order(session, ports, 100_000))
        try:
            await hears("AiosvcErrorBudgetBurnFast")
            await redis.again()
            await hears_no_more("AiosvcErrorBudgetBurnFast")
        finally:
            refusing.cancel()
            await asyncio.wait([refusing])


async def _order(session: ClientSession, ports: list[int], number: int) -> Counter[int]:
    """Order from each replica in turn; return the answers by status."""
    tally: Counter[int] = Counter()
    for place in range(number):
        url = f"http://127.0.0.1:{ports[place % len(ports)]}/api/orders"
        async with session.post(url, json=ORDER) as response:
            tally[response.status] += 1
        await asyncio.sleep(0.01)
    return tally
