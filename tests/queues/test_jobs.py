"""Attempts of workers of one's own: each ends once, and what still runs can be seen."""

import asyncio
import gc
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import generate_latest

from aiosvc.errors import ConfigError
from aiosvc.queues.jobs import MAX_JOBS, MAX_UNSETTLED

from .readouts import Readout, settle


@pytest.fixture
def readout() -> Readout:
    """Return queues on a registry of the test's own."""
    return Readout()


def throw(error: BaseException | None) -> None:
    """Raise what is given, if anything."""
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (ValueError("no"), "error"),
        (KeyboardInterrupt(), "error"),
        (SystemExit(1), "error"),
        (TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
)
async def test_outcomes(readout: Readout, error: BaseException | None, outcome: str) -> None:
    """What ends the block decides the outcome, and goes on unchanged."""
    jobs = readout.queues.track("jobs", ["send"])
    raised = None
    try:
        async with jobs.attempt("send"):
            throw(error)
    except BaseException as caught:  # noqa: BLE001 - it is looked at
        raised = caught
    assert raised is error
    assert readout.outcomes("send") == {outcome: 1}
    assert readout.value("workers_busy") == 0


@pytest.mark.parametrize("fails", [True, False])
def test_outcomes_that_are_said(readout: Readout, fails: bool) -> None:
    """Within the block a worker can say that it will try again, or has given up."""
    jobs = readout.queues.track("jobs")
    for verb in ("retry", "dead"):
        try:
            with jobs.attempt("send") as attempt:
                getattr(attempt, verb)()
                throw(ValueError() if fails else None)
        except ValueError:
            assert fails
    assert readout.outcomes("send") == {"retry": 1, "dead": 1}


def test_known_jobs_are_there_from_the_start(readout: Readout) -> None:
    """Every outcome of every known job is exported as 0 before anything has happened."""
    readout.queues.track("jobs", ["send", "bill"], slots=3)
    for job in ("send", "bill"):
        for outcome in ("ok", "error", "retry", "timeout", "cancelled", "dead"):
            assert readout.value("queue_items_completed_total", job=job, outcome=outcome) == 0, (
                outcome
            )
        assert readout.value("queue_processing_seconds_count", job=job) == 0
    assert readout.value("worker_slots") == 3
    assert readout.value("queue_oldest_running_seconds") == 0
    assert readout.value("queue_last_completed_timestamp_seconds") is None


def test_times(readout: Readout) -> None:
    """Durations, the longest running job, and busy time, which grows while a job runs."""
    jobs = readout.queues.track("jobs")
    hung = jobs.attempt("hung").__enter__()
    readout.clock.now += 10
    with jobs.attempt("send"):
        readout.clock.now += 3
        assert readout.value("workers_busy") == 2
        assert readout.value("queue_oldest_running_seconds") == 13
        assert readout.value("worker_busy_seconds_total") == 16
    assert readout.value("queue_processing_seconds_sum", job="send") == 3
    assert readout.value("queue_processing_seconds_bucket", job="send", le="5.0") == 1
    assert readout.value("queue_processing_seconds_bucket", job="send", le="2.5") == 0
    readout.clock.now += 1
    assert readout.value("worker_busy_seconds_total") == 17
    assert (readout.value("queue_last_completed_timestamp_seconds") or 0) > 1e9
    hung.__exit__(None, None, None)
    assert readout.value("worker_busy_seconds_total") == 17
    assert readout.value("queue_oldest_running_seconds") == 0


def test_busy_time_goes_on_over_a_restart(readout: Readout) -> None:
    """A job that outlives its service is counted by both halves, and neither twice."""
    jobs = readout.queues.track("jobs")
    attempt = jobs.attempt("send").__enter__()
    readout.clock.now += 10
    readout.collector.retire(readout.queues)
    readout.queues.forget()
    readout.clock.now += 5
    readout.collector.attach(readout.queues)
    assert readout.value("worker_busy_seconds_total") == 15
    attempt.__exit__(None, None, None)
    assert readout.value("worker_busy_seconds_total") == 15
    assert readout.outcomes("send") == {"ok": 1}
    assert readout.value("queue_processing_seconds_sum", job="send") == 15


def test_an_end_in_the_middle_of_a_stop(readout: Readout) -> None:
    """An attempt that ends after the last scrape of a service is counted after its next start."""
    jobs = readout.queues.track("jobs", ["send"])
    attempt = jobs.attempt("send").__enter__()
    readout.clock.now += 10
    readout.collector.retire(readout.queues)
    attempt.__exit__(None, None, None)
    readout.queues.forget()
    readout.collector.attach(readout.queues)
    assert readout.outcomes("send") == {"ok": 1}
    assert readout.value("worker_busy_seconds_total") == 10
    assert readout.value("workers_busy") == 0


async def test_tracked(readout: Readout) -> None:
    """A decorated function is an attempt at each call, its name the job, and else unchanged."""
    jobs = readout.queues.track("jobs")

    @jobs.tracked
    async def send(number: int) -> int:
        """Send it."""
        return number + 1

    @jobs.tracked(job="billing")
    def bill() -> None:
        raise ValueError

    assert await send(1) == 2
    assert inspect.iscoroutinefunction(send)
    assert (send.__name__, send.__doc__) == ("send", "Send it.")
    with pytest.raises(ValueError, match=r"^$"):
        bill()
    assert readout.outcomes("send") == {"ok": 1}
    assert readout.outcomes("billing") == {"error": 1}


