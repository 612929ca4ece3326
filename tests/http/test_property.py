"""Any sequence of situations on any number of connections: the scrape equals the tally."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from situations import BODY, CHUNK, Service, serving, until
from wire import Wire, chunked, request

T = TypeVar("T")


class Situation(NamedTuple):
    """A request, and what is counted for it."""

    data: bytes
    method: str
    endpoint: str
    status: int
    reason: str = ""
    exception: str = ""

    def __repr__(self) -> str:
        return f"<{self.method} {self.endpoint} {self.status}: {self.data[:60]!r}>"


def _situations() -> Iterator[Situation]:
    for target, endpoint in (
        ("/ok", "/ok"),
        ("/users/7", "/users/{id}"),
        ("/numbers/3?q=1", "/numbers/{number}"),
        ("/sub/deep/leaf/1", "/sub/deep/leaf/{id}"),
    ):
        for method in ("GET", "HEAD"):
            yield Situation(request(method, target), method, endpoint, 200)
        yield Situation(request("DELETE", target), "DELETE", endpoint, 405)
    for target in ("/nothing", "/sub/nothing", "/users/", "/numbers/x"):
        yield Situation(request("GET", target), "GET", "_unmatched", 404)
    for method in ("POST", "OPTIONS", "TRACE"):
        yield Situation(request(method, "/any"), method, "/any", 200)
    yield Situation(request("PROPFIND", "/any"), "_other", "/any", 200)
    for name, status in (("HTTPFound", 302), ("HTTPGone", 410), ("HTTPServiceUnavailable", 503)):
        yield Situation(request("GET", f"/raise/{name}"), "GET", "/raise/{name}", status)
    yield Situation(request("POST", "/echo", body=CHUNK), "POST", "/echo", 200)
    fields = {"Transfer-Encoding": "chunked"}
    body = chunked(CHUNK, CHUNK)
    yield Situation(request("POST", "/echo", headers=fields, body=body), "POST", "/echo", 200)
    yield Situation(request("PUT", "/unread", body=bytes(9000)), "PUT", "/unread", 200)
    yield Situation(request("POST", "/echo", headers={"Expect": "miracles"}), "POST", "/echo", 417)


def _last_situations() -> Iterator[Situation]:
    """Yield what ends its connection."""
    yield Situation(
        request("GET", "/fail/value"), "GET", "/fail/{how}", 500, "exception", "ValueError"
    )
    yield Situation(request("GET", "/fail/timeout"), "GET", "/fail/{how}", 504, "timeout")
    yield Situation(b"rubbish\r\n\r\n", "_other", "_unmatched", 400)
    fields = {"Content-Length": "1", "Transfer-Encoding": "chunked"}
    yield Situation(request("POST", headers=fields, body=b"x"), "_other", "_unmatched", 400)
    yield Situation(request("GET", headers={"Connection": "close"}), "GET", "/ok", 200)
    yield Situation(request("GET", version="1.0"), "GET", "/ok", 200)


SITUATIONS = tuple(_situations())
LAST_SITUATIONS = tuple(_last_situations())
WAYS = st.sampled_from(["FIN", "RST"])


class Busy(NamedTuple):
    """A connection whose request waits at a gate."""

    wire: Wire
    gate: str
    endpoint: str
    status: int  # what was sent already, 0 if nothing


class Crowd(RuleBasedStateMachine):
    """Many connections to one server, and a tally of what should be counted."""

    idle = Bundle("idle")
    busy = Bundle("busy")
    sockets = Bundle("sockets")

    handler_cancellation = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.gates = 0
        self.connections = 0
        self.opened = 0
        self.requests: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.exceptions: Counter[str] = Counter()
        self.upgrades: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self.in_progress: Counter[str] = Counter()
        self.open_sockets: Counter[str] = Counter()
        self.bad_requests = 0
        self.service: Service

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the loop, and the server with it, until *work* is done."""
        return self.loop.run(work)

    def count(self, situation: Situation) -> None:
        """Tally one request."""
        method, endpoint = situation.method, situation.endpoint
        self.requests[f"{method} {endpoint} {situation.status}"] += 1
        if situation.reason:
            self.failures[f"{method} {endpoint} {situation.reason}"] += 1
        if situation.exception:
            self.exceptions[f"{endpoint} {situation.exception}"] += 1
        if (method, endpoint) == ("_other", "_unmatched"):
            self.bad_requests += 1

    @initialize()
    def start(self) -> None:
        """Start the server."""
        context = serving(handler_cancellation=self.handler_cancellation)
        self.service = self.run(self.stack.enter_async_context(context))

    @rule(target=idle)
    def connect(self) -> Wire:
        """Open a connection."""
        self.connections += 1
        self.opened += 1
        return self.run(self.service.connect())

    @rule(wire=idle, situation=st.sampled_from(SITUATIONS))
    def ask(self, wire: Wire, situation: Situation) -> None:
        """Send one request and read its answer."""
        answer = self.run(wire.ask(situation.data, to=situation.method))
        assert answer.status == situation.status
        self.count(situation)

    @rule(wire=idle, situations=st.lists(st.sampled_from(SITUATIONS), min_size=2, max_size=40))
    def pipeline(self, wire: Wire, situations: list[Situation]) -> None:
        """Send several requests at once."""
        self.run(wire.send(b"".join(situation.data for situation in situations)))
        for situation in situations:
            assert self.run(wire.answer(to=situation.method)).status == situation.status
            self.count(situation)

    @rule(wire=consumes(idle), situation=st.sampled_from(LAST_SITUATIONS))
    def ask_last(self, wire: Wire, situation: Situation) -> None:
        """Send a request after which the server closes."""
        answer = self.run(wire.ask(situation.data, to=situation.method))
        assert answer.status == situation.status
        assert self.run(wire.rest()) == b""
        self.ended(wire)
        self.count(situation)

    @rule(wire=consumes(idle), way=WAYS, data=st.sampled_from([b"", b"GET /ok HT"]))
    def leave(self, wire: Wire, way: str, data: bytes) -> None:
        """End a connection between two requests, or within the head of one."""
        self.run(wire.send(data))
        self.end(wire, way)

    @rule(target=busy, wire=consumes(idle), path=st.sampled_from(["/wait", "/sub/wait"]))
    def begin(self, wire: Wire, path: str) -> Busy:
        """Send a request whose handler waits."""
        self.gates += 1
        gate = str(self.gates)
        self.run(wire.send(request("GET", f"{path}?gate={gate}")))
        self.run(self.service.entered(gate))
        self.in_progress[f"GET {path}"] += 1
        return Busy(wire, gate, path, 0)

    @rule(
        target=busy,
        wire=consumes(idle),
        then=st.sampled_from(["end", "swallow"]),
        declared=st.booleans(),
    )
    def begin_stream(self, wire: Wire, then: str, declared: bool) -> Busy:
        """Send a request whose handler waits in the middle of its answer."""
        self.gates += 1
        gate = str(self.gates)
        query = f"?gate={gate}" + ("&declared=20" if declared else "")
        self.run(wire.send(request("GET", f"/stream/{then}{query}")))
        self.run(self.service.entered(gate))
        self.in_progress["GET /stream/{then}"] += 1
        return Busy(wire, gate, "/stream/{then}", 200)

    @rule(target=idle, busy=consumes(busy))
    def finish(self, busy: Busy) -> Wire:
        """Let a handler on, and read its answer."""
        self.service.gate(busy.gate).opened.set()
        answer = self.run(busy.wire.answer())
        assert answer.body == (2 * CHUNK if busy.status else BODY)
        self.in_progress[f"GET {busy.endpoint}"] -= 1
        self.count(Situation(b"", "GET", busy.endpoint, 200))
        return busy.wire

    @rule(busy=consumes(busy), way=WAYS)
    def leave_busy(self, busy: Busy, way: str) -> None:
        """Leave while the handler works, and then let it on."""
        self.end(busy.wire, way)
        self.service.gate(busy.gate).opened.set()
        self.in_progress[f"GET {busy.endpoint}"] -= 1
        self.count(Situation(b"", "GET", busy.endpoint, busy.status or 499, "client_disconnected"))

    @rule(target=idle, busy=consumes(busy), situation=st.sampled_from(SITUATIONS))
    def pipeline_behind(self, busy: Busy, situation: Situation) -> Wire:
        """Send a request behind one that is handled, and then let that on."""
        wire = busy.wire
        self.run(wire.send(situation.data))
        self.finish(busy)
        assert self.run(wire.answer(to=situation.method)).status == situation.status
        self.count(situation)
        return wire

    @rule(target=sockets, wire=consumes(idle))
    def upgrade(self, wire: Wire) -> Wire:
        """Make a connection a WebSocket."""
        self.run(wire.upgrade())
        self.requests["GET /ws 101"] += 1
        self.upgrades["/ws"] += 1
        self.open_sockets["/ws"] += 1
        return wire

    @rule(wire=sockets, text=st.sampled_from(["a", "b" * 100]))
    def say(self, wire: Wire, text: str) -> None:
        """Send a message and read it back."""
        self.run(wire.send_frame(text))
        assert self.run(wire.frame()).payload == text.encode()

    @rule(wire=consumes(sockets), code=st.sampled_from([1000, 1001, 1011, 4321]))
    def close_socket(self, wire: Wire, code: int) -> None:
        """Close a WebSocket as it should be closed."""
        self.run(wire.send_close(code))
        self.run(wire.rest())
        self.ended(wire)
        self.socket_ended(str(code) if code < 3000 else "_other")

    @rule(wire=consumes(sockets))
    def break_socket(self, wire: Wire) -> None:
        """Have a WebSocket's handler fail."""
        self.run(wire.send_frame("raise it"))
        self.run(wire.rest())
        self.ended(wire)
        self.failures["GET /ws aborted"] += 1
        self.exceptions["/ws ValueError"] += 1
        self.socket_ended("1006")

    @rule(target=idle, wires=st.lists(consumes(idle), max_size=3))
    def scrape(self, wires: list[Wire]) -> Any:
        """Scrape over HTTP; it changes nothing."""
        for wire in wires:
            assert self.run(wire.ask(request("GET", "/metrics"))).status == 200
        return multiple(*wires)

    @invariant()
    def says_the_tally(self) -> None:
        """Hold the metrics against the tally, whatever is going on."""
        if not hasattr(self, "service"):
            return
        self.run(
            self.service.says(
                +self.requests,
                failures=+self.failures,
                exceptions=+self.exceptions,
                bad_requests=self.bad_requests,
                sockets=+self.upgrades,
                closes=+self.closes,
                in_progress=+self.in_progress,
                open_sockets=+self.open_sockets,
                deadline=10.0,
            )
        )
        self.run(self.check_connections())

    async def check_connections(self) -> None:
        """Assert that every connection is counted, and no other."""
        assert self.service.value("active_connections") == self.connections
        assert self.service.value("connections_total") == self.opened

    def socket_ended(self, code: str) -> None:
        """Tally the end of a WebSocket."""
        self.open_sockets["/ws"] -= 1
        self.closes[f"/ws {code}"] += 1

    def end(self, wire: Wire, way: str) -> None:
        """End a connection, and wait until the server knows."""
        if way == "FIN":
            wire.finish()
        else:
            wire.reset()
        self.ended(wire)

    def ended(self, wire: Wire) -> None:
        """Wait until the server has one connection less."""
        self.connections -= 1
        expected = self.connections
        self.run(
            until(lambda: self.service.value("active_connections") == expected, "the end of it")
        )
        wire.close()

    def teardown(self) -> None:
        """Stop the server."""
        if hasattr(self, "service"):
            # What is open still ends with the server, and is counted then.
            if +self.in_progress or +self.open_sockets:
                self.service.forget()
            self.run(self.stack.aclose())
        self.loop.close()


class CancellingCrowd(Crowd):
    """The same on a server that cancels handlers whose clients left."""

    handler_cancellation = True


SETTINGS = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    # Nothing is made smaller: each step of that would wait for numbers that do not come.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

TestCrowd = Crowd.TestCase
TestCrowd.settings = SETTINGS
TestCancellingCrowd = CancellingCrowd.TestCase
TestCancellingCrowd.settings = SETTINGS
