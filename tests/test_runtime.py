"""Process, garbage collector, tasks and executor of a small application, as a scraper sees them."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from processes import REPOSITORY, poll, until
from prometheus_client import REGISTRY, CollectorRegistry, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

import aiosvc
from aiosvc import catalogue
from aiosvc.collector import collector_of
from aiosvc.errors import ConfigError
from aiosvc.sources.pauses import Pauses
from aiosvc.sources.tasks import TaskGroups

Scraped = dict[tuple[str, ...], float]

STANDARD = {
    "process_cpu_seconds_total",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
}

OTHERS = {
    "process_memory_rss_bytes",
    "process_memory_vms_bytes",
    "process_threads",
    "process_context_switches_total",
    "python_gc_duration_seconds_bucket",
    "python_gc_duration_seconds_count",
    "python_gc_duration_seconds_sum",
    "asyncio_tasks",
    "asyncio_executor_threads",
    "asyncio_executor_busy_threads",
    "asyncio_executor_queue_depth",
    "asyncio_eventloop_lag_seconds_bucket",
    "asyncio_eventloop_lag_seconds_count",
    "asyncio_eventloop_lag_seconds_sum",
    "asyncio_eventloop_stalls_total",
    "asyncio_eventloop_time_seconds_total",
}


def client_of(app: web.Application) -> TestClient[web.Request, web.Application]:
    """Return a client of a server of *app*; use it with `async with`."""
    return TestClient(TestServer(app))


async def text_of(client: TestClient[web.Request, web.Application]) -> str:
    """Return a scrape."""
    return await (await client.get("/metrics")).text()


def parsed(text: str) -> Scraped:
    """Return the samples by name and label values; a series that is there twice is an error."""
    found: Scraped = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


async def scraped(
    client: TestClient[web.Request, web.Application], good: Callable[[Scraped], bool]
) -> Scraped:
    """Return the first scrape that is *good*."""

    async def scrape() -> Scraped:
        return parsed(await text_of(client))

    return await poll(scrape, good, "a scrape")


def names(found: Scraped) -> set[str]:
    """Return the names of what the process, Python and asyncio are like."""
    kept = ("process_", "python_gc_duration", "asyncio_")
    return {key[0] for key in found if key[0].startswith(kept)} - {"process_memory_limit_bytes"}


def registries() -> list[CollectorRegistry]:
    """Return the kinds of registry that there are."""
    with_their_own = CollectorRegistry()
    ProcessCollector(registry=with_their_own)
    return [CollectorRegistry(), CollectorRegistry(auto_describe=True), with_their_own]


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["private", "describing", "with_its_own"])
async def test_every_metric_once_in_a_registry_of_ones_own(kind: int, promtool: str) -> None:
    """Each name is exported exactly once, whoever exports it, and promtool has no complaint."""
    app = web.Application()
    aiosvc.setup(app, registry=registries()[kind])
    async with client_of(app) as client:
        await scraped(client, lambda found: names(found) >= OTHERS)
        text = await text_of(client)
    if sys.platform == "linux":
        assert names(parsed(text)) == STANDARD | OTHERS
    check(promtool, text)


def check(promtool: str, text: str) -> None:
    """Have promtool read *text*; it may complain only of names that are a contract."""
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0


GLOBAL = """
import asyncio, sys
import aiosvc
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
async def main():
    app = web.Application()
    aiosvc.setup(app)
    async with TestClient(TestServer(app)) as client:
        print(await (await client.get("/metrics")).text(), end="")
