"""However a job ends, its last state is pushed, and what it raised goes on."""

import asyncio
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from admin.certificates import Authority, client_context
from gateways import Pushgateway, fake_gateway
from processes import Process, until
from prometheus_client import CollectorRegistry, Counter

import aiosvc
from aiosvc.testing import Sample, parse

NOW = 1_700_000_000.0


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry with a counter."""
    registry = CollectorRegistry()
    Counter("files", "Files.", registry=registry).inc(3)
    return registry


def job_metrics(text: str) -> dict[str, float]:
    """Return the samples about the job."""
    return {s.name: s.value for s in parse(text) if s.name.startswith("job_")}


class Clock:
    """Ten seconds pass between two looks."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return the time."""
        self.now += 10
        return self.now - 10


def test_labels_of_the_group(registry: CollectorRegistry) -> None:
    """A metric's label that the group has too gets the name that it has in Prometheus anyway."""
    jobs = Counter("jobs", 'With {job="x"}.', ["job", "host", "text"], registry=registry)
    jobs.labels("a", "h", 'x",job="y').inc(1)
    jobs.labels("b", "h", ",job=").inc(2)
    both = Counter("both", "Both.", ["job", "exported_job"], registry=registry)
    both.labels("a", "b").inc()
    with fake_gateway() as server:
        with aiosvc.push_on_exit(
            server.url, job="b", registry=registry, grouping_key={"host": "a"}
        ):
            pass
        [put] = server.pushed
    assert parse(put.body).series("jobs_total") == [
        Sample("jobs", "jobs_total", {"exported_job": job, "exported_host": "h", "text": text}, n)
        for job, text, n in (("a", 'x",job="y', 1.0), ("b", ",job=", 2.0))
    ]
    [sample] = parse(put.body).series("both_total")
    assert sample.labels == {"exported_exported_job": "a", "exported_job": "b"}
    assert '# HELP jobs_total With {job="x"}.' in put.body


def test_names_that_a_job_may_have(registry: CollectorRegistry) -> None:
    """What aiosvc calls requests and queues is free for the job's own metrics."""
    Counter("http_requests", "Requests.", registry=registry).inc(2)
    with fake_gateway() as server:
        with aiosvc.push_on_exit(server.url, job="b", registry=registry):
            Counter("queue_items_dropped", "Dropped.", registry=registry).inc()
        [put] = server.pushed
    assert "http_requests_total 2.0" in put.body
    assert "queue_items_dropped_total 1.0" in put.body


def test_a_job_that_ends_well(registry: CollectorRegistry) -> None:
    """Its group is replaced by what it counted, and when it began, ended and succeeded."""
    with fake_gateway() as server:
        with aiosvc.push_on_exit(
            server.url, job="b", registry=registry, grouping_key={"host": "a"}, now=Clock()
        ) as push:
            pass
        assert push.pushed
    [put] = server.pushed
    assert (put.method, put.path) == ("PUT", "/metrics/job/b/host/a")
    assert "files_total 3.0" in put.body
    assert job_metrics(put.body) == {
        "job_last_start_timestamp_seconds": NOW,
        "job_last_end_timestamp_seconds": NOW + 10,
        "job_last_success_timestamp_seconds": NOW + 10,
        "job_duration_seconds": 10,
        "job_succeeded": 1,
    }
    assert registry.get_sample_value("job_succeeded") is None


@pytest.mark.parametrize(
    ("error", "well"),
    [
        (KeyError("mine"), False),
        (KeyboardInterrupt(), False),
        (SystemExit(3), False),
        (SystemExit("no disk"), False),
        (SystemExit(0), True),
        (SystemExit(), True),
    ],
)
async def test_a_job_that_raises(
    registry: CollectorRegistry, error: BaseException, well: bool
) -> None:
    """What it raises goes on, and only its own metrics replace former ones."""
    for is_async in (False, True):
        with fake_gateway() as server:
            job = aiosvc.push_on_exit(server.url, job="b", registry=registry)

            async def run(job: aiosvc.push.PushOnExit = job, is_async: bool = is_async) -> None:
                if is_async:
                    async with job:
                        raise error
                with job:
                    raise error

            with pytest.raises(type(error)) as raised:
                await run()
            assert raised.value is error
        [pushed] = server.pushed
        assert pushed.method == ("PUT" if well else "POST")
        found = job_metrics(pushed.body)
        assert found["job_succeeded"] == well
        assert ("job_last_success_timestamp_seconds" in found) == well


