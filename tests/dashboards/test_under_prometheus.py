"""Every expression of every panel, asked of a real Prometheus that scrapes what it is about."""

import asyncio
import math
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import TestServer
from processes import Program, Prometheus, poll
from replicas import exposition

from dashboards.boards import PRESETS, SERIES, Target, filled, parsed, selectors, targets

WINDOW = "1m"

#: Metrics that a machine may not have, and why; a panel may stay empty for nothing else.
ABSENT = {"process_memory_limit_bytes": "nothing limits the memory of the service here"}


async def round_of_requests(session: ClientSession) -> None:
    """Let everything happen once that the service can do."""

    async def ask(path: str, method: str = "GET", seconds: float = 10) -> None:
        with suppress(TimeoutError):
            timeout = ClientTimeout(total=seconds)
            async with session.request(method, path, timeout=timeout) as response:
                await response.read()

    async with session.ws_connect("/socket") as opened:
        waiting = asyncio.gather(ask("/hold"), ask("/hold", seconds=0.2), ask("/stall"))
        jobs = [ask(f"/jobs/{'never' if n % 4 == 0 else 'welcome'}", "POST") for n in range(20)]
        await asyncio.gather(*jobs)
        paths = ("/quick/1", "/fail", "/tenantless", "/nowhere", "/past-the-cap")
        await asyncio.gather(*(ask(path) for path in paths))
        await malformed(session)
        await waiting
        await opened.close()


async def malformed(session: ClientSession) -> None:
    """Send what is no HTTP."""
    url = session._base_url
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"what is this\r\n\r\n")
    await reader.read()
    writer.close()


@asynccontextmanager
async def driven(url: str) -> AsyncIterator[None]:
    """Let everything happen, over and over."""

    async def drive(session: ClientSession) -> None:
        while True:
            await round_of_requests(session)

    async with ClientSession(url) as session:
        task = asyncio.create_task(drive(session))
        try:
            yield
        finally:
            assert not task.done(), task.exception()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("preset", PRESETS)
async def test_every_expression_has_something_to_show(preset: str, tmp_path: Path) -> None:
    """With a service to which everything happens, each query of each panel gives numbers."""
    shutil.copy(Path(__file__).with_name("scenario.py"), tmp_path)
    async with AsyncExitStack() as stack:
        program = Program(
            "run", "scenario:make_app", "--port=0",
            directory=tmp_path,
            environment={"SCENARIO_PRESET": preset},
        )  # fmt: skip
        await stack.enter_async_context(program)
        prometheus = Prometheus(tmp_path, target_port=program.port)
        await stack.enter_async_context(prometheus)
        await stack.enter_async_context(driven(program.url))

        empty = targets(preset)

        async def ask_again() -> list[Target]:
            nonlocal empty
            empty = [each for each in empty if not await shows(prometheus, each)]
            unexpected = [each for each in empty if not names(each) & set(ABSENT)]
            return unexpected or []

        await poll(ask_again, lambda left: not left, "numbers in every panel", deadline=90)
        for each in empty:  # what it lacks is not there at all, or it would have shown something
            for name in names(each) & set(ABSENT):
                assert await prometheus.query(name) == [], str(each)
        await every_selector_picks_something(prometheus, preset)


async def shows(prometheus: Prometheus, target: Target) -> bool:
    """Say whether a query gives a number."""
    samples = await prometheus.query(filled(target.expr, window=WINDOW))
    return any(math.isfinite(sample.value) for sample in samples)


async def every_selector_picks_something(prometheus: Prometheus, preset: str) -> None:
    """Check each selector by itself: an expression has a number where only a part of it has none."""
    for target in targets(preset):
        for each in selectors(parsed(target.expr)):
            if each.name not in ABSENT and each.matchers.get("scope") != "shared":
                scraped = await prometheus.series(filled(each.text, window=WINDOW))
                assert scraped, f"{each.text} of {target}"
                assert all(set(each.matchers) <= set(labels) for labels in scraped), str(target)


def names(target: Target) -> set[str]:
    """Return the names of the series that a query asks for."""
    found = {each.name for each in selectors(parsed(target.expr))}
    assert found <= {*SERIES, "up"}
    return found


def replica(depth: int, shared: int) -> str:
    """Return what a replica exports that has a queue of its own and looks at a shared one."""
    return (
        'queue_info{queue_name="own",backend="asyncio",scope="process"} 1\n'
        'queue_info{queue_name="shared",backend="redis",scope="shared"} 1\n'
        f'queue_depth{{queue_name="own"}} {depth}\n'
        f'queue_depth{{queue_name="shared"}} {shared}\n'
        'queue_capacity{queue_name="own"} 10\n'
    )


async def test_replicas_are_summed_or_agree(tmp_path: Path) -> None:
    """Queues of processes add up over replicas; a shared one, seen by all, counts once."""
    (depth,) = (t.expr for t in targets("classic") if t.panel == "Depth")
    (fill,) = (t.expr for t in targets("classic") if t.panel == "Fill")
    (waiting,) = (t.expr for t in targets("classic") if t.panel == "Waiting")
    async with AsyncExitStack() as stack:
        ports = []
        for text in (replica(3, 70), replica(4, 72)):
            server = await stack.enter_async_context(TestServer(exposition(text)))
            assert server.port is not None
            ports.append(server.port)
        prometheus = Prometheus(tmp_path, target_port=ports[0], more_ports=ports[1:])
        await stack.enter_async_context(prometheus)
        await prometheus.wait_for_value("sum(up)", lambda up: up == 2)
        samples = await prometheus.query(filled(depth, window=WINDOW))
        assert {s.labels["queue_name"]: s.value for s in samples} == {"own": 7, "shared": 72}
        samples = await prometheus.query(filled(fill, window=WINDOW))
        assert {s.labels["queue_name"]: s.value for s in samples} == {"own": 7 / 20}
        assert await prometheus.value(filled(waiting, window=WINDOW)) == 79
