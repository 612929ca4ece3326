"""The limits of connections: by the clock and the numbers alone."""

import asyncio
from typing import Any

import pytest

from aiosvc.admin.connections import CURRENT, Connection, Connections, Limits


class Clock:
    """Seconds that stand still until they are told."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Transport(asyncio.Transport):
    """A transport with a backlog as one likes."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = 0
        self.aborted = self.closed = False

    def get_write_buffer_size(self) -> int:
        """Return the backlog."""
        return self.backlog

    def is_closing(self) -> bool:
        """Return whether it was closed."""
        return self.closed

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def abort(self) -> None:
        """Note it."""
        self.aborted = self.closed = True


class Inside(asyncio.Protocol):
    """What is told what the connection is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note it, and which connection it is in."""
        self.told.append(("made", transport, CURRENT.get()))

    def data_received(self, data: bytes) -> None:
        """Note it."""
        self.told.append(data)

    def eof_received(self) -> None:
        """Note it."""
        self.told.append("eof")

    def pause_writing(self) -> None:
        """Note it."""
        self.told.append("pause")

    def resume_writing(self) -> None:
        """Note it."""
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        """Note it."""
        self.told.append(("lost", exc))


LIMITS = Limits(connections=3, header_timeout=10, keepalive_timeout=65, write_timeout=60)


