"""
What the tests of the exposition have in common: registries, formats, and the bytes to expect.

Rule: the expected bytes are made by the installed prometheus_client, never by hand.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import prometheus_client
import pytest
from hostile import CORPUS
from hypothesis import HealthCheck, settings
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
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.openmetrics import exposition as openmetrics

from aiosvc.exposition import Exposition
from aiosvc.formats import ESCAPINGS, OPENMETRICS_0_0_1, TEXT, Format

__all__ = [
    "ESCAPES",
    "FORMATS",
    "HOSTILE",
    "SOUND",
    "Families",
    "by_family",
    "created_series",
    "floats",
    "hostile_registry",
    "legal_names",
    "needs_escaping",
    "no_error",
    "patient",
    "reference",
    "rendered",
    "sample_registry",
    "texts",
]

#: Whether the installed prometheus_client escapes names; up to 0.22 it quotes them in every format.
ESCAPES = "escaping" in inspect.signature(generate_latest).parameters

needs_escaping = pytest.mark.skipif(
    not ESCAPES, reason="this prometheus_client has no escaping to compare with"
)

FORMATS = [
    TEXT,
    *(Format("text/plain", "1.0.0", escaping) for escaping in ESCAPINGS),
    OPENMETRICS_0_0_1,
    *(Format("application/openmetrics-text", "1.0.0", escaping) for escaping in ESCAPINGS),
]
#: For properties of whole registries: a machine that others use too may be slow at any moment.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: Where prometheus_client writes sample names as the specification says, colons apart.
SOUND = [form for form in FORMATS if not (form.openmetrics and form.escaping == "values")]


def reference(registry: Any, form: Format) -> bytes:
    """Return what prometheus_client makes of it."""
    generate: Callable[..., bytes] = (
        openmetrics.generate_latest if form.openmetrics else generate_latest
    )
    return generate(registry, escaping=form.escaping) if ESCAPES else generate(registry)


def rendered(registry: Any, form: Format = TEXT, names: Iterable[str] | None = None) -> bytes:
    """Return what we make of it, with nothing kept from before."""
    return b"".join(Exposition(registry, on_error=no_error).render(form, names))


def no_error(name: str, error: Exception) -> None:
    """Fail, where no collector should."""
    raise AssertionError(name) from error


@contextmanager
def created_series(on: bool) -> Iterator[None]:
    """Have prometheus_client export when series were made, or not."""
    turn_on = prometheus_client.enable_created_metrics
    turn_off = prometheus_client.disable_created_metrics
    (turn_on if on else turn_off)()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        turn_on()  # type: ignore[no-untyped-call]


HOSTILE = [
    "", " ", "\n", "\\", '"', '\\"', "\\n", 'a\nb\\c"d', "\r\n", "\x00", "\t", "%s", "%", "{}", "{",
    "}", ",", "=", '="', "é", "日本", "😀", "\u202eright to left", "ﷺ", "a\u0300", "\u2028", "\x85",
    "<img src=x onerror=alert(1)>", "${jndi:ldap://x}", "'; DROP TABLE", "../../etc/passwd", "NaN",
    "+Inf", "# EOF", "# HELP x", "1.0", "le", "__name__", "\ufeff", "x" * 3000,
]  # fmt: skip

texts = st.one_of(
    st.sampled_from(CORPUS), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
floats = st.one_of(
    st.floats(),
    st.sampled_from(
        [0.0, -0.0, 1.0, 9999.0, 10000.0, 999999.0, 1e6, 1e6 + 0.1, -1e6, 1e15, 1e16, 1e17, 1.5e300,
         123456789.0, 1e-4, 1e-5, 5e-324, float("inf"), float("-inf"), float("nan")]
    ),
    st.integers(-(10**20), 10**20).map(float),
)  # fmt: skip

legal_names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)


class Families:
    """A collector of somebody's."""

    def __init__(self, *families: Metric) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        """Give them."""
        return self.families


def sample_registry() -> CollectorRegistry:
    """Return a registry with one of everything, all of it good by every judge."""
    registry = CollectorRegistry(target_info={"service": "shop"})
    for labels in ((), ("queue", "outcome")):
        name = f"shop{len(labels)}"
        counter: Any = Counter(f"{name}_jobs_total", "Jobs.", labels, registry=registry)
        gauge: Any = Gauge(f"{name}_depth", "Depth: \\ \n.", labels, registry=registry)
        summary: Any = Summary(f"{name}_read", "Read.", labels, unit="bytes", registry=registry)
        histogram: Any = Histogram(
            f"{name}_time", "Time.", labels, unit="seconds", registry=registry
        )
        info: Any = Info(f"{name}_build", "Build.", labels, registry=registry)
        state: Any = Enum(
            f"{name}_state", "State.", labels, states=["on", "off"], registry=registry
        )
        for values in [(text, "ok") for text in HOSTILE] if labels else [()]:
            c, g, s, h, i, e = (
                metric.labels(*values) if labels else metric
                for metric in (counter, gauge, summary, histogram, info, state)
            )
            c.inc(12345678.5, {"trace_id": "a\\b"})
            g.set(-1.5)
            s.observe(3)
            h.observe(0.3, {"trace_id": "c\n"})
            h.observe(0.2)
            i.info({"version": "1.2"})
            e.state("off")
    registry.register(
        Families(
            CounterMetricFamily(
                "own_jobs", "Jobs.", 3, created=1.7e9, exemplar=Exemplar({"a": "b"}, 1)
            ),
            GaugeMetricFamily("own_depth", "Depth.", 2),
            SummaryMetricFamily("own_read", "Read.", count_value=2, sum_value=3.5),
            HistogramMetricFamily(
                "own_time",
                "Time.",
                buckets=[("1.0", 1, Exemplar({}, 0.5, 1.5)), ("+Inf", 2)],
                sum_value=9,
            ),
            UnknownMetricFamily("own_unknown", "Unknown.", 1),
        )
    )
    return registry


def hostile_registry(*, exemplars: bool) -> CollectorRegistry:
    """Return a registry with hostile documentation and label values, and exemplars if wanted."""
    registry = CollectorRegistry()
    for number, text in enumerate(CORPUS):
        documentation = text if text.strip() else "."
        counter = Counter(f"jobs{number}", documentation, ["queue"], registry=registry)
        # An exemplar's labels may have 128 letters, escapes included.
        counter.labels(text).inc(1, {"trace_id": text[:50]} if exemplars else None)
    return registry


def by_family(text: bytes) -> list[bytes]:
    """Return the families, in an order of their own."""
    return sorted(text.removesuffix(b"# EOF\n").split(b"# HELP "))
