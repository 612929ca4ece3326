"""The text of a scrape is read as Prometheus and promtool read it, or the wrong line is named."""

import subprocess
from contextlib import suppress
from time import process_time

import pytest
from expositions import created_series, rendered, sample_registry

from aiosvc.exposed import UnreadableError, read_families
from aiosvc.formats import OPENMETRICS, TEXT, Format

GOOD = [
    "", "\n\n", "   \n", "# a comment\n", "a 1\n", "  a 1\n", "\ta\t1\n", "a{} 1\n", 'a{b="c"}1\n',
    'a{b="c"} 1\n', 'a{b="c",} 1\n', 'a  {  b  =  "c"  ,  d = "e" }   1\n',
    'a{b="\\\\ \\" \\n } , {"} 1\n', "a NaN\na_b -Inf\nc +Inf\nd 1e-9\ne .5\nf 5.\n",
    "a 1 1700000000000\n", "a 1 -5\n", "a +1\n", "a infinity\n", "a:b 1\n", "a 1\na 1\n",
    "# HELP a Some text with \\\\ and \\n.\n# TYPE a gauge\na 1\n", "# HELP a  x  \na 1\n",
    '# TYPE a histogram\na_bucket{le="+Inf"} 1\na_count 1\na_sum 1\n', "# TYPE a COUNTER\na 1\n",
    "# TYPE a\n", "# TYPE a \na 1\n", "# HELP a\n", "#TYPE a gauge\na 1\n", "  # HELP a x\na 1\n",
    'a_bucket{le="x"} 1\n', "# UNIT a b\na 1\n", "# HELP a x\n# HELP a \na 1\n", "a 1e308\n",
    "# TYPE a histogram\n# HELP a_sum x\na_sum 1\n", "# TYPE a gauge\n# TYPE a_sum gauge\na_sum 1\n",
]  # fmt: skip

BAD = [
    "a", "a 1", "a\n", "a x\n", "1a 1\n", "a 1 2 3\n", "a{ 1\n", "a{b} 1\n", "a{b=c} 1\n",
    'a{b="c} 1\n', 'a{b="c" d="e"} 1\n', 'a{b="\\x"} 1\n', 'a{1b="x"} 1\n', 'a{b="x",b="y"} 1\n',
    'a{,b="c"} 1\n', 'a{b="c",,} 1\n', 'a{__name__="x"} 1\n', 'a{a:b="x"} 1\n',
    "# TYPE a nonsense\na 1\n", "# TYPE a gauge\n# TYPE a gauge\na 1\n", "a 1\n# TYPE a gauge\n",
    "# HELP a x\n# HELP a y\na 1\n", "<html>\n", "a 1_000\n", "a 0x1p3\n", "a 1\r\n", "a 1  \n",
    "a 1 1700000000000 \n", "a 1 1.5\n", "a 1e5 # x\n", "# TYPE a gauge \na 1\n",
    "# TYPE 1a gauge\n", "# HELP a-b x\n", "#TYPE a b c\n", "# TYPE a gaugehistogram\na 1\n",
    "# TYPE a histogram\n# TYPE a_sum gauge\n", "# HELP a x\n# TYPE a summary\n# HELP a_sum y\n",
    "a 1e309\n", "a -1e400\n",
    '# TYPE a histogram\na_bucket{le="x"} 1\n', '# TYPE a summary\na{quantile="x"} 1\n',
]  # fmt: skip


def promtool_reads(promtool: str, text: str) -> bool:
    """Whether promtool can read it, whatever it thinks of it."""
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    return b"error while linting" not in done.stderr


@pytest.mark.parametrize("text", GOOD)
def test_what_is_of_the_format(promtool: str, text: str) -> None:
    """What promtool reads is read."""
    assert promtool_reads(promtool, text)
    read_families(text)


