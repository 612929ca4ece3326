"""
The exposition, byte for byte beside prometheus_client's own, and before parsers of other people.

What is random here is random registries: names, labels, values and metric types as users make them.
Each is rendered when new, again from what was kept, and again after some of it has changed.
"""

import os
import string
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from expositions import (
    ESCAPES,
    FORMATS,
    HOSTILE,
    SOUND,
    Families,
    by_family,
    created_series,
    floats,
    hostile_registry,
    legal_names,
    needs_escaping,
    no_error,
    patient,
    reference,
    rendered,
    sample_registry,
    texts,
)
from hostile import CORPUS
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Metric,
    Summary,
    parser,
)
from prometheus_client.core import (
    Exemplar,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    NativeHistogram,
    StateSetMetricFamily,
    Timestamp,
)
from prometheus_client.openmetrics import parser as openmetrics_parser

from aiosvc.exposition import Exposition, self_check
from aiosvc.formats import OPENMETRICS, TEXT, TEXT_1_0_0, Escaping, Format

#: The strictest parser of OpenMetrics there is, and a parser of text.
openmetrics_families: Callable[[str], Iterable[Metric]]
openmetrics_families = openmetrics_parser.text_string_to_metric_families
text_families: Callable[[str], Iterable[Metric]] = parser.text_string_to_metric_families

# -- Random registries -----------------------------------------------------------------------------

#: No colon and no line feed: these are where prometheus_client is wrong, see below.
any_names = st.one_of(
    legal_names,
    st.sampled_from(["http.server.duration", "0", "a-b", "µs", "a b", 'a"b', "a\\b", "日本", "a%sb"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":\n"), min_size=1)
    .map(lambda name: name[:8]),
)  # fmt: skip


#: What a counter may be raised by.
amounts = floats.filter(lambda value: not value < 0)


