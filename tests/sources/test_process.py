"""What the source of the process makes of the facts."""

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from aiosvc import catalogue
from aiosvc.catalogue import MetricSpec
from aiosvc.readings import Readings
from aiosvc.sources.cgroup import MemoryLimit
from aiosvc.sources.portable import PortableProcess
from aiosvc.sources.process import ProcessSource

TREES = Path(__file__).parent / "fixtures" / "cgroup"

FACTS = {
    "resident_bytes": 1,
    "virtual_bytes": 2,
    "threads": 3,
    "cpu_seconds": 4.5,
    "start_time": 5,
    "open_fds": 6,
    "max_fds": 7,
    "voluntary_switches": 8,
    "involuntary_switches": 9,
}


class Reader:
    """Stands in for a platform."""

    def __init__(self, facts: Mapping[str, float]) -> None:
        self.facts = facts
        self.closed = 0

    def read(self) -> Mapping[str, float]:
        """Return what it was given."""
        return self.facts

    def close(self) -> None:
        """Note it."""
        self.closed += 1


def said(readings: Readings) -> dict[tuple[str, ...], float]:
    """Return what readings hold by name and label values."""
    return {
        (spec.name, *labels): number
        for spec, numbers in readings.numbers.items()
        for labels, number in numbers.items()
    }


NOT_STANDARD = {
    ("process_memory_rss_bytes",): 1,
    ("process_memory_vms_bytes",): 2,
    ("process_threads",): 3,
    ("process_context_switches_total", "voluntary"): 8,
    ("process_context_switches_total", "involuntary"): 9,
    ("process_memory_limit_bytes",): 512 * 1024 * 1024,
}


def test_every_fact_has_its_metric() -> None:
    """All facts are exported, by our own names and by the standard ones."""
    source = ProcessSource(reader=Reader(FACTS), limit=MemoryLimit(TREES / "v2_container"))
    assert said(source.read()) == {
        **NOT_STANDARD,
        ("process_cpu_seconds_total",): 4.5,
        ("process_resident_memory_bytes",): 1,
        ("process_virtual_memory_bytes",): 2,
        ("process_start_time_seconds",): 5,
        ("process_open_fds",): 6,
        ("process_max_fds",): 7,
    }


def test_standard_names_that_others_export_are_left_out() -> None:
    """Of the standard names only those that are wanted are exported, all others always."""

    def wanted(spec: MetricSpec) -> bool:
        return spec is catalogue.PROCESS_OPEN_FDS

    source = ProcessSource(wanted, reader=Reader(FACTS), limit=MemoryLimit(TREES / "v2_container"))
    assert said(source.read()) == {**NOT_STANDARD, ("process_open_fds",): 6}


def test_what_is_not_known_is_absent() -> None:
    """Without facts, and outside of a container, there is nothing; no 0."""
    source = ProcessSource(reader=Reader({}), limit=MemoryLimit(TREES / "v2_no_limit"))
    assert said(source.read()) == {}


def test_close_reaches_the_reader() -> None:
    """What the reader holds is let go of."""
    reader = Reader(FACTS)
    source = ProcessSource(reader=reader)
    source.close()
    assert reader.closed == 1


def test_close_waits_for_no_reading() -> None:
    """A reading that hangs in its thread does not hold up the stop, and keeps what it uses."""
    begun, go_on = threading.Event(), threading.Event()

    class Hanging(Reader):
        def read(self) -> Mapping[str, float]:
            begun.set()
            go_on.wait(30)
            return super().read()

    reader = Hanging(FACTS)
    source = ProcessSource(reader=reader)
    thread = threading.Thread(target=source.read)
    thread.start()
    assert begun.wait(30)
    source.close()
    assert reader.closed == 0
    go_on.set()
    thread.join()
    source.close()
    assert reader.closed == 1


def test_without_proc_psutil_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc the process is read all the same."""
    monkeypatch.setattr(os.path, "exists", lambda _path: False)
    source = ProcessSource()
    assert said(source.read())[("process_memory_rss_bytes",)] > 0
    assert isinstance(source._reader, PortableProcess)
    source.close()


@pytest.mark.skipif(sys.platform != "linux", reason="on Linux there is /proc")
def test_with_proc_it_is_read_directly() -> None:
    """On Linux psutil is not needed."""
    source = ProcessSource()
    assert said(source.read())[("process_memory_rss_bytes",)] > 0
    assert not isinstance(source._reader, PortableProcess)
    source.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_in_the_midst_of_a_reading() -> None:
    """A child that has closed the source reads by itself, whatever its parent was reading."""
    source = ProcessSource(reader=Reader(FACTS))
    with source._reading:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                source.close()
                reading = threading.Thread(target=source.read, daemon=True)
                reading.start()
                reading.join(5)
                status = int(reading.is_alive())
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_making_one_asks_for_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source may be made on an event loop, so it looks for nothing before its first reading."""
    monkeypatch.setattr(os.path, "exists", lambda path: pytest.fail(f"asked for {path}"))
    ProcessSource().close()
