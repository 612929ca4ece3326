"""The process as Linux tells it, beside what others say of it, and without descriptors."""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from aiosvc.sources.linux import LinuxProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

EVERY = {
    "cpu_seconds",
    "voluntary_switches",
    "involuntary_switches",
    "max_fds",
    "open_fds",
    "threads",
    "virtual_bytes",
    "resident_bytes",
    "start_time",
}

STAT = b"7 (x) S 1 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 3 0 500 1000000 25 0\n"


@pytest.fixture
def process() -> Iterator[LinuxProcess]:
    """Give a reader, closed at the end."""
    made = LinuxProcess()
    yield made
    made.close()


def descriptors() -> int:
    """Return how many descriptors are open, without the one that counting takes."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1


def test_as_psutil_says(process: LinuxProcess) -> None:
    """What does not change within a test is what psutil says, too."""
    facts = process.read()
    known = psutil.Process()
    assert facts.keys() == EVERY
    assert facts["threads"] == known.num_threads()
    assert facts["start_time"] == pytest.approx(known.create_time(), abs=0.02)
    assert facts["resident_bytes"] == pytest.approx(known.memory_info().rss, rel=0.2)
    assert facts["max_fds"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_descriptors_are_counted_one_by_one(process: LinuxProcess) -> None:
    """A descriptor more is one more."""
    process.read()
    before = process.read()["open_fds"]
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    try:
        assert process.read()["open_fds"] == before + 5
    finally:
        for each in held:
            os.close(each)
    assert process.read()["open_fds"] == before


def test_descriptors_on_an_older_kernel(
    process: LinuxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the directory has no size its entries count, without the one that listing takes."""
    process.read()
    listed = descriptors()
    monkeypatch.setattr(os, "stat", lambda _path: SimpleNamespace(st_size=0))
    assert process.read()["open_fds"] == listed


def test_a_thread_more_is_one_more(process: LinuxProcess) -> None:
    """Threads are counted now, through the descriptor that was opened at the first reading."""
    before = process.read()["threads"]
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    assert process.read()["threads"] == before + 1
    go_on.set()
    thread.join()


def test_cpu_time_is_that_of_all_threads(process: LinuxProcess) -> None:
    """CPU time grows with the work of another thread."""
    before = process.read()["cpu_seconds"]

    def work() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert process.read()["cpu_seconds"] - before >= 0.045


def test_context_switches_are_those_of_all_threads(process: LinuxProcess) -> None:
    """A thread that sleeps is switched away voluntarily, and stays counted after its end."""
    before = process.read()["voluntary_switches"]

    def sleep() -> None:
        for _ in range(20):
            time.sleep(0.001)

    thread = threading.Thread(target=sleep)
    thread.start()
    thread.join()
    assert process.read()["voluntary_switches"] - before >= 20


def test_descriptor_limit_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unlimited number is no number."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: unlimited)
    process = LinuxProcess()
    assert process.read().keys() == EVERY - {"max_fds"}
    process.close()


@pytest.mark.parametrize(
    ("files", "known"),
    [
        ({}, set()),
        ({"self/stat": b"garbage"}, set()),
        ({"self/stat": STAT}, {"threads", "virtual_bytes", "resident_bytes"}),
        ({"self/stat": STAT, "stat": b"cpu 1\n"}, {"threads", "virtual_bytes", "resident_bytes"}),
        (
            {"self/stat": STAT, "stat": b"btime 10\n"},
            {"threads", "virtual_bytes", "resident_bytes", "start_time"},
        ),
    ],
)
def test_what_is_missing_is_left_out(
    files: dict[str, bytes], known: set[str], tmp_path: Path
) -> None:
    """Each file that is not there, or is not as expected, costs its own facts and no others."""
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    process = LinuxProcess(tmp_path)
    asked = {"cpu_seconds", "voluntary_switches", "involuntary_switches", "max_fds"}
    facts = process.read()
    process.close()
    assert facts.keys() == known | asked
    if "start_time" in known:
        assert facts["start_time"] == 10 + 500 / os.sysconf("SC_CLK_TCK")
        assert facts["resident_bytes"] == 25 * resource.getpagesize()


def test_one_descriptor_is_kept_and_given_back(process: LinuxProcess) -> None:
    """Readings do not add up descriptors, and the one that is kept goes with close."""
    before = descriptors()
    for _ in range(10):
        process.read()
    assert descriptors() == before + 1
    process.close()
    process.close()
    assert descriptors() == before
    assert process.read().keys() == EVERY


#: Reads once, uses up all descriptors, and reads again; then a child of a fork reads.
EXHAUSTED = """
import os, resource, errno
from aiosvc.sources.linux import LinuxProcess
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
process = LinuxProcess()
if {first}:
    process.read()
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    assert error.errno == errno.EMFILE
facts = process.read()
for each in held:
    os.close(each)
after = process.read()
process.close()
print(sorted(facts), facts["open_fds"], facts["max_fds"], sorted(after), after["open_fds"])
"""


@pytest.mark.parametrize("first", [True, False])
def test_no_descriptor_left(first: bool) -> None:
    """With all descriptors used the reading says so, and is whole if there was one before."""
    said = subprocess.run(
        [sys.executable, "-c", EXHAUSTED.format(first=first)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    late = {"threads", "virtual_bytes", "resident_bytes", "start_time"}
    during = sorted(EVERY if first else EVERY - late)
    assert said.startswith(f"{during} 40 40 {sorted(EVERY)} ")
    assert int(said.split()[-1]) < 40


FORKED = """
import os, time
from aiosvc.sources.linux import LinuxProcess
process = LinuxProcess()
parent = process.read()
time.sleep(0.05)
child = os.fork()
if not child:
    facts = process.read()
    os._exit(0 if facts["start_time"] > parent["start_time"] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
process.close()
"""


def test_after_a_fork_it_is_about_the_child() -> None:
    """The descriptor that is kept is the parent's; a child opens its own."""
    said = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert said == "0\n"