def label_names(names: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    """Return label names that a metric of any type may have."""
    taken = {"le", "quantile"}
    return st.lists(
        names.filter(lambda name: not name.startswith("__") and name not in taken),
        max_size=3,
        unique=True,
    )


#: A NUL in an exemplar is written in another way than by prometheus_client.
in_exemplars = texts.filter(lambda text: "\x00" not in text)


@st.composite
def registries(
    draw: st.DrawFn, names: st.SearchStrategy[str], *, target: bool = True
) -> tuple[CollectorRegistry, list[Callable[[], object]]]:
    """Draw a registry, and a list of changes to make to it."""
    info_names = legal_names.filter(lambda name: not name.startswith("__"))
    info = draw(st.dictionaries(info_names, texts)) if target else None
    registry = CollectorRegistry(target_info=info)
    changes: list[Callable[[], object]] = []
    for number in range(draw(st.integers(0, 4))):
        name = f"{draw(names)}{number}x"
        labels = [each for each in draw(label_names(names)) if each != name]
        kind = draw(st.sampled_from([Counter, Gauge, Summary, Histogram, Info, Enum]))
        options: dict[str, Any] = {"registry": registry}
        if kind is Histogram:
            bounds = draw(st.lists(st.floats(-10, 1e8), min_size=1, max_size=4, unique=True))
            options["buckets"] = sorted(bounds)
        if kind is Enum:
            options["states"] = draw(st.lists(texts, min_size=1, max_size=3, unique=True))
        elif kind is not Info:
            options["unit"] = draw(st.sampled_from(["", "", "seconds", "bytes"]))
        metric: Any = kind(name, draw(texts), labels, **options)
        values = [tuple(draw(texts) for _ in labels) for _ in range(draw(st.integers(0, 3)))]
        series = [metric.labels(*each) for each in values] if labels else [metric]
        action = actions(kind, options)
        for each in series:
            for change in draw(st.lists(action, max_size=3)):
                change(each)
            changes.append(partial(draw(action), each))
        if labels and values:
            changes.append(partial(metric.remove, *values[0]))
            changes.append(partial(metric.labels, *values[0]))
    return registry, draw(st.permutations(changes))


def actions(kind: type, options: dict[str, Any]) -> st.SearchStrategy[Callable[[Any], object]]:
    """Return what a program does to a series of this type."""
    exemplars = st.one_of(
        st.none(),
        st.dictionaries(legal_names, in_exemplars.map(lambda text: text[:6]), max_size=2),
    )
    if kind is Counter:
        return st.one_of(
            st.builds(lambda v, e: lambda c: c.inc(v, e), amounts, exemplars),
            st.just(lambda c: c.reset()),
        )
    if kind is Gauge:
        return st.one_of(
            floats.map(lambda v: lambda g: g.set(v)),
            floats.map(lambda v: lambda g: g.set_function(lambda: v)),
        )
    if kind is Summary:
        return floats.map(lambda v: lambda s: s.observe(v))
    if kind is Histogram:
        return st.builds(lambda v, e: lambda h: h.observe(v, e), floats, exemplars)
    if kind is Info:
        return st.dictionaries(
            st.from_regex(r"i_[a-z]{0,4}", fullmatch=True), texts, max_size=3
        ).map(lambda v: lambda i: i.info(v))
    return st.sampled_from(options["states"]).map(lambda s: lambda e: e.state(s))


def check(
    registry: CollectorRegistry, changes: list[Callable[[], object]], forms: list[Format]
) -> None:
    """Compare both renderers: new, from what was kept, and after each change, in each format."""
    exposition = Exposition(registry, on_error=no_error)
    for change in (None, None, *changes):
        if change is not None:
            change()
        for form in forms:
            assert b"".join(exposition.render(form)) == reference(registry, form)


@patient
@given(made=registries(legal_names), created=st.booleans())
def test_metrics_with_legal_names(
    made: tuple[CollectorRegistry, list[Callable[[], object]]], created: bool
) -> None:
    """prometheus_client's own metric types come out as it writes them, also after changes."""
    with created_series(created):
        check(*made, SOUND if ESCAPES else [TEXT, OPENMETRICS])


@needs_escaping
@patient
@given(made=registries(any_names), created=st.booleans())
def test_metrics_with_any_names(
    made: tuple[CollectorRegistry, list[Callable[[], object]]], created: bool
) -> None:
    """So they do with names of any characters, in every escaping."""
    with created_series(created):
        check(*made, SOUND)


@needs_escaping
@patient
@given(made=registries(st.text("é.-日", min_size=1, max_size=4), target=False))
def test_openmetrics_with_escaped_values(
    made: tuple[CollectorRegistry, list[Callable[[], object]]],
) -> None:
    """In the `values` escaping of OpenMetrics names that are not legal come out as it writes them."""
    check(*made, [Format("application/openmetrics-text", "1.0.0", "values")])


@st.composite
def families(draw: st.DrawFn, names: st.SearchStrategy[str]) -> Metric:
    """Draw a family as a collector may give it, sense or not."""
    kind = draw(
        st.sampled_from(
            ["counter", "gauge", "summary", "histogram", "gaugehistogram", "unknown", "info",
             "stateset", "untyped"]
        )
    )  # fmt: skip
    family = Metric(draw(names), draw(texts), kind, draw(st.sampled_from(["", "", "seconds"])))
    stamps = st.one_of(
        st.none(),
        st.integers(0, 2**33),
        st.floats(0, 2**33),
        st.builds(Timestamp, st.integers(0, 2**33), st.integers(0, 999_999_999)),
    )
    for _ in range(draw(st.integers(0, 5))):
        suffix = draw(
            st.sampled_from(
                ["", "_total", "_created", "_sum", "_count", "_bucket", "_gsum", "_gcount", "_info"]
            )
        )
        name = draw(st.one_of(st.just(family.name + suffix), names))
        more = ["le", "__x"] if ESCAPES else ["le"]
        labels = draw(st.dictionaries(st.one_of(names, st.sampled_from(more)), texts, max_size=3))
        value = draw(st.one_of(floats, st.integers(-5, 10**7), st.booleans()))
        exemplar = None
        if (kind, suffix) in {("counter", "_total"), ("histogram", "_bucket")} and name[-1:] != "x":
            exemplar = draw(
                st.one_of(
                    st.none(),
                    st.builds(Exemplar, st.dictionaries(legal_names, in_exemplars), floats, stamps),
                )
            )
            name = family.name + suffix
        family.add_sample(name, labels, value, draw(stamps), exemplar)
    return family


@patient
@given(st.lists(families(legal_names), max_size=3))
def test_collectors_with_legal_names(drawn: list[Metric]) -> None:
    """Whatever families a collector gives, they come out as prometheus_client writes them."""
    registry = CollectorRegistry()
    registry.register(Families(*drawn))
    check(registry, [], SOUND if ESCAPES else [TEXT, OPENMETRICS])


@needs_escaping
@patient
@given(st.lists(families(any_names), max_size=3))
def test_collectors_with_any_names(drawn: list[Metric]) -> None:
    """So they do with names of any characters, in every escaping."""
    registry = CollectorRegistry()
    registry.register(Families(*drawn))
    check(registry, [], SOUND)


def test_something_that_is_no_registry() -> None:
    """Anything with `collect()` can be rendered."""
    source = Families(GaugeMetricFamily("depth", "Depth.", 1.5))
    for form in (TEXT, OPENMETRICS):
        assert rendered(source, form) == reference(source, form)


def test_the_global_registry() -> None:
    """The registry that everybody uses, with its process, platform and GC collectors."""

    def steady(text: bytes) -> list[bytes]:
        lines = text.split(b"\n")
        return [line for line in lines if not line.startswith((b"process_", b"python_gc"))]

    ours, theirs = rendered(prometheus_client.REGISTRY), reference(prometheus_client.REGISTRY, TEXT)
    assert b"process_cpu_seconds_total" in ours
    assert steady(ours) == steady(theirs)


# -- One of each, by hand --------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.content_type)
@pytest.mark.parametrize("created", [True, False])
def test_one_of_everything(form: Format, created: bool) -> None:
    """Every type of metric, with and without labels and created series, in every format."""
    registry = sample_registry()
    with created_series(created):
        ours = rendered(registry, form)
        if form in SOUND and (ESCAPES or form.escaping != "dots"):
            assert ours == reference(registry, form)
        assert (b"_created{" in ours) == created
        assert ours.endswith(b"\n# EOF\n") == form.openmetrics


def test_families_of_other_types() -> None:
    """Gauge histograms, state sets and timestamps come out as prometheus_client writes them."""
    gauge_histogram = GaugeHistogramMetricFamily("waiting", "Waiting.", labels=["queue"])
    gauge_histogram.add_metric(["email"], [("1.0", 3), ("+Inf", 4)], 5.5, timestamp=1.25)
    states = StateSetMetricFamily("state", "State.", labels=["queue"])
    states.add_metric(["email"], {"on": True, "off": False}, timestamp=Timestamp(3, 5))
    registry = CollectorRegistry()
    registry.register(Families(gauge_histogram, states))
    check(registry, [], [TEXT, OPENMETRICS])


def test_text_accepted_by_promtool(promtool: str) -> None:
    """Promtool parses the text, hostile label values and all, and has nothing to say about it."""
    with created_series(on=False):
        text = rendered(sample_registry())
    ended = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    wrong = [line for line in ended.stderr.splitlines() if b"own_jobs_created" not in line]
    assert (ended.stdout, wrong) == (b"", [])


# With `dots` prometheus_client, and so we, write `jobs__total` under the type of `jobs`, which that
# parser takes for another family.
@pytest.mark.parametrize(
    "form",
    [f for f in FORMATS if f.openmetrics and f.escaping != "dots"],
    ids=lambda f: f.content_type,
)
def test_openmetrics_accepted_by_a_strict_parser(form: Format) -> None:
    """The strictest parser there is accepts OpenMetrics, and reads values back."""
    parsed = list(openmetrics_families(rendered(sample_registry(), form).decode()))
    values = {s.labels["queue"] for family in parsed for s in family.samples if "queue" in s.labels}
    assert values == set(HOSTILE)
    exemplars = [s.exemplar.labels for family in parsed for s in family.samples if s.exemplar]
    assert exemplars.count({"trace_id": "c\n"}) == len(HOSTILE) + 1


@pytest.mark.parametrize(
    "form",
    [f for f in FORMATS if f.openmetrics and f.escaping != "dots"],
    ids=lambda f: f.content_type,
)
def test_hostile_texts_come_back(form: Format) -> None:
    """Whatever stands in documentation and label values is read back as it was."""
    with created_series(on=False):
        text = rendered(hostile_registry(exemplars=False), form).decode()
    parsed = list(openmetrics_families(text))
    samples = [s for family in parsed for s in family.samples if "queue" in s.labels]
    assert [sample.labels["queue"] for sample in samples] == CORPUS
    written = [family.documentation for family in parsed if family.name.startswith("jobs")]
    # That parser takes spaces at the beginning for some of those before the text.
    assert written == [text.lstrip(" ") if text.strip() else "." for text in CORPUS]


@needs_escaping
def test_hostile_names_come_back() -> None:
    """A name or label name of any letters is quoted, and read back as it was."""
    form = Format("application/openmetrics-text", "1.0.0", "allow-utf-8")
    # Label names with two underscores are Prometheus' own, and `le` is a bucket's.
    names = [text for text in CORPUS if text and text != "le" and not text.startswith("__")]
    registry = CollectorRegistry()
    families = [Metric(f"x{text}", "X.", "gauge") for text in names]
    for text, family in zip(names, families, strict=True):
        family.add_sample(family.name, {text: "v"}, 1)
    registry.register(Families(*families))
    parsed = list(openmetrics_families(rendered(registry, form).decode()))
    assert [family.name for family in parsed] == [f"x{text}" for text in names]
    assert [family.samples[0].labels for family in parsed] == [{text: "v"} for text in names]


@patient
@given(texts)
def test_label_values_come_back(value: str) -> None:
    """A label value is read back as it was by both parsers."""
    registry = CollectorRegistry()
    Gauge("depth", "Depth.", ["queue"], registry=registry).labels(value).set(1)
    (family,) = openmetrics_families(rendered(registry, OPENMETRICS).decode())
    assert family.samples[0].labels == {"queue": value}
    if "\r" not in value and len(value.splitlines()) < 2:  # that parser splits lines at these too
        (family,) = text_families(rendered(registry).decode())
        assert family.samples[0].labels == {"queue": value}


# -- Where prometheus_client is wrong --------------------------------------------------------------


def jobs(name: str, labels: Iterable[str] = ()) -> CollectorRegistry:
    """Return a registry with one counter."""
    registry = CollectorRegistry()
    counter = Counter(name, "Jobs.", labels, registry=registry)
    if labels:
        counter.labels(*("x" for _ in labels))
    return registry


def lines(text: bytes) -> list[str]:
    """Return the lines without HELP and created series."""
    return [
        line
        for line in text.decode().splitlines()
        if not line.startswith("# HELP") and "_created" not in line
    ]


@needs_escaping
def test_colons_in_openmetrics() -> None:
    """A colon is legal in a metric name, so its samples keep it (prometheus/client_python#1177)."""
    registry = jobs("job:runs")
    assert lines(reference(registry, OPENMETRICS)) == [
        "# TYPE job:runs counter",
        "job_runs_total 0.0",
        "# EOF",
    ]
    assert lines(rendered(registry, OPENMETRICS)) == [
        "# TYPE job:runs counter",
        "job:runs_total 0.0",
        "# EOF",
    ]
    dots = Format("application/openmetrics-text", "1.0.0", "dots")
    assert "job__runs__total 0.0" in lines(reference(registry, dots))
    assert "job:runs__total 0.0" in lines(rendered(registry, dots))


@needs_escaping
def test_legal_names_in_the_values_escaping() -> None:
    """A legal name is not escaped; the text formats agree, and client_golang."""
    form = Format("application/openmetrics-text", "1.0.0", "values")
    registry = jobs("runs")
    assert lines(reference(registry, form)) == [
        "# TYPE runs counter",
        "U__runs__total 0.0",
        "# EOF",
    ]
    assert lines(rendered(registry, form)) == ["# TYPE runs counter", "runs_total 0.0", "# EOF"]


@needs_escaping
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.content_type)
def test_a_line_feed_at_the_end_of_a_name(form: Format) -> None:
    r"""A name that ends in "\n" is not legal, and no line feed of a name gets out."""
    registry = CollectorRegistry()
    registry.register(Families(GaugeMetricFamily("depth\n", "Depth.", 1)))
    Gauge("ready", "Ready.", ["queue\n"], registry=registry).labels("x").set(1)
    text = rendered(registry, form)
    assert text.count(b"\n") == 6 + form.openmetrics
    if form.escaping == "underscores":
        assert b"depth\n 1.0" in reference(registry, TEXT)
        assert b'ready{queue\n="x"} 1.0' in reference(registry, TEXT)
        assert b"\ndepth_ 1.0\n" in text
        assert b'\nready{queue_="x"} 1.0\n' in text


