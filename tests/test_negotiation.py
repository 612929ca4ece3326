"""Negotiation: what headers ask for, what they get, and that none of them is an error."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosvc.formats import (
    ESCAPINGS,
    OPENMETRICS,
    OPENMETRICS_0_0_1,
    TEXT,
    TEXT_1_0_0,
    Format,
)
from aiosvc.negotiation import VARY, content_coding, negotiate

OM = "application/openmetrics-text"
OM_UTF8 = Format(OM, "1.0.0", "allow-utf-8")
TEXT_UTF8 = Format("text/plain", "1.0.0", "allow-utf-8")

#: As Prometheus sends them; the versions in which it does.
PROMETHEUS = {
    "1.8": (
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
        "encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    ),
    "2.30": f"{OM}; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "2.42": (
        f"{OM};version=1.0.0,{OM};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    ),
    "3.0": (
        f"{OM};version=1.0.0;escaping=allow-utf-8;q=0.6,{OM};version=0.0.1;q=0.5,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,"
        "*/*;q=0.2"
    ),
    "3.0, PrometheusText1.0.0 first": (
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,"
        f"{OM};version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.3"
    ),
}

ACCEPTED: list[tuple[str, Format]] = [
    (PROMETHEUS["1.8"], TEXT),
    (PROMETHEUS["2.30"], OPENMETRICS_0_0_1),
    (PROMETHEUS["2.42"], OPENMETRICS),
    (PROMETHEUS["3.0"], OM_UTF8),
    (PROMETHEUS["3.0, PrometheusText1.0.0 first"], TEXT_UTF8),
    # Nothing, anything, and browsers.
    ("", TEXT),
    ("*/*", TEXT),
    ("*", TEXT),
    ("text/*", TEXT),
    ("text/plain", TEXT),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", TEXT),
    ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", TEXT),
    ("application/json", TEXT),
    # OpenMetrics by name.
    (OM, OPENMETRICS),
    ("application/*", OPENMETRICS),
    ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
    (f"{OM};version=1.0.0", OPENMETRICS),
    (f'{OM};version="1.0.0"', OPENMETRICS),
    (f'{OM};version="1\\.0.0"', OPENMETRICS),
    (f"{OM};version=1.0.0;charset=utf-8;q=1", OPENMETRICS),
    (f"{OM};version=1.0.0;escaping=dots", Format(OM, "1.0.0", "dots")),
    (f"{OM};version=1.0.0;escaping=values", Format(OM, "1.0.0", "values")),
    (f'{OM};version=1.0.0;escaping="allow-utf-8"', OM_UTF8),
    (f"{OM};version=1.0.0;escaping=sideways", OPENMETRICS),
    (f"{OM};escaping=allow-utf-8", OM_UTF8),
    (f"{OM};version=0.0.1;escaping=allow-utf-8", OPENMETRICS_0_0_1),
    ("text/plain;version=0.0.4;escaping=allow-utf-8", TEXT),
    ("text/plain;version=1.0.0", TEXT_1_0_0),
    # Weights.
    (f"{OM};q=0.1,text/plain;q=0.9", TEXT),
    (f"text/plain;q=0.9,{OM};q=0.95", OPENMETRICS),
    (f"text/plain,{OM}", OPENMETRICS),
    (f"*/*,{OM}", OPENMETRICS),
    (f"*/*;q=0.8,{OM};q=0.5", TEXT),
    (f"text/plain;version=0.0.4,text/plain;version=1.0.0,{OM};q=0.9", TEXT_1_0_0),
    (f"text/plain;version=0.0.4;q=0.5,{OM};version=0.0.1;q=0.5", OPENMETRICS_0_0_1),
    (f"{OM};version=1.0.0;escaping=dots;q=0.1,{OM};version=1.0.0;escaping=allow-utf-8", OM_UTF8),
    # Refusals.
    (f"{OM};q=0", TEXT),
    (f"{OM};q=0.000,text/plain;q=0.1", TEXT),
    (f"{OM};q=0,*/*", TEXT),
    (f"text/plain;q=0,{OM};q=0.1", OPENMETRICS),
    ("text/plain;q=0,*/*", OPENMETRICS),
    ("text/plain;version=0.0.4;q=0,text/*", TEXT_1_0_0),
    ("text/*;q=0,application/*;q=0,*/*", TEXT),
    (f"{OM};version=1.0.0;q=0,{OM}", OPENMETRICS_0_0_1),
    # The more specific range says more, whatever its place.
    (f"*/*;q=1,text/plain;q=0.2,{OM};q=0.3", OPENMETRICS),
    # Versions that are not ours.
    (f"{OM};version=2.0.0", TEXT),
    (f"{OM};version=9.9.9,text/plain;q=0.1", TEXT),
    (f"{OM};version=99999999999999999999.0.0", TEXT),
    (f"{OM};version=x", TEXT),
    (f"{OM};version=1e9", TEXT),
    (f"{OM};version=1.0", TEXT),
    ("text/plain;version=x", TEXT),
    (f"text/plain;version=7,{OM};q=0.1", OPENMETRICS),
    # Parameters that make no sense are as good as none.
    (f"{OM};version", OPENMETRICS),
    (f"{OM};version=", OPENMETRICS),
    (f'{OM};version="1.0.0', OPENMETRICS),
    (f"{OM};;;;=;=1;q", OPENMETRICS),
    (f"{OM};q=abc", OPENMETRICS),
    (f"{OM};q=2", OPENMETRICS),
    (f"{OM};q=-1", OPENMETRICS),
    (f"{OM};q=0.5;q=0", OPENMETRICS),
    (f'{OM};q="0.5",text/plain;q=0.6', TEXT),
    (f'{OM};a=",text/plain;q=1;",text/plain;q=0.5', OPENMETRICS),
    # Elements that make no sense are no elements.
    (f",,, ,;,/;q=0.1,{OM}", OPENMETRICS),
    ("openmetrics", TEXT),
    ("\x00\xff\ud800", TEXT),
    ("text/plain;version=1.0.0;version=0.0.4", TEXT_1_0_0),
    ('"', TEXT),
    ("\\", TEXT),
]


@pytest.mark.parametrize(("accept", "expected"), ACCEPTED)
def test_accept(accept: str, expected: Format) -> None:
    """A client gets the format of the greatest weight that we speak, and text 0.0.4 otherwise."""
    assert negotiate(accept) == expected


def test_several_accept_headers() -> None:
    """Several headers are one list, and a quote left open in one does not swallow the next."""
    assert negotiate(["text/plain;q=0.5", OM]) == OPENMETRICS
    assert negotiate([f'{OM};q=0.5;a="', "text/plain;q=0.6"]) == TEXT
    assert negotiate([]) == TEXT


def test_content_types() -> None:
    """A content type has the version, and from 1.0.0 on the escaping."""
    assert TEXT.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert TEXT_UTF8.content_type == (
        "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
    )
    assert OPENMETRICS.content_type == f"{OM}; version=1.0.0; charset=utf-8; escaping=underscores"
    assert OPENMETRICS_0_0_1.content_type == f"{OM}; version=0.0.1; charset=utf-8"


ZSTD = ("zstd", "gzip")
GZIP = ("gzip",)


@pytest.mark.parametrize(
    ("header", "available", "expected"),
    [
        ("", ZSTD, "identity"),
        ("gzip", GZIP, "gzip"),
        ("GZIP", GZIP, "gzip"),
        ("x-gzip", GZIP, "gzip"),
        ("identity", GZIP, "identity"),
        ("gzip, deflate, br, zstd", GZIP, "gzip"),
        ("gzip, deflate, br, zstd", ZSTD, "zstd"),
        ("zstd,gzip", GZIP, "gzip"),
        ("zstd", GZIP, "identity"),
        ("zstd", ZSTD, "zstd"),
        ("zstd;q=0.5, gzip", ZSTD, "gzip"),
        ("zstd;q=0, gzip;q=0.1", ZSTD, "gzip"),
        ("gzip;q=0", GZIP, "identity"),
        ("gzip;q=0.0, *", GZIP, "identity"),
        ("gzip;q=0.5", GZIP, "gzip"),
        ("gzip;q=0.5, identity", GZIP, "identity"),
        ("gzip, identity", GZIP, "gzip"),
        ("identity;q=0.5, gzip;q=0.5", GZIP, "gzip"),
        ("*", ZSTD, "gzip"),
        ("*;q=0", ZSTD, "identity"),
        ("*;q=0, gzip", GZIP, "gzip"),
        ("identity;q=0", GZIP, "identity"),
        ("deflate", GZIP, "identity"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", GZIP, "gzip"),
        ("gzip;q=abc", GZIP, "gzip"),
        ('gzip;q="', GZIP, "gzip"),
        (",,;;=,gzip", GZIP, "gzip"),
        ("gzip", (), "identity"),
    ],
)
def test_accept_encoding(header: str, available: Sequence[str], expected: str) -> None:
    """A client gets the coding that it wants most and that we have; q=0 means no."""
    assert content_coding(header, available) == expected


ODD = st.one_of(
    st.text(max_size=200),
    st.text(alphabet='",;=\\/*. \tq01', max_size=200),
    st.lists(
        st.sampled_from(
            [OM, "text/plain", "*/*", "gzip", ";", ",", "q=", "0", "1", ".5", '"', "\\", "version="]
        )
    ).map("".join),
)


@given(st.one_of(ODD, st.lists(ODD, max_size=4)))
def test_no_header_is_an_error(header: str | list[str]) -> None:
    """Whatever the headers hold, the answer is one of ours."""
    form = negotiate(header)
    assert form in {
        TEXT,
        OPENMETRICS_0_0_1,
        *(Format(f.media_type, "1.0.0", e) for f in (TEXT, OPENMETRICS) for e in ESCAPINGS),
    }
    assert form.content_type.isascii()
    assert content_coding(header, ZSTD) in ("identity", *ZSTD)


def test_nothing_of_a_header_is_echoed() -> None:
    """What a client writes does not come back, in whatever parameter it stands."""
    form = negotiate(f"{OM};version=1.0.0;escaping=evil\r\nX: y;charset=evil;evil=1")
    assert "evil" not in form.content_type


@pytest.mark.parametrize(
    "hostile",
    [
        '"' * 8192,
        '"\\' * 4096,
        '\\"' * 4096,
        "," * 8192,
        ";" * 8192,
        "a," * 4096,
        f"{OM};q=0.1," * 200,
        "text/plain;q=0." + "1" * 8192,
        "=" * 8192,
        'a="b"' * 1638,
        " " * 8192,
        "a;" * 4096 + '"',
    ],
    ids=lambda hostile: hostile[:12],
)
def test_time_is_linear_in_the_header(hostile: str) -> None:
    """A header of eight times the length takes about eight times as long, not sixty-four."""

    def seconds(header: str) -> float:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            negotiate(header)
            content_coding(header, ZSTD)
            times.append(time.perf_counter() - begun)
        return min(times)

    assert seconds(hostile * 8) < 30 * seconds(hostile) + 0.01


def test_what_an_answer_depends_on() -> None:
    """Caches are told that the answer depends on both headers."""
    assert VARY == "Accept, Accept-Encoding"
