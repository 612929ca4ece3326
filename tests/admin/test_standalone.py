"""Metrics of a program that is no aiohttp application."""

import asyncio
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from processes import DEADLINE, REPOSITORY, free_port
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from aiosvc.admin import MetricsServer, start_metrics_server
from aiosvc.config import Settings
from aiosvc.errors import BindError, ConfigError
from aiosvc.health import Health
from aiosvc.service import Observer

from .servers import basic, wait_for
from .test_webconfig import HASH


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Return the status and text of a page."""
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(server: MetricsServer) -> dict[str, float]:
    """Return the samples of a scrape by their names and labels."""
    status, text = get(f"{server.url}/metrics")
    assert status == 200
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_own_metrics_and_samples() -> None:
    """The registry's metrics are served, and what is sampled in the background beside them."""
    registry = CollectorRegistry()
    jobs = Counter("jobs", "Jobs.", registry=registry)
    server = start_metrics_server(0, registry=registry)
    try:
        jobs.inc(3)
        server.observer.sampler.add("answer", lambda: 42.0, interval=0.05)
        wait_for(lambda: samples(server).get("answer[]") == 42, "it is sampled")
        found = samples(server)
        assert found["jobs_total[]"] == 3
        assert found["aiosvc_source_up[('source', 'process')]"] == 1
        assert get(f"{server.url}/livez") == (200, "live\n")
        assert get(f"{server.url}/readyz") == (200, "ready\n")
        assert get(f"{server.url}/")[0] == 200
    finally:
        server.stop()


@pytest.mark.parametrize("first", ["the metrics", "the server"])
def test_what_a_guide_shows(first: str) -> None:
    """A program's own metrics may have the names that aiosvc gives to requests and queues."""
    registry = CollectorRegistry()
    with ExitStack() as stack:
        if first == "the server":
            server = start_metrics_server(0, registry=registry)
            stack.callback(server.stop)
        requests = Counter(
            "http_requests_total", "Requests.", ["method", "endpoint", "status"], registry=registry
        )
        seconds = Histogram(
            "http_request_duration_seconds", "Latency.", ["endpoint"], registry=registry
        )
        connections = Gauge("active_connections", "Connections.", registry=registry)
        depth = Gauge("queue_depth", "Items.", ["queue_name"], registry=registry)
        if first == "the metrics":
            server = start_metrics_server(0, registry=registry)
            stack.callback(server.stop)
        requests.labels("GET", "/api/users", "200").inc(2)
        seconds.labels("/api/users").observe(0.2)
        connections.set(7)
        depth.labels("email").set(3)
        server.observer.sampler.add("answer", lambda: 42.0, interval=0.05)
        wait_for(lambda: samples(server).get("answer[]") == 42, "it is sampled")
        text = get(f"{server.url}/metrics")[1]
        assert [
            line for line in text.splitlines() if line.startswith(("http_requests_total", "queue_"))
        ] == [
            'http_requests_total{endpoint="/api/users",method="GET",status="200"} 2.0',
            'queue_depth{queue_name="email"} 3.0',
        ]
        assert text.count("# TYPE http_requests_total ") == 1
        assert "active_connections 7.0" in text
        # Two that go by one name can't both be shown.
        with pytest.raises(ConfigError, match=r"'queue_depth'.*remove your own metrics"):
            server.observer.watch_queue(asyncio.Queue[int](5), name="jobs")
        assert get(f"{server.url}/metrics")[0] == 200


def test_names_of_a_queue_that_is_watched() -> None:
    """From then on they are taken, and everything else is as it was."""
    registry = CollectorRegistry()
    server = start_metrics_server(0, registry=registry)
    try:
        before = samples(server).keys()
        server.observer.track_jobs("email", jobs=["send"])
        assert before <= samples(server).keys()
        name = "queue_items_completed_total"
        assert name in get(f"{server.url}/metrics?name[]={name}")[1]
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            Gauge("queue_depth", "Items.", registry=registry)
    finally:
        server.stop()


def test_stop_leaves_nothing() -> None:
    """After a stop no thread is left, that of a compressed scrape neither; counters stay."""
    registry = CollectorRegistry()
    jobs = Counter("jobs", "Jobs.", ["name"], registry=registry)
    for number in range(5000):
        jobs.labels(str(number)).inc()
    server = start_metrics_server(0, registry=registry)
    status, _ = get(f"{server.url}/metrics")
    request = urllib.request.Request(f"{server.url}/metrics", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=DEADLINE) as reply:
        assert reply.headers["Content-Encoding"] == "gzip"
        reply.read()
    assert status == 200
    server.stop()
    server.stop()
    wait_for(
        lambda: not any("compression" in each.name for each in threading.enumerate()),
        "no thread is left",
    )
    assert registry.get_sample_value("aiosvc_scrapes_total", {"code": "200"}) == 2


