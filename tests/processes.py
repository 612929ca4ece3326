"""
Real programs that tests start: the aiosvc command and Prometheus.

Rule: whoever starts one here stops it by its handle, at the latest when its `async with` ends; what
it wrote is kept in files, so it never waits for a reader. Rule: waiting is asking again until a
deadline, so a slow machine makes a test slow and nothing else.
"""

import asyncio
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import pytest
from aiohttp import ClientError, ClientSession

__all__ = [
    "DEADLINE",
    "REPOSITORY",
    "Ended",
    "Process",
    "Program",
    "Prometheus",
    "Sample",
    "free_port",
    "poll",
    "require",
    "run_to_end",
    "until",
]

REPOSITORY = Path(__file__).resolve().parent.parent

#: Seconds after which something that should happen has not happened.
DEADLINE = 60.0

_PAUSE = 0.02  # seconds between two looks at what is waited for

T = TypeVar("T")


def require(program: str) -> str:
    """Return the path of an external program; without it skip the test, but fail it in CI."""
    path = shutil.which(program)
    if path is not None:
        return path
    reason = f"{program} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI must have it, see .ci/")
    pytest.skip(reason)


def free_port() -> int:
    """Return a port that nothing uses, and that the system gives to no outgoing connection."""
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")


async def poll(
    read: Callable[[], Awaitable[T]],
    good: Callable[[T], bool],
    what: str,
    *,
    deadline: float = DEADLINE,
) -> T:
    """Return the first good answer of *read*; fail with the last one after *deadline* seconds."""
    answer: Any = None
    try:
        async with asyncio.timeout(deadline):
            while not good(answer := await read()):  # noqa: ASYNC110 - programs set no event
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        pytest.fail(f"{what}: not within {deadline:g} s; the last answer was {answer!r}")
    return answer  # type: ignore[no-any-return]  # it is a T: the loop assigned it


async def until(condition: Callable[[], bool], what: str, *, deadline: float = DEADLINE) -> None:
    """Wait until *condition* holds."""

    async def read() -> bool:
        return condition()

    await poll(read, bool, what, deadline=deadline)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without options of aiosvc, and with *more*."""
    mine = {name: text for name, text in os.environ.items() if not name.startswith("AIOSVC_")}
    path = os.pathsep.join(filter(None, (str(REPOSITORY), mine.get("PYTHONPATH"))))
    return {**mine, "PYTHONPATH": path, **more}


class Ended(NamedTuple):
    """What became of a program that ended by itself."""

    code: int
    stdout: str
    stderr: str


def run_to_end(
    *arguments: str, directory: Path, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run `python -m aiosvc` with *arguments* in *directory* and wait for its end."""
    ended = subprocess.run(
        [sys.executable, "-m", "aiosvc", *arguments],
        cwd=directory,
        env=_environment(environment or {}),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


class Process:
    """
    A program that runs for as long as an `async with` block, or shorter.

    *command* is started in *directory*, which gets its output too.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command = list(command)
        self.directory = directory
        self._environment = _environment(environment or {})
        number = next(self._numbers)
        self._stdout = directory / f"{number}.stdout"
        self._stderr = directory / f"{number}.stderr"
        self._popen: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._start()
        try:
            await self.ready()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        assert self._popen is not None, "it was not started"
        return self._popen.poll()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._popen is not None, "it was not started"
        return self._popen.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        """What it has logged so far."""
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    async def ready(self) -> None:
        """Wait until it can be used."""

    async def ended(self) -> int:
        """Wait for its end and return the exit code."""
        await until(lambda: self.code is not None, f"the end of {self}")
        code = self.code
        assert code is not None
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._popen is not None, "it was not started"
        self._popen.send_signal(number)

    async def stop(self) -> int:
        """Send it SIGTERM and return its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """End it without asking, if it still runs."""
        if self.code is None:
            self.send(signal.SIGKILL)
            await self.ended()

    def __repr__(self) -> str:
        return f"{' '.join(self.command)} (exit code {self.code})\n{self.stdout}\n{self.stderr}"

    async def wait_for(self, condition: Callable[[], T | None], what: str) -> T:
        """Return what *condition* gives once that is not None; fail when the program ends first."""

        async def read() -> T | None:
            over = self.code is not None
            found = condition()
            if found is None and over:
                pytest.fail(f"{what}: it ended first: {self}")
            return found

        found = await poll(read, lambda found: found is not None, f"{what} from {self}")
        assert found is not None
        return found

    def _start(self) -> None:
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._popen = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )


