"""
What measuring costs one request: CPU time of the server process, beside a bare server and peers.

Each contender is a process of its own that serves the same application twice, on two ports: bare,
and measured by the contender. One process, since two processes of the same program differ by more
than what is to be found. Rounds of a hundred requests, over one kept-alive connection each, go to
the two in turn, and to the contenders in turn; a round's figure is the CPU time that the process
used, by its own clock, divided by the requests. Printed are the medians over the rounds, the median
of the differences between the twins' neighbouring rounds, and the difference of their best rounds
(the least disturbed figure on a shared machine). A peer that is not installed is left out, and said
to be.

    python benchmarks/request_overhead.py [--rounds 200] [--requests 100]
"""

import argparse
import asyncio
import importlib.util
import random
import socket
import statistics
import subprocess
import sys
import time

PEERS = {
    "aiosvc": None,
    "recipe": None,
    "aiohttp-prometheus-exporter": "aiohttp_prometheus_exporter",
    "opentelemetry": "opentelemetry.instrumentation.aiohttp_server",
}

REQUESTS = {
    "GET /api/users/{id}": b"GET /api/users/42 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /api/orders": b"POST /api/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n"
    b"\r\n" + b"x" * 20,
}


def recipe_middleware():
    """Return the middleware that guides show: prometheus_client metrics, labels by the path."""
    from aiohttp import web
    from prometheus_client import Counter, Histogram

    count = Counter("http_requests", "Requests.", ["method", "endpoint", "status"])
    latency = Histogram("http_request_duration_seconds", "Seconds.", ["method", "endpoint"])

    @web.middleware
    async def middleware(request, handler):
        begun = time.time()
        response = await handler(request)
        endpoint = request.match_info.route.resource.canonical
        count.labels(method=request.method, endpoint=endpoint, status=str(response.status)).inc()
        latency.labels(method=request.method, endpoint=endpoint).observe(time.time() - begun)
        return response

    return middleware


def make_app(*middlewares):
    """Return the application."""
    from aiohttp import web

    async def user(request):
        return web.json_response({"id": request.match_info["id"]})

    async def order(request):
        await request.read()
        return web.json_response({"status": "accepted"}, status=202)

    app = web.Application(middlewares=list(middlewares))
    app.router.add_get("/api/users/{id}", user)
    app.router.add_post("/api/orders", order)
    return app


def measured_app(contender):
    """Return the application, measured by *contender*."""
    if contender == "opentelemetry":
        from opentelemetry import metrics
        from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
        AioHttpServerInstrumentor().instrument()
        return make_app()
    if contender == "recipe":
        return make_app(recipe_middleware())
    if contender == "aiohttp-prometheus-exporter":
        from aiohttp_prometheus_exporter.middleware import prometheus_middleware_factory

        return make_app(prometheus_middleware_factory())
    import aiosvc

    app = make_app()
    aiosvc.setup(app)
    return app


def serve(contender):
    """Serve both on free ports; for each line on stdin, print the CPU nanoseconds used so far."""
    from aiohttp import web

    async def main():
        runners = [
            web.AppRunner(app, access_log=None) for app in (make_app(), measured_app(contender))
        ]
        for runner in runners:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            print(site.port, flush=True)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while await reader.readline():
            print(time.process_time_ns(), flush=True)
        for runner in runners:
            await runner.cleanup()

    asyncio.run(main())


class Server:
    """A contender's process and one connection to it."""

    def __init__(self, contender):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", contender],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ports = [int(self.process.stdout.readline()) for _ in range(2)]
        self.connections = [socket.create_connection(("127.0.0.1", port)) for port in ports]

    def cpu(self):
        """Return the CPU nanoseconds that the process has used."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def round(self, connection, request, times):
        """Return the CPU microseconds for each of *times* requests."""
        before = self.cpu()
        send, receive = connection.sendall, connection.recv
        for _ in range(times):
            send(request)
            answer = receive(65536)
            if not answer.startswith(b"HTTP/1.1 20"):
                raise SystemExit(f"unexpected answer: {answer[:80]!r}")
        return (self.cpu() - before) / times / 1000

    def close(self):
        """End the process."""
        for connection in self.connections:
            connection.close()
        self.process.stdin.close()
        self.process.wait(10)


def main():
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--only", default="", help="contenders, with commas between")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    contenders = []
    for name, module in PEERS.items():
        if module is not None and importlib.util.find_spec(module.split(".")[0]) is None:
            print(f"{name}: not installed, left out")
        elif not arguments.only or name in arguments.only.split(","):
            contenders.append(name)
    servers = {name: Server(name) for name in contenders}
    try:
        for title, request in REQUESTS.items():
            compare(title, request, servers, arguments)
    finally:
        for server in servers.values():
            server.close()


def compare(title, request, servers, arguments):
    """Print one table."""
    figures = {name: ([], []) for name in servers}
    for warm_up in (True, False):
        for _ in range(10 if warm_up else arguments.rounds):
            for name in random.sample(list(servers), len(servers)):
                for twin in random.sample((0, 1), 2):
                    connection = servers[name].connections[twin]
                    micros = servers[name].round(connection, request, arguments.requests)
                    if not warm_up:
                        figures[name][twin].append(micros)
    print(f"\n{title}: CPU µs a request, {arguments.rounds} rounds of {arguments.requests}")
    print(f"{'':30} {'bare':>7} {'measured':>9} {'added':>7} {'of best':>8}  ratio")
    for name, (bare, measured) in figures.items():
        added = statistics.median(a - b for a, b in zip(measured, bare, strict=True))
        best = min(measured) - min(bare)
        before, after = statistics.median(bare), statistics.median(measured)
        print(
            f"{name:30} {before:7.1f} {after:9.1f} {added:+7.1f} {best:+8.1f}  {after / before:.2f}"
        )


if __name__ == "__main__":
    main()
