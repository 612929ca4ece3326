"""The rules in a real Prometheus that scrapes real services, a hundred times as fast."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientError, ClientSession
from processes import Program, Prometheus, poll

from aiosvc.config import Settings
from aiosvc.rules import RulesOptions, groups, render
from aiosvc.rules.promql import Selection, selections

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDER = b'{"user_id": 1, "item": "book", "quantity": 1}'

#: Seconds in which what a day shows is seen a hundred times as fast, on a busy machine.
PATIENCE = 120.0

#: Windows of five minutes are three seconds here, and hold six scrapes.
FAST = RulesOptions(time_scale=0.01, queue_age=1.0, job_age=1.0)

#: Selectors that find nothing here, and why.
NOT_HERE = {
    'process_memory_limit_bytes{job="aiosvc"}': "is absent where nothing limits the memory",
    'queue_info{job="aiosvc",scope="shared"}': "is of a queue in a broker",
    'aiosvc_instrumentation_errors_total{job="aiosvc"}': "has no series until there is an error",
    'aiosvc_exposition_errors_total{job="aiosvc"}': "has no series until a collector fails",
    "instance:process_memory_rss_bytes_per_limit:ratio": "is made of the memory's limit",
}

#: What an evaluation in the shop is about that is not the same in the demo.
OF_REQUESTS = ("availability", "latency-0.25")

SHOP = """
import asyncio
from aiohttp import web
import aiosvc

async def slow(request):
    await asyncio.sleep(0.3)
    return web.Response()

async def bad(request):
    raise RuntimeError("as the test wants it")

async def stock():
    raise RuntimeError("the database is down")

def make():
    app = web.Application()
    app.router.add_get("/slow", slow)
    app.router.add_get("/bad", bad)
    observer = aiosvc.setup(app, preset="otel", sample_interval=0.2)
    observer.sampler.add("shop_stock", stock)
    observer.watch_queue(asyncio.Queue(), name="email")
    return app
"""


@dataclass
class Stage:
    """A service in trouble, and its Prometheus."""

    program: Program
    prometheus: Prometheus
    preset: str

    async def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        found = await self.prometheus.query('ALERTS{alertstate="firing"}')
        return {sample.labels["alertname"] for sample in found}

    async def wait_for(self, *names: str) -> None:
        """Wait until every one of these alerts has fired."""
        seen: set[str] = set()

        async def read() -> set[str]:
            seen.update(await self.firing())
            return seen

        await poll(read, set(names).issubset, f"{names} to fire", deadline=PATIENCE)


@asynccontextmanager
async def requests(url: str, method: str, paths: Iterable[str]) -> AsyncIterator[None]:
    """Keep sending requests to each of these paths for as long as the block lasts."""

    async def send(session: ClientSession, path: str) -> None:
        while True:
            with suppress(ClientError):  # it may be stopped meanwhile
                async with session.request(method, path, data=ORDER) as response:
                    await response.read()
            await asyncio.sleep(0.02)

    async with ClientSession(url) as session:
        tasks = [asyncio.create_task(send(session, path)) for path in paths]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def hung_demo(directory: Path) -> AsyncIterator[Stage]:
    """Start a demo whose two workers hang and whose queue is full, so that it refuses orders."""
    program = Program(
        "demo", "--port=0", "--workers=2", "--queue-size=10", "--send-seconds=3600",
        "--drain-timeout=0", directory=directory,
    )  # fmt: skip
    async with program, requests(program.url, "POST", ["/api/orders"] * 2):
        rules = render(FAST, Settings())
        async with Prometheus(directory, target_port=program.port, rules=rules) as prometheus:
            yield Stage(program, prometheus, "classic")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Give a demo in trouble to all tests that only look at it."""
    async with hung_demo(tmp_path_factory.mktemp("demo")) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Give a service with OpenTelemetry's names that is slow, raises, and whose source fails."""
    directory = tmp_path_factory.mktemp("shop")
    (directory / "shop.py").write_text(SHOP, encoding="utf-8")
    program = Program("run", "shop:make", "--port=0", directory=directory)
    async with program, requests(program.url, "GET", ["/slow", "/slow", "/bad"]):
        rules = render(FAST, Settings(preset="otel"))
        async with Prometheus(directory, target_port=program.port, rules=rules) as prometheus:
            yield Stage(program, prometheus, "otel")


async def test_alerts_of_the_demo(demo: Stage) -> None:
    """Hung jobs, a stalled and full queue and refused orders are told; what is fine is not."""
    await demo.wait_for(
        "AiosvcErrorBudgetBurnFast",
        "AiosvcErrorBudgetBurnSlow",
        "AiosvcQueueItemsWaitTooLong",
        "AiosvcQueueStalled",
        "AiosvcJobHung",
        "AiosvcQueueNearlyFull",
    )
    assert not await demo.firing() & {
        "AiosvcLatencyBucketMissing",
        "AiosvcDeadLettersGrowing",
        "AiosvcRestarting",
        "AiosvcSourceDown",
        "AiosvcLabelOverflow",
        "AiosvcInstrumentationErrors",
        "AiosvcCollectorFailing",
        "AiosvcServiceAbsent",
    }


