"""Ten thousand open connections, and what they cost beside a server without aiosvc."""

import asyncio
import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import Process, poll
from wire import Wire, request

COUNT = 10_000
SPARE = 200  # descriptors for everything else

SERVER = """
import asyncio, resource, sys
from aiohttp import web

async def ok(request):
    return web.Response(text="ok")

async def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    app = web.Application()
    app.router.add_get("/ok", ok)
    import aiosvc  # by both, so that the modules are no difference
    if sys.argv[1] == "observed":
        aiosvc.setup(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Allow as many descriptors as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < COUNT + SPARE:
        if os.geteuid() != 0:
            pytest.skip(f"the system allows {hard} descriptors only")
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (COUNT + SPARE, COUNT + SPARE))
        except (ValueError, OSError):
            pytest.skip(f"the system allows {hard} descriptors only")
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, COUNT + SPARE), hard))
    yield
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Server(Process):
    """A server in a process of its own."""

    def __init__(self, kind: str, directory: Path) -> None:
        super().__init__([sys.executable, "-c", SERVER, kind], directory)
        self.port = 0

    async def ready(self) -> None:
        """Wait until it says where it is."""
        found = await self.wait_for(lambda: self.stdout.strip() or None, "its port")
        self.port = int(found)

    def memory(self) -> int:
        """Return its resident bytes."""
        assert self._popen is not None
        return int(psutil.Process(self._popen.pid).memory_info().rss)

    async def connections(self) -> int:
        """Return what a scrape says of connections, the scrape's own left out."""
        wire = await Wire.connect(self.port)
        try:
            text = (await wire.ask(request("GET", "/metrics"))).body.decode()
        finally:
            wire.close()
        (line,) = [x for x in text.splitlines() if x.startswith("active_connections ")]
        return int(float(line.split()[1])) - 1


async def crowd(server: Server) -> tuple[list[Wire], float]:
    """Open the connections, each with one request behind it; return them and bytes for each."""
    warm = await Wire.connect(server.port)
    for _ in range(100):
        await warm.ask(request("GET", "/ok"))
    warm.close()
    before = server.memory()
    wires: list[Wire] = []
    for _ in range(COUNT // 100):
        some = [await Wire.connect(server.port) for _ in range(100)]
        wires += some
        for wire in some:
            await wire.send(request("GET", "/ok"))
        for wire in some:
            assert (await wire.answer()).body == b"ok"
    return wires, (server.memory() - before) / COUNT


async def test_ten_thousand_connections(
    descriptors: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten thousand connections are counted exactly, and cost less than a kilobyte more each."""
    cost: dict[str, float] = {}
    for kind in ("bare", "observed"):
        async with Server(kind, tmp_path) as server:
            wires, cost[kind] = await crowd(server)
            try:
                if kind == "observed":
                    assert await server.connections() == COUNT
                    for wire in wires[:3000]:
                        wire.close()
                    await poll(server.connections, lambda n: n == COUNT - 3000, "some went")
                    for wire in wires[3000:]:
                        wire.reset()
                    await poll(server.connections, lambda n: n == 0, "all went")
            finally:
                for wire in wires:
                    wire.close()
    with capsys.disabled():
        print(  # noqa: T201 - the measurement, for whoever reads the log
            f"\n{COUNT} connections: {cost['bare']:.0f} bytes each without aiosvc, "
            f"{cost['observed']:.0f} with it"
        )
    assert cost["observed"] - cost["bare"] < 1000


async def test_in_progress_of_many(descriptors: None) -> None:
    """Two thousand requests at once are in progress, each once, and then none is."""
    from situations import serving  # noqa: PLC0415 - the other test runs no server of its own

    count = 2000
    async with serving(access_log=None) as service:
        wires = [await service.connect() for _ in range(count)]
        for wire in wires:
            await wire.send(request("GET", "/wait"))
        await service.says({}, in_progress={"GET /wait": count})
        half = count // 2
        for wire in wires[:half]:
            wire.reset()
        await asyncio.sleep(0)
        service.gate().opened.set()
        for wire in wires[half:]:
            await wire.answer()
        await service.quiet()
        requests = service.seen().requests
        assert sum(requests.values()) == count
        assert requests["GET /wait 200"] >= half
