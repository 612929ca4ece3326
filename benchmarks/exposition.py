"""
What one scrape costs: ours, cold and warm, beside prometheus_client's and client_golang's.

All write the same number of lines of the same families: counters, gauges and histograms with one to
three labels, without created series, which Go does not have. Contenders take turns; before each turn
a tenth of the counters is touched. Printed are medians over the rounds, wall time and CPU time of
the process, and ratios of the latter, since this is meant for machines that others use too; `slice`
is the median over the scrapes of the longest step between two yields, and the longest of all.
gzip is as each does it: prometheus_client's aiohttp handler at zlib's default level, promhttp at
Go's, ours as `aiosvc.codings` has it. That our bytes are prometheus_client's is checked first.

`memory` is what a scrape allocates at its peak, as tracemalloc counts it, and what stays of it.

The peer is built from exposition_peer/main.go where Debian's golang-go and
golang-github-prometheus-client-golang-dev are installed, and left out, with a word, elsewhere.

    python benchmarks/exposition.py [--lines 1000 10000 50000 100000 1000000] [--rounds 9]
"""

import argparse
import contextlib
import gc
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
import tracemalloc
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from aiosvc import codings
from aiosvc.exposition import Exposition

PEER = Path(__file__).parent / "exposition_peer" / "main.go"

#: Above this many lines only ours is measured.
MOST_FOR_OTHERS = 100_000