if sys.argv[1] == "uvloop":
    import uvloop
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_default_registry(loop: str, promtool: str) -> None:
    """In prometheus_client's default registry its own collector keeps its names, on each loop."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    text = subprocess.run(
        [sys.executable, "-W", "error", "-c", GLOBAL, loop],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    found = parsed(text)
    if sys.platform == "linux":
        # uvloop shows its executor from the first use on, and never how long it was idle.
        unseen = {name for name in OTHERS if "executor" in name or "time_seconds" in name}
        unseen = unseen if loop == "uvloop" else set()
        assert names(found) == STANDARD | OTHERS - unseen
    assert found["asyncio_tasks",] >= 1
    check(promtool, text)


def test_the_default_registry_has_an_owner() -> None:
    """In the default registry none of the standard names is ours, where it has a /proc."""
    if not list(ProcessCollector(registry=None).collect()):
        pytest.skip("prometheus_client's collector needs /proc")
    collector = collector_of(REGISTRY)
    text = {family.name for family in collector.describe()}
    assert not text & {name.removesuffix("_total") for name in STANDARD}


def has_tasks(found: Scraped) -> bool:
    """Say whether the tasks have been counted."""
    return ("asyncio_tasks",) in found


def counted() -> int:
    """Return how many tasks the loop has without ours."""
    groups = TaskGroups({})
    return sum(groups.group_of(task) is not None for task in asyncio.all_tasks())


async def test_what_a_scrape_says_is_so() -> None:
    """Tasks, threads and pauses that the application has are in the next scrape."""
    app = web.Application()
    aiosvc.setup(app, registry=CollectorRegistry(), sample_interval=0.2)
    go_on = threading.Event()
    async with client_of(app) as client:
        before = await scraped(client, lambda found: ("process_threads",) in found)
        tasks = [asyncio.create_task(asyncio.sleep(1000)) for _ in range(50)]
        work = asyncio.get_running_loop().run_in_executor(None, go_on.wait)
        gc.collect()

        async def sees(name: str, value: float) -> None:
            await scraped(client, lambda found: found.get((name,)) == value)

        try:
            await scraped(client, lambda found: found.get(("asyncio_tasks",)) == counted() >= 50)
            await sees("asyncio_executor_busy_threads", 1)
            await sees("asyncio_executor_threads", 1)
            threads = before["process_threads",]
            await scraped(client, lambda found: found.get(("process_threads",), 0) > threads)
        finally:
            go_on.set()
        await work
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await sees("asyncio_executor_busy_threads", 0)
        await scraped(client, lambda found: found.get(("asyncio_tasks",)) == counted() < 50)
        after = await scraped(client, lambda found: ("process_threads",) in found)
    count = ("python_gc_duration_seconds_count", "2")
    assert after[count] > before[count]
    assert after["process_start_time_seconds",] < time.time()
    if sys.platform == "linux":
        assert after["process_memory_rss_bytes",] == after["process_resident_memory_bytes",]


async def test_groups_of_tasks() -> None:
    """With groups each has its number and the age of its oldest, and the rest is _other."""

    async def consume_orders() -> None:
        await asyncio.Event().wait()

    app = web.Application()
    aiosvc.setup(
        app,
        registry=CollectorRegistry(),
        task_groups={"consumers": "consume_*|drain", "mail": "mail"},
    )
    consumer = asyncio.create_task(consume_orders())
    async with client_of(app) as client:
        found = await scraped(client, lambda found: ("asyncio_tasks", "mail") in found)
    consumer.cancel()
    assert found["asyncio_tasks", "consumers"] == 1
    assert found["asyncio_tasks", "mail"] == 0
    assert found["asyncio_tasks", "_other"] >= 1
    assert found["asyncio_task_oldest_seconds", "consumers"] >= 0
    assert found["asyncio_task_oldest_seconds", "mail"] == 0
    assert ("asyncio_task_oldest_seconds", "_other") not in found


def noted() -> int:
    """Return how many callbacks of ours the garbage collector has."""
    return sum(isinstance(getattr(each, "__self__", None), Pauses) for each in gc.callbacks)


async def test_two_services_on_one_loop_and_registry() -> None:
    """What belongs to the process or the loop is told once, and goes on when the first stops."""
    registry = CollectorRegistry()
    first, second = web.Application(), web.Application()
    for app in (first, second):
        aiosvc.setup(app, registry=registry, sample_interval=0.2)
    before = noted()
    async with client_of(second) as client:
        async with client_of(first):
            assert noted() == 1
            gc.collect()
            both = await scraped(client, has_tasks)
            count = both["python_gc_duration_seconds_count", "2"]
            assert both["asyncio_tasks",] <= len(asyncio.all_tasks())
            assert both["process_threads",] < 2 * threading.active_count()
        alone = await scraped(client, has_tasks)
        assert alone["python_gc_duration_seconds_count", "2"] >= count
        assert alone["asyncio_tasks",] >= 1
        assert noted() == 1
    assert noted() == before


async def test_the_loops_speaker_is_followed_by_another() -> None:
    """When the service that read the loop stops, the other one on it reads on."""
    registry = CollectorRegistry()
    first, second = web.Application(), web.Application()
    for app in (first, second):
        aiosvc.setup(app, registry=registry, sample_interval=0.2)
    stop_first = client_of(first)
    await stop_first.start_server()
    async with client_of(second) as client:
        await scraped(client, has_tasks)
        await stop_first.close()
        await scraped(client, has_tasks)


async def test_counters_never_fall_over_a_restart() -> None:
    """A second application on the same registry goes on where the first one stopped."""
    registry = CollectorRegistry()
    pauses, seconds = [], []
    for _ in range(3):
        app = web.Application()
        aiosvc.setup(app, registry=registry)
        async with client_of(app) as client:
            gc.collect()
            found = parsed(await text_of(client))
            pauses.append(found["python_gc_duration_seconds_count", "2"])
            seconds.append(found["process_cpu_seconds_total",])
    assert pauses == sorted(pauses)
    assert pauses[2] < 100
    assert seconds == sorted(seconds)
    assert seconds[2] <= time.process_time() + 0.1


async def test_different_groups_on_one_registry_are_refused() -> None:
    """A registry has one set of groups; the second application is told."""
    registry = CollectorRegistry()
    aiosvc.setup(web.Application(), registry=registry, task_groups={"a": "a"})
    with pytest.raises(ConfigError, match="task groups"):
        aiosvc.setup(web.Application(), registry=registry, task_groups={"b": "b"})


async def test_a_process_collector_while_it_runs() -> None:
    """One that comes when the service runs has the names from the next sample on."""
    registry = CollectorRegistry()
    app = web.Application()
    aiosvc.setup(app, registry=registry, sample_interval=0.2)
    async with client_of(app) as client:
        assert names(parsed(await text_of(client))) >= STANDARD
        ProcessCollector(registry=registry)
        collector = collector_of(registry)
        await until(
            lambda: not collector.ownership.exports(catalogue.PROCESS_CPU), "the next sample"
        )
        assert names(parsed(await text_of(client))) >= STANDARD


EXHAUSTED = """
import asyncio, os, resource, re
import aiosvc
from aiohttp import web
from prometheus_client import CollectorRegistry