async def test_messages_of_the_demo(demo: Stage) -> None:
    """An alert that fires says which queue of which service it is about, and since when."""
    await demo.wait_for("AiosvcJobHung", "AiosvcQueueStalled")
    said = {
        alert["labels"]["alertname"]: alert["annotations"]["summary"]
        for rule in await demo.prometheus.rules()
        for alert in rule.get("alerts", [])
    }
    instance = f"localhost:{demo.program.port}"
    assert said["AiosvcJobHung"].startswith(f"{instance} queue email: a job has run for ")
    assert said["AiosvcQueueStalled"] == "aiosvc queue email: 10 items wait and nothing gets on"


async def test_alerts_of_the_shop(shop: Stage) -> None:
    """With OpenTelemetry's names slow and failing requests are told, and a source that fails."""
    await shop.wait_for(
        "AiosvcErrorBudgetBurnFast",
        "AiosvcLatencyBudgetBurnFast",
        "AiosvcLatencyBudgetBurnSlow",
        "AiosvcSourceDown",
    )
    assert not await shop.firing() & {
        "AiosvcLatencyBucketMissing",
        "AiosvcQueueStalled",
        "AiosvcQueueItemsWaitTooLong",
        "AiosvcJobHung",
        "AiosvcLabelOverflow",
        "AiosvcServiceAbsent",
    }


@pytest.mark.parametrize("stage", ["demo", "shop"])
async def test_every_rule_evaluates(stage: str, demo: Stage, shop: Stage) -> None:
    """Prometheus evaluates each rule without an error."""
    at = {"demo": demo, "shop": shop}[stage]
    rules = await poll(
        at.prometheus.rules,
        lambda rules: all(rule["health"] != "unknown" for rule in rules),
        "an evaluation of every rule",
        deadline=PATIENCE,
    )
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    made = groups(FAST, Settings(preset=at.preset))
    assert len(rules) == sum(len(group.rules) for group in made)


async def test_every_recording_has_data(demo: Stage) -> None:
    """What is recorded is there, with the numbers of the service."""
    await demo.wait_for("AiosvcErrorBudgetBurnFast")
    names = {recording.name for group in groups(FAST, Settings()) for recording in group.recordings}
    limited = await demo.prometheus.query("process_memory_limit_bytes")
    if not limited:
        names.remove("instance:process_memory_rss_bytes_per_limit:ratio")

    async def missing() -> set[str]:
        return {name for name in names if not await demo.prometheus.query(name)}

    await poll(missing, lambda found: not found, "data of every recording", deadline=PATIENCE)
    value = demo.prometheus.wait_for_value
    await value("job_queue_name:queue_depth:sum_or_max", lambda depth: depth == 10)
    await value("job_queue_name:workers_busy:sum", lambda busy: busy == 2)
    ratio = "job:http_requests_failed_per_request:ratio_rate1h"
    await value(ratio, lambda share: 0.5 < share <= 1)
    busy = "job_queue_name:worker_busy_seconds_per_slot:ratio_rate5m"
    await value(busy, lambda share: 0.8 < share < 1.2)


@pytest.mark.parametrize("stage", ["demo", "shop"])
async def test_every_selector_finds_series(stage: str, demo: Stage, shop: Stage) -> None:
    """Whatever an expression selects is scraped, with these labels, `le` and values."""
    at = {"demo": demo, "shop": shop}[stage]
    await at.wait_for("AiosvcErrorBudgetBurnFast")
    found = set()
    for group in groups(FAST, Settings(preset=at.preset)):
        if at is demo or group.name in OF_REQUESTS:
            for rule in group.rules:
                found |= {selector_of(each) for each in selections(rule.expression)}
    assert len(found) > 20
    missing = {selector for selector in found if not await at.prometheus.series(selector)}
    assert {each for each in missing if not each.startswith(tuple(NOT_HERE))} == set()


def selector_of(selection: Selection) -> str:
    """Return a selector as PromQL writes it."""
    matchers = (f'{label}{operator}"{value}"' for label, operator, value in selection.matchers)
    return f"{selection.metric}{{{','.join(matchers)}}}"


async def test_a_service_that_is_gone(tmp_path: Path) -> None:
    """When the only instance ends, the target is told to be down, and the service to be absent."""
    async with hung_demo(tmp_path) as stage:
        await stage.prometheus.wait_for_value("up", lambda up: up == 1)
        await stage.program.kill()
        await stage.wait_for("AiosvcTargetDown", "AiosvcServiceAbsent")