def test_queue_of_another_loop() -> None:
    """A queue of the program's own event loop can be watched."""
    server = start_metrics_server(0, registry=CollectorRegistry())
    try:

        async def work() -> None:
            queue = server.observer.watch_queue(asyncio.Queue[int](5), name="jobs")
            queue.put_nowait(1)
            await asyncio.to_thread(
                wait_for,
                lambda: samples(server).get("queue_depth[('queue_name', 'jobs')]") == 1,
                "its depth is seen",
            )

        asyncio.run(work())
    finally:
        server.stop()


def test_checks() -> None:
    """Checks decide about /readyz here too; async ones run in the server's own loop."""
    health = Health()
    where: list[str] = []

    async def check() -> bool:
        where.append(threading.current_thread().name)
        return len(where) > 1

    health.add_check("db", check)
    server = start_metrics_server(0, registry=CollectorRegistry(), health=health)
    try:
        assert server.health is server.observer.health is health
        assert server.observer.admin_url == server.url
        assert get(f"{server.url}/readyz") == (503, "not passed: db\n[-] db: failed\n")
        assert get(f"{server.url}/readyz") == (200, "ready\n[+] db\n")
        assert where == ["aiosvc admin"] * 2
    finally:
        server.stop()


def test_refusals_are_counted() -> None:
    """What the server's limits have done to connections is in its metrics, from 0 on."""
    dropped = "aiosvc_admin_connections_dropped_total[('reason', '{}')]"
    options: Any = {"admin_connections": 2, "admin_header_timeout": 0.5}
    registry = CollectorRegistry()
    server = start_metrics_server(0, registry=registry, **options)
    try:
        found = samples(server)
        for reason in ("full", "displaced", "timeout", "certificate"):
            assert found[dropped.format(reason)] == 0
        with ExitStack() as stack:
            for _ in range(3):
                address = "127.0.0.1", server.port
                stack.enter_context(socket.create_connection(address, timeout=DEADLINE))
            wait_for(lambda: samples(server)[dropped.format("displaced")] >= 1, "one made room")
            wait_for(lambda: samples(server)[dropped.format("timeout")] >= 1, "one was too slow")
        before = samples(server)[dropped.format("displaced")]
    finally:
        server.stop()
    name, labels = "aiosvc_admin_connections_dropped_total", {"reason": "displaced"}
    assert registry.get_sample_value(name, labels) == before  # a counter outlives what it counted


def test_configuration_that_breaks(tmp_path: Path) -> None:
    """A scrape tells that the configuration in force is not the one in the file, and how often."""
    failures = "aiosvc_admin_config_reload_failures_total[]"
    successful = "aiosvc_admin_config_last_reload_successful[]"
    path = tmp_path / "web.yml"
    path.write_text("rate_limit: {interval: 0s}")
    server = start_metrics_server(0, registry=CollectorRegistry(), web_config=str(path))
    try:
        found = samples(server)
        assert (found[failures], found[successful]) == (0, 1)
        path.write_text("junk")
        found = samples(server)
        assert (found[failures], found[successful]) == (1, 0)
        path.write_text("rate_limit: {interval: 0s, burst: 2}")
        found = samples(server)
        assert (found[failures], found[successful]) == (1, 1)
    finally:
        server.stop()


def test_port_taken() -> None:
    """The message about a port that is taken names the argument that changes it."""
    registry = CollectorRegistry()
    server = start_metrics_server(0, registry=registry)
    try:
        with pytest.raises(BindError) as caught:
            start_metrics_server(server.port, registry=registry)
        assert str(caught.value) == (
            f"port {server.port} is taken (127.0.0.1); choose another with port"
        )
        with pytest.raises(BindError, match="choose one with addr"):
            start_metrics_server(0, "192.0.2.1", registry=registry)
    finally:
        server.stop()
    again = start_metrics_server(server.port, registry=registry)
    again.stop()


