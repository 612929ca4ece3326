"""
What measuring costs one request of FastAPI, Starlette and Flask: CPU time, beside the peers.

Each contender is a process of its own that has the same application twice: bare, and measured by the
contender. The applications are called as a server would call them, without one: what is to be found
is a few microseconds. Rounds of a hundred requests go to the two in turn, and to the contenders in
turn; a round's figure is the CPU time that the process used. Printed are the medians over the
rounds, the median of the differences between the twins' neighbouring rounds, and that difference as
a multiple of aiosvc's. Before, each contender must have counted the requests: its exposition is
looked at. A peer that is not installed is left out, and said to be.

    python benchmarks/adapters.py [--rounds 100] [--requests 100]
"""

import argparse
import asyncio
import importlib.util
import random
import statistics
import subprocess
import sys
import time
import warnings

FRAMEWORKS = {
    "FastAPI": {
        "aiosvc": None,
        "prometheus-fastapi-instrumentator": "prometheus_fastapi_instrumentator",
        "starlette_exporter": "starlette_exporter",
    },
    "Starlette": {
        "aiosvc": None,
        "prometheus-fastapi-instrumentator": "prometheus_fastapi_instrumentator",
        "starlette_exporter": "starlette_exporter",
    },
    "Flask": {
        "aiosvc": None,
        "prometheus_flask_exporter": "prometheus_flask_exporter",
    },
}


def make_app(framework):
    """Return the application."""
    if framework == "FastAPI":
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/api/users/{id}")
        async def user(id: int):  # noqa: A002
            return {"id": id}

        return app
    if framework == "Starlette":
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse
        from starlette.routing import Route

        async def user(request):
            return JSONResponse({"id": request.path_params["id"]})

        return Starlette(routes=[Route("/api/users/{id}", user)])
    from flask import Flask

    app = Flask(__name__)

    @app.get("/api/users/<int:id>")
    def user(id):  # noqa: A002
        return {"id": id}

    return app


def measured_app(framework, contender):
    """Return the application, measured by *contender*."""
    app = make_app(framework)
    if contender == "prometheus-fastapi-instrumentator":
        from prometheus_fastapi_instrumentator import Instrumentator

        Instrumentator().instrument(app)
    elif contender == "starlette_exporter":
        from starlette_exporter import PrometheusMiddleware

        app.add_middleware(PrometheusMiddleware)
    elif contender == "prometheus_flask_exporter":
        from prometheus_flask_exporter import PrometheusMetrics

        PrometheusMetrics(app, group_by="url_rule")
    elif framework == "Flask":
        import aiosvc.wsgi

        aiosvc.wsgi.setup(app)
    else:
        import aiosvc.asgi

        aiosvc.asgi.setup(app)
    return app


async def rounds_of_asgi(app, times):
    """Call the application so often; return the CPU nanoseconds that it took."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/users/42",
        "raw_path": b"/api/users/42",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost:8000"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
    }
    before = time.process_time_ns()
    for _ in range(times):
        await app(scope.copy(), receive, send)
    took = time.process_time_ns() - before
    assert sent == [200] * times
    return took


def rounds_of_wsgi(app, times):
    """Call the application so often; return the CPU nanoseconds that it took."""
    sent = []

    def start_response(status, _headers, _exc_info=None):
        sent.append(status)

    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/api/users/42",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost:8000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": sys.stdin.buffer,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    before = time.thread_time_ns()
    for _ in range(times):
        body = app(environ.copy(), start_response)
        b"".join(body)
        body.close()
    took = time.thread_time_ns() - before
    assert sent == ["200 OK"] * times
    return took


async def serve(framework, contender):
    """For each line on stdin, a twin and a number, call that often; print the nanoseconds."""
    warnings.simplefilter("ignore")
    twins = {"bare": make_app(framework), "measured": measured_app(framework, contender)}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        twin, _, times = line.partition(" ")
        if twin == "count":
            from prometheus_client import REGISTRY

            counts = [
                sample.value
                for family in REGISTRY.collect()
                for sample in family.samples
                if (sample.name.endswith("requests_total") and "users" in str(sample.labels))
                or sample.name == "flask_http_request_total"
            ]
            print(int(sum(counts)), flush=True)
        elif framework == "Flask":
            print(rounds_of_wsgi(twins[twin], int(times)), flush=True)
        else:
            print(await rounds_of_asgi(twins[twin], int(times)), flush=True)


class Contender:
    """A process that has the two applications."""

    def __init__(self, framework, name):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", framework, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line):
        """Return the number that the process answers to a line."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait(10)


def compare(framework, contenders, arguments):
    """Print one table."""
    processes = {name: Contender(framework, name) for name in contenders}
    figures = {name: {"bare": [], "measured": []} for name in processes}
    try:
        for number in range(-10, arguments.rounds):
            for name in random.sample(list(processes), len(processes)):
                for twin in random.sample(("bare", "measured"), 2):
                    nanos = processes[name].ask(f"{twin} {arguments.requests}")
                    if number >= 0:
                        figures[name][twin].append(nanos / arguments.requests / 1000)
        sent = (arguments.rounds + 10) * arguments.requests
        for name, process in processes.items():
            counted = process.ask("count 0")
            assert counted == sent, f"{name} counted {counted} of {sent} requests"
    finally:
        for process in processes.values():
            process.close()
    print(f"\n{framework}: CPU µs a request, {arguments.rounds} rounds of {arguments.requests}")
    print(f"{'':36} {'bare':>7} {'measured':>9} {'added':>7}  times aiosvc's")
    added = {
        name: statistics.median(a - b for a, b in zip(each["measured"], each["bare"], strict=True))
        for name, each in figures.items()
    }
    for name, each in figures.items():
        bare, measured = statistics.median(each["bare"]), statistics.median(each["measured"])
        ratio = added[name] / added["aiosvc"]
        print(f"{name:36} {bare:7.1f} {measured:9.1f} {added[name]:+7.1f}  {ratio:.2f}")


def main():
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--requests", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(*arguments.serve))
        return
    for framework, peers in FRAMEWORKS.items():
        contenders = []
        for name, module in peers.items():
            if module is not None and importlib.util.find_spec(module) is None:
                print(f"{name}: not installed, left out")
            else:
                contenders.append(name)
        compare(framework, contenders, arguments)


if __name__ == "__main__":
    main()
