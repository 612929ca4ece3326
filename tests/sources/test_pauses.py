"""Pauses of the garbage collector: what is counted, and that nothing waits for anything."""

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from aiosvc import catalogue
from aiosvc.catalogue import PAUSE_BUCKETS
from aiosvc.readings import Distribution, Readings
from aiosvc.sources.pauses import PAUSES, REMEMBERED, PauseReporter, Pauses


class Clock:
    """Stands in for the time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still."""
    return Clock()


@pytest.fixture
def pauses(clock: Clock) -> Pauses:
    """Give pauses of no real collector; tests call the callback."""
    return Pauses(clock)


@pytest.fixture(autouse=True)
def _no_callback_is_left() -> Iterator[None]:
    """Have no collections but those of the test, which takes its callbacks away."""
    with_gc = gc.isenabled()
    gc.disable()
    before = list(gc.callbacks)
    yield
    after, gc.callbacks[:] = list(gc.callbacks), before
    if with_gc:
        gc.enable()
    assert after == before


def info(generation: int) -> dict[str, int]:
    """Return what a callback is told."""
    return {"generation": generation, "collected": 0, "uncollectable": 0}


def pause(pauses: Pauses, clock: Clock, generation: int, seconds: float) -> None:
    """Have a collection of that length."""
    pauses.note("start", info(generation))
    clock.now += seconds
    pauses.note("stop", info(generation))


def said(reporter: PauseReporter) -> dict[str, Distribution]:
    """Return the histograms by generation."""
    readings = Readings()
    reporter.report(readings)
    found = readings.distributions.get(catalogue.PYTHON_GC_DURATION, {})
    return {generation: each for (generation,), each in found.items()}


def counts(reporter: PauseReporter) -> dict[str, int]:
    """Return how many pauses there were by generation."""
    return {generation: sum(each.counts) for generation, each in said(reporter).items()}


@pytest.fixture
def reporter(pauses: Pauses) -> Iterator[PauseReporter]:
    """Give a reporter that was started."""
    made = PauseReporter(pauses)
    made.start()
    yield made
    if made._users:
        made.stop()


def test_every_generation_is_there_from_the_start(reporter: PauseReporter) -> None:
    """Each generation has a histogram before its first pause."""
    assert counts(reporter) == {"0": 0, "1": 0, "2": 0}


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.00005, 0), (0.0005, 1), (0.002, 2), (0.03, 4), (0.7, 7), (30.0, 8), (-1.0, 0)],
)
def test_a_pause_is_in_its_bucket(
    reporter: PauseReporter, pauses: Pauses, clock: Clock, seconds: float, bucket: int
) -> None:
    """The time from start to stop counts once, in the bucket that it belongs to."""
    pause(pauses, clock, 2, seconds)
    found = said(reporter)["2"]
    assert found.bounds == PAUSE_BUCKETS
    assert [place for place, count in enumerate(found.counts) if count] == [bucket]
    assert found.sum == pytest.approx(max(0.0, seconds))
    assert sum(said(reporter)["0"].counts) == 0


def test_long_ones_are_remembered(pauses: Pauses, clock: Clock) -> None:
    """How much of a time the collector took is known of the last pauses that matter."""
    pause(pauses, clock, 2, 0.5)
    clock.now += 1.0
    pause(pauses, clock, 0, 0.001)
    begun = clock.now
    pause(pauses, clock, 1, 0.25)
    assert pauses.within(0.0, clock.now) == pytest.approx(0.75)
    assert pauses.within(0.25, begun) == pytest.approx(0.25)
    assert pauses.within(0.6, 0.8) == 0.0
    assert pauses.within(begun + 0.1, clock.now + 5) == pytest.approx(0.15)
    for _ in range(100):
        pause(pauses, clock, 2, 1.0)
    assert pauses.within(0.0, clock.now) == REMEMBERED


def test_a_stop_without_a_start_is_no_pause(
    reporter: PauseReporter, pauses: Pauses, clock: Clock
) -> None:
    """A collection that was going on when the callback was added is left out."""
    pauses.note("stop", info(0))
    pause(pauses, clock, 0, 0.01)
    pauses.note("stop", info(0))
    assert counts(reporter)["0"] == 1


def test_a_start_without_a_stop_is_no_pause(
    reporter: PauseReporter, pauses: Pauses, clock: Clock
) -> None:
    """A start that nothing followed is forgotten at the next one."""
    pauses.note("start", info(0))
    clock.now += 100.0
    pause(pauses, clock, 1, 0.01)
    assert counts(reporter) == {"0": 0, "1": 1, "2": 0}
    assert said(reporter)["1"].sum == pytest.approx(0.01)


def test_a_generation_that_is_not_known(
    reporter: PauseReporter, pauses: Pauses, clock: Clock
) -> None:
    """A generation past the last one counts as the last; no label value is made up."""
    pause(pauses, clock, 7, 0.01)
    assert counts(reporter) == {"0": 0, "1": 0, "2": 1}