async def test_a_push_that_fails_hides_nothing(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway that refuses is one line in the log; job and exception are untouched."""
    with fake_gateway([400] * 3) as server:
        with pytest.raises(KeyError), aiosvc.push_on_exit(server.url, job="b", registry=registry):
            raise KeyError
        async with aiosvc.push_on_exit(server.url, job="b", registry=registry) as push:
            pass
    assert not push.pushed
    assert [record.getMessage() for record in caplog.records] == [
        f"the job's metrics were not pushed: {server.url}/metrics/job/b: answered 400: because"
    ] * 2


def test_a_collector_that_fails(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """One collector that raises costs its own metrics, not the push."""

    class Broken:
        def describe(self) -> list[Any]:
            return []

        def collect(self) -> list[Any]:
            raise OSError("no database")

    registry.register(Broken())
    with fake_gateway() as server, aiosvc.push_on_exit(server.url, job="b", registry=registry):
        pass
    [put] = server.pushed
    assert "files_total 3.0" in put.body
    assert any("Broken" in record.getMessage() for record in caplog.records)


def test_pushed_while_it_runs(registry: CollectorRegistry) -> None:
    """With an interval the state so far is pushed too; the thread ends with the job."""
    pause = threading.Event()
    with (
        fake_gateway() as server,
        aiosvc.push_on_exit(server.url, job="b", registry=registry, interval=0.01),
    ):
        for _ in range(1000):
            if len(server.pushed) >= 2 or pause.wait(0.01):
                break
    first, *_, last = server.pushed
    assert first.method == "POST"
    assert set(job_metrics(first.body)) == {
        "job_last_start_timestamp_seconds",
        "job_duration_seconds",
    }
    assert last.method == "PUT"
    assert job_metrics(last.body)["job_succeeded"] == 1
    assert all(each.method == "POST" for each in server.pushed[:-1])
    assert "aiosvc-push" not in {thread.name for thread in threading.enumerate()}


async def test_cancelled_while_it_pushes(registry: CollectorRegistry) -> None:
    """A cancellation is not held up by a gateway that is away."""
    with fake_gateway([503] * 1000) as server:

        async def job() -> None:
            async with aiosvc.push_on_exit(server.url, job="b", registry=registry, deadline=1000):
                pass

        task = asyncio.create_task(job())
        await until(lambda: bool(server.pushed), "a push")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_one_job_at_a_time(registry: CollectorRegistry) -> None:
    """An object is for one job after the other, not for two at once."""
    with fake_gateway() as server:
        job = aiosvc.push_on_exit(server.url, job="b", registry=registry)
        with job, pytest.raises(RuntimeError, match="has begun already"), job:
            pass
        with job:
            pass
    assert [each.method for each in server.pushed] == ["PUT", "PUT"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"interval": 0}, "interval: 0 given"),
        ({"timeout": 0}, "timeout: 0 given"),
        ({"deadline": -1}, "deadline: -1 given"),
        ({"tls": True}, "tls: True given; expected an ssl.SSLContext"),
        ({"job": ""}, "job: '' given"),
    ],
)
def test_mistakes(registry: CollectorRegistry, options: dict[str, Any], says: str) -> None:
    """A wrong option is said before the job begins."""
    with pytest.raises(aiosvc.ConfigError) as raised:
        aiosvc.push_on_exit("gw", **{"job": "b", "registry": registry, **options})
    assert says in str(raised.value)


JOB = """
import asyncio, signal, sys, time
import aiosvc
from prometheus_client import CollectorRegistry

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
job = aiosvc.push_on_exit(sys.argv[1], job="b", registry=CollectorRegistry())

async def main():
    async with job:
        print("begun", flush=True)
        await asyncio.sleep(60)

if sys.argv[2] == "async":
    asyncio.run(main())
else:
    with job:
        print("begun", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("kind", "number"),
    [("sync", signal.SIGINT), ("async", signal.SIGINT), ("sync", signal.SIGTERM)],
)
async def test_a_job_that_is_interrupted(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    """Ctrl-C, and SIGTERM where it is made an exit, push a failure before the process is gone."""
    with fake_gateway() as server:
        command = [sys.executable, "-c", JOB, server.url, kind]
        async with Process(command, tmp_path) as process:
            await process.wait_for(lambda: "begun" in process.stdout or None, "the job")
            process.send(number)
            assert await process.ended() != 0
            assert "not pushed" not in process.stderr
    [post] = server.pushed
    assert post.method == "POST"
    assert job_metrics(post.body)["job_succeeded"] == 0


async def test_a_real_pushgateway(registry: CollectorRegistry, tmp_path: Path) -> None:
    """After a good and a bad run it shows both: when it succeeded last, and that it failed since."""
    async with Pushgateway(tmp_path) as gateway:
        old = CollectorRegistry()
        Counter("old", "Of a former version.", registry=old).inc()
        key = {"path": "/var/lib", "empty": ""}

        async def run(registry: CollectorRegistry, now: float, *, fails: bool = False) -> None:
            async with aiosvc.push_on_exit(
                gateway.url, job="nightly backup", registry=registry, grouping_key=key,
                now=lambda: now,
            ) as push:  # fmt: skip
                if fails:
                    raise KeyError
            assert push.pushed

        await run(old, NOW)
        assert "old_total" in await gateway.metrics()
        await run(registry, NOW + 100)
        assert "old_total" not in await gateway.metrics()
        with pytest.raises(KeyError):
            await run(registry, NOW + 200, fails=True)
        samples = parse(await gateway.metrics())
        labels = {"job": "nightly backup", "path": "/var/lib"}
        assert samples.value("files_total", labels) == 3
        assert samples.value("job_last_success_timestamp_seconds", labels) == NOW + 100
        assert samples.value("job_last_end_timestamp_seconds", labels) == NOW + 200
        assert samples.value("job_succeeded", labels) == 0


async def test_the_global_registry(tmp_path: Path) -> None:
    """All that a process has by default is taken by a real one too, and labels named like its own."""
    async with Pushgateway(tmp_path) as gateway:
        async with aiosvc.push_on_exit(gateway.url, job="b") as push:
            pass
        assert push.pushed
        assert parse(await gateway.metrics()).value("job_succeeded", {"job": "b"}) == 1
        jobs = Counter("jobs", "Jobs.", ["job"], registry=(registry := CollectorRegistry()))
        for name in ("x", "y"):
            jobs.labels(name).inc()
        async with aiosvc.push_on_exit(gateway.url, job="c", registry=registry) as push:
            pass
        assert push.pushed
        labels = {"job": "c", "exported_job": "x"}
        assert parse(await gateway.metrics()).value("jobs_total", labels) == 1


async def test_tls_and_password(
    registry: CollectorRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A real one with TLS and users takes what comes with both, and nothing else."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("gateway")
    secret = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    config = tmp_path / "web.yml"
    config.write_text(
        f"tls_server_config:\n  cert_file: {certificate}\n  key_file: {key}\n"
        f"basic_auth_users:\n  me: {secret}\n"
    )
    trusting = client_context(authority)
    async with Pushgateway(tmp_path, web_config=config) as gateway:
        for options, arrives in (
            ({"username": "me", "password": "secret", "tls": trusting}, True),
            ({"username": "me", "password": "wrong", "tls": trusting}, False),
            ({"username": "me", "password": "secret"}, False),
        ):
            async with aiosvc.push_on_exit(
                gateway.url,
                job="b",
                registry=registry,
                deadline=5,
                **options,
            ) as push:
                pass
            assert push.pushed == arrives
    said = "".join(record.getMessage() for record in caplog.records)
    assert "answered 401" in said
    assert "CERTIFICATE_VERIFY_FAILED" in said
