"""A real PostgreSQL on loopback, for tests."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import DEADLINE, Process, free_port, require, until

__all__ = ["PASSWORD", "Postgres", "cluster"]

PASSWORD = "not secret"  # of a server on loopback that lives for one test

#: Where Debian puts what it does not want to be in the path.
DEBIAN = Path("/usr/lib/postgresql")


def _program(name: str) -> str:
    versions = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(versions[-1]) if versions else require(name)


def _as_nobody() -> list[str]:
    """Return what starts a program as a user without rights, which PostgreSQL insists on."""
    if os.geteuid() != 0:
        return []
    return [require("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]


@contextmanager
def cluster() -> Iterator[Path]:
    """Give a directory with a new database cluster, which goes with the block."""
    initdb = _program("initdb")
    directory = Path(tempfile.mkdtemp(prefix="aiosvc-postgres-"))
    try:
        password = directory / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        if os.geteuid() == 0:
            os.chown(directory, 65534, 65534)
            os.chown(password, 65534, 65534)
        auth = ["--auth=scram-sha-256", f"--pwfile={password}", "--username=postgres"]
        done = subprocess.run(
            [*_as_nobody(), initdb, *auth, "--no-sync", "--locale=C", "--encoding=UTF8", "-D", str(directory / "data")],
            capture_output=True, text=True, cwd=directory, timeout=2 * DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        yield directory
    finally:
        shutil.rmtree(directory)


class Postgres(Process):
    """A server of a cluster; it can be killed and started again, on the same port."""

    def __init__(self, directory: Path, logs: Path, **settings: object) -> None:
        self.port = free_port()
        given = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 20,
            **settings,
        }
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        data = str(directory / "data")
        super().__init__([*_as_nobody(), _program("postgres"), "-D", data, *options], logs)

    def url(self, scheme: str = "postgresql", user: str = "postgres", password: str = "") -> str:
        """Return the address of its database; the password is the right one unless given."""
        secret = (password or PASSWORD).replace(" ", "%20")
        return f"{scheme}://{user}:{secret}@127.0.0.1:{self.port}/postgres"

    async def ready(self) -> None:
        """Wait until it takes connections."""
        said = "ready to accept connections"
        await self.wait_for(lambda: True if said in self.stderr else None, "its start")

    async def again(self) -> None:
        """Start it once more, when the backends of the one that was killed are gone."""
        for _ in range(100):
            self._start()
            await until(
                lambda: self.code is not None or "ready to accept" in self.stderr, "its start"
            )
            if self.code is None:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"it does not start again: {self}")

    async def kill(self) -> None:
        """End it at once; its backends see to themselves."""
        if self.code is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGQUIT)
            await self.ended()
