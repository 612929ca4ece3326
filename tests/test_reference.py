"""The reference of all metrics: it says what the catalogue says, and that is what a service exports."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from processes import REPOSITORY, Program, poll
from prometheus_client import CollectorRegistry, generate_latest

import aiosvc
from aiosvc.catalogue import CATALOGUE
from aiosvc.reference import as_markdown, as_text, unit_of
from aiosvc.rules import alerts_by_metric

in_module = pytest.mark.asyncio(loop_scope="module")

#: What a demo can't show, and why.
NOT_IN_A_DEMO = {
    "http_response_start_seconds": "is exported when it is asked for: response_start=True",
    "http_server_request_duration_seconds": "is of the preset otel",
    "http_server_active_requests": "is of the preset otel",
    "http_server_request_body_size_bytes": "is of the preset otel",
    "http_server_response_body_size_bytes": "is of the preset otel",
    "asyncio_task_oldest_seconds": "is exported where there are groups: task_groups",
    "queue_retained_items": "is known of a broker's store, and the demo's queue is in memory",
}

#: What other programs export, by the beginning of the name, and which.
OF_OTHERS = {
    "http_client_": "is of outbound requests, see aiosvc.client",
    "job_": "is pushed by a job that ends, see aiosvc.push_on_exit",
}
NOT_IN_A_DEMO |= {
    row.name: why
    for row in CATALOGUE
    for beginning, why in OF_OTHERS.items()
    if row.name.startswith(beginning)
}

#: What depends on the machine, so that it may be there or not.
IN_SOME_DEMOS = {
    "process_memory_limit_bytes": "is absent where nothing limits the memory",
    "asyncio_executor_max_threads": "is absent until the executor is used for the first time",
}

#: What a demo shows beside ours: its own business, and prometheus_client's collectors.
NOT_OURS = re.compile(
    r"(orders|emails?)_\w+|python_info|python_gc_(objects_(un)?collect\w+|collections)_total"
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scrape(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Give a scrape of a demo with an admin server and under load, at a time when it has all."""
    directory = tmp_path_factory.mktemp("demo")
    program = Program("demo", "--port=0", "--admin-port=0", "--load=50", directory=directory)
    async with program, ClientSession() as session:
        found = re.search(r"the admin server is at (http://\S+)", program.stderr)
        assert found is not None, program

        async def read() -> str:
            async with session.get(f"{found[1]}/metrics") as response:
                return await response.text()

        yield await poll(
            read,
            lambda text: (
                re.search(r'outcome="ok".*\} [1-9]', text) is not None and "aiosvc_series{" in text
            ),
            "a scrape in which e-mails were sent",
        )


def families(text: str) -> set[str]:
    """Return the names of all families that a scrape declares."""
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


@in_module
async def test_everything_that_a_demo_exports_is_in_the_catalogue(scrape: str) -> None:
    """No metric is exported without a row, neither by us nor under a name like one of ours."""
    ours = {name for name in families(scrape) if not NOT_OURS.fullmatch(name)}
    assert ours - {row.name for row in CATALOGUE} == set()


@in_module
async def test_everything_in_the_catalogue_is_exported_by_a_demo(scrape: str) -> None:
    """A row is no promise: the demo exports each metric, but those that it can't."""
    missing = {row.name for row in CATALOGUE} - families(scrape)
    assert missing - set(IN_SOME_DEMOS) == set(NOT_IN_A_DEMO)


@in_module
async def test_labels_are_those_of_the_catalogue(scrape: str) -> None:
    """Each series has the labels that its row says, and no other."""
    rows = {row.name: row for row in CATALOGUE}
    seen = set()
    for name, labels in re.findall(r"^([a-z_]+)\{([^}]*)\} ", scrape, re.MULTILINE):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        row = rows.get(name) or rows.get(base)
        if row is not None:
            given = set(re.findall(r'(\w+)="', labels)) - {"le" if name.endswith("_bucket") else ""}
            assert given == set(row.labels), name
            seen.add(row.name)
    assert len(seen) > 25


async def test_what_the_demo_does_not_show_is_exported_by_other_services() -> None:
    """What is left out of the demo's comparison for an option's sake is there with that option."""
    registry = CollectorRegistry()
    app = web.Application()
    app.router.add_get("/", _ok)
    aiosvc.setup(
        app,
        registry=registry,
        preset="otel",
        response_start=True,
        task_groups={"all": "*"},
        sample_interval=0.01,
    )
    async with TestClient(TestServer(app)) as client:
        await client.get("/")

        async def read() -> set[str]:
            return families(generate_latest(registry).decode())

        others = {name for name in NOT_IN_A_DEMO if name.startswith(tuple(OF_OTHERS))}
        wanted = set(NOT_IN_A_DEMO) - {"queue_retained_items"} - others
        await poll(read, wanted.issubset, "the families of the options")


async def _ok(_: web.Request) -> web.Response:
    return web.Response()


def test_the_page_is_up_to_date() -> None:
    """docs/metrics.md is what `aiosvc metrics --markdown` prints."""
    assert (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8") == as_markdown()


@pytest.mark.parametrize("text", [as_text(), as_markdown()], ids=["text", "markdown"])
def test_the_reference_has_everything(text: str) -> None:
    """Every metric's name, meaning, labels, buckets and alerts are in both forms."""
    words = " ".join(text.split())
    for row in CATALOGUE:
        assert re.search(rf"\b{row.name}\b", text)
        assert " ".join(row.help.split()) in words
        for label in row.labels:
            assert label in text
        for bound in row.buckets:
            assert f"{bound:g}" in text
    for alerts in alerts_by_metric().values():
        assert all(alert in text for alert in alerts)


def test_links_of_the_page_lead_somewhere() -> None:
    """Every alert that the page links to has its runbook."""
    links = re.findall(r"\]\(([^)]+)\)", as_markdown())
    assert links
    assert all((REPOSITORY / "docs" / link).is_file() for link in links)


def test_alerts_are_found_through_recordings() -> None:
    """A metric's alerts are those that look at it, be it through what was recorded of it."""
    found = alerts_by_metric()
    assert "AiosvcQueueItemsWaitTooLong" in found["queue_oldest_item_age_seconds"]
    assert found["http_server_request_duration_seconds"] == (
        "AiosvcErrorBudgetBurnFast",
        "AiosvcErrorBudgetBurnSlow",
        "AiosvcLatencyBudgetBurnFast",
        "AiosvcLatencyBudgetBurnSlow",
        "AiosvcLatencyBucketMissing",
    )
    assert "queue_scheduled" not in found


def test_units() -> None:
    """The unit is what the name ends in; a count has none."""
    units = {row.name: unit_of(row) for row in CATALOGUE}
    assert units["asyncio_eventloop_time_seconds_total"] == "seconds"
    assert units["aiosvc_exposition_bytes"] == "bytes"
    assert units["http_requests_total"] == ""
