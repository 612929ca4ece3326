"""
The command `aiosvc`.

Rule: a mistake of the caller is one line on stderr that says what to do, and exit code 2; never a
traceback. Rule: a command is a function here that reads its options and calls the module that does
the work.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from aiosvc.admin import AdminOptions
from aiosvc.aiohttp import setup
from aiosvc.check import CheckOptions, check
from aiosvc.config import ServeOptions, Settings
from aiosvc.dashboards import DashboardOptions, write_dashboards
from aiosvc.demo.load import run_load
from aiosvc.demo.service import DemoOptions, make_app
from aiosvc.errors import AiosvcError
from aiosvc.importer import import_target, make_application
from aiosvc.options import add_flags, read_options
from aiosvc.reference import as_markdown, as_text
from aiosvc.rules import RulesOptions, render
from aiosvc.runner import bind, serve
from aiosvc.service import Observer
from aiosvc.version import __version__
from aiosvc.worker import make_queue, work

__all__ = ["main"]

#: Every dataclass whose fields are options; a file may set those of all commands.
KINDS = (
    ServeOptions,
    Settings,
    DemoOptions,
    AdminOptions,
    CheckOptions,
    RulesOptions,
    DashboardOptions,
)


#: What a shell says of a command that was ended because nobody reads it any more, by SIGPIPE.
UNREAD = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in *argv* (the process's own by default) and return its exit code."""
    parser = _parser()
    arguments, extra = parser.parse_known_args(argv)
    if extra and (arguments.command != "run" or any(each.startswith("-") for each in extra)):
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    arguments.extra = extra
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        result: int = arguments.run(arguments)
    except AiosvcError as error:
        print(f"aiosvc {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except _UnreadError:
        # What Python still has of it goes nowhere, or it would complain when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aiosvc",
        description="What an aiohttp service and its asyncio work queues are really doing, "
        "in Prometheus.",
        epilog="Every flag is also a variable, AIOSVC_ and its name in capitals, and a key in "
        "[tool.aiosvc] of pyproject.toml or in the file given with --config.",
    )
    parser.add_argument("--version", action="version", version=f"aiosvc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="serve a small shop that shows all of it")
    add_flags(demo, ServeOptions, DemoOptions, AdminOptions)
    demo.set_defaults(run=_demo)

    run = commands.add_parser(
        "run", help="serve an unchanged aiohttp application with all of it on"
    )
    run.add_argument(
        "target",
        metavar="MODULE:APP",
        help="an application, or a function (async too) that returns one",
    )
    run.add_argument(
        "arguments",
        nargs="*",
        help="handed to a factory that takes an argument, as a list; those that begin with '-' "
        "after '--'",
    )
    add_flags(run, ServeOptions, Settings, AdminOptions)
    run.set_defaults(run=_run)

    worker = commands.add_parser("worker", help="run the jobs of a queue, with all of it on")
    worker.add_argument(
        "target",
        metavar="MODULE:QUEUE",
        help="an aiosvc.JobQueue, or a function (async too) that returns one",
    )
    add_flags(worker, Settings, AdminOptions)
    worker.set_defaults(run=_worker)

    checked = commands.add_parser(
        "check",
        help="find what is wrong with the metrics of any endpoint",
        description="Names, types and units as promtool judges them, series that are there twice, "
        "and labels that grow.",
        epilog="Exit codes: 0 nothing is wrong, 1 there are problems, 2 it can't be read.",
    )
    checked.add_argument(
        "source",
        metavar="URL|FILE",
        help="an endpoint like http://127.0.0.1:8000/metrics, a file with a scrape, or - for stdin",
    )
    add_flags(checked, CheckOptions)
    checked.set_defaults(run=_check)

    rules = commands.add_parser("rules", help="print recording and alerting rules for Prometheus")
    add_flags(rules, RulesOptions, also=[(Settings, "preset"), (Settings, "buckets")])
    rules.set_defaults(run=_rules)

    metrics = commands.add_parser("metrics", help="print what every metric means")
    metrics.add_argument("--markdown", action="store_true", help="as the page in docs/")
    metrics.set_defaults(run=_metrics)

    dashboards = commands.add_parser("dashboards", help="write Grafana's dashboards as files")
    add_flags(dashboards, DashboardOptions, also=[(Settings, "preset")])
    dashboards.set_defaults(run=_dashboards)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    serving, demo, admin = read_options(arguments, (ServeOptions, DemoOptions, AdminOptions), KINDS)
    app = make_app(demo, admin=admin)
    load_stops = asyncio.Event()
    load: list[asyncio.Task[object]] = []

    async def started(url: str) -> None:
        _say(f"the demo is at {url}: try {url}/api/users; its metrics are at {url}/metrics")
        if demo.load:
            client = run_load(url, demo.load, seed=demo.seed, stop=load_stops)
            load.append(asyncio.create_task(client))

    async def stop_load(_app: web.Application) -> None:
        load_stops.set()
        await asyncio.gather(*load)

    app.on_shutdown.insert(0, stop_load)

    async def made() -> web.Application:
        return app

    _serve(made, serving, started)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    serving, settings, admin = read_options(
        arguments, (ServeOptions, Settings, AdminOptions), KINDS
    )
    found = import_target(arguments.target)
    observers: list[Observer] = []

    async def made() -> web.Application:
        given = [*arguments.arguments, *arguments.extra]
        app = await make_application(arguments.target, found, given)
        observers.append(setup(app, settings=settings, admin=admin))
        return app

    async def started(url: str) -> None:
        path = observers[0].settings.path
        _say(f"{arguments.target} is at {url}; its metrics are at {url}{path}")

    _serve(made, serving, started)
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    settings, admin = read_options(arguments, (Settings, AdminOptions), KINDS)
    found = import_target(arguments.target)

    def started(observer: Observer) -> None:
        metrics = "" if observer.admin_url is None else f"; metrics at {observer.admin_url}/metrics"
        _say(f"{arguments.target} is worked on{metrics}")

    async def run() -> None:
        queue = await make_queue(arguments.target, found)
        await work(queue, settings, admin, started=started)

    asyncio.run(run())
    return 0


def _check(arguments: argparse.Namespace) -> int:
    [options] = read_options(arguments, (CheckOptions,), KINDS)
    return check(arguments.source, options, _print)


def _rules(arguments: argparse.Namespace) -> int:
    options, settings = read_options(arguments, (RulesOptions, Settings), KINDS)
    _print(render(options, settings), end="")
    return 0


def _metrics(arguments: argparse.Namespace) -> int:
    _print(as_markdown() if arguments.markdown else as_text(), end="")
    return 0


def _dashboards(arguments: argparse.Namespace) -> int:
    options, settings = read_options(arguments, (DashboardOptions, Settings), KINDS)
    for path in write_dashboards(options, settings.preset):
        _print(str(path))
    return 0


def _serve(
    make: Callable[[], Awaitable[web.Application]],
    serving: ServeOptions,
    started: Callable[[str], Awaitable[None]],
) -> None:
    sockets = bind(serving.host, serving.port)
    access_log = logging.getLogger("aiohttp.access") if serving.access_log else None

    async def serve_made() -> None:
        await serve(await make(), sockets, serving, access_log=access_log, started=started)

    try:
        asyncio.run(serve_made())
    finally:
        for sock in sockets:
            sock.close()


def _say(line: str) -> None:
    _print(f"aiosvc: {line}  (Ctrl-C stops it)")


def _print(text: str, end: str = "\n") -> None:
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise _UnreadError from None


class _UnreadError(Exception):
    """Raised where nobody reads what is printed any more, as `head` does not."""