class Fixture:
    """Connections with a clock, and ways to make some."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.all = Connections(LIMITS, Inside, self.clock)

    def accept(self) -> Connection:
        """Return a connection that was accepted."""
        return self.all.add()

    def open(self) -> tuple[Connection, Transport]:
        """Return a connection that was made."""
        connection, transport = self.accept(), Transport()
        connection.connection_made(transport)
        return connection, transport

    def overdue(self, connection: Connection, after: float) -> bool:
        """Move the clock and say whether the connection is overdue then."""
        self.clock.now += after
        return connection.is_overdue(self.clock.now, LIMITS)


@pytest.fixture
def some() -> Fixture:
    """Return connections without any."""
    return Fixture()


def test_everything_is_passed_on(some: Fixture) -> None:
    """What is inside sees what it would see alone, in a context that knows the connection."""
    connection, transport = some.open()
    connection.data_received(b"x")
    connection.pause_writing()
    connection.resume_writing()
    assert connection.eof_received() is None
    error = ConnectionResetError()
    connection.connection_lost(error)
    inside = connection.inside
    assert isinstance(inside, Inside)
    made = ("made", transport, connection)
    assert inside.told == [made, b"x", "pause", "resume", "eof", ("lost", error)]
    assert len(some.all) == 0
    assert CURRENT.get(None) is None


def test_client_that_is_not_welcome(some: Fixture) -> None:
    """A client that may not stay is cut before anything inside hears of it."""
    connection, transport = some.accept(), Transport()
    connection.is_welcome = lambda _transport: False
    connection.connection_made(transport)
    assert transport.aborted
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    connection.pause_writing()
    connection.resume_writing()
    connection.eof_received()
    connection.connection_lost(None)
    assert connection.inside is None
    assert (len(some.all), some.all.unwelcome) == (0, 1)


def test_what_comes_with_the_handshake(some: Fixture) -> None:
    """What was received before the connection was made is not lost."""
    connection, transport = some.accept(), Transport()
    connection.raw = Transport()
    connection.data_received(b"a")
    connection.data_received(b"b")
    connection.connection_made(transport)
    connection.data_received(b"c")
    assert isinstance(connection.inside, Inside)
    assert connection.inside.told == [("made", transport, connection), b"ab", b"c"]


def test_lost_before_it_was_made(some: Fixture) -> None:
    """A connection that ends with its handshake never begins."""
    connection = some.accept()
    connection.connection_lost(None)
    connection.connection_made(Transport())
    assert connection.inside is None
    assert len(some.all) == 0


def test_backlog_below_tls(some: Fixture) -> None:
    """What TLS has passed on and the socket has not taken counts as well."""
    connection, raw = some.accept(), Transport()
    connection.raw = raw
    connection.connection_made(Transport())
    connection.begin()
    raw.backlog = 5
    assert not some.overdue(connection, 0)
    assert some.overdue(connection, 60.1)
    connection.cut()
    assert raw.aborted


@pytest.mark.parametrize("made", [True, False])
def test_silent_from_the_start(some: Fixture, made: bool) -> None:
    """A connection without a request is overdue after the header timeout, made or not."""
    connection = some.open()[0] if made else some.accept()
    assert not some.overdue(connection, 10)
    assert some.overdue(connection, 0.1)


def test_dribbled_headers(some: Fixture) -> None:
    """That a byte comes now and then gains nothing."""
    connection, _ = some.open()
    for _ in range(10):
        assert not some.overdue(connection, 1)
        connection.data_received(b"x")
    assert some.overdue(connection, 0.1)


def test_request_in_progress(some: Fixture) -> None:
    """While a request is answered its client need not say anything."""
    connection, _ = some.open()
    connection.begin()
    assert not some.overdue(connection, 10_000)


def test_between_requests(some: Fixture) -> None:
    """Between two requests there is the keep-alive timeout, within one the header timeout."""
    connection, _ = some.open()
    connection.begin()
    some.clock.now += 1000
    connection.end()
    assert not some.overdue(connection, 65)
    connection.data_received(b"GET")
    assert not some.overdue(connection, 10)
    assert some.overdue(connection, 0.1)


def test_half_a_pipelined_request(some: Fixture) -> None:
    """A request that began while another was answered has the header timeout from its end."""
    connection, _ = some.open()
    connection.begin()
    connection.data_received(b"GET")
    some.clock.now += 1000
    connection.end()
    assert not some.overdue(connection, 10)
    assert some.overdue(connection, 0.1)


@pytest.mark.parametrize("busy", [True, False])
def test_slow_reader(some: Fixture, busy: bool) -> None:
    """A backlog may last as long as the write timeout, whether the answer is complete or not."""
    connection, transport = some.open()
    connection.begin()
    transport.backlog = 5
    if not busy:
        connection.end()
    assert not some.overdue(connection, 0)
    assert not some.overdue(connection, 60)
    transport.backlog = 1  # it reads, but too little of it
    assert some.overdue(connection, 0.1)


def test_reader_that_keeps_up(some: Fixture) -> None:
    """Each time that the backlog is gone, the time begins anew."""
    connection, transport = some.open()
    connection.begin()
    for _ in range(10):
        transport.backlog = 5
        assert not some.overdue(connection, 50)
        transport.backlog = 0
        assert not some.overdue(connection, 50)


def test_end_that_is_not_read(some: Fixture) -> None:
    """A connection that is closing and does not end is ended."""
    connection, transport = some.open()
    transport.closed = True
    assert not some.overdue(connection, 0)
    assert some.overdue(connection, 60.1)


def test_overdue_ones_are_cut(some: Fixture) -> None:
    """Who is overdue is cut and counted once, and the others stay."""
    late, transport = some.open()
    some.clock.now += 10.1
    early, _ = some.open()
    some.all.cut_overdue()
    some.all.cut_overdue()
    assert transport.aborted
    assert (len(some.all), some.all.overdue) == (1, 1)
    assert early.transport is not None
    assert late is not early


def test_room_for_one_more(some: Fixture) -> None:
    """When all places are taken, the one that was silent longest goes, the unproven first."""
    proven, proven_transport = some.open()
    proven.begin()
    proven.admitted = True
    proven.end()
    some.clock.now += 5
    old, old_transport = some.open()
    some.clock.now += 1
    young, young_transport = some.open()
    for transport in (old_transport, young_transport, proven_transport):
        assert some.all.make_room()
        assert transport.aborted
        newcomer, _ = some.open()
        newcomer.begin()
        newcomer.admitted = True
    assert some.all.displaced == 3
    assert old is not young


def test_no_room(some: Fixture) -> None:
    """Where every connection is being answered, one more is turned away."""
    connections = [some.open()[0] for _ in range(3)]
    for connection in connections:
        connection.begin()
        connection.admitted = True
    assert some.all.busy == 3
    assert not some.all.make_room()
    assert some.all.turned_away == 1
    connections[1].end()
    assert some.all.make_room()


def test_room_only_at_the_cost_of_strangers(some: Fixture) -> None:
    """Where a new connection may be lost to others, nobody who was let in makes room for it."""
    known, _ = some.open()
    known.begin()
    known.admitted = True
    known.end()
    assert not some.all.displace(proven=False)
    _, transport = some.open()
    assert some.all.displace(proven=False)
    assert transport.aborted
    assert some.all.dropped == {"full": 0, "displaced": 1, "timeout": 0, "certificate": 0}
    assert some.all.displace()


def test_guesses_make_room(some: Fixture) -> None:
    """Who asks and was not let in yet makes room for one more, the oldest first."""
    transports = []
    for _ in range(3):
        connection, transport = some.open()
        connection.begin()
        transports.append(transport)
        some.clock.now += 1
    assert some.all.make_room()
    assert [transport.aborted for transport in transports] == [True, False, False]


def test_drain(some: Fixture) -> None:
    """At a stop the silent and the lasting are cut, who has something to read may, the busy finish."""
    watching, lasting = some.open()
    watching.begin(lasting=True)
    _, silent = some.open()
    _, reading = some.open()
    reading.backlog = 5
    busy, answering = some.open()
    busy.begin()
    shaking = some.accept()

    def seen() -> list[tuple[bool, bool]]:
        return [(each.closed, each.aborted) for each in (silent, reading, answering, lasting)]

    some.all.drain()
    cut, closed, untouched = (True, True), (True, False), (False, False)
    assert seen() == [cut, closed, untouched, cut]
    busy.end()
    assert seen() == [cut, closed, closed, cut]
    some.all.cut_all()
    assert seen() == [cut, cut, cut, cut]
    assert shaking.transport is None
