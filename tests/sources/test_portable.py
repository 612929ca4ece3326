"""The process as psutil tells it."""

import sys
from types import SimpleNamespace

import psutil
import pytest

from aiosvc.sources import portable
from aiosvc.sources.portable import PortableProcess


@pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc")
def test_as_linux_says() -> None:
    """Both ways to read a process say the same."""
    from aiosvc.sources.linux import LinuxProcess  # noqa: PLC0415 - not for every platform

    linux = LinuxProcess()
    linux.read()
    process = PortableProcess()
    there, here = linux.read(), process.read()
    linux.close()
    assert here.keys() == there.keys()
    # To list its descriptors psutil needs one on Linux, which it counts.
    assert here["open_fds"] - 1 == there["open_fds"]
    assert here["max_fds"] == there["max_fds"]
    assert here["threads"] == there["threads"]
    assert here["start_time"] == pytest.approx(there["start_time"], abs=0.02)
    for fact in ("virtual_bytes", "resident_bytes", "cpu_seconds"):
        assert here[fact] == pytest.approx(there[fact], rel=0.2, abs=0.1)
    process.close()
    assert process.read().keys() == there.keys()


def test_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles stand for descriptors; what Windows does not tell is left out."""
    switches = SimpleNamespace(voluntary=7, involuntary=0)
    for name, value in (
        ("num_fds", None),
        ("num_handles", lambda _process: 321),
        ("num_ctx_switches", lambda _process: switches),
    ):
        monkeypatch.setattr(psutil.Process, name, value, raising=False)
    monkeypatch.setattr(portable, "resource", None)
    facts = PortableProcess().read()
    assert facts["open_fds"] == 321
    assert facts["voluntary_switches"] == 7
    assert not {"max_fds", "involuntary_switches"} & facts.keys()


def test_what_may_not_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that the system refuses costs no other."""

    def refuse(_process: psutil.Process) -> int:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "num_fds", refuse)
    monkeypatch.setattr(psutil.Process, "num_ctx_switches", refuse)
    facts = PortableProcess().read()
    assert "resident_bytes" in facts
    assert not {"open_fds", "voluntary_switches", "involuntary_switches"} & facts.keys()
