"""The command: every mistake is one line, and what it serves runs as a process of its own."""

import asyncio
import dataclasses
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession, web
from processes import Program, free_port, poll, run_to_end, until
from prometheus_client.parser import text_string_to_metric_families

from aiosvc import cli
from aiosvc.cli import KINDS, main
from aiosvc.config import ServeOptions, Settings
from aiosvc.demo.service import DemoOptions
from aiosvc.runner import bind, serve
from aiosvc.version import __version__

#: A module with an application in every way that a user may have one.
SHOP = '''
import asyncio
import pathlib
from types import SimpleNamespace

import aiohttp
import aiosvc
from aiohttp import web


def build(said, loop=None):
    async def hello(request):
        same_loop = loop is None or loop is asyncio.get_running_loop()
        return web.json_response({"said": said, "same_loop": same_loop})

    async def slow(request):
        """Answer when there is a file called go."""
        print("slow has begun", flush=True)
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.01)
        return web.Response(text="finished")

    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_get("/slow", slow)
    return app


async def no_content(request):
    return web.Response(status=204)


app = build("object")


def make():
    return build("function")


def make_with(argv):
    return build(argv)


async def amake():
    session = aiohttp.ClientSession()  # needs a running loop
    await session.close()
    return build("coroutine", asyncio.get_running_loop())


async def amake_with(argv):
    await asyncio.sleep(0)
    return build(argv, asyncio.get_running_loop())


class Maker:
    def make(self):
        return build("method")


obj = SimpleNamespace(maker=Maker())


def make_observed():
    app = build("observed already")
    aiosvc.setup(app, path="/own/metrics")
    return app


def make_with_metrics():
    app = build("own metrics")
    app.router.add_get("/metrics", no_content)
    return app


def make_with_metrics_later():
    app = make_observed()
    app.router.add_get("/between", no_content)
    app.router.add_get("/own/metrics", no_content)
    return app


def make_frozen():
    app = build("frozen")
    app.freeze()
    return app


def make_mounted():
    app = build("mounted")
    build("parent").add_subapp("/sub", app)
    return app


def nonsense():
    return 42


async def anonsense():
    return [app]


nothing = None
'''

Mistake = Callable[..., str]
WriteModule = Callable[[str, str], Path]


@pytest.fixture
def shop(write_module: WriteModule) -> Path:
    """Write the module `shop` into the current directory, and return that directory."""
    return write_module("shop", SHOP).parent


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Return the sockets that the command has bound, and close what it left open."""
    sockets: list[socket.socket] = []

    def bind_and_note(host: str, port: int) -> list[socket.socket]:
        new = bind(host, port)
        sockets.extend(new)
        return new

    monkeypatch.setattr(cli, "bind", bind_and_note)
    yield sockets
    for sock in sockets:
        sock.close()


@pytest.fixture(autouse=True)
def _nothing_is_served_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command fail that should not, and gets as far as to serve, instead of going on."""

    async def started(url: str) -> None:
        pytest.fail(f"it serves at {url}")

    async def serve_and_fail(
        app: web.Application, sockets: list[socket.socket], options: ServeOptions, **_: object
    ) -> None:
        await serve(app, sockets, options, started=started)

    monkeypatch.setattr(cli, "serve", serve_and_fail)


@pytest.fixture
def mistake(shop: Path, bound: list[socket.socket], capsys: pytest.CaptureFixture[str]) -> Mistake:
    """Return a function that runs a wrong command and returns the one line that it says."""

    def run(*arguments: str) -> str:
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert said.out == ""
        start = f"aiosvc {arguments[0]}: "
        assert said.err.startswith(start)
        assert said.err.endswith("\n")
        assert said.err.count("\n") == 1
        return said.err.removeprefix(start).removesuffix("\n")

    return run


EXPECTED = "expected an aiohttp.web.Application, or a function that returns one"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("shup:app", "'shup:app': there is no module 'shup' here; the current directory is "),
        ("shop.web:app", "'shop.web:app': there is no module 'shop.web' here; "),
        ("shop:ap", "has no attribute 'ap'; did you mean 'app'?"),
        ("shop:obj.make", "has no attribute 'make'; did you mean 'maker'?"),
        ("shop:nothing.app", "has no attribute 'app'"),
        ("shop", "'shop' is not module:attribute, for example shop.web:app"),
        ("shop.py", "'shop.py' is not module:attribute, for example shop.web:app"),
        (":app", "':app' is not module:attribute, for example shop.web:app"),
        ("shop:nothing", f"'shop:nothing' is None; {EXPECTED}"),
        ("shop:asyncio", "'shop:asyncio' is <module 'asyncio' from "),
        ("shop:nonsense", f"'shop:nonsense' returned 42; {EXPECTED}"),
        ("shop:anonsense", "'shop:anonsense' returned [<Application 0x"),
        ("shop:make_with_metrics", "the application has a route at '/metrics' of its own"),
        ("shop:make_with_metrics_later", "has a route at '/own/metrics' of its own"),
        ("shop:make_frozen", "the application has started, or was added to another"),
        ("shop:make_mounted", "the application has started, or was added to another"),
    ],
)
def test_wrong_target(mistake: Mistake, target: str, says: str) -> None:
    """A target that leads to no application that can be observed is one line that says why."""
    assert says in mistake("run", "--port=0", target)