async def test_tracked_object(readout: Readout) -> None:
    """An object whose call is async is awaited within its attempt."""

    class Sender:
        async def __call__(self) -> None:
            readout.clock.now += 2

    await readout.queues.track("jobs").tracked(Sender())()
    assert readout.value("queue_processing_seconds_sum", job="Sender") == 2


def test_what_is_no_outcome(readout: Readout) -> None:
    """An attempt can't end in an outcome that nobody knows, and ends in another one all the same."""
    with readout.queues.track("jobs").attempt("send") as attempt:
        with pytest.raises(ConfigError, match="outcome: 'done' given; expected one of ok, error"):
            attempt.end("done")
        assert readout.value("workers_busy") == 1
    assert readout.outcomes("send") == {"ok": 1}


def test_names_that_are_no_text(readout: Readout) -> None:
    """A job's name that has no form in UTF-8 is one that has, and everything else is scraped."""
    tracker = readout.queues.track("jobs")
    for _ in range(2):
        with tracker.attempt("\udcff"):
            pass
    tracker.tracked(job="a\udcff")(print)
    readout.queues.track("others", jobs=["b\udcff"])
    assert 'job="\ufffd"' in generate_latest(readout.registry).decode()
    assert readout.outcomes("\ufffd") == {"ok": 2}


def test_generators_are_refused(readout: Readout) -> None:
    """A generator has no end that could be told, so it is no job."""

    async def items() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(ConfigError, match=r"is a generator; put 'with jobs\."):
        readout.queues.track("jobs").tracked(items)


def test_a_closed_coroutine(readout: Readout) -> None:
    """A coroutine that is collected where it waits was cancelled."""
    jobs = readout.queues.track("jobs")

    async def work() -> None:
        with jobs.attempt("send"):
            await settle()

    waiting = work()
    waiting.send(None)
    assert readout.value("workers_busy") == 1
    del waiting
    gc.collect()
    assert readout.value("workers_busy") == 0
    assert readout.outcomes("send") == {"cancelled": 1}


def test_an_attempt_ends_once(readout: Readout) -> None:
    """An attempt that is entered and left twice is one; one that is never entered is none."""
    jobs = readout.queues.track("jobs")
    attempt = jobs.attempt("send")
    attempt.end("ok")
    for _ in range(2):
        with attempt:
            pass
    assert readout.outcomes("send") == {"ok": 1}


def test_jobs_are_bounded(readout: Readout) -> None:
    """Of jobs that nobody announced the first fifty are told apart; the others are `_other`."""
    jobs = readout.queues.track("jobs")
    for number in range(MAX_JOBS + 3):
        with jobs.attempt(f"job{number}"):
            pass
    assert readout.outcomes(f"job{MAX_JOBS - 1}") == {"ok": 1}
    assert readout.outcomes(f"job{MAX_JOBS}") == {}
    assert readout.outcomes("_other") == {"ok": 3}
    labels = {"metric": "queue_items_completed_total", "label": "job"}
    assert readout.registry.get_sample_value("aiosvc_label_overflow_total", labels) == 3


@pytest.mark.parametrize("job", ["typo", "", None, 5])
def test_announced_jobs_are_the_only_ones(readout: Readout, job: Any) -> None:
    """Once jobs were announced, any other name is `_other`, as is what is no name."""
    with readout.queues.track("jobs", ["send"]).attempt(job):
        pass
    assert readout.outcomes("_other") == {"ok": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": "send"}, "jobs: 'send' given; expected names"),
        ({"jobs": [""]}, "jobs: '' given; expected a name"),
        ({"jobs": [1]}, "jobs: 1 given; expected a name"),
        ({"jobs": 5}, "jobs: 5 given; expected names"),
        ({"slots": 0}, "slots: 0 given; expected a whole number, 1 or more"),
        ({"slots": True}, "slots: True given; expected a whole number, 1 or more"),
    ],
)
def test_wrong_options(readout: Readout, options: dict[str, Any], message: str) -> None:
    """A wrong option is a ConfigError that says what was expected."""
    with pytest.raises(ConfigError, match=message):
        readout.queues.track("jobs", **options)


def test_threads(readout: Readout) -> None:
    """Attempts of many threads are all counted, also while somebody scrapes."""
    jobs = readout.queues.track("jobs", ["send"])

    def work() -> None:
        for _ in range(2000):
            with jobs.attempt("send"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen.append(readout.value("worker_busy_seconds_total") or 0)
    for thread in threads:
        thread.join(30)
    assert seen == sorted(seen)
    assert readout.outcomes("send") == {"ok": 8000}
    assert readout.value("workers_busy") == 0


def test_nobody_scrapes(readout: Readout) -> None:
    """Without a scrape, attempts that have ended do not pile up."""
    jobs = readout.queues.track("jobs")
    for _ in range(3 * MAX_UNSETTLED):
        with jobs.attempt("send"):
            pass
    assert len(jobs._running) <= MAX_UNSETTLED + 1
    assert readout.outcomes("send") == {"ok": 3 * MAX_UNSETTLED}


def test_an_end_while_it_is_settled(readout: Readout, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that the garbage collector ends in the middle of a scrape waits for no lock."""
    jobs = readout.queues.track("jobs", ["send"])
    other = jobs.attempt("send").__enter__()
    settle_all: Callable[[], None] = jobs._settle

    def settle_meanwhile() -> None:
        other.__exit__(GeneratorExit, GeneratorExit(), None)
        settle_all()

    monkeypatch.setattr(jobs, "_settle", settle_meanwhile)
    assert readout.outcomes("send") == {"cancelled": 1}
