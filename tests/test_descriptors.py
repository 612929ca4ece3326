"""Descriptors that have run out, and what a scrape says of them then."""

import errno
import http.client
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NoReturn

import pytest
from expositions import rendered
from processes import DEADLINE, REPOSITORY, until
from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from aiosvc import descriptors
from aiosvc.clientmetrics import prefix_of_process
from aiosvc.descriptors import completed, most_descriptors, open_descriptors

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")


class Incomplete(ProcessCollector):
    """What prometheus_client's collector is when it can open no file."""

    def collect(self) -> list[Metric]:
        """Give nothing."""
        return []


def names(text: bytes) -> list[str]:
    """Return the names of the families of a text, as often as they are there."""
    parsed = text_string_to_metric_families(text.decode())
    return [family.name for family in parsed]


@on_linux
def test_open_descriptors() -> None:
    """The number is the true one, each new one more, and the limit is the soft one."""
    before = open_descriptors()
    assert before is not None
    read, write = os.pipe()
    assert open_descriptors() == before + 2
    os.close(read)
    os.close(write)
    assert open_descriptors() == before
    assert most_descriptors() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no limit, it is infinite."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY,) * 2)
    assert most_descriptors() == float("inf")


@pytest.mark.parametrize(
    ("error", "number"), [(errno.EMFILE, 40), (errno.ENFILE, None), (errno.EACCES, None)]
)
def test_kernel_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch, error: int, number: int | None
) -> None:
    """Before Linux 6.2 they are listed; when none is left for that, all of them are in use."""

    def fail(_path: str) -> NoReturn:
        raise OSError(error, "no")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (40, 80))
    monkeypatch.setattr(os, "stat", lambda _path: os.stat_result((0,) * 10))
    monkeypatch.setattr(os, "listdir", lambda _path: ["0", "1", "2", "3"])
    assert open_descriptors() == 3
    monkeypatch.setattr(os, "listdir", fail)
    assert open_descriptors() == number


def test_system_that_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be known is absent."""
    monkeypatch.setattr(descriptors, "DIRECTORY", "/nowhere")
    assert [family.name for family in completed("process_", [])] == ["process_max_fds"]


def test_nothing_is_given_twice() -> None:
    """What the collector gave stays as it is."""
    given = [GaugeMetricFamily("process_open_fds", "x", 1)]
    both = list(completed("process_", given))
    assert [family.name for family in both] == ["process_open_fds", "process_max_fds"]
    assert both[0] is given[0]


@on_linux
@pytest.mark.parametrize("prefix", ["", "shop"])
def test_collector_that_lost_them(prefix: str) -> None:
    """A scrape has both families once, under the collector's own names; others see no difference."""
    registry = CollectorRegistry()
    Incomplete(namespace=prefix, registry=registry)
    name = f"{prefix}_process" if prefix else "process"
    text = rendered(registry)
    assert names(text) == [f"{name}_open_fds", f"{name}_max_fds"]
    assert generate_latest(registry) == b""


@on_linux
def test_collector_that_has_them() -> None:
    """Where the collector is complete, the bytes are prometheus_client's, number for number."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    ours, theirs = names(rendered(registry)), names(generate_latest(registry))
    assert ours == theirs
    assert "process_open_fds" in ours


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProcessCollector(pid=lambda: 1, registry=None),
        lambda: ProcessCollector(proc="/nowhere", registry=None),
        lambda: ProcessCollector(pid=lambda: 1 // 0, registry=None),
        object,
    ],
)
def test_collector_that_is_not_completed(make: Any) -> None:
    """A collector of another process, or that never has anything, is left as it is."""
    assert prefix_of_process(make()) is None


@pytest.mark.parametrize(
    "pid", ["self", str(os.getpid()), os.getpid()], ids=["self", "its text", "its number"]
)
@on_linux
def test_collector_of_this_process(pid: str | int) -> None:
    """However it is told, this process is known."""
    assert prefix_of_process(ProcessCollector(pid=lambda: pid, registry=None)) == "process_"


SERVICE = """
import asyncio, json, resource, sys
from aiohttp import web
import aiosvc

async def main():
    app = web.Application()
    observer = aiosvc.setup(app, admin=aiosvc.AdminOptions(admin_port=0), sample_interval=0.1)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(json.dumps([site.port, int(observer.admin_url.rpartition(":")[2])]), flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    await reader.read()
    await runner.cleanup()

asyncio.run(main())
"""


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Give the ports of a service that may have 40 descriptors: its own and the admin server's."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SERVICE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # asyncio tells of each connection that it could not accept
        cwd=REPOSITORY,
    ) as service:
        assert service.stdout is not None
        yield tuple(json.loads(service.stdout.readline()))
        assert service.stdin is not None
        service.stdin.close()
        assert service.wait(DEADLINE) == 0


def scrape(connection: http.client.HTTPConnection, accept: str = "*/*") -> dict[str, float]:
    """Return the samples of a scrape; fail where a family is in it twice."""
    connection.request("GET", "/metrics", headers={"Accept": accept})
    response = connection.getresponse()
    text = response.read()
    assert response.status == 200
    families = [line for line in text.splitlines() if line.startswith(b"# TYPE")]
    assert len(families) == len(set(families))
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


@on_linux
async def test_out_of_descriptors(ports: tuple[int, int]) -> None:
    """Open connections are answered, with how many descriptors are open, and it all recovers."""
    with ExitStack() as stack:
        scrapers = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in ports]
        for each in scrapers:
            stack.callback(each.close)
            before = scrape(each)
            assert 5 < before["process_open_fds"] < 40
            assert before["process_max_fds"] == 40
        crowd = []
        for number in range(60):
            sock = socket.create_connection(("127.0.0.1", ports[number % 2]), timeout=DEADLINE)
            crowd.append(stack.enter_context(sock))
        await until(
            lambda: "process_cpu_seconds_total" not in scrape(scrapers[0]), "no file can be opened"
        )
        for accept in ("text/plain", "application/openmetrics-text"):
            for each in scrapers:
                full = scrape(each, accept)
                assert full["process_open_fds"] == full["process_max_fds"] == 40
        for sock in crowd:
            sock.close()
        for port in ports:
            fresh = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            stack.callback(fresh.close)
            assert scrape(fresh)["process_open_fds"] < 40
        up = 'aiosvc_source_up{source="process"}'
        await until(lambda: scrape(scrapers[1])[up] == 1, "the process is sampled again")
        assert scrape(scrapers[0]).keys() >= before.keys()
