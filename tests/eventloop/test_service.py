"""The event loop of a service, as it is set up, scraped, stopped by a signal and forked."""

import asyncio
import gc
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from processes import DEADLINE, REPOSITORY, Program, poll
from prometheus_client import CollectorRegistry

import aiosvc
from aiosvc.errors import ConfigError

from .doubles import until, watchdogs

#: Seconds of a block, and a threshold that a loaded machine does not reach by itself.
BLOCK = 0.6
THRESHOLD = 0.3


def value(text: str, name: str) -> float:
    """Return a series' value in an exposition."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"no {name} in {text}"
    return float(found[1])


async def test_a_scrape_during_a_stall_shows_it() -> None:
    """The admin port tells of a stall while it lasts; afterwards its length and line are known."""
    scraped: list[str] = []
    go = threading.Event()

    def scrape(url: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            with urllib.request.urlopen(url, timeout=DEADLINE) as response:
                scraped.append(response.read().decode())
            if value(scraped[-1], "asyncio_eventloop_stalls_total") == 1:
                break
        go.set()

    async def order(request: web.Request) -> web.Response:
        thread = threading.Thread(target=scrape, args=(f"{obs.admin_url}/metrics",))
        thread.start()
        go.wait(DEADLINE)
        thread.join()
        return web.Response()

    app = web.Application()
    app.router.add_get("/order", order)
    obs = aiosvc.setup(
        app,
        registry=CollectorRegistry(),
        admin=aiosvc.AdminOptions(admin_port=0),
        stall_threshold=THRESHOLD,
    )
    before = watchdogs()
    async with TestClient(TestServer(app)) as client:
        text = await (await client.get("/metrics")).text()
        assert value(text, "asyncio_eventloop_stalls_total") == 0
        await client.get("/order")
        await until(obs.stalls, "the stall")
        text = await (await client.get("/metrics")).text()
    assert value(scraped[-1], 'asyncio_eventloop_time_seconds_total{state="busy"}') >= THRESHOLD
    assert value(text, "asyncio_eventloop_stalls_total") >= 1
    assert value(text, "asyncio_eventloop_lag_seconds_sum") >= THRESHOLD
    stall = obs.stalls()[0]
    assert stall.code is not None
    assert stall.code.file == __file__
    assert stall.code.function == order.__qualname__
    await until(lambda: set(watchdogs()) <= set(before), "the watchdog's end")


async def test_what_was_counted_outlives_the_service() -> None:
    """After the stop the counters stay in the registry, and a second start adds to them."""
    registry = CollectorRegistry()
    last = 0.0
    for _ in range(2):
        app = web.Application()
        aiosvc.setup(app, registry=registry)
        async with TestClient(TestServer(app)):
            await asyncio.sleep(0.05)
        total = sum(
            registry.get_sample_value("asyncio_eventloop_time_seconds_total", {"state": state})
            or 0.0
            for state in ("busy", "idle")
        )
        assert total >= last + 0.05
        last = total
        await asyncio.sleep(0.01)


async def test_off_exports_nothing() -> None:
    """With loop_probe off there is no family of the event loop."""
    app = web.Application()
    obs = aiosvc.setup(app, registry=CollectorRegistry(), loop_probe="off")
    async with TestClient(TestServer(app)) as client:
        text = await (await client.get("/metrics")).text()
    assert "asyncio_eventloop" not in text
    assert obs.stalls() == []


@pytest.mark.parametrize("options", [{"stall_threshold": 0.5}, {"loop_probe": "heartbeat"}])
def test_one_registry_has_one_way_to_measure(options: dict[str, object]) -> None:
    """Two services on a registry can't measure its loops in two ways; one may not at all."""
    registry = CollectorRegistry()
    aiosvc.setup(web.Application(), registry=registry)
    with pytest.raises(ConfigError, match="another application on the same registry uses"):
        aiosvc.setup(web.Application(), registry=registry, **options)  # type: ignore[arg-type]
    aiosvc.setup(web.Application(), registry=registry, loop_probe="off")