@pytest.mark.parametrize("text", BAD)
def test_what_is_not(promtool: str, text: str) -> None:
    """What promtool can't read is refused."""
    assert not promtool_reads(promtool, text)
    with pytest.raises(UnreadableError):
        read_families(text)


def test_what_is_read() -> None:
    """Families have type, documentation and series; those without samples are none."""
    text = (
        "# HELP a_total  Of A.\n# TYPE a_total counter\n"
        'a_total{x="1\\n"} 1\na_total{x="2"} 2\n'
        "# TYPE h histogram\nh_bucket 1\nh_sum 2\nh_total 3\n# TYPE none gauge\n# HELP b \nb 1\n"
        'a_total{x="2"} 3\n'
    )
    families, openmetrics = read_families(text)
    assert not openmetrics
    assert [(f.name, f.type, f.help) for f in families] == [
        ("a_total", "counter", "Of A."),
        ("h", "histogram", None),
        ("h_total", "untyped", None),
        ("b", "untyped", None),
    ]
    assert families[0].series[0].labels == {"x": "1\n"}
    assert [series.name for series in families[1].series] == ["h_bucket", "h_sum"]
    assert [series.line for series in families[0].repeated] == [12]


def test_openmetrics() -> None:
    """Samples belong to the family that their suffix says; exemplars and units are no trouble."""
    text = (
        '# TYPE a counter\n# UNIT a seconds\na_total 1 # {trace_id="x"} 1 1.5\na_created 1\n'
        '# TYPE i info\ni_info{v="1"} 1\n'
        '# TYPE "a.b" gauge\n{"a.b",x="1"} 1 1700000000.5\n# EOF\n'
    )
    families, openmetrics = read_families(text)
    assert openmetrics
    assert [(f.name, f.type, len(f.series)) for f in families] == [
        ("a", "counter", 2), ("i", "info", 1), ("a.b", "gauge", 1),
    ]  # fmt: skip
    with pytest.raises(UnreadableError, match="line 2: something follows"):
        read_families("# EOF\na 1\n# EOF\n")


@pytest.mark.parametrize(
    "form",
    [TEXT, OPENMETRICS, Format("application/openmetrics-text", "1.0.0", "allow-utf-8")],
    ids=str,
)
def test_our_own_text(form: Format) -> None:
    """Every kind of metric, with hostile labels, is read: each series once, in its family."""
    for created in (True, False):
        with created_series(created):
            text = rendered(sample_registry(), form).decode()
        families, openmetrics = read_families(text)
        assert openmetrics == form.openmetrics
        lines = [line for line in text.split("\n") if line and not line.startswith("#")]
        assert sum(len(family.series) for family in families) == len(lines)
        assert not any(family.repeated for family in families)
        assert len(families) == sum(line.startswith("# TYPE") for line in text.split("\n"))


def test_the_line_is_named() -> None:
    """The error says where, and shows the line, if not all of a long one."""
    with pytest.raises(UnreadableError, match=r"^line 2: expected a name.*: <html>$"):
        read_families("a 1\n<html>\n")
    with pytest.raises(UnreadableError) as raised:
        read_families(f"a {'x' * 1000}\n")
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "line",
    [
        'a{b="' + "\\\\" * 100_000,
        "a{" + " " * 100_000,
        "a " + "1" * 100_000 + "x",
        "a 1 " + "1" * 100_000 + "x",
        "# TYPE " + " " * 100_000,
        'a{b="' + "x" * 100_000 + '"} 1 # {' * 1000,
        "a{" + 'b="c",' * 10_000,
    ],
    ids=lambda line: line[:12],
)
def test_a_hostile_line_is_read_in_linear_time(line: str) -> None:
    """No line makes reading take much longer than its length: each of these is done at once."""
    begun = process_time()
    for text in (f"{line}\n", f"{line}\n# EOF\n"):
        with suppress(UnreadableError):
            read_families(text)
    # Some hundredths of a second of CPU; with the square of their length it would be minutes.
    assert process_time() - begun < 5