@pytest.mark.parametrize("target", ["shop:nonsense", "shop:make_frozen"])
def test_address_is_given_back(mistake: Mistake, bound: list[socket.socket], target: str) -> None:
    """A mistake that is found once the address was taken leaves no socket open."""
    mistake("run", "--port=0", target)
    assert {sock.fileno() for sock in bound} <= {-1}


@pytest.mark.parametrize(
    ("command", "option", "says"),
    [
        ("run", "--port=http", "--port: 'http' given; expected a whole number"),
        ("demo", "--port=http", "--port: 'http' given; expected a whole number"),
        ("run", "--port=70000", "port: 70000 given; expected a whole number, 0 to 65535"),
        ("demo", "--port=-1", "port: -1 given; expected a whole number, 0 to 65535"),
        ("run", "--host=", "host: '' given; expected an address like '127.0.0.1'"),
        ("run", "--path=metrics", "path: 'metrics' given; expected a plain path like '/metrics'"),
        ("run", "--sample-interval=0", "sample_interval: 0.0 given; expected seconds"),
        ("run", "--sample-timeout=soon", "--sample-timeout: 'soon' given; expected a number"),
        ("run", "--max-endpoints=0", "max_endpoints: 0 given; expected a whole number, 1 or more"),
        ("run", "--buckets=1,0.5", "buckets: (1.0, 0.5) given; expected rising numbers"),
        ("run", "--buckets=a", "--buckets: 'a' given; expected numbers with commas between"),
        ("run", "--access-log=maybe", "--access-log: 'maybe' given; expected true or false"),
        ("run", "--shutdown-timeout=-1", "shutdown_timeout: -1.0 given; expected seconds"),
        ("run", "--shutdown-timeout=nan", "shutdown_timeout: nan given; expected seconds"),
        ("demo", "--workers=0", "workers: 0 given; expected a whole number, 1 to 1000"),
        ("demo", "--queue-size=many", "--queue-size: 'many' given; expected a whole number"),
        ("demo", "--failure-rate=2", "failure_rate: 2.0 given; expected a number, 0 to 1"),
        ("demo", "--load=-5", "load: -5.0 given; expected a number, 0 to 100000"),
        ("demo", "--load=inf", "load: inf given; expected a number, 0 to 100000"),
    ],
)
def test_wrong_option(mistake: Mistake, command: str, option: str, says: str) -> None:
    """A value that can't work is one line with the option, what was given and what is expected."""
    target = ["shop:app"] if command == "run" else []
    assert mistake(command, option, *target).startswith(says)


def test_wrong_variable(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that can't work is named as such."""
    monkeypatch.setenv("AIOSVC_PORT", "http")
    assert mistake("demo") == "AIOSVC_PORT: 'http' given; expected a whole number"
    assert mistake("run", "shop:app") == "AIOSVC_PORT: 'http' given; expected a whole number"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("prot = 1", "prot in the file: there is no such option; did you mean 'port'?"),
        ("port = 'x'", "port in the file: 'x' given; expected a whole number"),
        ("port = 1.5", "port: 1.5 given; expected a whole number, 0 to 65535"),
        ("port = [", "--config: aiosvc.toml: not TOML: "),
        ("port = 1\nport = 2", "--config: aiosvc.toml: not TOML: "),
    ],
)
def test_wrong_file(mistake: Mistake, shop: Path, content: str, says: str) -> None:
    """A mistake in the file is one line, whatever lines the TOML parser would make of it."""
    (shop / "aiosvc.toml").write_text(content)
    assert mistake("demo", "--config=aiosvc.toml").startswith(says)
    assert mistake("run", "--config=aiosvc.toml", "shop:app").startswith(says)


def test_missing_file(mistake: Mistake) -> None:
    """A file that is not there is one line with its name."""
    assert mistake("demo", "--config=no.toml") == "--config: no.toml: No such file or directory"