@needs_escaping
def test_units_that_escaping_has_changed() -> None:
    """A unit is given only where the name, as written, ends in it; parsers refuse it elsewhere."""
    registry = CollectorRegistry()
    Gauge("age", "Age.", unit="µs", registry=registry)
    utf8 = Format("application/openmetrics-text", "1.0.0", "allow-utf-8")
    assert '# UNIT "age_µs" µs' in rendered(registry, utf8).decode()
    assert "# UNIT age__s µs" in reference(registry, OPENMETRICS).decode()
    with pytest.raises(ValueError, match="Unit"):
        list(openmetrics_families(reference(registry, OPENMETRICS).decode()))
    text = rendered(registry, OPENMETRICS).decode()
    assert "# UNIT" not in text
    assert len(list(openmetrics_families(text))) == 1


@needs_escaping
@pytest.mark.parametrize(
    ("escaping", "expected"),
    [("underscores", "trace_id"), ("allow-utf-8", '"trace.id"'), ("dots", "trace_dot_id")],
)
def test_exemplar_labels_that_are_not_legal(escaping: Escaping, expected: str) -> None:
    """They are escaped like other label names, instead of spoiling the whole scrape."""
    registry = CollectorRegistry()
    counter = Counter("runs", "Runs.", registry=registry)
    counter.inc(1, {"trace.id": "x"})
    form = Format("application/openmetrics-text", "1.0.0", escaping)
    assert b'# {trace.id="x"} 1.0' in reference(registry, form)
    assert f'# {{{expected}="x"}} 1.0'.encode() in rendered(registry, form)


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
def test_lone_surrogates(form: Format) -> None:
    """What UTF-8 can't say becomes U+FFFD, instead of losing the scrape."""
    registry = CollectorRegistry()
    Gauge("depth", "D\udcff.", ["queue"], registry=registry).labels("a\ud800b").set(1)
    registry.register(Families(GaugeMetricFamily("own", "O\udcff.", 1)))
    with pytest.raises(UnicodeEncodeError):
        reference(registry, form)
    text = rendered(registry, form).decode()
    assert 'depth{queue="a\ufffdb"} 1.0' in text
    assert "# HELP depth D\ufffd." in text
    assert "# HELP own O\ufffd." in text