def test_what_was_read_does_not_change(
    reporter: PauseReporter, pauses: Pauses, clock: Clock
) -> None:
    """A pause while somebody reads changes nothing of what they read."""
    before = pauses.cells()
    copy = [list(cells) for cells in before]
    pause(pauses, clock, 0, 0.01)
    assert before == copy


def test_several_services_have_one_callback(pauses: Pauses) -> None:
    """The callback is added by the first service, and taken away by the last."""
    first, second = PauseReporter(pauses), PauseReporter(pauses)
    first.start()
    first.start()
    second.start()
    assert gc.callbacks.count(pauses.note) == 1
    assert not first.stop()
    assert first.stop()
    assert gc.callbacks.count(pauses.note) == 1
    assert second.stop()
    assert gc.callbacks.count(pauses.note) == 0


def test_a_registry_is_told_what_came_since_it_began(pauses: Pauses, clock: Clock) -> None:
    """Each reporter counts from its own start, and starts anew after it forgot."""
    first, second = PauseReporter(pauses), PauseReporter(pauses)
    first.start()
    pause(pauses, clock, 0, 0.01)
    second.start()
    pause(pauses, clock, 0, 0.01)
    assert (counts(first)["0"], counts(second)["0"]) == (2, 1)
    first.stop()
    assert counts(first)["0"] == 2
    first.forget()
    assert counts(first) == {}
    pause(pauses, clock, 0, 0.01)
    first.start()
    assert (counts(first)["0"], counts(second)["0"]) == (0, 2)
    first.stop()
    second.stop()


def test_somebody_clears_the_callbacks(pauses: Pauses) -> None:
    """A program that clears the list of callbacks does not make the stop fail."""
    before = list(gc.callbacks)
    reporter = PauseReporter(pauses)
    reporter.start()
    gc.callbacks.clear()
    try:
        assert reporter.stop()
        assert pauses.note not in gc.callbacks
    finally:
        gc.callbacks.extend(before)


def test_a_real_collection_is_seen() -> None:
    """Python's own collector calls back, with the generation that was asked for."""
    reporter = PauseReporter(PAUSES)
    reporter.start()
    before = counts(reporter)
    for generation in (0, 1, 2):
        gc.collect(generation)
    after = counts(reporter)
    reporter.stop()
    assert all(after[generation] > before[generation] for generation in after)
    assert said(reporter)["2"].sum > 0


def test_a_scrape_in_another_thread_sees_whole_states(pauses: Pauses, clock: Clock) -> None:
    """While collections go on, a reader never sees a count without its share of the sum."""
    reporter = PauseReporter(pauses)
    reporter.start()
    over = threading.Event()
    torn: list[Distribution] = []

    def read() -> None:
        while not over.is_set():
            for found in said(reporter).values():
                # Every pause takes a second, so both are the same number.
                torn.extend([found] if sum(found.counts) != found.sum else [])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(20_000):
            pause(pauses, clock, 0, 1.0)
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)
        reporter.stop()
        found = counts(reporter)["0"]
    assert torn == []
    assert found == 20_000


#: Makes children with labels in threads, with many collections, while the pauses are recorded and
#: rendered. A callback that took prometheus_client's lock would wait for itself.
STORM = """
import gc, threading, time
from prometheus_client import CollectorRegistry, Counter, generate_latest
from aiosvc.collector import collector_of
from aiosvc.sources.pauses import PauseReporter

class Cycle:
    def __init__(self):
        self.me = self

def make(metric, thread):
    for number in range(50_000):
        metric.labels(str(number), str(thread)).inc()
        Cycle()

registry = CollectorRegistry()
reporter = PauseReporter()
reporter.start()
collector_of(registry).attach(reporter)
metric = Counter("children", "Many.", ["a", "b"], registry=CollectorRegistry())
gc.set_threshold(200, 10, 1000)
threads = [threading.Thread(target=make, args=(metric, thread)) for thread in range(4)]
for thread in threads:
    thread.start()
scrapes = 0
while any(thread.is_alive() for thread in threads):
    generate_latest(registry)
    scrapes += 1
    time.sleep(0.01)
reporter.stop()
text = generate_latest(registry).decode()
(count,) = (l for l in text.splitlines() if l.startswith('python_gc_duration_seconds_count{generation="0"}'))
children = sum(s.name == "children_total" for f in metric.collect() for s in f.samples)
print(children, float(count.split()[-1]) > 1000, scrapes > 0)
"""


def test_no_deadlock_while_children_are_made() -> None:
    """Pauses are recorded while 200,000 children with labels are made in four threads."""
    said = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", STORM],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert said.stdout.split() == ["200000", "True", "True"]