class Program(Process):
    """`python -m aiosvc` with a command that serves; `url` is where it says that it does."""

    def __init__(
        self, *arguments: str, directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__([sys.executable, "-m", "aiosvc", *arguments], directory, environment)
        self.url = ""

    async def ready(self) -> None:
        """Wait until it says where it is, which is when it answers."""
        found = await self.wait_for(self._said_where, "its address")
        self.url = found[1]

    async def says(self, text: str) -> None:
        """Wait until *text* is in what it printed or logged."""
        await self.wait_for(
            lambda: True if text in self.stdout or text in self.stderr else None, repr(text)
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.url.rpartition(":")[2])

    def accepts(self) -> bool:
        """Say whether a new connection is accepted."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE).close()
        except ConnectionRefusedError:
            return False
        return True

    def _said_where(self) -> re.Match[str] | None:
        return re.search(r"^aiosvc: .+? at (http://[\w.\[\]]+:\d+)\b", self.stdout, re.MULTILINE)


class Sample(NamedTuple):
    """One series of an answer of Prometheus."""

    labels: dict[str, str]
    value: float


class Prometheus(Process):
    """
    A real Prometheus with the repository's own prometheus.yml, only faster and for other ports.

    Beside what listens on *target_port* it scrapes what does on *more_ports*. *rules* is the text of
    a file of rules, evaluated as often as it scrapes. With *config* it takes that file as it is, and
    the ports, the interval and the rules mean nothing.
    """

    def __init__(
        self,
        directory: Path,
        *,
        target_port: int,
        more_ports: Sequence[int] = (),
        interval: str = "500ms",
        rules: str = "",
        config: Path | None = None,
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._config = config or directory / "prometheus.yml"
        if config is None:
            text = _config((target_port, *more_ports), interval)
            if rules:
                (directory / "rules.yml").write_text(rules, encoding="utf-8")
                text += 'rule_files: ["rules.yml"]\n'
            self._config.write_text(text, encoding="utf-8")
        self._session: ClientSession | None = None
        command = [
            require("prometheus"),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--log.level=warn",
        ]
        super().__init__(command, directory)

    async def __aenter__(self) -> Self:
        self._session = ClientSession(self.url)
        try:
            return await super().__aenter__()
        except BaseException:
            await self._session.close()
            raise

    async def __aexit__(self, *exc: object) -> None:
        assert self._session is not None
        await self._session.close()
        await super().__aexit__(*exc)

    async def ready(self) -> None:
        """Wait until it answers queries."""
        await poll(self._is_ready, bool, "Prometheus ready")

    async def query(self, expression: str) -> list[Sample]:
        """Return the instant vector that *expression* is now."""
        answer = await self._ask("query", {"query": expression})
        return [Sample(each["metric"], float(each["value"][1])) for each in answer["result"]]

    async def value(self, expression: str) -> float:
        """Return the one value that *expression* is now."""
        (sample,) = await self.query(expression)
        return sample.value

    async def history(self, expression: str, *, seconds: float, step: float) -> list[float]:
        """Return every value that *expression* had in the last *seconds*, of all its series."""
        now = await self.value("vector(time())")
        span = {"start": str(now - seconds), "end": str(now), "step": str(step)}
        answer = await self._ask("query_range", {"query": expression, **span})
        return [float(value) for each in answer["result"] for _, value in each["values"]]

    async def series(self, selector: str) -> list[dict[str, str]]:
        """Return the labels of all series that *selector* has ever matched."""
        found: list[dict[str, str]] = await self._ask("series", {"match[]": selector})
        return found

    async def rules(self) -> list[dict[str, Any]]:
        """Return every rule and how its last evaluation went."""
        assert self._session is not None
        async with self._session.get("/api/v1/rules") as response:
            groups = (await response.json())["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def wait_for_query(
        self,
        expression: str,
        good: Callable[[list[Sample]], bool],
        *,
        deadline: float = DEADLINE,
    ) -> list[Sample]:
        """Return the first good answer to *expression*."""
        return await poll(lambda: self.query(expression), good, expression, deadline=deadline)

    async def wait_for_value(
        self, expression: str, good: Callable[[float], bool], *, deadline: float = DEADLINE
    ) -> float:
        """Return the first good value of *expression*, which gives one series or none yet."""
        (found,) = await self.wait_for_query(
            expression,
            lambda samples: len(samples) == 1 and good(samples[0].value),
            deadline=deadline,
        )
        return found.value

    async def next_scrape(self) -> None:
        """Wait for a scrape that begins after this call."""
        now = await self.value("vector(time())")
        # A scrape's time may be moved by 2 ms, so that it falls on a whole interval.
        await self.wait_for_value('timestamp(up{job="aiosvc"})', lambda at: at > now + 0.002)

    async def _is_ready(self) -> bool:
        if self.code is not None:
            pytest.fail(f"Prometheus ended: {self}")
        assert self._session is not None
        try:
            async with self._session.get("/-/ready") as response:
                return response.status == 200
        except ClientError:
            return False

    async def _ask(self, endpoint: str, parameters: Mapping[str, str]) -> Any:
        assert self._session is not None
        async with self._session.post(f"/api/v1/{endpoint}", data=parameters) as response:
            text = await response.text()
            assert response.status == 200, f"{parameters}: {text}"
            return json.loads(text)["data"]


def _config(ports: Sequence[int], interval: str) -> str:
    """Return the repository's prometheus.yml for services on *ports*, with another interval."""
    text = (REPOSITORY / "prometheus.yml").read_text(encoding="utf-8")
    mine = ", ".join(f'"localhost:{port}"' for port in ports)
    text, targets = re.subn(r'"localhost:8000"', mine, text)
    assert targets >= 1, "prometheus.yml does not scrape localhost:8000"
    text, intervals = re.subn(
        r"(?m)^(\s*(?:scrape|evaluation)_interval:).*$", rf"\1 {interval}", text
    )
    assert intervals >= 2, "prometheus.yml has no scrape_interval or no evaluation_interval"
    return text
