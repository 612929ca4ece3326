"""
Real brokers on loopback: Redis, NATS and RabbitMQ, each with a directory and ports of its own.

Rule: what is started is stopped by its handle, epmd of Erlang included; a broker that was killed or
stood still can be started again on the same port.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from processes import Process, free_port, require

__all__ = ["Broker", "Nats", "Rabbit", "Redis", "running"]

#: Where Debian has the script without the one around it that changes the user.
DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class Broker(Process):
    """A server that says in its output when it is ready."""

    #: What it says then.
    says = ""
    port = 0

    async def ready(self) -> None:
        """Wait until it takes connections."""
        await self.wait_for(
            lambda: True if self.says in self.stdout + self.stderr else None, "its start"
        )

    async def again(self) -> None:
        """Start it once more, after its end."""
        self._start()
        await self.ready()

    def pause(self) -> None:
        """Have it stand still; its connections stay open."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        self.send(signal.SIGCONT)


B = TypeVar("B", bound=Broker)


@contextmanager
def running(broker: B) -> Iterator[B]:
    """Run a broker for several tests, each of which has an event loop of its own."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(broker.__aenter__())
        try:
            yield broker
        finally:
            runner.run(broker.__aexit__())


class Redis(Broker):
    """
    redis-server that writes nothing to disk, or with *kept* each command before it answers.

    With *cluster* it is the one node of a cluster.
    """

    says = "Ready to accept connections"

    def __init__(
        self, directory: Path, *, password: str = "", cluster: bool = False, kept: bool = False
    ) -> None:
        self.port = free_port()
        command = [require("redis-server"), "--port", f"{self.port}", "--bind", "127.0.0.1"]
        command += ["--save", "", "--dir", f"{directory}"]
        command += ["--appendonly", "yes" if kept else "no", "--appendfsync", "always"]
        if password:
            command += ["--requirepass", password]
        if cluster:
            command += ["--cluster-enabled", "yes", "--cluster-port", f"{free_port()}"]
        super().__init__(command, directory)

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"


class Nats(Broker):
    """nats-server with JetStream, which keeps its streams in the directory."""

    says = "Server is ready"

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        address = ["-a", "127.0.0.1", "-p", f"{self.port}"]
        super().__init__(
            [require("nats-server"), "-js", "-sd", f"{directory / 'streams'}", *address], directory
        )

    @property
    def url(self) -> str:
        """Its address."""
        return f"nats://127.0.0.1:{self.port}"


class Rabbit(Broker):
    """rabbitmq-server with the management plugin, whose numbers are half a second old at most."""

    says = "Server startup complete"

    def __init__(self, directory: Path) -> None:
        script = str(DEBIAN) if DEBIAN.exists() else require("rabbitmq-server")
        self.port, self.management_port = free_port(), free_port()
        epmd_port = free_port()
        self._epmd = Process([require("epmd"), "-port", f"{epmd_port}", "-address", "127.0.0.1"],
                             directory)  # fmt: skip
        (directory / "plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
        (directory / "rabbit.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"management.tcp.port = {self.management_port}\n"
            "management.tcp.ip = 127.0.0.1\n"
            "collect_statistics_interval = 500\n",
            encoding="utf-8",
        )
        environment = {
            "HOME": f"{directory}",  # with the cookie
            "ERL_EPMD_PORT": f"{epmd_port}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The script then becomes the server, so that a signal reaches it.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": f"aiosvc{self.port}@localhost",
            "RABBITMQ_DIST_PORT": f"{free_port()}",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{directory / 'rabbit'}",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{directory / 'advanced.config'}",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory / 'plugins'}",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{directory / 'generated'}",
            "RABBITMQ_MNESIA_BASE": f"{directory / 'mnesia'}",
            "RABBITMQ_LOG_BASE": f"{directory / 'log'}",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{directory / 'pid'}",
            # Two schedulers would be two threads that spin.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }
        super().__init__([script], directory, environment)

    async def __aenter__(self) -> Self:
        await self._epmd.__aenter__()
        try:
            return await super().__aenter__()
        except BaseException:
            await self._epmd.kill()
            raise

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        await self._epmd.__aexit__(*exc)

    def url(self, *, password: str = "guest", vhost: str = "") -> str:
        """Return its address for AMQP."""
        return f"amqp://guest:{password}@127.0.0.1:{self.port}/{vhost}"

    def management_url(self, *, password: str = "guest") -> str:
        """Return the address of its management API."""
        return f"http://guest:{password}@127.0.0.1:{self.management_port}"