class Shape(NamedTuple):
    """How many series of each kind make so many lines."""

    counters: int
    gauges: int
    histograms: int

    @classmethod
    def of(cls, lines: int) -> "Shape":
        """Return the series for about *lines* lines; a histogram has 17."""
        return cls(lines * 2 // 5, lines // 5, lines * 2 // 5 // 17)


class Cost(NamedTuple):
    """One scrape: seconds of wall and CPU time, bytes sent, longest step in seconds."""

    wall: float
    cpu: float
    size: int
    step: float = 0.0


class Python:
    """The registry, and both Python contenders on it."""

    def __init__(self, shape: Shape) -> None:
        self.registry = CollectorRegistry()
        counter = Counter(
            "shop_requests", "Requests.", ["method", "endpoint", "status"], registry=self.registry
        )
        gauge = Gauge("shop_queue_depth", "Items ready.", ["queue"], registry=self.registry)
        histogram = Histogram(
            "shop_request_duration_seconds", "Seconds.", ["method", "endpoint"],
            registry=self.registry,
        )  # fmt: skip
        chance = random.Random(1)
        self.touched = [
            counter.labels("GET", f"/api/users/{n}", "200") for n in range(shape.counters)
        ]
        for each in self.touched:
            each.inc(chance.randrange(100_000))
        for number in range(shape.gauges):
            gauge.labels(f"queue-{number}").set(chance.random())
        for number in range(shape.histograms):
            one = histogram.labels("GET", f"/api/users/{number}")
            for _ in range(5):
                one.observe(chance.random() * 3)
        self.warm = Exposition(self.registry)

    def touch(self) -> None:
        """Raise a tenth of the counters."""
        for each in random.sample(self.touched, len(self.touched) // 10):
            each.inc()

    def client(self, coding: str) -> Cost:
        """Scrape as prometheus_client's aiohttp handler does."""
        self.touch()
        cpu, wall = time.process_time(), time.perf_counter()
        body = generate_latest(self.registry)
        if coding == "gzip":
            deflate = zlib.compressobj(wbits=31)
            body = deflate.compress(body) + deflate.flush()
        return Cost(time.perf_counter() - wall, time.process_time() - cpu, len(body))

    def ours(self, coding: str, *, cold: bool = False) -> Cost:
        """Scrape with what was kept from the last time, or with nothing."""
        self.touch()
        exposition = Exposition(self.registry) if cold else self.warm
        compressor = codings.compressor("gzip") if coding == "gzip" else None
        size, longest = 0, 0.0
        cpu, wall = time.process_time(), time.perf_counter()
        chunks = exposition.render()
        while True:
            begun = time.perf_counter()
            chunk = next(chunks, None)
            longest = max(longest, time.perf_counter() - begun)
            if chunk is None:
                break
            if compressor is not None:
                chunk = compressor.compress(chunk)
            size += len(chunk)
        if compressor is not None:
            size += len(compressor.flush())
        return Cost(time.perf_counter() - wall, time.process_time() - cpu, size, longest)

    def cold(self, coding: str) -> Cost:
        """Scrape for the first time."""
        return self.ours(coding, cold=True)

    def memory(self) -> str:
        """Return what the first and a later scrape allocate."""
        exposition = Exposition(self.registry)
        said = []
        tracemalloc.start()
        for name in ("cold", "warm"):
            self.touch()
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            size = sum(map(len, exposition.render()))
            after, peak = tracemalloc.get_traced_memory()
            said.append(f"{name} {_mb(peak - before)}, of it kept {_mb(after - before)}")
        tracemalloc.stop()
        return f"memory ours: {'; '.join(said)}; the body is {_mb(size)}"


class Peer:
    """The Go program."""

    def __init__(self, program: Path, shape: Shape) -> None:
        self.program = subprocess.Popen(
            [program, *map(str, shape)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.lines = 0

    def scrape(self, coding: str) -> Cost:
        """Have it scrape itself."""
        print(coding, file=self.program.stdin, flush=True)
        wall, cpu, size, lines = map(int, self.program.stdout.readline().split())
        if coding == "identity":
            self.lines = lines
        return Cost(wall / 1e9, cpu / 1e9, size)

    def stop(self) -> None:
        """End it."""
        self.program.stdin.close()
        self.program.wait()
        self.program.stdout.close()


def build(directory: str) -> Path | None:
    """Build the peer; None where that can't be done here."""
    if shutil.which("go") is None:
        print("client_golang is left out: no go here (apt-get install golang-go "
              "golang-github-prometheus-client-golang-dev)")  # fmt: skip
        return None
    program = Path(directory) / "peer"
    built = subprocess.run(
        ["go", "build", "-o", program, PEER],
        env={
            **os.environ,
            "GO111MODULE": "off",
            "GOPATH": "/usr/share/gocode",
            "GOCACHE": f"{directory}/cache",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        print(f"client_golang is left out: {built.stderr.strip().splitlines()[-1]}")
        return None
    return program


def measure(lines: int, rounds: int, program: Path | None) -> None:
    """Print the table for so many lines."""
    shape = Shape.of(lines)
    python = Python(shape)
    # Collections of the benchmark's own objects would be counted as the contenders'.
    gc.collect()
    gc.freeze()
    others = lines <= MOST_FOR_OTHERS
    body = b"".join(python.warm.render())
    exact = body.count(b"\n")
    if others:
        assert body == generate_latest(python.registry), "the bytes differ"
    print(f"\n{exact:,} lines, {_mb(len(body))}")
    contenders: dict[str, Any] = {"ours, warm": python.ours, "ours, cold": python.cold}
    peer = None
    if others:
        contenders["prometheus_client"] = python.client
        if program is not None:
            peer = Peer(program, shape)
            contenders["client_golang"] = peer.scrape
    costs: dict[tuple[str, str], list[Cost]] = {}
    for number in range(rounds + 1):
        for name, scrape in contenders.items():
            for coding in ("identity", "gzip"):
                cost = scrape(coding)
                if number:  # the first round warms up
                    costs.setdefault((name, coding), []).append(cost)
    if peer is not None:
        assert abs(peer.lines - exact) < 10, "the peer writes another number of lines"
        peer.stop()
    show(costs)
    if others:
        print(python.memory())
    gc.unfreeze()


def show(costs: dict[tuple[str, str], list[Cost]]) -> None:
    """Print the medians."""
    print(
        f"{'':18} {'coding':9}{'wall':>11}{'CPU':>11}{'slice':>11}{'longest':>11}{'sent':>10}"
        f"{'CPU/ours':>10}"
    )
    for (name, coding), mine in sorted(costs.items(), key=lambda item: item[0][1], reverse=True):
        wall, cpu, size, step = (statistics.median(each) for each in zip(*mine, strict=True))
        ours = statistics.median(cost.cpu for cost in costs["ours, warm", coding])
        longest = max(cost.step for cost in mine)
        steps = f"{_ms(step):>11}{_ms(longest):>11}" if step else " " * 22
        print(
            f"{name:18} {coding:9}{_ms(wall):>11}{_ms(cpu):>11}{steps}{_mb(size):>10}"
            f"{cpu / ours:>9.1f}x"
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _mb(size: float) -> str:
    return f"{size / 1e6:.2f} MB"


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument(
        "--lines", type=int, nargs="*", default=[1000, 10_000, 50_000, 100_000, 1_000_000]
    )
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    prometheus_client.disable_created_metrics()
    deflate = type(codings.compressor("gzip")).__module__
    print(f"prometheus_client {version('prometheus_client')}, gzip of ours by {deflate}")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        program = build(directory)
        for lines in options.lines:
            measure(lines, options.rounds, program)


if __name__ == "__main__":
    main()
