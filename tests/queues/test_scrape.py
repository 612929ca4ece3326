"""Queues through a real scrape: by the service's own port, by the admin port, by promtool."""

import asyncio
import concurrent.futures
import subprocess
import threading
import urllib.request
from typing import Any

import aiojobs
import anyio
import janus
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import aiosvc


def our_threads() -> set[threading.Thread]:
    """Return the threads that are ours."""
    return {each for each in threading.enumerate() if each.name.startswith("aiosvc")}


def values_of(registry: CollectorRegistry, name: str, **labels: str) -> list[float]:
    """Return the values of the samples of that name that have those labels."""
    return [
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


async def test_everything_at_once(promtool: str) -> None:
    """A service with every kind of queue, a pool and a tracker passes promtool's lint in silence."""
    before = our_threads()
    registry = CollectorRegistry()
    app = web.Application()
    observer = aiosvc.setup(app, registry=registry, admin=aiosvc.AdminOptions(admin_port=0))
    send, receive = anyio.create_memory_object_stream[int](3)
    threads = concurrent.futures.ThreadPoolExecutor(1)
    scheduler, both = aiojobs.Scheduler(), janus.Queue[int](3)
    kept: list[Any] = [
        asyncio.PriorityQueue(3), send, both, scheduler, threads, asyncio.BoundedSemaphore(2),
        anyio.CapacityLimiter(2),
    ]  # fmt: skip
    for number, each in enumerate(kept):
        observer.watch_queue(each, name=f"kind-{number}")
    emails: asyncio.Queue[int] = asyncio.Queue(1)
    go = asyncio.Event()

    async def send_email(number: int) -> None:
        await go.wait()
        if number == 1:
            raise ValueError

    pool = observer.worker_pool(
        emails, send_email, name="email", concurrency=1, attempts=2, backoff=0.0, dead_letters=5
    )

    async def work(_: web.Application) -> Any:
        async with pool:
            yield

    app.cleanup_ctx.append(work)
    with observer.track_jobs("reports", jobs=["daily"], slots=1).attempt("daily"):
        async with TestClient(TestServer(app)) as client:
            await pool.put(1)
            await pool.put(2)
            text = await (await client.get("/metrics")).text()
            assert 'queue_depth{queue_name="email"} 1.0' in text
            assert 'workers_busy{queue_name="email"} 1.0' in text
            assert 'workers_busy{queue_name="reports"} 1.0' in text
            # The admin port's own thread sees the same, not what a sampler saw a while ago.
            url = f"{observer.admin_url}/metrics"
            seen: bytes = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
            assert b'queue_depth{queue_name="email"} 1.0' in seen
            go.set()
            await asyncio.wait_for(emails.join(), 60)
            text = await (await client.get("/metrics")).text()
    checked = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["queue_items_completed_total", "email", "ok", "send_email"] == 1
    assert values["queue_items_completed_total", "email", "retry", "send_email"] == 1
    assert values["queue_items_completed_total", "dead", "email", "send_email"] == 1
    assert values["queue_dead", "email"] == 1
    assert values["queue_wait_seconds_count", "email"] == 3
    assert sum(values_of(registry, "queue_items_completed_total", outcome="dead")) == 1
    assert registry.get_sample_value("queue_depth", {"queue_name": "email"}) is None
    for stream in (send, receive):
        stream.close()
    threads.shutdown()
    await scheduler.close()
    await both.aclose()
    assert our_threads() <= before


async def test_a_scrape_of_a_thousand_queues() -> None:
    """Many queues are read without holding the loop up for long, and all are there."""
    registry = CollectorRegistry()
    app = web.Application()
    observer = aiosvc.setup(app, registry=registry)
    queues = [
        observer.watch_queue(asyncio.Queue[int](5), name=f"queue{number}") for number in range(1000)
    ]
    for queue in queues:
        queue.put_nowait(1)
    async with TestClient(TestServer(app)) as client:
        text = await (await client.get("/metrics")).text()
    assert text.count("\nqueue_depth{") == 1000
    assert text.count("} 1.0\n") >= 1000
