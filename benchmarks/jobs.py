"""
Jobs per second, and how soon a job begins, of the engines of `aiosvc.JobQueue` beside SAQ and arq.

Each contender is a process of its own, in turns, with 20 jobs at a time; the peers are in virtual
environments of their own, since their versions of redis-py exclude one another:

    python -m venv .venv-bench/saq && .venv-bench/saq/bin/pip install "saq[redis]" typing_extensions
    python -m venv .venv-bench/arq && .venv-bench/arq/bin/pip install arq

A contender enqueues all jobs one after the other, then starts its worker, and the time until the last
has run is what counts; then, idle, one job at a time is enqueued and the time until it begins is
taken. Every job must have run exactly once. Brokers are started here, on loopback, with the
durability that they have by default: Redis and NATS in memory and in files, RabbitMQ's quorum queue.

    python benchmarks/jobs.py [--jobs 2000] [--probes 200] [--rounds 3] [--no-rabbitmq]
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
SLOTS = 20


class Aiosvc:
    """Our own, on whatever the URL says."""

    def __init__(self, url, ran):
        from aiosvc import JobQueue

        self.queue = JobQueue(url, name=f"bench-{time.time_ns()}", concurrency=SLOTS)

        @self.queue.job
        async def job(number, sent):
            ran(number, sent)

        self.job = job
        self.in_memory = url == "memory://"

    async def start(self):
        """Connect."""
        await self.queue.start(workers=False)

    async def enqueue(self, number):
        """Enqueue one job."""
        await self.job.enqueue(number, time.time())

    async def work(self):
        """Begin to run jobs."""
        if not self.in_memory:
            await self.queue.stop()
        await self.queue.start()

    async def stop(self):
        """End."""
        await self.queue.stop()


class Saq:
    """SAQ, without its signal handlers."""

    def __init__(self, url, ran):
        from saq import Queue, Worker

        async def job(_context, *, number, sent):
            ran(number, sent)

        Worker.SIGNALS = []
        self.queue = Queue.from_url(url)
        self.worker = Worker(self.queue, functions=[("job", job)], concurrency=SLOTS)

    async def start(self):
        """Connect."""
        await self.queue.connect()

    async def enqueue(self, number):
        """Enqueue one job."""
        await self.queue.enqueue("job", number=number, sent=time.time())

    async def work(self):
        """Begin to run jobs."""
        self.task = asyncio.create_task(self.worker.start())

    async def stop(self):
        """End."""
        await self.worker.stop()
        self.task.cancel()
        await asyncio.wait([self.task])


class Arq:
    """arq, which looks for jobs every half second."""

    def __init__(self, url, ran):
        from arq.connections import RedisSettings

        async def job(_context, number, sent):
            ran(number, sent)

        self.job = job
        self.settings = RedisSettings.from_dsn(url)

    async def start(self):
        """Connect."""
        from arq import create_pool

        self.pool = await create_pool(self.settings)

    async def enqueue(self, number):
        """Enqueue one job."""
        await self.pool.enqueue_job("job", number, time.time())

    async def work(self):
        """Begin to run jobs."""
        from arq.worker import Worker, func

        self.worker = Worker(
            functions=[func(self.job, name="job")],
            redis_settings=self.settings,
            max_jobs=SLOTS,
            keep_result=0,
            handle_signals=False,
        )
        self.task = asyncio.create_task(self.worker.async_run())

    async def stop(self):
        """End."""
        await self.worker.close()
        self.task.cancel()
        await asyncio.wait([self.task])


async def measure(kind, url, jobs, probes):
    """Return the figures of one contender."""
    begun = {}
    runs = []

    def ran(number, sent):
        begun[number] = time.time() - sent
        runs.append(number)

    async def until(count):
        async with asyncio.timeout(120):
            while len(runs) < count:  # noqa: ASYNC110 - the same for all
                await asyncio.sleep(0.001)

    contender = kind(url, ran)
    await contender.start()
    start = time.perf_counter()
    for number in range(jobs):
        await contender.enqueue(number)
    enqueued = time.perf_counter() - start
    start = time.perf_counter()
    await contender.work()
    await until(jobs)
    worked = time.perf_counter() - start
    for number in range(jobs, jobs + probes):
        await contender.enqueue(number)
        await until(number + 1)
        await asyncio.sleep(0.002)
    await contender.stop()
    assert sorted(runs) == list(range(jobs + probes)), "not each job was run once"
    waits = sorted(begun[number] for number in range(jobs, jobs + probes))
    return {
        "enqueued": jobs / enqueued,
        "run": jobs / worked,
        "p50": statistics.median(waits),
        "p99": waits[int(len(waits) * 0.99)],
    }


def contend(name, url, arguments):
    """Run one contender in its environment and return its figures."""
    peer = HERE.parent / ".venv-bench" / name / "bin" / "python"
    python = str(peer) if name in ("saq", "arq") else sys.executable
    command = [python, __file__, "--as", name, "--url", url]
    command += ["--jobs", f"{arguments.jobs}", "--probes", f"{arguments.probes}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


async def compare(arguments):
    """Start the brokers, let all contend in turns, and print the medians."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from brokers.servers import Nats, Rabbit, Redis

    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = await stack.enter_async_context(Redis(directory))
        nats = await stack.enter_async_context(Nats(directory))
        urls = {"memory": "memory://", "redis": redis.url, "nats": nats.url}
        if not arguments.no_rabbitmq:
            urls["rabbitmq"] = (await stack.enter_async_context(Rabbit(directory))).url()
        for peer in ("saq", "arq"):
            if (HERE.parent / ".venv-bench" / peer).exists():
                urls[peer] = redis.url
        figures = {name: [] for name in urls}
        for turn in range(arguments.rounds):
            names = list(urls)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                found = await asyncio.to_thread(contend, name, urls[name], arguments)
                figures[name].append(found)
    print(f"{'':10} {'enqueued/s':>11} {'run/s':>9} {'p50 ms':>8} {'p99 ms':>8}")
    for name, each in figures.items():
        middle = {key: statistics.median(one[key] for one in each) for key in each[0]}
        print(
            f"{name:10} {middle['enqueued']:11.0f} {middle['run']:9.0f} "
            f"{middle['p50'] * 1000:8.2f} {middle['p99'] * 1000:8.2f}"
        )


def main():
    """Compare, or be one contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--probes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-rabbitmq", action="store_true")
    parser.add_argument("--as", dest="name", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.name is None:
        asyncio.run(compare(arguments))
    else:
        kind = {"saq": Saq, "arq": Arq}.get(arguments.name, Aiosvc)
        print(json.dumps(asyncio.run(
            measure(kind, arguments.url, arguments.jobs, arguments.probes)
        )))  # fmt: skip


if __name__ == "__main__":
    main()
