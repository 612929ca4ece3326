"""
How long a scrape holds an application's event loop, and what that does to its requests.

One service process with many series; a client process asks it for something small, over and over on
several connections, and notes each latency; a scraper asks for the metrics once a second. Three
ways, in turn: nobody scrapes, the application's own port is scraped, the admin port is scraped.
Printed: the longest gap between two turns of the event loop, as the service itself sees it while a
scrape is going on, the time a scrape takes, and the latency of the client's requests. The same with
prometheus_client's own aiohttp handler, where it has one.

Then the same under load: requests that take the service half a millisecond of work each, sent at set
times, so many a second as are a share of what it can answer, measured first with `wrk` where that is
installed.
Rounds of a few seconds without scrapes, with scrapes of another process, of the own port and of the
admin port take turns, several times; a latency is counted from when its request should have been
sent, so one that waits behind a scrape is not left out. Printed are the medians of the rounds' p50
and p99, and their ratios to the rounds without scrapes. What scrapes of another process cost is what
they cost on this machine, whoever answers them.

    python benchmarks/stall.py [--lines 100000] [--scrapes 8] [--loads 50 80] [--rounds 4]
"""

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request


async def work(_request):
    """Do what an application does in half a millisecond."""
    from aiohttp import web

    ends = time.thread_time() + 0.0005
    while time.thread_time() < ends:
        sum(range(100))
    return web.Response(text="x")


def peer(registry):
    """Return prometheus_client's own handler; raises ImportError where it has none."""
    from prometheus_client.aiohttp import make_aiohttp_handler

    return make_aiohttp_handler(registry)


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

    watching = asyncio.create_task(watch())

    async def rest(_request):
        """Watch no more: whoever does is never idle."""
        watching.cancel()
        return web.Response()

    app = web.Application()
    app.router.add_get("/small", small)
    app.router.add_get("/rest", rest)
    app.router.add_get("/work", work)
    app.router.add_get("/touch", touch)
    app.router.add_get("/gap", longest)
    with contextlib.suppress(ImportError):
        app.router.add_get("/peer", peer(registry))
    observer = aiosvc.setup(app, registry=registry, admin=aiosvc.AdminOptions(admin_port=0))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(json.dumps([f"http://127.0.0.1:{site.port}", observer.admin_url]), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()
    watching.cancel()
    await runner.cleanup()


async def load(url, seconds, rate):
    """Print the latencies of small requests: one after another, or *rate* of them each second."""
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

    if rate:
        latencies = await steadily(url, seconds, rate)
    else:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(ask(session) for _ in range(4)))
    print(json.dumps(latencies))


async def steadily(url, seconds, rate, connections=16):
    """Return the latencies of requests that are due at set times, on kept-alive connections."""
    host, _, port = url.removeprefix("http://").partition(":")
    request = b"GET /work HTTP/1.1\r\nHost: localhost\r\n\r\n"
    latencies = []
    begun = time.perf_counter() + 0.1

    async def ask(place):
        reader, writer = await asyncio.open_connection(host, int(port))
        for number in range(place, int(seconds * rate), connections):
            due = begun + number / rate
            pause = due - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            elif pause < -seconds:
                raise RuntimeError("the service can't keep up with so many requests")
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
            latencies.append(time.perf_counter() - due)
        writer.close()

    await asyncio.gather(*map(ask, range(connections)))
    return latencies


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
    parser.add_argument("--rate", type=float, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--loads", type=int, nargs="*", default=[50, 80], help="in percent")
    parser.add_argument("--rounds", type=int, default=4, help="of each way under load")
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.lines))
        return
    if arguments.load:
        asyncio.run(load(arguments.load, arguments.scrapes, arguments.rate))
        return
    with serving(arguments) as (app, admin), serving(arguments) as (other, elsewhere):
        ways = {"nobody": None, "own port": f"{app}/metrics", "admin port": f"{admin}/metrics"}
        print(f"{'scraped at':18} {'gap ms':>20} {'scrape ms':>10} {'p50 ms':>7} {'p99 ms':>7}")
        for name, url in {**ways, "prometheus_client": f"{app}/peer"}.items():
            measure(name, app, url, arguments)
        for url in (app, other):
            get(f"{url}/rest")
        ways = {"nobody": None, "another process": f"{elsewhere}/metrics", **ways}
        most = capacity(app) if arguments.loads else 0
        for share in arguments.loads:
            under_load(app, ways, most * share / 100, share, arguments)


@contextlib.contextmanager
def serving(arguments):
    """Run a service process, and give the addresses of the application and its admin server."""
    service = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--lines", str(arguments.lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield json.loads(service.stdout.readline())
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


def capacity(app):
    """Return how many such requests the service answers each second at most."""
    wrk = shutil.which("wrk")
    if wrk is None:
        print("\nunder load: left out, wrk is not installed (apt-get install wrk)")
        return 0
    command = [wrk, "-t1", "-c16", "-d3s", f"{app}/work"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])


def under_load(app, ways, rate, share, arguments):
    """Print a line for each way, of rounds that took turns."""
    if not rate:
        return
    print(f"\nat {rate:.0f} requests a second, {share} % of what wrk got out of it")
    print(f"{'scraped at':18} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7} {'p50':>8} {'p99':>8}")
    rounds = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, url in ways.items():
            rounds[name].append(one_round(app, url, rate, arguments))
    alone = [statistics.median(each) for each in zip(*rounds["nobody"], strict=True)]
    for name, found in rounds.items():
        p50, p99, longest = (statistics.median(each) for each in zip(*found, strict=True))
        print(
            f"{name:18} {p50 * 1000:7.2f} {p99 * 1000:7.2f} {longest * 1000:7.1f} "
            f"{p50 / alone[0]:7.2f}x {p99 / alone[1]:7.2f}x"
        )


def one_round(app, url, rate, arguments):
    """Return p50, p99 and the longest latency of a few seconds, with a scrape in each."""
    if url is not None:
        get(url)
    seconds = arguments.scrapes
    command = [sys.executable, __file__, "--load", app, "--rate", str(rate)]
    # A file: nobody reads until it has ended, and a pipe would be full before that.
    with tempfile.TemporaryFile("w+") as told:
        client = subprocess.Popen([*command, "--scrapes", str(seconds)], stdout=told)
        time.sleep(0.5)
        while client.poll() is None:
            begun = time.perf_counter()
            if url is not None:
                get(f"{app}/touch")
                get(url)
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(max(0.01, begun + 1 - time.perf_counter()))
        told.seek(0)
        latencies = sorted(json.load(told))
    return (
        latencies[len(latencies) // 2],
        latencies[int(len(latencies) * 0.99)],
        latencies[-1],
    )


if __name__ == "__main__":
    main()
