"""
Metric families that a user's source returned, copied with everything in them what it should be.

Rule: a family that an exposition in any format would choke on is refused here, in words, at the time
of the sample: what fails at a scrape takes everything else of ours along.
"""

from collections.abc import Generator
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.samples import Exemplar, Sample

from aiosvc import catalogue
from aiosvc.naming import TAKEN, clean, one_line

__all__ = ["STEP", "checked"]

#: Samples that are converted without a pause, well under a millisecond.
STEP: Final = 200

#: What stands behind a family's name in those of its samples, by type.
SUFFIXES: Final = {
    "counter": ("_total", "_created"),
    "gauge": ("",),
    "summary": ("", "_count", "_sum", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created", ""),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum"),
    "info": ("_info",),
    "stateset": ("",),
    "unknown": ("",),
}

#: Those that may have an exemplar.
EXEMPLARY: Final = {
    "counter": ("_total",),
    "histogram": ("_bucket", ""),
    "gaugehistogram": ("_bucket",),
}

#: The one family of ours that a source may add to: what it had to leave out.
OVERFLOW: Final = catalogue.LABEL_OVERFLOW.name.removesuffix("_total")


def checked(family: Any) -> Generator[None, None, Metric]:
    """
    Return a copy of a family, by a generator that stops each time it has worked for a while.

    Raises TypeError or ValueError where something is not as it should be.
    """
    if not isinstance(family, Metric):
        raise TypeError(f"returned {one_line(repr(family))} among the metric families")
    if family.name in TAKEN and family.name != OVERFLOW:
        raise ValueError(f"family {family.name!r}: aiosvc exports a metric of that name itself")
    copy = Metric(family.name, clean(family.documentation), family.type, family.unit)
    suffixes = {copy.name + suffix: suffix for suffix in SUFFIXES.get(copy.type, ("",))}
    seen = set()
    for place, sample in enumerate(family.samples):
        if place % STEP == STEP - 1:
            yield
        suffix = suffixes.get(sample.name)
        if suffix is None:
            raise ValueError(
                f"family {copy.name!r}: {sample.name!r} is no sample of a {copy.type}; expected "
                f"{' or '.join(suffixes)}"
            )
        good = _sample(copy, sample, may_have_exemplar=suffix in EXEMPLARY.get(copy.type, ()))
        series = (good.name, frozenset(good.labels.items()))
        if series in seen:
            raise ValueError(f"family {copy.name!r}: {good.name}{good.labels} is there twice")
        seen.add(series)
        copy.samples.append(good)
    return copy


def _sample(family: Metric, sample: Sample, *, may_have_exemplar: bool) -> Sample:
    labels = {}
    for name, value in sample.labels.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"family {family.name!r}: {name!r} is no name of a label")
        labels[clean(name)] = clean(value)
    if sample.timestamp is not None:
        float(sample.timestamp)
    exemplar = sample.exemplar
    if exemplar is not None:
        if not may_have_exemplar:
            raise ValueError(
                f"family {family.name!r}: an exemplar on {sample.name}; expected it on a bucket or "
                "on a counter's _total"
            )
        exemplar = Exemplar(
            {clean(name): clean(value) for name, value in exemplar.labels.items()},
            float(exemplar.value),
            exemplar.timestamp,
        )
    return sample._replace(labels=labels, value=float(sample.value), exemplar=exemplar)