@needs_escaping
def test_lone_surrogates_in_names() -> None:
    """In names they are escaped like all that is not legal."""
    family = Metric("a", "A.", "gauge")
    family.add_sample("a\ud800", {}, 1)
    registry = CollectorRegistry()
    registry.register(Families(family))
    written = {
        form.escaping: rendered(registry, form).decode().splitlines()[-1]
        for form in FORMATS
        if not form.openmetrics
    }
    assert written == {
        "underscores": "a_ 1.0",
        "allow-utf-8": '{"a\ufffd"} 1.0',
        "dots": "a__ 1.0",
        "values": "U__a_FFFD_ 1.0",
    }


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
def test_native_histograms_are_left_out(form: Format) -> None:
    """No format that we speak can say a native histogram; the rest of the family is there."""
    family = Metric("age", "Age.", "histogram")
    native = NativeHistogram(1, 2.0, 0, 0.1, 0)
    family.add_sample("age", {}, None, native_histogram=native)  # type: ignore[arg-type]
    family.add_sample("age_count", {}, 1)
    registry = CollectorRegistry()
    registry.register(Families(family))
    assert b"age_count 1.0\n" in rendered(registry, form)
    assert b"\nage " not in rendered(registry, form)


# -- name[] ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [TEXT, TEXT_1_0_0, OPENMETRICS])
@pytest.mark.parametrize(
    "names",
    [
        [],
        ["nothing"],
        ["target_info"],
        ["shop0_jobs_total"],
        ["shop0_jobs"],
        ["shop2_jobs_created", "shop2_depth"],
        ["shop2_time_seconds_bucket", "shop2_time_seconds_count", "shop0_time_seconds_sum"],
        ["shop2_time_seconds_bucket", "shop2_time_seconds_count", "shop2_time_seconds_sum"],
        ["shop2_read_bytes_sum", "shop2_read_bytes_created"],
        ["shop2_build_info", "shop0_state", "own_depth", "own_jobs_total"],
    ],
)
def test_only_some_names(form: Format, names: list[str]) -> None:
    """With names there is what `restricted_registry` gives, and what was kept is not harmed."""
    registry = sample_registry()
    exposition = Exposition(registry, on_error=no_error)
    for _ in range(2):
        restricted = b"".join(exposition.render(form, names))
        assert by_family(restricted) == by_family(
            reference(registry.restricted_registry(names), form)
        )
        assert b"".join(exposition.render(form)) == reference(registry, form)