async def test_a_collection_is_no_lines_fault() -> None:
    """A real collection that holds the loop up is told as one."""
    app = web.Application()
    obs = aiosvc.setup(app, registry=CollectorRegistry(), stall_threshold=0.05)
    objects: list[list[int]] = []

    async def collect(_: web.Request) -> web.Response:
        took = 0.0
        while took < 0.2:
            objects.extend([] for _ in range(500_000))
            begun = time.perf_counter()
            gc.collect()
            took = time.perf_counter() - begun
        await asyncio.sleep(0)  # that was one turn; the last collection is another
        gc.collect()
        return web.Response()

    app.router.add_get("/", collect)
    with_gc = gc.isenabled()
    gc.disable()
    try:
        async with TestClient(TestServer(app)) as client:
            await client.get("/")
            await until(lambda: any(stall.is_collection for stall in obs.stalls()), "its stall")
    finally:
        objects.clear()
        if with_gc:
            gc.enable()


SHOP = """
from aiohttp import web
app = web.Application()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP on this platform")
@pytest.mark.parametrize("kind", ["auto", "heartbeat"])
async def test_a_stopped_process_is_one_observation(kind: str, tmp_path: Path) -> None:
    """A process that is stopped and goes on has one stall of that length, not one for each beat."""
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    stopped = 1.5
    program = Program(
        *("run", "shop:app", "--port", "0", "--loop-probe", kind, "--stall-threshold", "1"),
        # A timer is due in time, so the wait that the stop falls into ends late.
        *("--sample-interval", "0.1"),
        directory=tmp_path,
    )
    async with program, aiohttp.ClientSession(program.url) as session:

        async def text() -> str:
            async with session.get("/metrics") as response:
                return await response.text()

        first = await text()
        assert value(first, "asyncio_eventloop_stalls_total") == 0
        program.send(signal.SIGSTOP)
        await asyncio.sleep(stopped)
        program.send(signal.SIGCONT)
        second = await poll(
            text, lambda t: value(t, "asyncio_eventloop_stalls_total") >= 1, "the stall"
        )
        second = await text()
        await program.says("s at an unknown place: ")
        assert await program.stop() == 0
    assert value(second, "asyncio_eventloop_stalls_total") == 1
    over = [
        value(text, 'asyncio_eventloop_lag_seconds_bucket{le="+Inf"}')
        - value(text, 'asyncio_eventloop_lag_seconds_bucket{le="1.0"}')
        for text in (first, second)
    ]
    assert over == [0, 1]
    grown = value(second, "asyncio_eventloop_lag_seconds_sum")
    grown -= value(first, "asyncio_eventloop_lag_seconds_sum")
    assert grown >= stopped - 0.2
    if kind == "auto":
        name = 'asyncio_eventloop_time_seconds_total{state="busy"}'
        assert value(second, name) - value(first, name) >= stopped - 0.2


FORK = """
import asyncio, os, sys, time
from aiosvc.collector import collector_of
from aiosvc.eventloop import LoopWatch
from prometheus_client import CollectorRegistry

registry = CollectorRegistry()
watch = LoopWatch(collector_of(registry), kind={kind!r}, stall_threshold=0.3)


def busy():
    name = "asyncio_eventloop_time_seconds_total"
    return registry.get_sample_value(name, {{"state": "busy"}}) or 0.0


def stalls():
    return registry.get_sample_value("asyncio_eventloop_stalls_total")


async def main():
    watch.start()
    await asyncio.sleep(0.2)
    if os.fork():
        time.sleep(0.1)
        _, status = os.wait()
        watch.stop()
        return os.waitstatus_to_exitcode(status)
    # The child: its loop does not turn, and nothing is late there.
    first = busy()
    time.sleep(0.5)
    assert (busy(), stalls()) == (first, 0), (busy(), first, stalls())
    os._exit(0)


sys.exit(asyncio.run(main()))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no fork on this platform")
@pytest.mark.parametrize("kind", ["auto", "heartbeat"])
def test_a_forked_process(kind: str, tmp_path: Path) -> None:
    """In a forked process nothing is late: the loop, which can't go on there, stands still."""
    script = tmp_path / "fork.py"
    script.write_text(textwrap.dedent(FORK.format(kind=kind)), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
