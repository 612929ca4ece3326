"""
How long a scrape holds an application's event loop, and what that does to its requests.

One service process with many series; a client process asks it for something small, over and over on
several connections, and notes each latency; a scraper asks for the metrics once a second. Three
ways, in turn: nobody scrapes, the application's own port is scraped, the admin port is scraped.
Printed: the longest gap between two turns of the event loop, as the service itself sees it while a
scrape is going on, the time a scrape takes, and the latency of the client's requests. The same with
prometheus_client's own aiohttp handler, where it has one.

    python benchmarks/stall.py [--lines 100000] [--scrapes 8]
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import urllib.request


async def serve(lines):
    """Serve until stdin ends; tell the ports first."""
    from aiohttp import web
    from prometheus_client import CollectorRegistry, Counter

    import aiosvc

    registry = CollectorRegistry()
    many = Counter("many", "Many.", ["number", "kind"], registry=registry)
    children = [many.labels(str(number), "x") for number in range(lines // 2)]
    gap = 0.0

    async def small(_request):
        return web.Response(text="x")

    async def touch(_request):
        """Count on a tenth of the series, a few at a time."""
        for place in range(0, len(children), 1000):
            for child in children[place : place + 1000 : 10]:
                child.inc()
            await asyncio.sleep(0)
        return web.Response()

    async def longest(_request):
        """Give the longest gap since the last time."""
        nonlocal gap
        seen, gap = gap, 0.0
        return web.json_response(seen)

    async def watch():
        nonlocal gap
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gap = max(gap, now - last)
            last = now

    app = web.Application()
    app.router.add_get("/small", small)
    app.router.add_get("/touch", touch)
    app.router.add_get("/gap", longest)
    try:
        from prometheus_client.aiohttp import make_aiohttp_handler

        app.router.add_get("/peer", make_aiohttp_handler(registry))
    except ImportError:
        pass
    observer = aiosvc.setup(app, registry=registry, admin=aiosvc.AdminOptions(admin_port=0))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(json.dumps([f"http://127.0.0.1:{site.port}", observer.admin_url]), flush=True)
    watching = asyncio.create_task(watch())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()
    watching.cancel()
    await runner.cleanup()


async def load(url, seconds):
    """Print the latencies of small requests on four connections."""
    import aiohttp

    latencies = []

    async def ask(session):
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            begun = time.perf_counter()
            async with session.get(f"{url}/small") as answer:
                await answer.read()
            latencies.append(time.perf_counter() - begun)
            await asyncio.sleep(0.005)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session) for _ in range(4)))
    print(json.dumps(latencies))


def get(url):
    """Return a body and the seconds that it took."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    begun = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), time.perf_counter() - begun


def main():
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--scrapes", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.lines))
        return
    if arguments.load:
        asyncio.run(load(arguments.load, arguments.scrapes))
        return
    service = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--lines", str(arguments.lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        app, admin = json.loads(service.stdout.readline())
        ways = {"nobody": None, "own port": f"{app}/metrics", "admin port": f"{admin}/metrics"}
        ways["prometheus_client"] = f"{app}/peer"
        print(f"{'scraped at':18} {'gap ms':>20} {'scrape ms':>10} {'p50 ms':>7} {'p99 ms':>7}")
        for name, url in ways.items():
            measure(name, app, url, arguments)
    finally:
        service.stdin.close()
        service.wait(20)


def measure(name, app, url, arguments):
    """Print one line."""
    if url is not None:
        get(url)
    get(f"{app}/touch")
    client = subprocess.Popen(
        [sys.executable, __file__, "--load", app, "--scrapes", str(arguments.scrapes)],
        stdout=subprocess.PIPE,
        text=True,
    )
    gaps, times = [], []
    for _ in range(arguments.scrapes):
        time.sleep(0.7)
        get(f"{app}/touch")
        get(f"{app}/gap")
        if url is None:
            time.sleep(0.2)
        else:
            times.append(get(url)[1])
        gaps.append(float(get(f"{app}/gap")[0]))
    latencies = sorted(json.loads(client.communicate()[0]))
    took = f"{statistics.median(times) * 1000:10.1f}" if times else f"{'':10}"
    print(
        f"{name:18} {statistics.median(gaps) * 1000:8.1f} (max {max(gaps) * 1000:5.1f}) {took} "
        f"{latencies[len(latencies) // 2] * 1000:7.2f} "
        f"{latencies[int(len(latencies) * 0.99)] * 1000:7.2f}"
    )


if __name__ == "__main__":
    main()
