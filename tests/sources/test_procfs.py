"""What Linux writes, parsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.sources.procfs import Stat, boot_time, parse_stat

STAT = (
    b"4242 (%s) S 1 4242 4242 0 -1 4194560 9876 0 1 0 120 34 0 0 20 0 7 0 123456 "
    b"130924544 11520 18446744073709551615 1 1 0 0 0 0 0 16781312 17642 0 0 0 17 1 0 0 0 0 0\n"
)
EXPECTED = Stat(
    threads=7,
    start_ticks=123456,
    virtual_bytes=130924544,
    resident_pages=11520,
)


@pytest.mark.parametrize(
    "name", [b"python", b"a b", b"(", b")", b") S 1 2 3 (", b"", b"\xff\n)", b"x) R 0 0"]
)
def test_stat(name: bytes) -> None:
    """The fields are found whatever the program is called."""
    assert parse_stat(STAT % name) == EXPECTED


@pytest.mark.parametrize(
    "text", [b"", b"1 (x", b"1 (x) S 1 2", STAT.replace(b" 7 ", b" seven ") % b"x"]
)
def test_stat_that_is_none(text: bytes) -> None:
    """Text that is cut off, or holds no numbers, is a ValueError."""
    with pytest.raises(ValueError, match=r"/proc/PID/stat|seven"):
        parse_stat(text)


@given(st.binary())
def test_stat_of_anything(text: bytes) -> None:
    """Nothing but a ValueError is raised."""
    try:
        parse_stat(text)
    except ValueError:
        return


def test_boot_time() -> None:
    """The line 'btime' has the time of the start."""
    assert boot_time(b"cpu  1 2 3\nintr 5 0\nbtime 1795370870\nprocesses 9\n") == 1795370870


@pytest.mark.parametrize("text", [b"", b"cpu 1\n", b"btime\n", b"btime soon\n"])
def test_boot_time_that_is_none(text: bytes) -> None:
    """Without a number there it is a ValueError."""
    with pytest.raises(ValueError, match=r"btime|int\(\)"):
        boot_time(text)