@patient
@given(st.sets(st.sampled_from(
    ["a_total", "a_created", "a", "b", "c_sum", "c_count", "d_bucket", "d_sum", "d_count", "d_created"]
)))  # fmt: skip
def test_any_names(names: set[str]) -> None:
    """So there is for any choice of them, with series and without."""
    registry = CollectorRegistry()
    for labels in ([], ["x"]):
        prefix = "no_" * (not labels)
        metrics: list[Any] = [
            Counter(f"{prefix}a", "A.", labels, registry=registry),
            Gauge(f"{prefix}b", "B.", labels, registry=registry),
            Summary(f"{prefix}c", "C.", labels, registry=registry),
            Histogram(f"{prefix}d", "D.", labels, registry=registry),
        ]
        for metric in metrics[:3] if labels else []:
            metric.labels("1")
    chosen = names | {f"no_{name}" for name in names}
    for form in (TEXT, OPENMETRICS):
        expected = reference(registry.restricted_registry(chosen), form)
        assert by_family(rendered(registry, form, chosen)) == by_family(expected)


def test_names_of_collectors_that_describe_nothing() -> None:
    """A collector without names is asked exactly if the registry supports such ones."""
    for supported in (False, True):
        options: dict[str, Any] = {"support_collectors_without_names": True} if supported else {}
        try:
            registry = CollectorRegistry(**options)
        except TypeError:
            continue  # an older prometheus_client
        registry.register(Families(GaugeMetricFamily("own", "Own.", 1)))
        expected = reference(registry.restricted_registry(["own"]), TEXT)
        assert rendered(registry, TEXT, ["own"]) == expected
        assert (expected != b"") == supported


