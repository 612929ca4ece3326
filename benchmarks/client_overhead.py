"""
What measuring costs one outbound request: CPU time of the client, beside a bare session and a peer.

One process has a session of each kind, and asks a server in another process, over one kept-alive
connection each, in rounds that take turns. Printed are the medians over the rounds, and the median
of the differences to the bare session's neighbouring round. A peer that is not installed is left out.

    python benchmarks/client_overhead.py [--rounds 100] [--requests 100]
"""

import argparse
import asyncio
import importlib.util
import multiprocessing
import statistics
import time

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

import aiosvc


def serve(pipe):
    """Serve on a free port, and send it."""

    async def main():
        async def hello(_request):
            return web.Response(text="hello")

        app = web.Application()
        app.router.add_get("/", hello)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        while not pipe.poll():  # noqa: ASYNC110 - a pipe sets no event
            await asyncio.sleep(0.1)
        await runner.cleanup()

    asyncio.run(main())


async def measure(url, rounds, requests):
    """Print what each kind of session costs."""
    ours = aiosvc.client.trace_config(registry=CollectorRegistry(), hosts=["127.0.0.1"])
    configs = {"bare": [], "an empty TraceConfig": [aiohttp.TraceConfig()], "aiosvc": [ours]}
    if importlib.util.find_spec("aiohttp_prometheus_exporter"):
        from aiohttp_prometheus_exporter.trace import PrometheusTraceConfig

        theirs = PrometheusTraceConfig(registry=CollectorRegistry())
        configs["aiohttp-prometheus-exporter"] = [theirs]
    sessions = {
        name: aiohttp.ClientSession(trace_configs=config) for name, config in configs.items()
    }
    found = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            begun = time.process_time_ns()
            for _ in range(requests):
                async with session.get(url) as response:
                    await response.read()
            found[name].append((time.process_time_ns() - begun) / requests / 1000)
    for name, each in found.items():
        added = [a - b for a, b in zip(each, found["bare"], strict=True)]
        print(
            f"{name:28} {statistics.median(each):6.1f} µs a request, "
            f"{statistics.median(added):+5.1f} µs"
        )
        await sessions[name].close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--requests", type=int, default=100)
    arguments = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,))
    server.start()
    try:
        url = f"http://127.0.0.1:{here.recv()}/"
        asyncio.run(measure(url, arguments.rounds, arguments.requests))
    finally:
        here.send(None)
        server.join()