def test_wrong_options() -> None:
    """A wrong option is refused before anything is started."""
    threads = threading.active_count()
    for port in ("x", None, 70000):
        with pytest.raises(ConfigError, match=f"^port: {port!r} given; expected a whole number"):
            start_metrics_server(port, registry=CollectorRegistry())  # type: ignore[arg-type]
    for addr in ("", None):
        with pytest.raises(ConfigError, match=f"^addr: {addr!r} given; expected an address"):
            start_metrics_server(0, addr, registry=CollectorRegistry())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no option named 'webconfig'; did you mean 'web_config'"):
        start_metrics_server(0, registry=CollectorRegistry(), webconfig="x")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"web_config: nowhere\.yml: No such file"):
        start_metrics_server(0, registry=CollectorRegistry(), web_config="nowhere.yml")
    assert threading.active_count() <= threads


def test_start_that_fails_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sampling can't begin, nothing is left running."""

    async def fail(_self: Observer) -> None:
        raise MemoryError("none left")

    threads = threading.active_count()
    monkeypatch.setattr(Observer, "start", fail)
    with pytest.raises(MemoryError):
        start_metrics_server(0, registry=CollectorRegistry())
    assert threading.active_count() <= threads


def test_protected(tmp_path: Path) -> None:
    """Users, tokens and exempt paths are options here as well."""
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users: {{dave: {HASH}}}")
    server = start_metrics_server(
        0,
        registry=CollectorRegistry(),
        web_config=str(path),
        bearer_token="t0ken",
        auth_exempt=["/livez"],
    )
    try:
        assert get(f"{server.url}/metrics")[0] == 401
        assert get(f"{server.url}/metrics", basic("dave", "dave123"))[0] == 200
        assert get(f"{server.url}/metrics", {"Authorization": "Bearer t0ken"})[0] == 200
        assert get(f"{server.url}/livez")[0] == 200
    finally:
        server.stop()


def test_in_place_of_prometheus_client() -> None:
    """It can be taken apart into a server and a thread, as what prometheus_client returns can."""
    server, thread = start_metrics_server(free_port(), registry=CollectorRegistry())
    assert isinstance(server, MetricsServer)
    assert isinstance(thread, threading.Thread)
    assert get(f"http://127.0.0.1:{server.server_port}/metrics")[0] == 200
    assert thread.is_alive()
    server.shutdown()
    server.server_close()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_twice_on_one_registry() -> None:
    """Two servers may serve one registry, with the same settings."""
    registry = CollectorRegistry()
    settings = Settings(sample_interval=0.5)
    first = start_metrics_server(0, registry=registry, settings=settings)
    second = start_metrics_server(0, registry=registry, settings=settings)
    assert samples(first).keys() <= samples(second).keys()
    first.stop()
    assert samples(second)
    second.stop()


PROGRAM = """
import sys, threading, urllib.request
from prometheus_client import Counter
from aiosvc.admin import start_metrics_server
Counter("jobs", "Jobs.").inc()
server = start_metrics_server(0)
text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=20).read().decode()
assert "jobs_total 1.0" in text
assert not {"yaml", "bcrypt"} & set(sys.modules), "extras are imported only when needed"
if "stop" in sys.argv:
    server.stop()
print("done")
"""


@pytest.mark.parametrize("stop", [True, False])
def test_program_that_ends(stop: bool) -> None:
    """A program with such a server ends when it wants to, having stopped it or not."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *(["stop"] if stop else [])],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
        cwd=REPOSITORY,
    )
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr


def test_its_own_loop_is_not_taken_for_the_programs() -> None:
    """Nothing is said of the event loop that serves here, which is free when the program's is not."""
    server = start_metrics_server(0, registry=CollectorRegistry())
    try:
        found = samples(server)
        wait_for(lambda: "process_threads[]" in samples(server), "the process is sampled")
        assert [name for name in found if name.startswith("asyncio_")] == []
        assert server.observer.stalls() == []
    finally:
        server.stop()


async def test_beside_a_service_that_is_measured() -> None:
    """On one registry with a service, what is told of an event loop is the service's alone."""
    registry = CollectorRegistry()
    service = Observer(registry, Settings(stall_threshold=0.2, task_groups={"all": "*"}))
    await service.start()
    server = await asyncio.to_thread(start_metrics_server, 0, registry=registry)
    try:
        assert service.collector is server.observer.collector
        # Tasks are counted in slices, so the first count may be on its way.
        await asyncio.to_thread(
            wait_for,
            lambda: sum(name.startswith("asyncio_tasks[") for name in samples(server)) == 2,
            "the service's loop is sampled",
        )
        tallies = [r for r in service.collector._reporters if type(r).__name__ == "Tally"]
        assert len(tallies) == 1
    finally:
        await asyncio.to_thread(server.stop)
        await service.stop()