# -- Multiprocess mode -----------------------------------------------------------------------------

MULTIPROCESS = string.Template(
    """
import os, sys
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from aiosvc.exposition import Exposition, self_check
sys.path.insert(0, $tests)
from expositions import ESCAPES, SOUND, no_error, reference
from aiosvc.formats import OPENMETRICS, TEXT

own = CollectorRegistry()
counter = Counter("jobs", "Jobs.", ["queue"], registry=own)
gauge = Gauge("depth", "Depth.", multiprocess_mode="livesum", registry=own)
histogram = Histogram("time", "Time.", ["queue"], registry=own)
counter.labels("a\\n").inc(3, {"trace_id": "x"})
gauge.set(5)
histogram.labels("a").observe(0.3)
merged = CollectorRegistry()
multiprocess.MultiProcessCollector(merged)
before = sorted(os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
assert self_check()
for registry in (own, merged):
    exposition = Exposition(registry, on_error=no_error)
    for _ in range(3):
        for form in SOUND if ESCAPES else [TEXT, OPENMETRICS]:
            assert b"".join(exposition.render(form)) == reference(registry, form), form
        counter.labels("b").inc()
        gauge.dec()
text = reference(merged, TEXT)
assert b"check_" not in text and b'jobs_total{queue="b"}' in text, text
"""
)


def test_multiprocess_mode(tmp_path: Path) -> None:
    """With files for several processes all comes out the same, and the self-check leaves none."""
    script = MULTIPROCESS.substitute(tests=repr(str(Path(__file__).parent)))
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_self_check() -> None:
    """The installed prometheus_client is as we know it."""
    assert self_check()
