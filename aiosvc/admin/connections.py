"""
The admin server's connections: how many there may be, and how long each may be silent.

Rule: knows no HTTP; a `Connection` passes everything on to the protocol inside it, which is
aiohttp's. Rule: whatever a client does or leaves undone, its connection ends within a limit:

* the first byte, the TLS handshake and the headers of a request: within the header timeout, counted
  from the connection's beginning or the request's first byte, however slowly the rest drips in;
* between two requests: the keep-alive timeout;
* an answer that the client does not read: within the write timeout, counted from when it backed up.

When there are as many connections as there may be, a new one takes the place of the one that has
been silent longest, of those that were never let in first; one whose password is still being looked
at counts as silent. So a crowd of clients that are silent, or guess, keeps nobody out; only where
every connection has a request that is being answered is a new one turned away.
"""

import asyncio
import contextvars
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["CURRENT", "Connection", "Connections", "Limits"]

#: The connection that a request came by, in the context that it is handled in.
CURRENT: contextvars.ContextVar["Connection"] = contextvars.ContextVar("aiosvc admin connection")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How many connections there may be, and the seconds that each may take for what."""

    connections: int
    header_timeout: float
    keepalive_timeout: float
    write_timeout: float


class Connection(asyncio.Protocol):
    """One connection, from when it was accepted."""

    def __init__(self, connections: "Connections") -> None:
        #: What it does before there is a transport.
        self.task: asyncio.Task[None] | None = None
        #: The transport of its socket, and the one that HTTP is spoken on: the same without TLS.
        self.raw: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None
        self.inside: asyncio.Protocol | None = None
        #: What says, of a connection that has just been made, whether its client may stay.
        self.is_welcome: Callable[[asyncio.BaseTransport], bool] | None = None
        self.busy = False  # whether there is a request to answer
        self.admitted = False  # whether its sender was let in
        self.answering = False  # whether the answer's headers are written
        self.lasting = False  # whether the answer has no end
        self.proven = False  # whether anything was ever answered to somebody let in
        self.silent_since = connections.clock()
        self._connections = connections
        self._early = b""  # what came with the end of the handshake
        self._lost = False
        self._idle = False  # between two requests, with nothing of the next one seen
        self._stuck_since: float | None = None

    @property
    def has_backlog(self) -> bool:
        """Say whether the client has still to take something, if only that it ends."""
        return any(
            transport is not None
            and (transport.is_closing() or transport.get_write_buffer_size() > 0)
            for transport in (self.raw, self.transport)
        )

    def begin(self, *, lasting: bool = False) -> None:
        """Take note that a request's headers are complete; *lasting* if its answer has no end."""
        self.busy = self._idle = True
        self.lasting = lasting
        self.admitted = self.answering = False

    def end(self) -> None:
        """Take note that the request was answered."""
        self.busy = False
        self.proven = self.proven or self.admitted
        self.silent_since = self._connections.clock()
        self._connections.ended(self)

    def cut(self) -> None:
        """End it now, whatever is under way."""
        if self.raw is not None:
            self.raw.abort()
        elif self.task is not None:
            self.task.cancel()

    def is_overdue(self, now: float, limits: Limits) -> bool:
        """Say whether the client has taken longer for something than it may."""
        stuck = self.has_backlog
        if not stuck:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > limits.write_timeout:
            return True
        if self.busy or stuck:
            return False
        limit = limits.keepalive_timeout if self._idle else limits.header_timeout
        return now - self.silent_since > limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with HTTP, if the client may, in a context that knows the connection."""
        assert isinstance(transport, asyncio.Transport)
        if self._lost:
            return
        self.transport = transport
        if self.raw is None:
            self.raw = transport
        if self.is_welcome is not None and not self.is_welcome(transport):
            self._connections.unwelcome += 1
            self.raw.abort()
            return
        self.inside = self._connections.protocol()
        context = contextvars.Context()
        context.run(CURRENT.set, self)
        context.run(self.inside.connection_made, transport)
        if self._early:
            self.data_received(self._early)
            self._early = b""

    def data_received(self, data: bytes) -> None:
        """Pass it on; the first of a request starts its time."""
        if self._idle:
            self._idle = False
            if not self.busy:
                self.silent_since = self._connections.clock()
        if self.inside is not None:
            self.inside.data_received(data)
        elif self.transport is None:
            self._early += data

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return None if self.inside is None else self.inside.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        if self.inside is not None:
            self.inside.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self.inside is not None:
            self.inside.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room, and pass it on."""
        self._lost = True
        self._connections.discard(self)
        if self.inside is not None:
            self.inside.connection_lost(exc)


class Connections:
    """All connections; *protocol* makes what is inside each."""

    def __init__(
        self,
        limits: Limits,
        protocol: Callable[[], asyncio.Protocol],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.protocol = protocol
        self.clock = clock
        self.turned_away = 0  # because all others were being answered
        self.displaced = 0  # by a new one
        self.overdue = 0  # cut because of a timeout
        self.unwelcome = 0  # whose certificate had none of the names that it should
        self._all: set[Connection] = set()
        self._draining = False

    @property
    def dropped(self) -> dict[str, int]:
        """How many were ended or turned away, by why."""
        return {
            "full": self.turned_away,
            "displaced": self.displaced,
            "timeout": self.overdue,
            "certificate": self.unwelcome,
        }

    def __len__(self) -> int:
        return len(self._all)

    @property
    def busy(self) -> int:
        """Connections whose request is being answered."""
        return sum(1 for each in self._all if each.busy)

    def make_room(self) -> bool:
        """Say whether there may be one more, having displaced another one for it if need be."""
        if len(self._all) < self.limits.connections or self.displace():
            return True
        self.turned_away += 1
        return False

    def displace(self, *, proven: bool = True) -> bool:
        """
        End the connection that can be spared most; say whether there was one.

        Unless *proven*, only of those that were never let in.
        """
        idle = [
            each
            for each in self._all
            if not (each.busy and each.admitted) and (proven or not each.proven)
        ]
        if not idle:
            return False
        longest = min(idle, key=lambda each: (each.proven, each.silent_since))
        self._all.discard(longest)
        longest.cut()
        self.displaced += 1
        return True

    def add(self) -> Connection:
        """Return a new connection."""
        connection = Connection(self)
        self._all.add(connection)
        return connection

    def discard(self, connection: Connection) -> None:
        """Take note of a connection's end."""
        self._all.discard(connection)

    def ended(self, connection: Connection) -> None:
        """Take note that a connection's request was answered."""
        transport = connection.transport
        if self._draining and transport is not None and not transport.is_closing():
            transport.close()

    def cut_overdue(self) -> None:
        """End those whose client takes too long for something."""
        now = self.clock()
        for connection in list(self._all):
            if connection.is_overdue(now, self.limits):
                self.overdue += 1
                self._all.discard(connection)
                connection.cut()

    def drain(self) -> None:
        """End those that are silent or would last now, and each other one with its answer."""
        self._draining = True
        for connection in list(self._all):
            if connection.lasting or not (connection.busy or connection.has_backlog):
                connection.cut()
            elif not connection.busy:
                self.ended(connection)

    def cut_all(self) -> None:
        """End all of them now."""
        for connection in list(self._all):
            connection.cut()