def test_wrong_project_file(mistake: Mistake, shop: Path) -> None:
    """A mistake in [tool.aiosvc] is one line too."""
    (shop / "pyproject.toml").write_text("[tool.aiosvc]\nworker = 3\n")
    assert mistake("demo").startswith("worker in the file: there is no such option; did you mean")


@pytest.mark.parametrize("arguments", [["demo"], ["run", "shop:app"]])
def test_port_is_taken(mistake: Mistake, arguments: list[str]) -> None:
    """A port on which somebody else listens is one line that says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        says = f"port {port} is taken (127.0.0.1); choose another with --port"
        assert mistake(*arguments, f"--port={port}") == says


def test_port_is_privileged(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that the system refuses to this user is one line that says which are free."""

    def refuse(_sock: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    says = "port 80 is for privileged users; choose one from 1024 with --port"
    assert mistake("demo", "--port=80") == says


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("203.0.113.1", "'203.0.113.1' is no address of this machine; choose one with --host"),
        ("http://localhost", "'http://localhost' is no address: "),
        ("127.0.0.1:8000", "'127.0.0.1:8000' is no address: "),
        ("shop..example", "'shop..example' is no address"),
    ],
)
def test_wrong_host(
    mistake: Mistake, monkeypatch: pytest.MonkeyPatch, host: str, says: str
) -> None:
    """A host that can't be listened on is one line; no name server is asked in this test."""
    real = socket.getaddrinfo

    def numbers_only(name: str, *args: int, **more: int) -> object:
        name.encode("idna")  # as the real one does
        return real(name, *args, **{**more, "flags": more["flags"] | socket.AI_NUMERICHOST})

    monkeypatch.setattr(socket, "getaddrinfo", numbers_only)
    assert mistake("demo", f"--host={host}", "--port=0").startswith(says)
    assert mistake("run", f"--host={host}", "--port=0", "shop:app").startswith(says)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "nowhere:app"],
        ["run", "--port=0", "shop:nonsense"],
        ["run", "--port=0", "shop:make_frozen"],
        ["demo", "--workers=0"],
    ],
)
def test_mistake_as_a_process(shop: Path, arguments: list[str]) -> None:
    """In a process of its own a mistake is one line too, no traceback, and exit code 2."""
    ended = run_to_end(*arguments, directory=shop)
    assert (ended.code, ended.stdout) == (2, "")
    assert re.fullmatch(rf"aiosvc {arguments[0]}: [^\n]+\n", ended.stderr), ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["dmeo"], "'dmeo'"),
        (["demo", "--prot=1"], "--prot=1"),
        (["demo", "--port"], "--port"),
        (["run"], "MODULE:APP"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that can't be read ends with exit code 2 and names what is wrong."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err.splitlines()[-1]
    assert said.err.splitlines()[-1].startswith("aiosvc")


@pytest.mark.parametrize(
    ("source", "error"),
    [("1 / 0", "ZeroDivisionError"), ("import no_such_library", "ModuleNotFoundError")],
)
def test_error_in_the_users_module(
    write_module: WriteModule, tmp_path: Path, source: str, error: str
) -> None:
    """An error inside the user's own module keeps its traceback, which is what the user needs."""
    write_module("broken", source)
    ended = run_to_end("run", "--port=0", "broken:app", directory=tmp_path)
    assert ended.code == 1
    assert "Traceback" in ended.stderr
    assert 'broken.py", line 1' in ended.stderr
    assert error in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["metrics", "rules"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads_it_to_the_end(tmp_path: Path, command: str, unbuffered: str) -> None:
    """Where what reads the output ends early, as `head` does, the command does so without a word."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as unread:
        ended = subprocess.run(
            [sys.executable, "-m", "aiosvc", command],
            stdout=unread,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert ended.stderr == b""
    assert ended.returncode == 141


def test_version(tmp_path: Path) -> None:
    """`--version` prints name and version."""
    ended = run_to_end("--version", directory=tmp_path)
    assert ended == (0, f"aiosvc {__version__}\n", "")


def test_help(tmp_path: Path) -> None:
    """`--help` names the commands, and where else options come from."""
    ended = run_to_end("--help", directory=tmp_path)
    assert (ended.code, ended.stderr) == (0, "")
    for word in ("demo", "run", "AIOSVC_", "[tool.aiosvc]", "--config"):
        assert word in ended.stdout


@pytest.mark.parametrize(
    ("command", "kinds"), [("demo", (ServeOptions, DemoOptions)), ("run", (ServeOptions, Settings))]
)
def test_help_of_a_command(
    command: str, kinds: tuple[type, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A command's help holds the flag and the help text of each of its options."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for kind in kinds:
        assert kind in KINDS
        for option in dataclasses.fields(kind):
            assert f"--{option.name.replace('_', '-')} " in said
            assert option.metadata["help"] in said


async def get(url: str) -> str:
    """Return the body of a URL that answers with 200."""
    async with ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.text()


async def counted(url: str, name: str, **labels: str) -> float:
    """Return the sum of the samples of this name, with these labels among theirs, at a URL."""
    families = text_string_to_metric_families(await get(url))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(each.value for each in samples if labels.items() <= each.labels.items())


def assert_quiet(program: Program) -> None:
    """Check that nothing in a program's log looks like a mistake of ours."""
    for word in ("Traceback", "Warning", "ERROR", "never retrieved", "Exception"):
        assert word not in program.stderr, program


@pytest.mark.parametrize(
    ("target", "arguments", "said"),
    [
        ("shop:app", [], "object"),
        ("shop:make", [], "function"),
        ("shop:make", ["ignored"], "function"),
        ("shop:make_with", ["a", "b"], ["a", "b"]),
        ("shop:amake", [], "coroutine"),
        ("shop:amake_with", ["--", "--debug", "x"], ["--debug", "x"]),
        ("shop:obj.maker.make", [], "method"),
    ],
)
async def test_run(shop: Path, target: str, arguments: list[str], said: object) -> None:
    """Whatever an application is made by, it answers, is measured, and ends in order."""
    async with Program("run", "--port=0", target, *arguments, directory=shop) as program:
        assert f"{target} is at {program.url}; its metrics are at {program.url}/metrics" in (
            program.stdout
        )
        for _ in range(2):
            assert json.loads(await get(program.url)) == {"said": said, "same_loop": True}
        number = await counted(
            f"{program.url}/metrics", "http_requests_total",
            method="GET", endpoint="/", status="200",
        )  # fmt: skip
        assert number == 2
        assert await program.stop() == 0
        assert_quiet(program)


async def test_run_without_extra_arguments(shop: Path) -> None:
    """A factory that takes an argument gets an empty list when there are none."""
    async with Program("run", "--port=0", "shop:make_with", directory=shop) as program:
        assert json.loads(await get(program.url))["said"] == []


async def test_run_with_arguments_after_the_options(shop: Path) -> None:
    """Options may stand between the target and the factory's arguments."""
    program = Program("run", "shop:make_with", "--port=0", "a", "b", directory=shop)
    async with program:
        assert json.loads(await get(program.url))["said"] == ["a", "b"]


async def test_run_an_observed_application(shop: Path) -> None:
    """An application that calls aiosvc.setup itself keeps its settings, and is counted once."""
    async with Program("run", "--port=0", "shop:make_observed", directory=shop) as program:
        metrics = f"{program.url}/own/metrics"
        assert f"its metrics are at {metrics} " in program.stdout
        await get(program.url)
        assert await counted(metrics, "http_requests_total") == 1
        assert await counted(metrics, "http_request_duration_seconds_count") == 1
        assert await program.stop() == 0
        assert_quiet(program)


async def test_run_with_options_from_everywhere(shop: Path) -> None:
    """Flag, variable and project file together make up the options of one process."""
    (shop / "pyproject.toml").write_text(
        "[tool.aiosvc]\nport = 1\npath = '/from/the/file'\nbuckets = [0.5, 2]\n"
    )
    variables = {"AIOSVC_PORT": "2", "AIOSVC_ACCESS_LOG": "no", "AIOSVC_SERVICE_HOST": "10.0.0.1"}
    program = Program("run", "--port=0", "shop:app", directory=shop, environment=variables)
    async with program:
        await get(program.url)
        text = await get(f"{program.url}/from/the/file")
        bounds = set(
            re.findall(r'^http_request_duration_seconds_bucket{.*le="(.+?)"', text, re.MULTILINE)
        )
        assert bounds == {"0.5", "2.0", "+Inf"}
        assert await program.stop() == 0
        assert "GET / HTTP/1.1" not in program.stderr


@pytest.mark.parametrize(("arguments", "path"), [(["run", "shop:app"], "/"), (["demo"], "/health")])
async def test_access_log(shop: Path, arguments: list[str], path: str) -> None:
    """Where it is asked for, each request is a line in the log, in every command that serves."""
    flags = ("--port=0", "--access-log=true")
    async with Program(*arguments, *flags, directory=shop) as program:
        await get(f"{program.url}{path}")
        assert await program.stop() == 0
        assert f"GET {path} HTTP/1.1" in program.stderr


async def test_sigterm_lets_a_request_finish(shop: Path) -> None:
    """After SIGTERM nobody new is let in, the running request is answered, and the code is 0."""
    async with Program("run", "--port=0", "shop:app", directory=shop) as program:
        asking = asyncio.create_task(get(f"{program.url}/slow"))
        await program.says("slow has begun")
        program.send(signal.SIGTERM)
        await program.says("stopping: no new connections, running requests finish")
        await until(lambda: not program.accepts(), "a refused connection")
        assert program.code is None
        (shop / "go").touch()
        assert await asking == "finished"
        assert await program.ended() == 0
        assert_quiet(program)


async def test_sigterm_does_not_wait_for_ever(shop: Path) -> None:
    """A request that outlasts --shutdown-timeout is cut off, and the code is 0 all the same."""
    async with Program(
        "run", "--port=0", "--shutdown-timeout=0.1", "shop:app", directory=shop
    ) as program:
        asking = asyncio.create_task(get(f"{program.url}/slow"))
        await program.says("slow has begun")
        assert await program.stop() == 0
        with pytest.raises(ClientConnectionError):
            await asking


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_to_the_demo(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the demo with code 0 and without a word of complaint."""
    async with Program("demo", "--port=0", directory=tmp_path) as program:
        program.send(number)
        assert await program.ended() == 0
        assert "queue email drained: 0 processed, 0 left" in program.stderr
        assert_quiet(program)


async def order(url: str) -> int:
    """Order one book and return the status."""
    wanted = {"user_id": 1, "item": "book", "quantity": 1}
    async with (
        ClientSession() as session,
        session.post(f"{url}/api/orders", json=wanted) as response,
    ):
        await response.read()
        return response.status


async def test_demo_drains(tmp_path: Path) -> None:
    """A stopping demo sends what is queued, and says that nothing is left."""
    async with Program(
        "demo", "--port=0", "--workers=2", "--send-seconds=0.05", directory=tmp_path
    ) as program:
        assert await asyncio.gather(*(order(program.url) for _ in range(30))) == [202] * 30
        assert await program.stop() == 0
        assert re.search(
            r"queue email drained: \d+ processed, 0 left$", program.stderr, re.MULTILINE
        )
        assert_quiet(program)


async def test_demo_gives_up_in_time(tmp_path: Path) -> None:
    """A demo that can't send refuses connections while it drains, then says how many are lost."""
    async with Program(
        "demo", "--port=0", "--workers=1", "--send-seconds=3600", "--drain-timeout=1",
        directory=tmp_path,
    ) as program:  # fmt: skip
        for _ in range(5):
            assert await order(program.url) == 202
        program.send(signal.SIGTERM)
        await until(lambda: not program.accepts(), "a refused connection")
        assert await program.ended() == 0
        assert "WARNING aiosvc.queues: queue email drained: 0 processed, 5 left" in program.stderr
        assert "Traceback" not in program.stderr


async def test_demo_with_load(tmp_path: Path) -> None:
    """`--load` moves the counters without anybody else's doing, and stops with the demo."""
    async with Program("demo", "--port=0", "--load=50", directory=tmp_path) as program:
        metrics = f"{program.url}/metrics"
        for name in ("http_requests_total", "orders_accepted_total", "emails_sent_total"):
            await poll(partial(counted, metrics, name), lambda n: n >= 5, name)
        assert await program.stop() == 0
        assert re.search(r"load: \d+ answers, 0 errors, 0 dropped$", program.stderr, re.MULTILINE)
        assert_quiet(program)


async def test_demo_where_the_stack_expects_it(tmp_path: Path) -> None:
    """The demo listens on the host and port of its options, and answers its own contract there."""
    port = free_port()
    async with Program("demo", f"--port={port}", directory=tmp_path) as program:
        assert program.url == f"http://127.0.0.1:{port}"
        assert json.loads(await get(f"{program.url}/health")) == {"status": "ok"}
        assert f"try {program.url}/api/users; its metrics are at {program.url}/metrics" in (
            program.stdout
        )


async def test_second_demo_on_the_same_port(tmp_path: Path) -> None:
    """A second demo is refused in one line, and the first one does not notice."""
    async with Program("demo", "--port=0", directory=tmp_path) as program:
        ended = await asyncio.to_thread(
            run_to_end, "demo", f"--port={program.port}", directory=tmp_path
        )
        says = f"port {program.port} is taken (127.0.0.1); choose another with --port"
        assert ended == (2, "", f"aiosvc demo: {says}\n")
        assert json.loads(await get(f"{program.url}/health")) == {"status": "ok"}
