"""The memory limit of a control group, on trees as different machines have them."""

import errno
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.sources.cgroup import LASTS, MemoryLimit, Mount, groups_of, mounts_of, parse_limit

TREES = Path(__file__).parent / "fixtures" / "cgroup"

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("tree", "mebibytes"),
    [
        ("v2_container", 512),
        ("v2_nested", 768),
        ("v2_host_namespace", 256),
        ("v2_outside_namespace", 128),
        ("v2_removed_group", 64),
        ("v2_two_mounts", 300),
        ("v2_escaped_path", 96),
        ("v2_zero", 0),
        ("v2_no_limit", None),
        ("v2_no_controller", None),
        ("v1_container", 512),
        ("v1_limit_of_hidden_parent", 384),
        ("v1_nested", 640),
        ("v1_not_hierarchical", 700),
        ("v1_no_limit", None),
        ("v1_no_limit_large_pages", None),
        ("hybrid_memory_on_v1", 200),
        ("hybrid_memory_on_v2", 300),
        ("no_mount", None),
        ("no_group", None),
        ("garbage", None),
        ("directory_instead_of_file", None),
        ("no_such_tree", None),
    ],
)
def test_effective_limit(tree: str, mebibytes: int | None) -> None:
    """The limit is the smallest that holds for the group; none, or an unknown one, is absent."""
    expected = None if mebibytes is None else mebibytes * MIB
    assert MemoryLimit(TREES / tree).effective() == expected


def test_every_tree_is_tried() -> None:
    """No fixture is left lying around."""
    (mark,) = test_effective_limit.pytestmark  # type: ignore[attr-defined]
    tried = {name for name, _ in mark.args[1]}
    assert {each.name for each in TREES.iterdir()} <= tried


def test_the_real_machine_can_be_read() -> None:
    """Whatever machine this is, the answer is a number of bytes or none."""
    limit = MemoryLimit().effective()
    assert limit is None or limit > 0


def test_a_changed_limit_is_seen_within_some_seconds(tmp_path: Path) -> None:
    """A limit is kept for a while, and then read anew."""
    now = [100.0]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "proc/self/mountinfo").write_text("29 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "cg").mkdir()
    (tmp_path / "cg/memory.max").write_text("1000\n")
    limit = MemoryLimit(tmp_path, clock=lambda: now[0])
    assert limit.effective() == 1000
    (tmp_path / "cg/memory.max").write_text("2000\n")
    now[0] += LASTS / 2
    assert limit.effective() == 1000
    now[0] += LASTS / 2
    assert limit.effective() == 2000
    (tmp_path / "cg/memory.max").write_text("max\n")
    now[0] += LASTS
    assert limit.effective() is None


@pytest.mark.parametrize(
    ("code", "kept"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.EIO, False)]
)
def test_no_descriptor_left(code: int, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file can be opened the last limit stays; after another error it is unknown."""
    now = [0.0]
    limit = MemoryLimit(TREES / "v2_container", clock=lambda: now[0])
    assert limit.effective() == 512 * MIB

    def fail(*_: object, **__: object) -> str:
        raise OSError(code, "no")

    monkeypatch.setattr(Path, "read_text", fail)
    now[0] += LASTS
    assert limit.effective() == (512 * MIB if kept else None)


@pytest.mark.parametrize(
    ("text", "limit"),
    [("1", 1), ("536870912\n", 536870912), ("0", 0), ("max\n", None), ("", None), ("-1", None)],
)
def test_parse_limit(text: str, limit: int | None) -> None:
    """A number is a limit; 'max', nothing and nonsense are none."""
    assert parse_limit(text) == limit


def test_groups() -> None:
    """Only the groups that can limit memory count, by version."""
    text = "12:cpuset:/a\n11:hugetlb,memory:/b:c\n1:name=systemd:/d\n0::/e\n"
    assert groups_of(text) == {"cgroup": PurePosixPath("/b:c"), "cgroup2": PurePosixPath("/e")}


def test_mounts() -> None:
    """Optional fields may be there or not, and names are unescaped."""
    text = (
        "1 0 0:1 / /a rw - cgroup2 none rw\n"
        "2 0 0:2 /x\\134y /b\\040c rw shared:1 master:2 - cgroup none rw,memory\n"
        "3 0 0:3 / /cpu rw - cgroup none rw,cpu\n"
        "4 0 0:4 / /memory rw - tmpfs none rw,memory\n"
    )
    assert mounts_of(text) == [
        Mount("cgroup2", PurePosixPath("/"), PurePosixPath("/a")),
        Mount("cgroup", PurePosixPath("/x\\y"), PurePosixPath("/b c")),
    ]


@given(st.text())
def test_parsers_take_anything(text: str) -> None:
    """No text makes a parser raise."""
    groups_of(text)
    mounts_of(text)
    limit = parse_limit(text)
    assert limit is None or limit >= 0