async def main():
    app = web.Application()
    aiosvc.setup(app, registry=CollectorRegistry(), sample_interval=0.05)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])

    async def scrape():
        writer.write(b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        length = int(re.search(rb"Content-Length: (\\d+)", head, re.I)[1])
        text = (await reader.readexactly(length)).decode()
        return dict(re.findall(r"^(process_\\w+) (\\S+)$", text, re.M))

    before = await scrape()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    async with asyncio.timeout(30):
        while (during := await scrape()).get("process_open_fds") != "64.0":
            await asyncio.sleep(0.05)
    for each in held:
        os.close(each)
    async with asyncio.timeout(30):
        while float((after := await scrape()).get("process_open_fds", "64")) >= 64:
            await asyncio.sleep(0.05)
    writer.close()
    await runner.cleanup()
    assert during.keys() == before.keys() == after.keys(), (before, during, after)
    print(float(during["process_open_fds"]), float(during["process_max_fds"]))
    print(float(after["process_open_fds"]) < 64, float(during["process_memory_rss_bytes"]) > 1e6)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_descriptors_run_out(tmp_path: Path) -> None:
    """With no descriptor left, a scrape on an open connection has all that it had, and says so."""
    said = subprocess.run(
        [sys.executable, "-c", EXHAUSTED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert said.stderr == ""
    assert said.stdout.splitlines() == ["64.0 64.0", "True True"]


async def test_begun_twice_and_ended_twice() -> None:
    """A service that is begun and ended more often than once leaves nothing behind."""
    callbacks = len(gc.callbacks)
    observer = aiosvc.Observer(CollectorRegistry(), aiosvc.Settings())
    for _ in range(2):
        observer.begin()
        await observer.start()
        assert len(gc.callbacks) == callbacks + 1
        await observer.stop()
        await observer.stop()
        assert len(gc.callbacks) == callbacks


async def test_a_cancellation_that_comes_with_the_first_sample() -> None:
    """Who is cancelled while waiting for a sample is cancelled, also where that is there by then."""
    runtime = aiosvc.Observer(CollectorRegistry(), aiosvc.Settings())._runtime
    waiting = asyncio.create_task(runtime.known())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    runtime._sampled.known.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
